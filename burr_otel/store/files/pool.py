"""A bounded number of open files, whatever the number of live applications."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from typing import Protocol

MAX_OPEN = 64
ORDERED = MAX_OPEN // 2  # with more files than that, their order is about to matter


class Closable(Protocol):
    """A file that opens itself again when it is needed."""

    def try_close(self) -> None:
        """Close it and call `Pool.discard`, unless it is in use.

        Never waits: the user may be the very thread that needs room.
        """


class Pool:
    """Closes the files that were used longest ago.

    Attributes:
        files: That are open, by their ``id``; the order of their use is kept by `touch`.
    """

    def __init__(self) -> None:
        # Finalisers may close files in the middle of these methods: hence re-entrant.
        self._lock = threading.RLock()
        self.files: OrderedDict[int, Closable] = OrderedDict()

    def add(self, file: Closable) -> None:
        """A file has been opened."""
        with self._lock:
            self.files[id(file)] = file
        self.make_room(MAX_OPEN, keep=file)

    def touch(self, file: Closable) -> None:
        """A file is used; to be told when more than `ORDERED` are open."""
        with self._lock:
            if id(file) in self.files:
                self.files.move_to_end(id(file))

    def discard(self, file: Closable) -> None:
        """A file has been closed."""
        with self._lock:
            self.files.pop(id(file), None)

    def make_room(self, limit: int, *, keep: Closable | None = None) -> None:
        """Close files until at most so many are open, or all others are in use."""
        surplus: list[Closable] = []
        # A finaliser that changes the table while it is read: there is room then, or soon.
        with self._lock, contextlib.suppress(RuntimeError):
            surplus = list(self.files.values())[: max(0, len(self.files) - limit)]
        for file in surplus:
            if file is not keep:
                file.try_close()

    def after_fork(self) -> None:
        """In a forked child: start over; the files close themselves."""
        self._lock = threading.RLock()
        self.files.clear()
