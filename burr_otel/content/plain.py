"""The quick way for ordinary values: exact JSON types, small, with nothing in them to hide.

Such a value is written by orjson in one go. Whether it is one is found level by level with loops
that run in C and stop as soon as the value is too large, so that a hostile one costs no more than
the part that would be kept. Whatever is in doubt is left to the careful way, `encode`, which gives
the same bytes for every value that this one accepts.
"""

from __future__ import annotations

import itertools
import math
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from burr_otel.content.guard import call_safely
from burr_otel.content.heads import (
    FIRST_PORTION,
    LEVELS,
    MOST_PORTION,
    HeadWriter,
    more_than_fit,
)
from burr_otel.content.patterns import NAME_KEYS, VALUE_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from burr_otel.content.keys import Keys
    from burr_otel.content.redact import Redaction

__all__ = ["LARGEST_CONTAINER", "PlainWriter", "is_small"]

LARGEST_CONTAINER: Final = 256
"""Items of a container that is tried as a whole; larger ones are written in portions."""

_CACHED: Final = 4096
_LONGEST_KEY: Final = 64
_LEAST_PORTION: Final = 4
_FEW: Final = 24  # values of a level that are looked at one by one
_ATOMS: Final = frozenset((int, bool, type(None)))
_CONTAINERS: Final = frozenset((dict, list, tuple))
_DICT_VALUES = dict.values


class _UnfitError(Exception):
    """The value has to be written the careful way."""


class _Leaves(NamedTuple):
    """What of a value may have to be hidden."""

    texts: list[str]
    keys: set[str]


class PlainWriter:
    """Writes ordinary values; remembers keys that it found harmless.

    Args:
        redaction: What must not be in a value.
        deepest: Containers within containers that may be written.
    """

    __slots__ = ("_deepest", "_harmless", "_heads", "_redaction")

    def __init__(self, redaction: Redaction, deepest: int) -> None:
        self._redaction = redaction
        self._deepest = deepest
        self._harmless: set[str] = set()
        self._heads = HeadWriter(self._are_ordinary)

    def write(
        self,
        value: Any,
        room: int,
        depth: int,
        *,
        most: int = LARGEST_CONTAINER,
        written: bytes | None = None,
    ) -> bytes | None:
        """The JSON of an ordinary value.

        Args:
            value: A dict, list or tuple.
            room: Most bytes of the result.
            depth: Containers around the value.
            most: Most items of the value itself.
            written: The JSON of `value`, when the caller has it already and knows that all of it
                is of exact JSON types, without tuples.

        Returns:
            The JSON text, or ``None`` when the value is not ordinary or has no room.
        """
        if written is not None:
            if len(written) > room:
                return None
            leaves = _known_leaves(value, self._deepest - depth)
            return written if leaves is not None and self._nothing_to_hide(*leaves) else None
        # A key may be of any class, whose own code would run.
        found = call_safely(_leaves, value, room, self._deepest - depth, most)
        if not isinstance(found, _Leaves):
            return None
        try:
            data = orjson.dumps(value)
        except (TypeError, ValueError, RecursionError):  # surrogates, ints beyond 64 bits
            return None
        return data if len(data) <= room and self._nothing_to_hide(*found) else None

    def _nothing_to_hide(self, texts: list[str], keys: set[str]) -> bool:
        if not (keys <= self._harmless or self._all_harmless(keys)):
            return False
        if keys & VALUE_KEYS and keys & NAME_KEYS:  # {"name": "password", "value": "..."}
            return False
        return not texts or self._redaction.all_clean(texts)

    def _are_ordinary(self, items: list[Any]) -> bool:
        """See `HeadWriter`; none has a value whose name may stand elsewhere."""
        leaves = call_safely(_leaves, items, sys.maxsize, LEVELS, MOST_PORTION)
        if not isinstance(leaves, _Leaves) or not leaves.keys.isdisjoint(VALUE_KEYS):
            return False
        return self._nothing_to_hide(*leaves)

    def portions(
        self,
        parts: Any,
        room: int,
        depth: int,
        pieces: list[bytes],
        keys: Keys | None,
        *,
        known: bool = False,
    ) -> tuple[int, int]:
        """Write the ordinary parts at the head of a large container, many at a time.

        Args:
            parts: A list or tuple of items, or a list of pairs.
            room: Most bytes of the container.
            depth: Containers around it.
            pieces: Where the JSON of each portion goes, without brackets.
            keys: For pairs, where their keys go.
            known: Whether all values are known to be of exact JSON types, without tuples.

        Returns:
            Bytes used with the brackets, and how many parts were written.
        """
        used, done, portion = 2, 0, FIRST_PORTION
        if keys is None and len(parts) > FIRST_PORTION:
            head, done = b"", 0
            if known and depth + LEVELS <= self._deepest:
                head, done = self._heads.write(parts, room - 1)
            if not done:
                head, done = self._head(parts, room - 1, depth)
            if done:
                pieces.append(head[1:-1])
                return len(head) + 1, done
        while len(parts) > max(done, FIRST_PORTION) and portion >= _LEAST_PORTION:
            some: Any = parts[done : done + portion]
            if keys is not None:
                some = dict(some) if all(type(key) is str for key, _ in some) else ()
            left = room - used
            data = self.write(some, left, depth, most=MOST_PORTION) if some else None
            if data is None:
                portion //= 4
                continue
            pieces.append(data[1:-1])
            used += len(data) - 1
            done += len(some)
            if keys is not None:
                keys.take(some)
            # As many as will most likely fit.
            portion = min(MOST_PORTION, (left - len(data)) * 7 // 8 * done // used)
        return used, done

    def _head(self, items: Sequence[Any], room: int, depth: int) -> tuple[bytes, int]:
        """The JSON of as many of many ordinary items as fit, and how many these are, or 0.

        More than fit are written, once; where the room ends shows how many would have fitted.
        """
        first = self.write(items[:FIRST_PORTION], room, depth)
        if first is None:
            return b"", 0
        some = items[: more_than_fit(first, room)]
        data = self.write(some, 2 * room, depth, most=MOST_PORTION)
        if data is None or len(data) < room:
            return b"", 0
        head = data[: data.rfind(b"},{", 0, room) + 1] + b"]"
        try:  # the end may be one inside of an item
            return head, len(orjson.loads(head))
        except ValueError:
            return b"", 0

    def _all_harmless(self, keys: set[str]) -> bool:
        """Whether no key hides its value, or has to be changed itself."""
        unknown = list(keys - self._harmless)
        if max(map(len, unknown)) > _LONGEST_KEY:
            return False
        if self._redaction.hides_any(unknown) or not self._redaction.all_clean(unknown):
            return False
        if len(self._harmless) + len(keys) > _CACHED:
            self._harmless = set()
        self._harmless |= keys
        return True


def is_small(value: Any, room: int, levels: int) -> bool:
    """Whether a value is of JSON types all through, and short."""
    return isinstance(call_safely(_leaves, value, room, levels, LARGEST_CONTAINER), _Leaves)


def _known_leaves(value: Any, levels: int) -> tuple[list[str], set[str]] | None:
    """The strings and keys of a value that is of exact JSON types, and small.

    Returns:
        ``None`` when it is too deep, or has what may be a name and its value.
    """
    texts: list[str] = []
    keys: set[str] = set()
    level: list[Any] = [value]
    while level:
        below: list[Any] = []
        for part in level:
            kind = type(part)
            if kind is str:
                texts.append(part)
            elif kind is dict:
                keys.update(part)
                below += part.values()
            elif kind is list:
                if _is_pair(part):
                    return None
                below += part
        if below and not levels:
            return None
        levels -= 1
        level = below
    return texts, keys


def _leaves(value: Any, room: int, levels: int, most: int) -> _Leaves:
    """The strings and keys of a value of JSON types that could fit.

    Raises:
        _UnfitError: It is none, or could not.
    """
    leaves = _Leaves([], set())
    waiting: list[tuple[Sequence[Any], int]] = [((value,), levels)]
    while waiting:
        level, levels = waiting.pop()
        look = _few if len(level) <= _FEW else _many
        room, below = look(level, leaves, room - len(level), most)
        most = LARGEST_CONTAINER
        if room < 0 or (below and not levels):
            raise _UnfitError
        waiting += [(part, levels - 1) for part in below]
    return leaves


def _few(
    level: Sequence[Any], leaves: _Leaves, room: int, most: int
) -> tuple[int, list[Sequence[Any]]]:
    """Look at the values of a level one by one.

    Returns:
        Bytes that are left at best, and the values inside of the containers.

    Raises:
        _UnfitError: A value is not of a JSON type, or too large.
    """
    below: list[Any] = []
    for item in level:
        kind = type(item)
        if kind is str:
            room -= len(item)
            leaves.texts.append(item)
        elif kind in _CONTAINERS:
            room -= len(item)
            if room < 0 or len(item) > most:
                raise _UnfitError
            if kind is dict:
                room -= _key_characters(item, leaves.keys)
                below += item.values()
            elif _is_pair(item):
                raise _UnfitError
            else:
                below += item
        elif not (math.isfinite(item) if kind is float else kind in _ATOMS):
            raise _UnfitError
    return room, [below] if below else []


def _many(
    level: Sequence[Any], leaves: _Leaves, room: int, most: int
) -> tuple[int, list[Sequence[Any]]]:
    """The same as `_few`, in loops that run in C."""
    parts: list[Sequence[Any]] = []
    for kind, members in _by_kind(level):
        if kind is str:
            room -= sum(map(len, members))
            leaves.texts.extend(members)
        elif kind in _CONTAINERS:
            room -= sum(map(len, members))
            if room < 0 or max(map(len, members)) > most:
                raise _UnfitError
            characters, below = _dicts(members, leaves.keys) if kind is dict else _lists(members)
            room -= characters
            parts += below
        elif not (all(map(math.isfinite, members)) if kind is float else kind in _ATOMS):
            raise _UnfitError
    return room, parts


def _key_characters(names: Iterable[Any], keys: set[str]) -> int:
    """Note keys, and count their characters.

    Raises:
        _UnfitError: One is no string.
    """
    if any(type(name) is not str for name in names):
        raise _UnfitError
    keys.update(names)
    return sum(map(len, names))


def _by_kind(level: Sequence[Any]) -> Iterable[tuple[type, Sequence[Any]]]:
    """The values of a level by their type."""
    kinds = set(map(type, level))
    if len(kinds) == 1:
        return ((kinds.pop(), level),)
    groups: dict[type, list[Any]] = {kind: [] for kind in kinds}
    for item in level:
        groups[type(item)].append(item)
    return groups.items()


def _dicts(dicts: Sequence[dict[Any, Any]], keys: set[str]) -> tuple[int, list[Sequence[Any]]]:
    """The characters of the keys of dicts, and their values.

    Dicts with the same keys give one sequence a key, which is of one type most of the time.

    Raises:
        _UnfitError: A key is no string.
    """
    shapes = set(map(tuple, dicts))
    if len(shapes) == 1:
        columns: list[Sequence[Any]] = list(zip(*map(_DICT_VALUES, dicts), strict=True))
        return _key_characters(next(iter(shapes)), keys) * len(dicts), columns
    _key_characters(set(itertools.chain.from_iterable(shapes)), keys)
    below = list(itertools.chain.from_iterable(map(_DICT_VALUES, dicts)))
    return sum(map(len, itertools.chain.from_iterable(dicts))), [below] if below else []


def _lists(lists: Sequence[Sequence[Any]]) -> tuple[int, list[Sequence[Any]]]:
    """No characters, and the items of lists.

    Raises:
        _UnfitError: One is a pair of a name and its value.
    """
    if any(map(_is_pair, lists)):
        raise _UnfitError
    below = list(itertools.chain.from_iterable(lists))
    return 0, [below] if below else []


def _is_pair(items: Sequence[Any]) -> bool:
    """Whether a list could be a name and its value, as in ``["token", "x"]``."""
    return len(items) == 2 and type(items[0]) is str  # noqa: PLR2004
