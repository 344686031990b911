"""Finding secrets by key and by form, and hiding them behind a marker that says nothing of them.

A key hides its whole value (`Redaction.hides`). A text is searched for secrets that are known by
their form (`patterns.SHAPES`) and for a secret's name with its value, as programs and people write
them (`pairs`). Of a long text only the parts that may be shown are searched, and a little beyond.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from burr_otel.content import pairs
from burr_otel.content.forms import call_safely
from burr_otel.content.patterns import (
    HARMLESS_KEY,
    LINE_KEY,
    PHRASE_KEY,
    SECRET_KEY,
    SECRET_STEM,
    SHAPES,
    may_have_shape,
)
from burr_otel.content.prune import CutText, scrub

MARKER: Final = "[redacted]"

_LONGEST_KEY: Final = 128  # characters that are judged
LONGEST_KEY_BYTES: Final = 256  # that are shown
_CACHED: Final = 4096
_NAME = re.compile(r"[\w.\-]{1,64}")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NOT_WORD = re.compile(r"[^A-Za-z0-9]+")
_ASSIGNED = re.compile(r"=\s{0,64}([rRbBuUfF]{0,2}(?:\"{1,3}|'{1,3})?)\Z")


class Span(NamedTuple):
    """A part of a text that is to be hidden, and what stands in its place."""

    start: int
    end: int
    shown: str = MARKER


class Redaction:
    """The rules for what is hidden, those of the user with them, and the keys judged so far."""

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
        self._judge = functools.lru_cache(_CACHED)(self._is_secret)
        self._says_nothing = functools.lru_cache(_CACHED)(self._is_harmless)

    # --- keys -----------------------------------------------------------------------------------

    def hides(self, key: str) -> bool:
        """Whether a key is the name of a secret."""
        if len(key) > _LONGEST_KEY:  # the end of a path tells most
            key = key[: _LONGEST_KEY // 2] + "_" + key[-_LONGEST_KEY // 2 :]
        return self._judge(key)

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

    def _is_secret(self, key: str) -> bool:
        if any(pattern.search(key) for pattern in self._user_keys):
            return True
        if not self._builtin or SECRET_STEM.search(key.lower()) is None:
            return False
        return bool(SECRET_KEY.search(HARMLESS_KEY.sub("_", _snake(key))))

    def is_harmless(self, key: str) -> bool:
        """Whether a key does not hide its value, nor has to be changed itself."""
        return len(key) <= LONGEST_KEY_BYTES // 4 and self._says_nothing(key)

    def _is_harmless(self, key: str) -> bool:
        return not (self.hides(key) or self.may_hide(key))

    # --- texts ----------------------------------------------------------------------------------

    def text(self, text: str) -> Any:
        """A text, or the parts of a cut one, without secrets."""
        if isinstance(text, CutText):
            return self._cut_text(text)
        return self._covered(text, 0, len(text)) if self.may_hide(text) else text

    def _cut_text(self, text: CutText) -> CutText:
        """The parts of a long text that may be shown."""
        # What stands at the cut may be the rest of a secret that began in the part between.
        head, tail = str.__str__(text), text.tail
        spans = self.spans(head)
        shown_head = self._covered(head, 0, len(head) - text.context, spans)
        open_end = text.context > 0 and any(span.end >= len(head) for span in spans)
        start = len(tail) if open_end else text.safe_start()
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

    def are_clean(self, texts: list[str]) -> bool:
        """Whether no text holds anything to hide; cheap, and never wrongly yes."""
        if any(pattern.search(text) for pattern in self._user_values for text in texts):
            return False
        text = "\0".join(texts)  # no pattern matches across a NUL
        if self._builtin and may_have_shape(text):
            return False
        asks_names = self._builtin or self._user_keys
        return not (asks_names and pairs.may_hold(text, self.hides_phrase, self._suspicious))

    def may_hide(self, text: str) -> bool:
        """Whether a text could hold something to hide; cheap, and never wrongly no."""
        return not self.are_clean([text])

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
