"""Threads of this process: one that sends what waits and renews leases, others for event loops."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from burr_otel.printable import logger_of_lines

logger = logger_of_lines(__name__)

_EVERY_S = 1.0
_MOST_AT_ONCE: Final = 32  # requests that event loops wait for

_T = TypeVar("_T")

Task = Callable[[], bool]
"""Something to do again and again; False: no more."""


class _Background:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: dict[Task, None] = {}
        self._thread: threading.Thread | None = None
        self._some = threading.Event()
        self._pool: ThreadPoolExecutor | None = None

    def add(self, task: Task) -> None:
        """Do a task from now on, if it is not among them."""
        self._tasks[task] = None
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._work, name="burr-otel objects", daemon=True
                    )
                    self._thread.start()
        self._some.set()

    def submit(self, work: Callable[[], _T]) -> Future[_T]:
        """Do something once, at once, on another thread."""
        if self._pool is None:
            with self._lock:
                self._pool = self._pool or ThreadPoolExecutor(_MOST_AT_ONCE, "burr-otel objects")
        return self._pool.submit(work)

    def after_fork(self) -> None:
        """In a forked child: begin anew."""
        self.__init__()  # type: ignore[misc]

    def _work(self) -> None:
        pause = threading.Event()
        while True:
            self._some.wait()
            pause.wait(_EVERY_S)
            for task in list(self._tasks):
                # Out before it is done, so that one that is added meanwhile stays.
                del self._tasks[task]
                if _done(task):
                    self._tasks[task] = None
            self._some.clear()
            if self._tasks:
                self._some.set()


def _done(task: Task) -> bool:
    try:
        return task()
    except Exception:
        logger.exception("a task for an object store failed")
        return False


background = _Background()
os.register_at_fork(after_in_child=background.after_fork)
