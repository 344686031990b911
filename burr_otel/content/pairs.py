"""Names and values as they stand in text: ``key=value``, ``"key": "value"``, ``--key value``.

The names are looked for in the reversed text, where a name follows its separator, so that one
regular expression finds all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from burr_otel.content.patterns import FUNCTION_WORD, LINE_KEY, MARKER, Hidden, by_needle, snake

_NAME: Final = r"[\w.\-]{1,64}(?: [\w.\-]{1,24}){0,2}"
_BETWEEN: Final = r"""\s{0,2}(?:\]\d{1,4}\[)?[\s"'`\u2018-\u201f\u00ab\u00bb\\\])>!+|*?]{0,8}"""
_NAMES_REVERSED = re.compile(rf"[:=\uff1a\uff1d]{_BETWEEN}({_NAME}\\?)")
_NEXT_NAME = re.compile(r"(?:\\[nrt]){1,4}[\w.\-]{1,64}[\"']?[:=]")

_AFTER_SEPARATOR = re.compile(r"[:=\uff1a\uff1d][=>~]?\s{0,64}")
_ANNOTATED = re.compile(r"\s{0,8}=(?!=)\s{0,8}")
_QUOTE = re.compile(r"""(?:[rRbBuUfF]{1,2}(?=["']))?(\\{0,16})(\"\"\"|'''|["'`])""")
_JOINED_STRING = re.compile(r"""\s{0,8}(?:\+\s{0,8})?(?=[rRbBuUfF]{0,2}["'])""")
_CLOSING = {
    quote: re.compile(rf"(?<!\\)(\\*){re.escape(quote)}") for quote in ('"""', "'''", '"', "'", "`")
}
_SCHEME = re.compile(r"(?:bearer|basic|token|digest|apikey|negotiate)[ \t]{1,4}", re.IGNORECASE)
_BARE = re.compile(r"""(?:[^\s,&;"'`]|,(?=\S)|["'`](?=[\w!@#$%^*]))+""")
_LINE = re.compile(r"[^\r\n]+")
_YAML = (  # the indented lines of a block, or the lines of a list
    (re.compile(r"[|>][+\-\d]{0,2}[ \t]{0,8}\n"), re.compile(r"\n(?![ \t\n])|\Z")),
    (re.compile(r"-[ \t]"), re.compile(r"\n(?![ \t]{0,64}-[ \t])|\Z")),
)
_CURLY = re.compile(r"[\u201c\u201e\u00ab]([^\u201c\u201d\u00bb]*)")
_NOTHING = frozenset(("none", "null", "nil", "undefined", "true", "false", "...", ""))
_COUNT = re.compile(r"\d{1,6}(?![\w.\-])")
_BRACKETS = {"{": "}", "[": "]", "(": ")"}
_NESTING = re.compile(r"""(?<!\\)(\\*)["']|[\[\](){}]""")


# Forms whose name does not stand before a plain separator: what must occur, see `SHAPES`; a pattern
# with the name in group 1; and one of the value that follows, where it is no string in quotes.
_FORMS: Final = tuple(
    (needles, re.compile(name), None if value is None else re.compile(value))
    for needles, name, value in (
        # An option whose value is the next text, see `Redaction.are_clean`.
        ("--", r"(?:\A|\0)--([\w.\-]{1,64})(?=\0)", r"\0"),
        ("--", r"(?<![\w\-])--([A-Za-z][\w\-]{2,63})[ \t]{1,4}(?!-)", r"\S+"),
        ("</", r"<([A-Za-z][\w.:\-]{0,63})(?:\s[^<>]{0,256})?>(?:<!\[CDATA\[)?", "[^<>]+"),
        ("&quot;", r"([\w.\-]{1,64})&quot;\s{0,4}[:=]\s{0,4}&quot;", "[^&]+"),
        (
            "name=|key=",
            (
                r"""\b(?:name|key)=["']?([\w.\-]{1,64})["']?"""
                r"""(?:[^<>\n]{0,96}?\bvalue=["']?|(?:\r?\n[^\r\n]{1,128}){0,4}?(?:\r?\n){2})"""
            ),
            r"""[^"'\r\n]+""",
        ),
        (  # pydantic's ValidationError
            "input_value=",
            r"(?m:^)([\w.\-\[\]]{1,128})\n  [^\n]{0,1024}?input_value=",
            r"[^\n]*?(?=, input_type=|\n|\Z)",
        ),
        (  # in a URL inside of a URL, encoded once or several times
            "%3|%25",
            (
                r"(?:%(?:25){0,4}[0-9A-Fa-f]{2}|(?<![\w.\-]))([\w.\-]{1,64})(?:%(?:25){0,4}22)?"
                r"%(?:25){0,4}3[ADad](?:%(?:25){0,4}2[02]){0,2}"
            ),
            r"(?:[^\s&;\"'%]|%(?!(?:25){0,4}2[26]))+",
        ),
        # The items of a list.
        ("'", r"""'([\w.\-]{2,64})\\{0,8}'\s{0,4},\s{0,4}(?=[rRbBuUfF]?\\{0,8}["'])""", None),
        ('"', r"""\"([\w.\-]{2,64})\\{0,8}"\s{0,4},\s{0,4}(?=[rRbBuUfF]?\\{0,8}["'])""", None),
    )
)
_FORMS_BY_NEEDLE: Final = by_needle(_FORMS)


def values(
    text: str, hides: Callable[[str], bool], may_hide: Callable[[str], bool]
) -> Iterator[Hidden]:
    """Each value that follows a secret's name."""
    # `hides` judges one name of up to three words, `may_hide` many names at once, one a line.
    yield from _other_forms(text, hides)
    if ":" not in text and "=" not in text and text.isascii():
        return
    backward = text[::-1]
    found = set(_NAMES_REVERSED.findall(backward))
    if not found or not may_hide("\n".join(found)[::-1]):
        return
    position = 0
    for match in reversed(list(_NAMES_REVERSED.finditer(backward))):
        line = match[1][::-1]
        at = len(text) - match.start() - 1
        name = line.lstrip("\\")
        escaped = name != line and name[0] in "nrt"  # in the repr of a text with several lines
        if at < position or not (hides(name) or (escaped and hides(name[1:]))):
            continue
        start = _end(_AFTER_SEPARATOR, text, at)
        if _is_no_secret(text, start, name):
            continue
        # With its backslashes, when it is JSON inside of JSON.
        quote = backward[match.start() + 1 : match.start(1)].strip()[::-1]
        quote = quote if quote.strip("\\") in ('"', "'") else ""
        value = _value(text, start, quote, whole_line=bool(LINE_KEY.search(snake(name))))
        if value.end > value.start:
            yield value
            position = value.end


def _is_no_secret(text: str, start: int, name: str) -> bool:
    """Whether a sentence goes on after a secret's name, or a count of tokens stands there."""
    if FUNCTION_WORD.match(text, start):
        return not name.lower().endswith(("phrase", "mnemonic"))
    return name.lower().endswith("token") and _COUNT.match(text, start) is not None


def _other_forms(text: str, hides: Callable[[str], bool]) -> Iterator[Hidden]:
    """The values that follow a secret's name in another way."""
    for sign, needle, (_, names, value) in _FORMS_BY_NEEDLE:
        if sign not in text or needle not in text:
            continue
        reached = 0
        for match in names.finditer(text):
            at = match.end()
            if at >= reached and hides(match[1]):  # else no value is looked for: that takes time
                found = _value(text, at) if value is None else Hidden(at, _end(value, text, at))
                reached = found.end
                if reached > at:
                    yield found


def _end(pattern: re.Pattern[str], text: str, start: int) -> int:
    """Where the match of a pattern at `start` ends; `start` itself when there is none."""
    match = pattern.match(text, start)
    return start if match is None else match.end()


def _value(text: str, start: int, quote: str = "", *, whole_line: bool = False) -> Hidden:
    """The value that begins at `start`; an empty one when there is nothing to hide."""
    opening = _QUOTE.match(text, start)
    if opening is not None:
        return Hidden(opening.end(), _end_of_strings(text, opening))
    if text[start : start + 1] in _BRACKETS:
        return Hidden(start, _end_of_brackets(text, start), f"{quote}{MARKER}{quote}")
    for opening_line, ending in _YAML:
        indented = opening_line.match(text, start)
        if indented is not None:
            return Hidden(start, next(ending.finditer(text, indented.end() - 1)).start())
    curly = _CURLY.match(text, start)
    if curly is not None:
        return Hidden(*curly.span(1))
    line_end = _end(_LINE, text, start) if whole_line else start
    return Hidden(start, line_end) if line_end > start else _bare_value(text, start, quote)


def _bare_value(text: str, start: int, quote: str) -> Hidden:
    scheme_end = _end(_SCHEME, text, start)
    end = _end(_BARE, text, scheme_end)
    if end == scheme_end:
        return Hidden(start, start)
    following = _NEXT_NAME.search(text, start, end)
    end = end if following is None else following.start()
    if quote:  # a JSON number or word: leave the comma or bracket that follows it
        end = start + len(re.split(r"[,}\]]", text[start:end], maxsplit=1)[0])
    annotated = _ANNOTATED.match(text, end)
    if annotated is not None:  # "password: str = 'x'"
        return Hidden(start, _value(text, annotated.end(), whole_line=True).end)
    if text[start:end].rstrip(",)]};:").lower() in _NOTHING:
        return Hidden(start, start)
    return Hidden(start, end, f"{quote}{MARKER}{quote}")


def _end_of_strings(text: str, opening: re.Match[str]) -> int:
    """End of a quoted string, or of the last of several that Python would join."""
    while True:
        # In JSON inside of JSON a string closes with as many backslashes as it opens with; one that
        # opens with none closes at a quote that no odd number of them escapes.
        level = len(opening[1])
        for closing in _CLOSING[opening[2]].finditer(text, opening.end()):
            slashes = len(closing[1])
            if slashes <= level if level else slashes % 2 == 0:
                break
        else:
            return len(text)
        more = _JOINED_STRING.match(text, closing.end())
        following = None if more is None else _QUOTE.match(text, more.end())
        if following is None:
            return closing.start()
        opening = following


def _end_of_brackets(text: str, start: int) -> int:
    """Where the bracket at `start` is closed, brackets inside of strings left aside."""
    depth = 0
    inside = ""
    for event in _NESTING.finditer(text, start):
        sign = event[0]
        if inside:
            if sign == inside:
                inside = ""
        elif sign[-1] in "\"'":
            inside = sign
        elif sign in _BRACKETS:
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                return event.end()
    return len(text)
