"""The head of a long list of objects, as much of it as a span has room for.

A conversation is such a list. From step to step most of its objects stay what they were, so the
JSON of those that held nothing to hide is remembered, by its hash, and they are not searched again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["LEVELS", "HeadWriter"]

LEVELS: Final = 8
"""Containers within containers that an object may have."""

_BETWEEN: Final = b"},{"
_MOST_ITEMS: Final = 1024
_CACHED: Final = 4096
_ONLY_DICTS: Final = frozenset((dict,))
_NOTHING: Final = (b"", 0)


class HeadWriter:
    """Writes heads, and remembers the objects in them.

    Args:
        is_clean: Whether objects of exact JSON types have nothing to hide, and no more than
            `LEVELS` levels.
    """

    __slots__ = ("_clean", "_is_clean")

    def __init__(self, is_clean: Callable[[list[Any]], bool]) -> None:
        self._is_clean = is_clean
        self._clean: set[int] = set()

    def write(self, items: Sequence[Any], room: int) -> tuple[bytes, int]:
        """The JSON of as many items as fit, and how many these are.

        Args:
            items: Of exact JSON types, without tuples.
            room: Most bytes of the result.

        Returns:
            Nothing, and 0, where the items are not all objects with nothing to hide, all fit, or
            none does.
        """
        data = _more_than(items, room)
        end = data.rfind(_BETWEEN, 0, room) + 1
        if not end:
            return _NOTHING
        head = data[:end] + b"]"
        count = head.count(_BETWEEN) + 1
        if orjson.dumps(items[:count]) == head:
            # What stands between objects stands nowhere else: there are as many pieces as items.
            texts = head[2:-2].split(_BETWEEN)
            return (head, count) if self._all_clean(texts, items) else _NOTHING
        try:  # the end may be one inside of an item
            count = len(orjson.loads(head))
        except ValueError:
            return _NOTHING
        return (head, count) if self._is_clean(list(items[:count])) else _NOTHING

    def _all_clean(self, texts: list[bytes], items: Sequence[Any]) -> bool:
        by_hash = dict(zip(map(hash, texts), items, strict=False))
        unknown = set(by_hash).difference(self._clean)
        if not unknown:
            return True
        if not self._is_clean([by_hash[number] for number in unknown]):
            return False
        if len(self._clean) + len(unknown) > _CACHED:
            self._clean = set()
        self._clean |= unknown
        return True


def _more_than(items: Sequence[Any], room: int) -> bytes:
    """The JSON of a few more items than fit; nothing where that cannot be had."""
    if type(items[0]) is not dict:
        return b""
    number = room * 5 // 4 // (len(orjson.dumps(items[0])) + 1) + 2
    for _ in range(2):
        some = items[: min(number, _MOST_ITEMS)]
        if set(map(type, some)) != _ONLY_DICTS:
            return b""
        data = orjson.dumps(some)
        if len(data) > room:
            return data
        if len(some) == len(items):
            return b""
        number = room * 5 // 4 * len(some) // len(data) + 2
    return b""
