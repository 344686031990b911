"""The head of a long list of objects, as much of it as a span has room for.

A conversation is such a list. From step to step most of its objects stay what they were, so the
JSON of those that held nothing to hide is remembered, by its hash, and they are not searched again.
Where this way gives a head, `PlainWriter` would give the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["FIRST_PORTION", "LEVELS", "MOST_PORTION", "HeadWriter", "more_than_fit"]

FIRST_PORTION: Final = 16
MOST_PORTION: Final = 1024
LEVELS: Final = 8
"""Containers within containers that an object may have."""

_BETWEEN: Final = b"},{"
_CACHED: Final = 4096
_ONLY_DICTS: Final = frozenset((dict,))
_NOTHING: Final = (b"", 0)


def more_than_fit(first: bytes, room: int) -> int:
    """How many items are a few more than fit.

    Args:
        first: The JSON of the first `FIRST_PORTION` items, which fit.
        room: Bytes that there are.
    """
    return min(room * FIRST_PORTION * 5 // len(first) // 4, MOST_PORTION)


class HeadWriter:
    """Writes heads, and remembers the objects in them.

    Args:
        are_ordinary: Whether objects have nothing to hide, each by itself and all together, and no
            more than `LEVELS` levels.
    """

    __slots__ = ("_are_ordinary", "_known")

    def __init__(self, are_ordinary: Callable[[list[Any]], bool]) -> None:
        self._are_ordinary = are_ordinary
        self._known: set[int] = set()

    def write(self, items: Sequence[Any], room: int) -> tuple[bytes, int]:
        """The JSON of as many items as fit, and how many these are.

        Args:
            items: Of exact JSON types, without tuples.
            room: Most bytes of the result.

        Returns:
            Nothing, and 0, where that has to be found out in another way.
        """
        first = orjson.dumps(items[:FIRST_PORTION])
        if len(first) > room:
            return _NOTHING
        some = items[: more_than_fit(first, room)]
        if set(map(type, some)) != _ONLY_DICTS:
            return _NOTHING
        data = orjson.dumps(some)
        if not room <= len(data) <= 2 * room:
            return _NOTHING
        texts = data[2:-2].split(_BETWEEN)
        end = data.rfind(_BETWEEN, 0, room) + 1
        # As many pieces as items: what stands between these stands nowhere else.
        if not end or len(texts) != len(some) or not self._all_ordinary(texts, some):
            return _NOTHING
        return data[:end] + b"]", data.count(_BETWEEN, 0, end) + 1

    def _all_ordinary(self, texts: list[bytes], items: Sequence[Any]) -> bool:
        by_hash = dict(zip(map(hash, texts), items, strict=True))
        unknown = set(by_hash).difference(self._known)
        if not unknown:
            return True
        if not self._are_ordinary([by_hash[number] for number in unknown]):
            return False
        if len(self._known) + len(unknown) > _CACHED:
            self._known = set()
        self._known |= unknown
        return True
