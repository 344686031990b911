"""A thread of this process that sends what waits, and renews leases, once a second."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from burr_otel.printable import logger_of_lines

logger = logger_of_lines(__name__)

_EVERY_S = 1.0

Task = Callable[[], bool]
"""Something to do again and again; False: no more."""


class _Background:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: dict[Task, None] = {}
        self._thread: threading.Thread | None = None
        self._some = threading.Event()

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
