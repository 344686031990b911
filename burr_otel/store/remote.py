"""What engines at a distance share: patience with outages, and beginning anew in a forked child."""

from __future__ import annotations

import os
import random
import time
import weakref
from typing import Final, Protocol

_LONGEST_PAUSE_S: Final = 1.0


class Patience:
    """How long something is tried again, with pauses that grow."""

    def __init__(self, patience_s: float) -> None:
        self._until_s, self._pause_s = time.monotonic() + patience_s, 0.05

    def pause(self) -> bool:
        """Wait before the next attempt; False: there is no time for one."""
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            return False
        time.sleep(min(left_s, self._pause_s * random.uniform(0.5, 1.0)))  # noqa: S311 - no secret
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return True


class Forked(Protocol):
    """Something with threads, locks or connections, which are the parent's in a forked child."""

    def after_fork(self) -> None:
        """In a forked child: begin anew."""


_things: weakref.WeakSet[Forked] = weakref.WeakSet()


def begin_anew_after_fork(thing: Forked) -> None:
    """From now on tell it in a forked child that it is one."""
    _things.add(thing)


def _after_fork_in_child() -> None:
    for thing in list(_things):
        thing.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
