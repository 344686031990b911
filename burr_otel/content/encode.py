"""Any Python value to JSON of a bounded size, in a bounded time.

Work follows what is kept: a list of ten million items costs as much as the items that fit. A value
that cannot be read becomes a text that says so; nothing raises but `KeyboardInterrupt`.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from typing import TYPE_CHECKING, Any, Final

import orjson

from burr_otel.content.forms import Items, Pairs, Text, type_name
from burr_otel.content.guard import Failure, call_safely
from burr_otel.content.keys import LONGEST_KEY_BYTES, Keys
from burr_otel.content.objects import describe
from burr_otel.content.patterns import NAME_KEYS, VALUE_KEYS
from burr_otel.content.plain import LARGEST_CONTAINER, PlainWriter
from burr_otel.content.redact import MARKER
from burr_otel.content.shares import write_in_shares
from burr_otel.content.truncate import ELLIPSIS, SMALLEST_ROOM, json_text, scrub

if TYPE_CHECKING:
    from collections.abc import Iterable

    from burr_otel.content.redact import Redaction

__all__ = ["Encoder"]

_MAX_DEPTH: Final = 16
_LONGEST_PATH: Final = 512
_RESERVE: Final = 48  # bytes kept back in a container for the note of what is missing
_LEAST_PAIR: Final = 2 * SMALLEST_ROOM + 2
_LEAST_MORE: Final = 48  # bytes that a further item or pair is worth being written in
_SHORTEST_PAIR: Final = 5  # "":1,
_SHORTEST_ITEM: Final = 2  # 1,
_CONTAINERS: Final = frozenset((dict, list, tuple))
_USUAL_ITEM: Final = 8  # bytes of one of many items, to guess what is large
_LEAST_SHARE: Final = 64
_HIDDEN: Final = orjson.dumps(MARKER)
_SHORTEST: Final = b'"..."'
_CONSTANTS: Final = {None: b"null", True: b"true", False: b"false"}


class Encoder:
    """Writes values as JSON.

    Args:
        redaction: What is hidden.
    """

    __slots__ = ("_plain", "_redaction")

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction
        self._plain = PlainWriter(redaction, _MAX_DEPTH) if redaction.redactor is None else None

    def json(
        self,
        value: Any,
        limit_bytes: int,
        path: str = "",
        *,
        ask: bool = True,
        written: bytes | None = None,
    ) -> tuple[bytes, bool]:
        """Write a value as JSON.

        Args:
            value: Anything.
            limit_bytes: Most bytes of the result; at least 64.
            path: Where the value stands, for the redactor.
            ask: Whether the redactor is asked.
            written: The JSON of `value`, see `PlainWriter.write`.

        Returns:
            The JSON text, and whether anything is missing from it for want of room or depth.
        """
        if type(value) is dict and self._plain is not None:
            data = self._plain.write(value, limit_bytes, 0, written=written)
            if data is not None:
                return data, False
        walk = _Walk(self._redaction, self._plain, ask=ask, known=written is not None)
        return walk.value(value, limit_bytes, 0, path), walk.cut


class _Walk:
    """One value being written: which containers are open, and whether anything was cut.

    `known` says that all of it is of exact JSON types, without tuples.
    """

    __slots__ = ("_known", "_open", "_plain", "_redaction", "_redactor", "cut")

    def __init__(
        self,
        redaction: Redaction,
        plain: PlainWriter | None,
        *,
        ask: bool = True,
        known: bool = False,
    ) -> None:
        self._redaction = redaction
        self._redactor = redaction.redactor if ask else None
        self._plain = plain
        self._known = known
        self._open: set[int] = set()
        self.cut = False

    def value(self, value: Any, room: int, depth: int, path: str) -> bytes:
        """The JSON of a value in at most `room` bytes, which are at least `SMALLEST_ROOM`."""
        try:
            if self._redactor is not None and not issubclass(type(value), str):
                return self._asked(value, room, depth, path)
            return self._written(value, room, depth, path)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # hostile values raise anything
            return self._note(f"<{type_name(value)}: unreadable, {type_name(error)}>", room)

    def _asked(self, value: Any, room: int, depth: int, path: str) -> bytes:
        """A value as the user's redactor lets it through."""
        redactor = self._redactor
        shown = call_safely(redactor, path, value)  # type: ignore[arg-type]  # value() has looked
        if isinstance(shown, Failure):
            return self._fitting(_HIDDEN, room)
        if shown is value:
            return self._written(value, room, depth, path)
        self._redactor = None  # what it returned is final
        try:
            return self._written(shown, room, depth, path)
        finally:
            self._redactor = redactor

    def _written(self, value: Any, room: int, depth: int, path: str) -> bytes:
        kind = type(value)
        if kind is str:
            return self._text(value, room, path)
        if value is None or kind is bool:
            return self._fitting(_CONSTANTS[value], room)
        if kind is float or (kind is int and -(1 << 63) <= value < 1 << 63):
            return self._fitting(_number(value), room)
        if issubclass(kind, dict):
            return self._dict(value, room, depth, path)
        if issubclass(kind, list | tuple):
            return self._sequence(value, room, depth, path)
        return self._described(value, room, depth, path)

    def _described(self, value: Any, room: int, depth: int, path: str) -> bytes:
        form = describe(value)
        if isinstance(form, Text):
            if form.trusted and self._redactor is None and not self._redaction.has_own_values:
                return self._note(scrub(form.text), room)
            return self._text(form.text, room, path)
        if isinstance(form, Pairs):
            return self._container(value, form.pairs, form.size, room, depth, path, named=True)
        if isinstance(form, Items):
            return self._container(value, form.items, form.size, room, depth, path, named=False)
        if type(form.value) is int:
            return self._fitting(b"%d" % form.value, room)
        return self._written(form.value, room, depth, path)

    # --- leaves ---------------------------------------------------------------------------------

    def _fitting(self, piece: bytes, room: int) -> bytes:
        if len(piece) <= room:
            return piece
        self.cut = True
        return _SHORTEST

    def _text(self, text: str, room: int, path: str) -> bytes:
        ask = self._redactor is not None
        shown, unseen = self._redaction.visible(text, room, path, ask=ask)
        return self._note(shown, room, unseen)

    def _note(self, text: str, room: int, unseen: int = 0) -> bytes:
        piece, cut = json_text(text, room, unseen=unseen)
        self.cut |= cut
        return piece

    # --- containers -------------------------------------------------------------------------------

    def _dict(self, value: dict[Any, Any], room: int, depth: int, path: str) -> bytes:
        size = dict.__len__(value)
        exact = type(value) is dict
        if exact and depth and self._plain is not None:
            data = self._plain.write(value, room, depth)
            if data is not None:
                return data
        pairs: list[tuple[Any, Any]] = []
        with contextlib.suppress(RuntimeError):  # another thread changes the dict: keep what came
            pairs.extend(itertools.islice(dict.items(value), room // _SHORTEST_PAIR + 1))
        return self._container(value, pairs, size, room, depth, path, named=True, exact=exact)

    def _sequence(self, value: Any, room: int, depth: int, path: str) -> bytes:
        base: Any = list if issubclass(type(value), list) else tuple
        size = base.__len__(value)
        names = None if type(value) is base else getattr(type(value), "_fields", None)
        items = base.__getitem__(value, slice(0, room // _SHORTEST_ITEM + 1))
        if type(names) is tuple and len(names) == size == len(items):
            pairs = list(zip(names, items, strict=True))
            return self._container(value, pairs, size, room, depth, path, named=True)
        if size == 2 and self._redaction.is_secret_name(items[0]):  # noqa: PLR2004  a name and its value
            items = (items[0], MARKER)
        exact = type(value) is base
        if not exact:
            items = self._redaction.without_option_values(items)
        return self._container(value, items, size, room, depth, path, named=False, exact=exact)

    def _container(
        self,
        owner: Any,
        parts: Iterable[Any],
        size: int,
        room: int,
        depth: int,
        path: str,
        *,
        named: bool,
        exact: bool = False,
    ) -> bytes:
        """A list of items, or an object of names and values.

        Args:
            owner: What they belong to, for cycles.
            parts: Items, or pairs; a list or tuple when `exact`.
            size: How many there are in all, or 0 when that is unknown.
            room: Most bytes of the result.
            depth: Containers around this one.
            path: Where this one stands.
            named: Whether `parts` are pairs.
            exact: Whether they come from a built-in container, so that ordinary ones may be
                written in portions.
        """
        if id(owner) in self._open:
            return self._note(f"<cycle: {type_name(owner)}>", room)
        if depth >= _MAX_DEPTH or room < 2 * _RESERVE:
            return self._brief(owner, size, room, named=named)
        self._open.add(id(owner))
        try:
            if not named:
                return self._items(parts, size, room, depth, path, exact=exact)
            if depth == 0 and type(parts) is list and 1 < size <= LARGEST_CONTAINER:
                shared = self._shared(parts, room, path)
                if shared is not None:
                    return shared
            return self._pairs(parts, size, room, depth, path, exact=exact)
        finally:
            self._open.discard(id(owner))

    def _brief(self, owner: Any, size: int, room: int, *, named: bool) -> bytes:
        """A container that is too deep, or has no room for more than its size."""
        if size == 0:
            return b"{}" if named else b"[]"
        self.cut = True
        return self._note(f"<{type_name(owner)} of {size}>", room)

    def _items(
        self, items: Iterable[Any], size: int, room: int, depth: int, path: str, *, exact: bool
    ) -> bytes:
        pieces: list[bytes] = []
        used, done = 2, 0
        if exact:
            # No portion has an option whose value is to be hidden.
            used, done = self._portions(items, room, depth, pieces, None)
            rest: Any = items[done : done + (room - used) // _SHORTEST_ITEM + 1]  # type: ignore[index]
            items = self._redaction.without_option_values(rest)
        for item in items:
            left = room - used - 1 - _RESERVE
            if left < (_LEAST_MORE if done else SMALLEST_ROOM):
                size = max(size, done + 1)
                break
            piece = self.value(item, left, depth + 1, _below(path, f"[{done}]"))
            pieces.append(piece)
            used += len(piece) + 1
            done += 1
        if done < size:
            self.cut = True
            pieces.append(b'"... %d more items"' % (size - done))
        return b"[" + b",".join(pieces) + b"]"

    def _pairs(
        self,
        pairs: Iterable[tuple[Any, Any]],
        size: int,
        room: int,
        depth: int,
        path: str,
        *,
        exact: bool,
    ) -> bytes:
        pieces: list[bytes] = []
        keys = Keys(self._redaction)
        used, done = self._portions(pairs, room, depth, pieces, keys) if exact else (2, 0)
        spelled = type(pairs) is list and self._spells_secret(pairs)
        for key, item in itertools.islice(pairs, done, None):
            left = room - used - 2 - _RESERVE
            if left < (_LEAST_MORE if done else _LEAST_PAIR):
                size = max(size, done + 1)
                break
            name = self._name(key)
            written = keys.write(name, left // 2)
            piece = self._named(name, item, left - len(written), depth, path, spelled=spelled)
            pieces.append(written + b":" + piece)
            used += len(written) + len(piece) + 2
            done += 1
        if done < size:
            self.cut = True
            pieces.append(keys.write(ELLIPSIS, _LEAST_PAIR) + b':"%d more keys"' % (size - done))
        self.cut |= keys.cut
        return b"{" + b",".join(pieces) + b"}"

    def _shared(self, pairs: list[tuple[Any, Any]], room: int, path: str) -> bytes | None:
        """An object whose large values give way before its small ones.

        Returns:
            The JSON text, or ``None`` when there is no room for shares that say anything.
        """
        writer = Keys(self._redaction)
        names = [self._name(key) for key, _ in pairs]
        keys = [writer.write(name, LONGEST_KEY_BYTES) for name in names]
        left = room - 1 - sum(map(len, keys)) - 2 * len(keys)
        if left < _LEAST_SHARE * len(pairs):
            return None
        spelled = self._spells_secret(pairs)
        share = left // len(pairs)
        large = {number for number, (_, item) in enumerate(pairs) if _is_large(item, share)}

        def write(number: int, room: int) -> tuple[bytes, bool]:
            self.cut = False
            name, item = names[number], pairs[number][1]
            return self._named(name, item, room, 0, path, spelled=spelled), self.cut

        values, cut = write_in_shares(len(pairs), left, write, large)
        self.cut = writer.cut or cut
        members = (key + b":" + value for key, value in zip(keys, values, strict=True))
        return b"{" + b",".join(members) + b"}"

    def _named(
        self, name: str, item: Any, room: int, depth: int, path: str, *, spelled: bool
    ) -> bytes:
        """The value of a key, unless it is a secret; whether one is there, or is on, is none."""
        if item is None or item is True or item is False:
            return self._fitting(_CONSTANTS[item], room)
        if self._redaction.hides(name) or (spelled and name in VALUE_KEYS):
            return self._fitting(_HIDDEN, room)
        return self.value(item, room, depth + 1, _below(path, "." + name[:_LONGEST_PATH]))

    def _portions(
        self, parts: Any, room: int, depth: int, pieces: list[bytes], keys: Keys | None
    ) -> tuple[int, int]:
        """The ordinary parts at the head of a large container; see `PlainWriter.portions`."""
        if self._plain is None:
            return 2, 0
        return self._plain.portions(parts, room - _RESERVE, depth, pieces, keys, known=self._known)

    def _spells_secret(self, pairs: list[tuple[Any, Any]]) -> bool:
        """Whether the pairs are ``{"name": "password", "value": ...}``."""
        return any(
            type(key) is str and key in NAME_KEYS and self._redaction.is_secret_name(item)
            for key, item in pairs
        )

    def _name(self, key: Any) -> str:
        """A key as text: JSON for what is no string."""
        if type(key) is str:
            return key
        if type(key) is int and key.bit_length() < 64:  # noqa: PLR2004
            return str(key)
        walk = _Walk(self._redaction, None, ask=False)
        piece = walk.value(key, LONGEST_KEY_BYTES, _MAX_DEPTH - 2, "")
        return orjson.loads(piece) if piece[:1] == b'"' else piece.decode()


def _below(path: str, step: str) -> str:
    return (path + step[:_LONGEST_PATH])[:_LONGEST_PATH] if path else ""


def _is_large(value: Any, share: int) -> bool:
    """Whether a value will most likely not fit."""
    kind = type(value)
    if kind is str:
        return len(value) > share
    if kind not in _CONTAINERS or not value:
        return False
    try:
        first = next(iter(value.values())) if kind is dict else value[0]
    except (RuntimeError, IndexError):  # another thread changes it
        return False
    return len(value) * _usual_bytes(first) > share


def _usual_bytes(item: Any) -> int:
    """About how long the JSON of a value is."""
    kind = type(item)
    if kind is str:
        return len(item) + 3
    if kind not in _CONTAINERS:
        return _USUAL_ITEM
    inner = item.values() if kind is dict else item
    texts = (len(each) for each in itertools.islice(inner, _USUAL_ITEM) if type(each) is str)
    return _USUAL_ITEM * (len(item) + 1) + sum(texts)


def _number(value: float) -> bytes:
    if type(value) is int:
        return b"%d" % value
    if math.isfinite(value):
        return orjson.dumps(value)
    if math.isnan(value):
        return b'"NaN"'
    return b'"Infinity"' if value > 0 else b'"-Infinity"'
