"""Finding secrets by key and by form, and hiding them behind a marker that says nothing of them.

A key hides its whole value (`Redaction.hides`). A text is searched for secrets that are known by
their form (`patterns.SHAPES`) and for a secret's name with its value, as programs and people write
them (`pairs`). Only the part of a text that may be shown is searched, and a little beyond it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from burr_otel.content import pairs
from burr_otel.content.guard import call_safely
from burr_otel.content.patterns import (
    HARMLESS_KEY,
    LINE_KEY,
    PHRASE_KEY,
    SECRET_KEY,
    SECRET_STEM,
    SHAPES,
    may_have_shape,
)
from burr_otel.content.truncate import clip, scrub
from burr_otel.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

__all__ = ["MARKER", "OVERLAP", "Redaction", "Span"]

MARKER: Final = "[redacted]"

OVERLAP: Final = 1024
"""Characters beyond a cut that are searched too, so that a secret across it is still known."""

_LONGEST_KEY: Final = 128
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
    """What is hidden. It never changes, but remembers keys and texts that it has judged.

    Args:
        builtin: Whether the built-in patterns apply.
        keys: More regular expressions, searched in keys without regard to case.
        values: More regular expressions, whose matches in texts are hidden (group 1, if any).
        redactor: A function ``(path, value) -> value`` that is asked after the patterns.

    Raises:
        ConfigError: An expression does not compile.
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
        self._clean: set[int] = set()

    @property
    def has_own_values(self) -> bool:
        """Whether the user gave value patterns, so that even a date must be searched."""
        return bool(self._user_values)

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
        if type(value) is bytes and len(value) <= _LONGEST_KEY:  # a header of an ASGI server
            value = value.decode("latin-1")
        return type(value) is str and _NAME.fullmatch(value) is not None and self.hides(value)

    def without_option_values(self, items: Sequence[Any]) -> Sequence[Any]:
        """The arguments of a program without what follows ``"--password"``."""
        if str not in set(map(type, items)):
            return items
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

    def hides_any(self, keys: Collection[str]) -> bool:
        """Whether one of several keys is the name of a secret."""
        return self._suspicious("\n".join(keys)) and any(map(self.hides, keys))

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

    # --- texts ----------------------------------------------------------------------------------

    def visible(self, text: str, keep: int, path: str = "", *, ask: bool = True) -> tuple[str, int]:
        """The part of a text that may be shown, before it is cut to its bytes.

        Args:
            text: Any text; of a long one only the first part is touched.
            keep: Most characters to keep.
            path: Where the text stands, for the redactor.
            ask: Whether the redactor is asked.

        Returns:
            The text without secrets and lone surrogates, and how many characters of the original
            follow it.
        """
        unseen = len(text) - keep if len(text) > keep + OVERLAP else 0
        head = scrub(text[: keep + OVERLAP] if unseen else text)
        if self.redactor is None or not ask:
            return self.text(head, stop=keep if unseen else None), unseen
        shown = self.asked(self.text(head), path)
        return (shown[: max(len(shown) - OVERLAP, 0)], unseen) if unseen else (shown, 0)

    def asked(self, text: str, path: str) -> str:
        """A text as the user's redactor lets it through; its failure hides the text."""
        if self.redactor is None:
            return text
        shown = call_safely(self.redactor, path, text)
        if issubclass(type(shown), str):
            return scrub(str.__str__(shown))
        return str(shown) if shown is None or type(shown) in (bool, int, float) else MARKER

    def shown(
        self, text: str, limit_bytes: int, path: str = "", *, ask: bool = True
    ) -> tuple[str, bool]:
        """A text as a span may carry it: without secrets, lone surrogates and NULs, and cut.

        Args:
            text: Any text.
            limit_bytes: Most bytes of UTF-8 of the result; at least three.
            path: Where the text stands, for the redactor.
            ask: Whether the redactor is asked.

        Returns:
            The text, and whether anything is missing from it.
        """
        visible, unseen = self.visible(text, limit_bytes, path, ask=ask)
        return clip(visible.replace("\0", "\ufffd"), limit_bytes, unseen=unseen)

    def text(self, text: str, stop: int | None = None) -> str:
        """Hide the secrets of a text.

        Args:
            text: What is searched.
            stop: Keep no more than so many of its characters; the rest only serves the search.

        Returns:
            The text up to `stop` with `MARKER` in place of what is hidden.
        """
        if self.all_clean((text,)):
            return text[:stop]
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

    def source_line(self, before: str, line: str) -> str:
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

    def all_clean(self, texts: Sequence[str]) -> bool:
        """Whether no text holds anything to hide; cheap, and never wrongly yes.

        The hashes of clean texts are remembered, because a run passes the same strings from step
        to step; texts themselves are not, they may be large.
        """
        known = self._clean
        fresh = [text for text in texts if hash(text) not in known]
        if not fresh:
            return True
        if any(pattern.search(text) for pattern in self._user_values for text in fresh):
            return False
        if self._may_hold_builtin("\0".join(fresh)):  # no pattern matches across a NUL
            return False
        if len(known) + len(fresh) > _CACHED:
            known = self._clean = set()
        known.update(map(hash, fresh))
        return True

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


def _compiled(setting: str, pattern: str, flags: int) -> re.Pattern[str]:
    try:
        return re.compile(pattern, flags)
    except (re.error, TypeError, ValueError, RecursionError, OverflowError) as error:
        raise ConfigError(
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
