"""Finding secrets by key and by form, and hiding them behind a marker that says nothing of them.

A key hides its whole value (`Redaction.hides`). A text is searched for secrets that are known by
their form (`patterns.SHAPES`) and for a secret's name with its value, as programs and people write
them (`pairs`). Of a long text only the parts that may be shown are searched, and a little beyond.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from burr_otel.content import pairs
from burr_otel.content.forms import call_safely
from burr_otel.content.patterns import (
    HARMLESS_KEY,
    LINE_KEY,
    NAME_KEYS,
    PHRASE_KEY,
    SECRET_KEY,
    SECRET_STEM,
    SHAPES,
    VALUE_KEYS,
    may_have_shape,
)
from burr_otel.content.prune import (
    BREAK,
    MAX_DEPTH,
    OVERLAP,
    CutDict,
    CutList,
    CutText,
    clip,
    scrub,
    too_deep,
    unique,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["MARKER", "Redaction", "Span"]

MARKER: Final = "[redacted]"

_LONGEST_KEY: Final = 128  # characters that are judged
_LONGEST_KEY_BYTES: Final = 256  # that are shown
_CACHED: Final = 4096
_NAME = re.compile(r"[\w.\-]{1,64}")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NOT_WORD = re.compile(r"[^A-Za-z0-9]+")
_ASSIGNED = re.compile(r"=\s{0,64}([rRbBuUfF]{0,2}(?:\"{1,3}|'{1,3})?)\Z")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")


class Span(NamedTuple):
    """A part of a text that is to be hidden, and what stands in its place."""

    start: int
    end: int
    shown: str = MARKER


class Redaction:
    """What is hidden. It never changes, but remembers the keys that it has judged.

    `keys` and `values` are the user's regular expressions, `redactor` a function
    ``(path, value) -> value`` that is asked after the patterns. Raises ValueError for an
    expression that does not compile.
    """

    def __init__(
        self,
        *,
        builtin: bool = True,
        keys: Iterable[str] = (),
        values: Iterable[str] = (),
        redactor: Callable[[str, Any], Any] | None = None,
    ) -> None:
        self.redactor = redactor
        self._builtin = builtin
        self._user_keys = tuple(_compiled("redact_keys", key, re.IGNORECASE) for key in keys)
        self._user_values = tuple(_compiled("redact_values", value, 0) for value in values)
        self._judged: dict[str, bool] = {}
        self._harmless: set[str] = set()

    # --- keys -----------------------------------------------------------------------------------

    def hides(self, key: str) -> bool:
        """Whether a key is the name of a secret."""
        known = self._judged.get(key)
        if known is None:
            if len(key) > _LONGEST_KEY:  # the end of a path tells most
                return self._judge(key[: _LONGEST_KEY // 2] + "_" + key[-_LONGEST_KEY // 2 :])
            known = self._judge(key)
            if len(self._judged) >= _CACHED:
                self._judged = {}
            self._judged[key] = known
        return known

    def is_secret_name(self, value: Any) -> bool:
        """Whether a value, not a key, is the name of a secret, as in ``["token", "x"]``."""
        return type(value) is str and _NAME.fullmatch(value) is not None and self.hides(value)

    def without_option_values(self, items: Sequence[Any]) -> Sequence[Any]:
        """The arguments of a program without what follows ``"--password"``."""
        options = [
            number
            for number, item in enumerate(items[:-1])
            if type(item) is str and item[:2] == "--" and self.is_secret_name(item[2:])
        ]
        if not options:
            return items
        shown = list(items)
        for number in options:
            following = shown[number + 1]
            if type(following) is not str or following[:1] != "-":
                shown[number + 1] = MARKER
        return shown

    def hides_phrase(self, words: str) -> bool:
        """Whether one to three words before a separator in a text are the name of a secret."""
        last = words.rpartition(" ")[2]
        if self.hides(last):
            return True
        return last != words and self._builtin and bool(PHRASE_KEY.search(_snake(words)))

    def _judge(self, key: str) -> bool:
        if any(pattern.search(key) for pattern in self._user_keys):
            return True
        if not self._builtin or SECRET_STEM.search(key.lower()) is None:
            return False
        return bool(SECRET_KEY.search(HARMLESS_KEY.sub("_", _snake(key))))

    # --- trees ----------------------------------------------------------------------------------

    def tree(self, tree: Any) -> tuple[Any, bool]:
        """A tree without its secrets; also tells whether it was cut, being deep or of long keys."""
        if self._is_clean(tree):
            return tree, False
        walk = _Hiding(self)
        return walk.node(tree, 0), walk.cut

    def _is_clean(self, tree: Any) -> bool:
        """Whether a tree holds nothing to hide; quick, and never wrongly yes."""
        texts: list[str] = []
        keys: set[str] = set()
        firsts: list[str] = []  # of lists that could be a name and its value
        level: list[Any] = [tree]
        for _ in range(MAX_DEPTH + 1):
            below: list[Any] = []
            for node in level:
                kind = type(node)
                if kind is str:
                    texts.append(node)
                elif kind is dict or kind is CutDict:
                    keys.update(node)
                    below += node.values()
                elif kind is list or kind is CutList:
                    below += node
                    if len(node) == 2 and type(node[0]) is str:  # noqa: PLR2004  a pair
                        firsts.append(node[0])
                elif kind is CutText:
                    texts += (str.__str__(node), node.tail)
                    if node.begins_unbroken():
                        return False
            if not below:
                return self._are_clean(texts, keys, set(firsts))
            level = below
        return False

    def _are_clean(self, texts: list[str], keys: set[str], firsts: set[str]) -> bool:
        if not (keys <= self._harmless or self._are_harmless(keys)):
            return False
        if keys & VALUE_KEYS and keys & NAME_KEYS:  # {"name": "password", "value": "..."}
            return False
        if any(map(self.is_secret_name, firsts)):
            return False
        if any(pattern.search(text) for pattern in self._user_values for text in texts):
            return False
        return not self._may_hold_builtin("\0".join(texts))

    def _are_harmless(self, keys: set[str]) -> bool:
        """Whether no key hides its value, or has to be changed itself."""
        unknown = keys - self._harmless
        if max(map(len, unknown)) > _LONGEST_KEY_BYTES // 4 or any(map(self.hides, unknown)):
            return False
        if any(map(self.may_hide, unknown)):
            return False
        if len(self._harmless) + len(keys) > _CACHED:
            self._harmless = set()
        self._harmless |= keys
        return True

    # --- texts ----------------------------------------------------------------------------------

    def text(self, text: str) -> Any:
        """A text, or the parts of a cut one, without secrets."""
        if isinstance(text, CutText):
            return self._cut_text(text)
        return self._covered(text, 0, len(text)) if self.may_hide(text) else text

    def _cut_text(self, text: CutText) -> CutText:
        """The parts of a long text that may be shown.

        What stands at the cut may be the rest of a secret that began in the part between.
        """
        head, tail, start = str.__str__(text), text.tail, text.context
        spans = self.spans(head)
        end = len(head) - text.context
        shown_head = self._covered(head, 0, end, spans)
        if text.context >= OVERLAP:
            if text.begins_unbroken():
                broken = BREAK.search(tail)
                start = len(tail) if broken is None else broken.end()
            key_end = _KEY_END.search(tail)
            if key_end is not None and "-----BEGIN" not in tail[: key_end.start()]:
                start = max(start, key_end.end())
            if any(span.end >= len(head) for span in spans):
                start = len(tail)
        missing = text.missing + start - text.context
        shown_tail = self._covered(tail, start, len(tail))
        return CutText.of(shown_head, shown_tail, missing, unchanged=text.unchanged)

    def _covered(self, text: str, start: int, end: int, spans: list[Span] | None = None) -> str:
        """The text from `start` to `end` with `MARKER` in place of what is hidden."""
        shown: list[str] = []
        position = start
        for span in self.spans(text) if spans is None else spans:
            if span.start >= end:
                break
            if span.end > position:
                shown += (text[position : max(span.start, position)], span.shown)
                position = span.end
        shown.append(text[position:end])
        return "".join(shown)

    def asked(self, text: str, path: str) -> Any:
        """A text as the user's redactor lets it through, after the patterns."""
        if not isinstance(text, CutText):
            return self.answer(self.text(text), path)
        # The function sees the parts beyond the cut too, so that it knows what stands across it.
        head = self.answer(self.text(str.__str__(text)), path)
        tail = self.answer(self.text(text.tail), path)
        safe = self._cut_text(text)
        head = head[: max(len(head) - text.context, 0)]
        tail = tail[text.context :] if safe.tail else ""
        return CutText.of(head, tail, safe.missing, unchanged=text.unchanged)

    def answer(self, text: str, path: str) -> str:
        """What the user's redactor makes of a text; its failure hides the text."""
        if self.redactor is None:
            return text
        shown = call_safely(self.redactor, path, text)
        if issubclass(type(shown), str):
            return scrub(str.__str__(shown))
        return str(shown) if shown is None or type(shown) in (bool, int, float) else MARKER

    def source_line(self, before: str, line: str) -> str:
        """Hide the secrets of a source line, also of one whose name stands on a line before it."""
        text = before + line
        if not self.may_hide(text):
            return line
        shown: list[str] = []
        position = len(before)
        for span in self.spans(text):
            if span.end <= position:
                continue
            head = text[position : max(span.start, position)]
            assigned = _ASSIGNED.search(head)
            if assigned is not None:  # all of "a" + f("b") belongs to the secret
                shown += (head[: assigned.start(1)], MARKER)
                position = len(text)
                break
            shown += (head, span.shown)
            position = span.end
        shown.append(text[position:])
        return "".join(shown)

    def may_hide(self, text: str) -> bool:
        """Whether a text could hold something to hide; cheap, and never wrongly no."""
        if any(pattern.search(text) for pattern in self._user_values):
            return True
        return self._may_hold_builtin(text)

    def _may_hold_builtin(self, text: str) -> bool:
        if self._builtin and may_have_shape(text):
            return True
        return bool(self._builtin or self._user_keys) and pairs.may_hold(
            text, self.hides_phrase, self._suspicious
        )

    def _suspicious(self, names: str) -> bool:
        return bool(self._user_keys) or SECRET_STEM.search(names.lower()) is not None

    def spans(self, text: str) -> list[Span]:
        """The parts of a text to hide, in order and apart from each other."""
        found: list[Span] = []
        if self._builtin:
            for shape in SHAPES:
                found += _matches(shape.pattern, text)
        for pattern in self._user_values:
            found += _matches(pattern, text)
        if self._builtin or self._user_keys:
            found += (
                Span(start, end, f"{quote}{MARKER}{quote}")
                for start, end, quote in pairs.values(text, self.hides_phrase, _takes_line)
            )
        return _merged(found)


class _Hiding:
    """The walk through one tree that holds something to hide, or is too deep."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction
        self.cut = False

    def node(self, node: Any, depth: int) -> Any:
        """The node without secrets."""
        if isinstance(node, str):
            return self._redaction.text(node)
        if isinstance(node, dict | list) and depth >= MAX_DEPTH:
            self.cut |= bool(node)
            size = len(node) + getattr(node, "missing", 0)
            return too_deep(named=isinstance(node, dict), size=size)
        if isinstance(node, dict):
            members = self._members(node, depth + 1)
            return CutDict(members, node.missing) if isinstance(node, CutDict) else members
        if isinstance(node, list):
            items = self._items(node, depth + 1)
            if not isinstance(node, CutList):
                return items
            return CutList(items, node.missing, unit=node.unit, unchanged=node.unchanged)
        return node

    def _members(self, members: dict[str, Any], depth: int) -> dict[str, Any]:
        hides = self._redaction.hides
        spelled = any(
            key in NAME_KEYS and self._redaction.is_secret_name(item)
            for key, item in members.items()
        )
        shown: dict[str, Any] = {}
        numbers: dict[str, int] = {}
        for key, item in members.items():
            name, cut = clip(self._redaction.text(key), _LONGEST_KEY_BYTES)
            self.cut |= cut
            secret = hides(key) or (spelled and key in VALUE_KEYS)
            if item is None or item is True or item is False or not secret:
                item = self.node(item, depth)  # noqa: PLW2901
            else:
                item = MARKER  # noqa: PLW2901
            shown[unique(name, shown, numbers)] = item
        return shown

    def _items(self, items: Sequence[Any], depth: int) -> list[Any]:
        if len(items) == 2 and self._redaction.is_secret_name(items[0]):  # noqa: PLR2004  a pair
            return [self.node(items[0], depth), MARKER]
        return [self.node(item, depth) for item in self._redaction.without_option_values(items)]


def _compiled(setting: str, pattern: str, flags: int) -> re.Pattern[str]:
    try:
        return re.compile(pattern, flags)
    except (re.error, TypeError, ValueError, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{setting}: {pattern!r} is not a regular expression ({error}). Mend it, or escape "
            "its special characters with a backslash to search for it as it stands."
        ) from error


def _snake(key: str) -> str:
    """A key in snake_case, so that one table serves all spellings."""
    return _NOT_WORD.sub("_", _CAMEL.sub("_", key)).strip("_").lower()


def _takes_line(words: str) -> bool:
    return bool(LINE_KEY.search(_snake(words)))


def _matches(pattern: re.Pattern[str], text: str) -> Iterator[Span]:
    for match in pattern.finditer(text):
        start, end = match.span(1) if pattern.groups and match[1] is not None else match.span()
        if end > start:
            yield Span(start, end)


def _merged(spans: list[Span]) -> list[Span]:
    spans.sort(key=lambda span: (span.start, -span.end))
    merged: list[Span] = []
    for span in spans:
        if merged and span.start < merged[-1].end:
            last = merged[-1]
            merged[-1] = Span(last.start, max(last.end, span.end), last.shown)
        else:
            merged.append(span)
    return merged
