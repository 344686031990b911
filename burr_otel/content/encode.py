"""Any Python value to JSON of a bounded size, in a bounded time.

`Encoder.document` writes a value as JSON of at most so many bytes of UTF-8. Work follows what is
kept: a list of ten million items costs as much as the items that fit. A value that cannot be read
becomes a text that says so; nothing raises but `KeyboardInterrupt`.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, Final

import orjson

from burr_otel.content import objects
from burr_otel.content.redact import MARKER, OVERLAP, Redaction
from burr_otel.content.truncate import ELLIPSIS, SMALLEST_ROOM, json_text, scrub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Encoder"]

Redactor = "Callable[[str, Any], Any]"

MAX_DEPTH: Final = 16
"""Containers within containers that are written; deeper ones become a text with their size."""

_MOST_BITS = 1000  # of an int that is written as a number: any JSON reader holds it as a double
_LONGEST_KEY_BYTES = 256
_RESERVE = 48  # bytes kept back in a container for the note of what is missing
_HIDDEN = orjson.dumps(MARKER)
_DOTS = b'"..."'
_ATOMS: Final = {None: b"null", True: b"true", False: b"false"}


class Encoder:
    """Writes values as JSON.

    Args:
        redaction: What is hidden.
        redactor: A function ``(path, value) -> value`` asked about every value after `redaction`
            has hidden its part; when it raises, the value is hidden.
    """

    __slots__ = ("redaction", "redactor")

    def __init__(
        self, redaction: Redaction, redactor: Callable[[str, Any], Any] | None = None
    ) -> None:
        self.redaction = redaction
        self.redactor = redactor

    def document(self, value: Any, limit_bytes: int, path: str = "") -> tuple[bytes, bool]:
        """Write a value as JSON.

        Args:
            value: Anything.
            limit_bytes: Most bytes of the result; at least 64.
            path: Where the value stands, for the redactor.

        Returns:
            The JSON text, and whether anything is missing from it for want of room or depth.
        """
        walk = _Walk(self.redaction, self.redactor)
        piece = walk.value(value, limit_bytes, 0, path)
        return piece, walk.cut


class _Walk:
    """One value being written: what is being visited, and whether anything was cut."""

    __slots__ = ("_open", "_redaction", "_redactor", "cut")

    def __init__(self, redaction: Redaction, redactor: Callable[[str, Any], Any] | None) -> None:
        self._redaction = redaction
        self._redactor = redactor
        self._open: set[int] = set()
        self.cut = False

    def value(self, value: Any, room: int, depth: int, path: str) -> bytes:
        """The JSON of a value in at most `room` bytes."""
        try:
            if self._redactor is not None:
                return self._redacted(value, room, depth, path)
            return self._written(value, room, depth, path)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  hostile values raise anything
            return self._text(
                f"<{objects.type_name(value)}: unreadable, {objects.type_name(error)}>", room
            )

    def _redacted(self, value: Any, room: int, depth: int, path: str) -> bytes:
        redactor, kind = self._redactor, type(value)
        assert redactor is not None
        if isinstance(value, str):
            text, unseen = self._searched(str.__str__(value), room)
            shown = objects.call_safely(redactor, path, text)
            if type(shown) is str:
                return self._json_text(scrub(shown), room, unseen)
        else:
            shown = objects.call_safely(redactor, path, value)
            if shown is value:
                return self._written(value, room, depth, path)
        if isinstance(shown, BaseException) and not issubclass(kind, BaseException):
            return self._fitting(_HIDDEN, room)
        self._redactor = None  # what it returned is final, but for the patterns
        try:
            return self._written(shown, room, depth, path)
        finally:
            self._redactor = redactor

    def _written(self, value: Any, room: int, depth: int, path: str) -> bytes:
        kind = type(value)
        if kind is str:
            return self._text(value, room)
        if value is None or value is True or value is False:
            return self._fitting(_ATOMS[value], room)
        if kind is int or kind is float:
            return self._number(value, room)
        if issubclass(kind, dict):
            if depth >= MAX_DEPTH:
                return self._too_deep(value, dict.__len__(value), room)
            return self._pairs(value, dict.items(value), dict.__len__(value), room, depth, path)
        if issubclass(kind, list | tuple):
            return self._sequence(value, room, depth, path)
        if issubclass(kind, str) and not hasattr(kind, "_member_map_"):
            return self._text(str.__str__(value), room)
        if issubclass(kind, int | float) and not hasattr(kind, "_member_map_"):
            base = int if issubclass(kind, int) else float
            return self._number(base.__add__(value, base(0)), room)
        form = objects.describe(value)
        if isinstance(form, objects.Text):
            return self._text(form.text, room)
        if form.size == -1:
            return self._written(next(iter(form[0])), room, depth, path)
        if depth >= MAX_DEPTH:
            return self._too_deep(value, form.size, room)
        if isinstance(form, objects.Pairs):
            return self._pairs(value, form.pairs, form.size, room, depth, path)
        return self._items(value, form.items, form.size, room, depth, path)

    # --- leaves ---------------------------------------------------------------------------------

    def _fitting(self, piece: bytes, room: int) -> bytes:
        if len(piece) <= room:
            return piece
        self.cut = True
        return _DOTS

    def _number(self, value: float, room: int) -> bytes:
        if type(value) is int:
            if -(1 << 63) <= value < 1 << 64:
                return self._fitting(orjson.dumps(value), room)
            bits = value.bit_length()
            if bits <= _MOST_BITS:
                return self._fitting(str(value).encode(), room)
            return self._text(f"<int of {bits} bits>", room)
        if math.isfinite(value):
            return self._fitting(orjson.dumps(value), room)
        return self._fitting(orjson.dumps(_not_finite(value)), room)

    def _searched(self, text: str, room: int) -> tuple[str, int]:
        """The part of a text that may be kept, its secrets hidden, and how much is left out."""
        if len(text) <= room + OVERLAP:
            return self._redaction.text(scrub(text)), 0
        return self._redaction.text(scrub(text[: room + OVERLAP]), stop=room), len(text) - room

    def _text(self, text: str, room: int) -> bytes:
        return self._json_text(*_swap(self._searched(text, room), room))

    def _json_text(self, text: str, room: int, unseen: int) -> bytes:
        piece, cut = json_text(text, room, unseen=unseen)
        self.cut |= cut
        return piece

    def _too_deep(self, value: Any, size: int, room: int) -> bytes:
        self.cut = True
        return self._text(f"<{objects.type_name(value)} of {size} items, too deep>", room)

    # --- containers -----------------------------------------------------------------------------

    def _sequence(self, value: Any, room: int, depth: int, path: str) -> bytes:
        base: Any = list if issubclass(type(value), list) else tuple
        size = base.__len__(value)
        if depth >= MAX_DEPTH:
            return self._too_deep(value, size, room)
        names = getattr(type(value), "_fields", None) if base is tuple else None
        if type(names) is tuple and len(names) == size:
            pairs = zip(names, tuple.__iter__(value), strict=True)
            return self._pairs(value, pairs, size, room, depth, path)
        items = base.__iter__(value)
        if size == 2 and self._is_secret_name(base.__getitem__(value, 0)):
            items = iter((base.__getitem__(value, 0), MARKER))
        return self._items(value, items, size, room, depth, path)

    def _is_secret_name(self, value: Any) -> bool:
        return type(value) is str and len(value) <= 128 and self._redaction.hides(value)  # noqa: PLR2004

    def _items(
        self, owner: Any, items: Iterable[Any], size: int, room: int, depth: int, path: str
    ) -> bytes:
        if id(owner) in self._open:
            return self._text(f"<cycle: {objects.type_name(owner)}>", room)
        if room < _RESERVE + SMALLEST_ROOM + 2:
            return self._brief(owner, size, room)
        self._open.add(id(owner))
        pieces: list[bytes] = []
        used, missing = 2, 0
        try:
            for index, item in enumerate(items):
                left = room - used - 1 - _RESERVE
                if left < SMALLEST_ROOM:
                    missing = max(size - index, 1)
                    break
                piece = self.value(item, left, depth + 1, f"{path}[{index}]" if path else "")
                pieces.append(piece)
                used += len(piece) + 1
        finally:
            self._open.discard(id(owner))
        if missing:
            self.cut = True
            pieces.append(b'"... %d more items"' % missing)
        return b"[" + b",".join(pieces) + b"]"

    def _pairs(
        self,
        owner: Any,
        pairs: Iterable[tuple[Any, Any]],
        size: int,
        room: int,
        depth: int,
        path: str,
    ) -> bytes:
        if id(owner) in self._open:
            return self._text(f"<cycle: {objects.type_name(owner)}>", room)
        if room < 2 * _RESERVE:
            return self._brief(owner, size, room)
        self._open.add(id(owner))
        pieces: list[bytes] = []
        used, missing = 2, 0
        taken: set[bytes] = set()
        named_secret = False
        try:
            for index, (key, item) in enumerate(pairs):
                left = room - used - 2 - _RESERVE
                if left < 2 * SMALLEST_ROOM + 6:
                    missing = max(size - index, 1)
                    break
                name = self._key_text(key)
                if type(item) is str and name.lower() in ("name", "key"):
                    named_secret = named_secret or self._is_secret_name(item)
                written = self._key(name, min(left // 2, _LONGEST_KEY_BYTES), taken)
                taken.add(written)
                left -= len(written)
                secret = self._redaction.hides(name) or (named_secret and name.lower() == "value")
                if secret and not (item is None or item is True or item is False):
                    piece = self._fitting(_HIDDEN, left)
                else:
                    below = f"{path}.{name[:_LONGEST_KEY_BYTES]}" if path else ""
                    piece = self.value(item, left, depth + 1, below)
                pieces.append(written + b":" + piece)
                used += len(written) + len(piece) + 2
        finally:
            self._open.discard(id(owner))
        if missing:
            self.cut = True
            note = self._key(ELLIPSIS, SMALLEST_ROOM + 6, taken)
            pieces.append(note + b':"%d more keys"' % missing)
        return b"{" + b",".join(pieces) + b"}"

    def _brief(self, owner: Any, size: int, room: int) -> bytes:
        if size == 0:
            return b"{}" if isinstance(owner, dict) else b"[]"
        self.cut = True
        note = orjson.dumps(f"... {size} items")
        return note if len(note) <= room else _DOTS

    def _key_text(self, key: Any) -> str:
        if type(key) is str:
            return key
        if isinstance(key, str):
            return str.__str__(key)
        if key is None or key is True or key is False:
            return _ATOMS[key].decode()
        try:
            piece = _Walk(self._redaction, None).value(key, _LONGEST_KEY_BYTES, MAX_DEPTH - 2, "")
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001  hostile values raise anything
            return f"<{objects.type_name(key)}>"
        text = piece.decode()
        return orjson.loads(piece) if text[:1] == '"' else text

    def _key(self, name: str, room: int, taken: set[bytes]) -> bytes:
        text, unseen = self._searched(name, room)
        piece, cut = json_text(text, room, unseen=unseen)
        self.cut |= cut
        for number in itertools.count(2):
            if piece not in taken:
                break
            suffix = b' (%d)"' % number
            piece = json_text(text, max(room - len(suffix), SMALLEST_ROOM))[0][:-1] + suffix
        return piece


def _swap(searched: tuple[str, int], room: int) -> tuple[str, int, int]:
    return searched[0], room, searched[1]


def _not_finite(value: float) -> str:
    if value != value:  # noqa: PLR0124  the test for NaN
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
