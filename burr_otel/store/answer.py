"""What a store at a distance says of a record, some time after it was given to it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any


class StoreAnswer:
    """Where a record lies, or why it is not kept, once the store has said so.

    A `Future` with less to it: each step makes two, and futures take ten times as long.
    """

    __slots__ = ("_calls", "_error", "_open", "_place", "is_there")

    def __init__(self) -> None:
        self.is_there = False
        self._place: Any = None
        self._error: BaseException | None = None
        self._calls: list[Callable[[], object]] = []
        self._open = threading.Lock()
        self._open.acquire()

    def give(self, place: Any = None, error: BaseException | None = None) -> None:
        """Wake all who wait for it."""
        self._place, self._error, self.is_there = place, error, True
        self._open.release()
        if self._calls:
            self._call()

    def then(self, call: Callable[[], object]) -> None:
        """Call something once it is there: at once, or in the thread that gives it."""
        self._calls.append(call)
        if self.is_there:
            self._call()

    def _call(self) -> None:
        with contextlib.suppress(IndexError):  # none left, also when another thread took it
            while True:
                self._calls.pop()()

    def error(self) -> BaseException | None:
        """Wait for it; why the record is not kept, if it is not."""
        if not self.is_there:
            with self._open:
                pass
        return self._error

    def place(self) -> Any:
        """Wait for it; where the record begins and ends. Raises its error."""
        error = self.error()
        if error is not None:
            raise error
        return self._place
