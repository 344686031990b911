"""What differs between two JSON values. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

_LONGEST_WINDOW: Final = 2_000  # items

MISSING: Final = object()
"""Stands where one side has no value; ``None`` is a value."""

Path = tuple[Any, ...]


class Change(NamedTuple):
    """One difference: the keys and positions that lead to it, and both sides or `MISSING`."""

    path: Path
    before: Any
    after: Any

    @property
    def kind(self) -> Literal["added", "removed", "changed"]:
        """Whether the value is new, gone or another one."""
        if self.before is MISSING:
            return "added"
        return "removed" if self.after is MISSING else "changed"


def changes(before: Any, after: Any) -> Iterator[Change]:
    """The differences, in the order of the left side's keys, then of the right's new ones."""
    # A stack, not recursion: a state may be nested deeper than Python recurses.
    stack: list[tuple[Path, Any, Any]] = [((), before, after)]
    while stack:
        path, left, right = stack.pop()
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            keys = [*left, *(key for key in right if key not in left)]
            stack.extend(
                ((*path, key), left.get(key, MISSING), right.get(key, MISSING))
                for key in reversed(keys)
            )
        elif isinstance(left, list) and isinstance(right, list):
            stack.extend(reversed(list(_items(path, left, right))))
        elif MISSING in (left, right) or not same(left, right):
            yield Change(path, left, right)


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal as they are loaded: 1 is not 1.0, NaN is NaN."""
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
        elif type(one) is not type(other) or repr(one) != repr(other):
            return False
    return True


def _items(path: Path, left: list[Any], right: list[Any]) -> Iterator[tuple[Path, Any, Any]]:
    """What differs between common beginning and end; of a list that moved on, what went, came."""
    shorter = min(len(left), len(right))
    front = 0
    while front < shorter and same(left[front], right[front]):
        front += 1
    back = 0
    while back < shorter - front and same(left[-1 - back], right[-1 - back]):
        back += 1
    old, new = left[front : len(left) - back], right[front : len(right) - back]
    gone, come = _moved_by(old, new), _moved_by(new, old)
    # An old item stands so many places earlier among the new; both: nothing tells which moved on.
    moved = 0 if gone and come else gone - come
    for at, item in enumerate(old):
        is_kept = 0 <= at - moved < len(new)
        yield (*path, front + at), item, new[at - moved] if is_kept else MISSING
    for at, item in enumerate(new):
        if not 0 <= at + moved < len(old):
            yield (*path, front + at), MISSING, item


def _moved_by(old: list[Any], new: list[Any]) -> int:
    """How many items of `old` are missing in front where `new` goes on with the others; 0: none."""
    for gone in range(1, len(old) if new and len(old) <= _LONGEST_WINDOW else 0):
        kept = old[gone:]
        if len(kept) <= len(new) and all(map(same, kept, new)):
            return gone
    return 0


def path_text(path: Path) -> str:
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


def as_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON, on one line without an indent; of what has no such form, Python's."""
    try:
        return json.dumps(value, ensure_ascii=False, default=repr, indent=indent)
    except (TypeError, ValueError, RecursionError):
        return repr(type(value))
