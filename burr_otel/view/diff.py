"""What differs between two JSON values. Pure."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any, Final, Literal


class _Missing:
    def __repr__(self) -> str:
        return "missing"


_LONGEST_WINDOW: Final = 2_000  # items

MISSING: Final = _Missing()
"""Stands where one side has no value; ``None`` is a value."""

Kind = Literal["added", "removed", "changed"]


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        path: Keys and positions that lead to it.
        before: The value on the left, or `MISSING`.
        after: The value on the right, or `MISSING`.
    """

    path: tuple[Any, ...]
    before: Any
    after: Any

    @property
    def kind(self) -> Kind:
        """Whether the value is new, gone or another one."""
        if self.before is MISSING:
            return "added"
        return "removed" if self.after is MISSING else "changed"


def changes(before: Any, after: Any) -> Iterator[Change]:
    """The differences, in the order of the left side's keys, then of the right's new ones.

    Lists are compared without their common beginning and end, so that an item put in front of or
    behind many others is one difference; of a list that keeps its newest items, the others.
    """
    # A stack, not recursion: a state may be nested deeper than Python recurses.
    stack: list[tuple[tuple[Any, ...], Any, Any]] = [((), before, after)]
    while stack:
        path, left, right = stack.pop()
        if left is not MISSING and right is not MISSING:
            if isinstance(left, Mapping) and isinstance(right, Mapping):
                keys = [*left, *(key for key in right if key not in left)]
                stack.extend(
                    ((*path, key), left.get(key, MISSING), right.get(key, MISSING))
                    for key in reversed(keys)
                )
                continue
            if isinstance(left, list) and isinstance(right, list):
                stack.extend(reversed(list(_items(path, left, right))))
                continue
            if same(left, right):
                continue
        yield Change(path, left, right)


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal as JSON: true is not 1, 1 is 1.0, NaN is NaN."""
    stack = [(left, right)]
    while stack:
        one, other = stack.pop()
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            if one.keys() != other.keys():
                return False
            stack.extend((one[key], other[key]) for key in one)
        elif isinstance(one, list) and isinstance(other, list):
            if len(one) != len(other):
                return False
            stack.extend(zip(one, other, strict=True))
        elif isinstance(one, float) and isinstance(other, float) and math.isnan(one):
            if not math.isnan(other):
                return False
        elif isinstance(one, bool) is not isinstance(other, bool) or one != other:
            return False
    return True


def _items(
    path: tuple[Any, ...], left: list[Any], right: list[Any]
) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    shorter = min(len(left), len(right))
    front = 0
    while front < shorter and same(left[front], right[front]):
        front += 1
    back = 0
    while back < shorter - front and same(left[-1 - back], right[-1 - back]):
        back += 1
    old, new = left[front : len(left) - back], right[front : len(right) - back]
    gone, come = _gone_in_front(old, new), _gone_in_front(new, old)
    if gone and not come:
        yield from _moved_on(path, front, old, new, gone)
    elif come and not gone:
        yield from ((at, left, right) for at, right, left in _moved_on(path, front, new, old, come))
    else:  # nothing tells which side moved on, if any
        for at, (left_item, right_item) in enumerate(zip_longest(old, new, fillvalue=MISSING)):
            yield (*path, front + at), left_item, right_item


def _moved_on(
    path: tuple[Any, ...], front: int, old: list[Any], new: list[Any], gone: int
) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    """What a list lost in front and got at its end."""
    yield from (((*path, front + number), old[number], MISSING) for number in range(gone))
    for number in range(len(old) - gone, len(new)):
        yield (*path, front + number), MISSING, new[number]


def _gone_in_front(old: list[Any], new: list[Any]) -> int:
    """How many items of `old` are missing in front where `new` goes on with the others; 0: none."""
    for gone in range(1, len(old) if new and len(old) <= _LONGEST_WINDOW else 0):
        kept = old[gone:]
        if len(kept) <= len(new) and all(map(same, kept, new)):
            return gone
    return 0


def path_text(path: tuple[Any, ...]) -> str:
    """``chat[2].role`` for ``("chat", 2, "role")``; odd keys are quoted."""
    text = ""
    for part in path:
        if isinstance(part, str) and part.isidentifier():
            text += f".{part}" if text else part
        elif isinstance(part, int) and not isinstance(part, bool):
            text += f"[{part}]"
        else:
            text += f"[{as_text(part)}]"
    return text


def as_text(value: Any) -> str:
    """A value as one line of JSON; of what JSON has no form for, Python's."""
    if value is MISSING:
        return ""
    try:
        return json.dumps(value, ensure_ascii=False, default=repr)
    except (TypeError, ValueError, RecursionError):
        return repr(type(value))
