"""Sharing scarce room, so that what is large gives way before what is small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["write_in_shares"]

_MOST_ROUNDS: Final = 4  # in which what small parts leave is shared out again


def write_in_shares(
    count: int,
    room: int,
    write: Callable[[int, int], tuple[bytes, bool]],
    large: Collection[int] = (),
) -> tuple[list[bytes], bool]:
    """Write parts, each in an equal share of the room; what small ones leave goes to the others.

    Args:
        count: How many parts there are.
        room: Bytes for all of them together.
        write: Writes the part of a number in at most so many bytes; returns it, and whether it
            was cut.
        large: Numbers of parts that will be cut at first sight, and need not be tried first.

    Returns:
        The parts, and whether any of them is cut.
    """
    written = [b""] * count
    postponed = list(large)
    waiting = [number for number in range(count) if number not in large]
    share = room // count
    for _ in range(_MOST_ROUNDS):
        still = []
        for number in waiting:
            written[number], cut = write(number, share)
            if cut:
                still.append(number)
            else:
                room -= len(written[number])
        waiting, stuck = still + postponed, len(still) == len(waiting) and not postponed
        postponed = []
        if stuck or not waiting:
            break
        share = room // len(waiting)
    return written, bool(waiting)
