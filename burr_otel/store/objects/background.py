"""Threads: one that sends what waits and gives signs of life, others for event loops."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from burr_otel.printable import logger_of_lines
from burr_otel.store.remote import begin_anew_after_fork

logger = logger_of_lines(__name__)

_EVERY_S = 1.0
_MOST_AT_ONCE: Final = 32  # requests that event loops wait for

Task = Callable[[], bool]
"""Something to do again and again; False: no more."""


class _Background:
    """`pool` does something once, at once."""

    def __init__(self) -> None:
        self.after_fork()
        begin_anew_after_fork(self)

    def after_fork(self) -> None:
        """In a forked child: begin anew."""
        self.pool = ThreadPoolExecutor(_MOST_AT_ONCE, "burr-otel objects")
        self._lock = threading.Lock()
        self._tasks: dict[Task, None] = {}
        self._thread: threading.Thread | None = None
        self._some = threading.Event()

    def add(self, task: Task) -> None:
        """Do a task from now on, if it is not among them."""
        self._tasks[task] = None
        with self._lock:
            if self._thread is None:
                name = "burr-otel objects"
                self._thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._thread.start()
        self._some.set()

    def _work(self) -> None:
        pause = threading.Event()
        while self._some.wait():
            pause.wait(_EVERY_S)
            self._some.clear()
            for task in list(self._tasks):
                # Out before it is done, so that one that is added meanwhile stays.
                del self._tasks[task]
                if _done(task):
                    self.add(task)


def _done(task: Task) -> bool:
    try:
        return task()
    except Exception:
        logger.exception("a task for an object store failed")
        return False


background = _Background()
