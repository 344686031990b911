"""Finding secrets by key and by form, and hiding them behind a marker that says nothing of them.

A key hides its whole value (`Redaction.hides`). A text is searched for secrets that are known by
their form (`patterns.SHAPES`) and for pairs of a secret's name and its value as programs and
people write them: ``password=x``, ``"api_key": "x"``, ``Authorization: Bearer x``,
``--token x``, ``<secret>x</secret>``, also inside JSON, source code, URLs and prose.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from burr_otel.content import pairs
from burr_otel.content.patterns import (
    HARMLESS_KEY,
    LINE_KEY,
    PHRASE_KEY,
    SECRET_KEY,
    SHAPES,
    TOKEN_RUN,
    Shape,
)
from burr_otel.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["MARKER", "OVERLAP", "Redaction", "Span"]

MARKER: Final = "[redacted]"

OVERLAP: Final = 1024
"""Characters beyond a cut that are searched too, so that a secret across it is still known."""

_LONGEST_KEY = 128
_CACHED_KEYS = 4096
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NOT_WORD = re.compile(r"[^A-Za-z0-9]+")
_TOKEN_BYTES = bytes(
    ord("x") if chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) in "_-.") else ord(" ")
    for byte in range(256)
)
_RUN = b"x" * TOKEN_RUN


class Span(NamedTuple):
    """A part of a text that is to be hidden, and what stands in its place."""

    start: int
    end: int
    shown: str = MARKER


class Redaction:
    """What is hidden; immutable but for caches of keys that were judged before.

    Args:
        builtin: Whether the built-in patterns apply.
        keys: More regular expressions, searched in keys without regard to case.
        values: More regular expressions, whose matches in texts are hidden (group 1, if any).

    Raises:
        ConfigError: An expression does not compile.
    """

    def __init__(
        self, *, builtin: bool = True, keys: Iterable[str] = (), values: Iterable[str] = ()
    ) -> None:
        self._builtin = builtin
        self._user_keys = tuple(_compiled("redact_keys", key, re.IGNORECASE) for key in keys)
        self._user_values = tuple(_compiled("redact_values", value, 0) for value in values)
        self._judged: dict[str, bool] = {}

    @property
    def active(self) -> bool:
        """Whether anything at all can be hidden."""
        return self._builtin or bool(self._user_keys or self._user_values)

    def hides(self, key: str) -> bool:
        """Whether a key is the name of a secret."""
        known = self._judged.get(key)
        if known is None:
            known = self._judge(key[:_LONGEST_KEY])
            if len(key) <= _LONGEST_KEY:
                if len(self._judged) >= _CACHED_KEYS:
                    self._judged = {}
                self._judged[key] = known
        return known

    def _ends_line(self, text: str, span: Span) -> bool:
        return "=" in text[max(0, span.start - 4) : span.start]

    def _judge(self, key: str) -> bool:
        if any(pattern.search(key) for pattern in self._user_keys):
            return True
        return self._builtin and bool(SECRET_KEY.search(HARMLESS_KEY.sub("_", _snake(key))))

    def hides_phrase(self, words: str) -> bool:
        """Whether a name before a separator in a text (one to three words) is that of a secret."""
        last = words.rpartition(" ")[2]
        if self.hides(last):
            return True
        return last != words and self._builtin and bool(PHRASE_KEY.search(_snake(words)))

    def takes_line(self, words: str) -> bool:
        """Whether the bare value of a name is the rest of its line."""
        return bool(LINE_KEY.search(_snake(words)))

    def text(self, text: str, stop: int | None = None) -> str:
        """Hide the secrets of a text.

        Args:
            text: What is searched.
            stop: Keep no more than so many of its characters; the rest only serves the search.

        Returns:
            The text up to `stop` with `MARKER` in place of what is hidden.
        """
        if not self.may_hide(text):
            return text if stop is None else text[:stop]
        end = len(text) if stop is None else min(stop, len(text))
        shown: list[str] = []
        position = 0
        for span in self.spans(text):
            if span.start >= end:
                break
            shown += (text[position : span.start], span.shown)
            position = span.end
        shown.append(text[position:end])
        return "".join(shown)

    def last_line(self, before: str, line: str) -> str:
        """Hide the secrets of a source line, also of one whose name stands on a line before it.

        Args:
            before: The lines before, each with its line end.
            line: The line itself, without one.
        """
        text = before + line
        if not self.may_hide(text):
            return line
        shown: list[str] = []
        position = len(before)
        for span in self.spans(text):
            if span.end > position:
                start = max(span.start, position)
                shown += (text[position:start], span.shown)
                # The rest of an assignment ("a" + "b", f(x, "c")) is part of the secret.
                position = len(text) if self._ends_line(text, span) else span.end
        shown.append(text[position:])
        return "".join(shown)

    def may_hide(self, text: str) -> bool:
        """Whether a text could hold something to hide; cheap, and never wrongly no."""
        if any(pattern.search(text) for pattern in self._user_values):
            return True
        if (self._builtin or self._user_keys) and pairs.may_hold(text, self.hides_phrase):
            return True
        return self._builtin and _may_have_shape(text)

    def spans(self, text: str) -> list[Span]:
        """The parts of a text to hide, in order and apart from each other."""
        found: list[Span] = []
        if self._builtin:
            for shape in SHAPES:
                found += _matches(shape.pattern, text)
        for pattern in self._user_values:
            found += _matches(pattern, text)
        if self._builtin or self._user_keys:
            quiet = self.hides_phrase
            found += (
                Span(start, end, MARKER if not quote else f"{quote}{MARKER}{quote}")
                for start, end, quote in pairs.values(text, quiet, self.takes_line)
            )
        return _merged(found)


def _compiled(setting: str, pattern: str, flags: int) -> re.Pattern[str]:
    try:
        return re.compile(pattern, flags)
    except (re.error, TypeError, RecursionError, OverflowError) as error:
        raise ConfigError(
            f"{setting}: {pattern!r} is not a regular expression ({error}). Mend it, or escape "
            "its special characters with a backslash to search for it as it stands."
        ) from error


def _snake(key: str) -> str:
    """A key in snake_case, so that one table serves all spellings."""
    return _NOT_WORD.sub("_", _CAMEL.sub("_", key)).strip("_").lower()


def _needed(shape: Shape, text: str) -> bool:
    return any(needle in text for needle in shape.needles)


_BY_NEEDLE = tuple(shape for shape in SHAPES if shape.needles)
_BY_RUN = tuple(shape for shape in SHAPES if not shape.needles)


def _may_have_shape(text: str) -> bool:
    for shape in _BY_NEEDLE:
        if _needed(shape, text) and shape.pattern.search(text):
            return True
    if _RUN in text.encode("utf-8", "replace").translate(_TOKEN_BYTES):
        return any(shape.pattern.search(text) for shape in _BY_RUN)
    return False


def _matches(pattern: re.Pattern[str], text: str) -> Iterator[Span]:
    group = 1 if pattern.groups else 0
    for match in pattern.finditer(text):
        start, end = match.span(group)
        if start < 0:
            start, end = match.span()
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
