"""What must begin anew in a forked child."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


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
