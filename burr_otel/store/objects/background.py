"""A thread of this process that sends what waits, and renews leases, once a second."""

from __future__ import annotations

import os
import threading
from typing import Protocol

from burr_otel.printable import logger_of_lines

logger = logger_of_lines(__name__)

_EVERY_S = 1.0


class Recurring(Protocol):
    """Something to do again and again."""

    def tick(self) -> bool:
        """Do it; False: it needs to be done no more."""


class _Background:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[int, Recurring] = {}
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    def add(self, job: Recurring) -> None:
        """Do a job from now on; it is kept alive."""
        # Not under the lock: a finaliser inside `_round` may add one.
        self._jobs[id(job)] = job
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._run, name="burr-otel objects", daemon=True
                    )
                    self._thread.start()
        self._wake.set()

    def after_fork(self) -> None:
        """In a forked child: begin anew."""
        self.__init__()  # type: ignore[misc]

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self._wake.wait()
            pause.wait(_EVERY_S)
            for key, job in list(self._jobs.items()):
                try:
                    again = job.tick()
                except Exception:
                    logger.exception("what waits for an object store could not be sent")
                    again = False
                if not again:
                    del self._jobs[key]
            if not self._jobs:
                self._wake.clear()
                if self._jobs:  # added this moment
                    self._wake.set()


background = _Background()
os.register_at_fork(after_in_child=background.after_fork)
