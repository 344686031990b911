"""The one thread that ends application spans whose time has come."""

from __future__ import annotations

import contextlib
import heapq
import queue
import threading
from collections.abc import Callable
from typing import Protocol

from burr_otel.spans import shield

_NS = 1_000_000_000
_MOST_WAITING = 256  # pieces of deferred work, before whoever starts an application helps
_MOST_HELPED = 4  # pieces that it then does


class Ending(Protocol):
    """An application span that ends some day."""

    clock: Callable[[], int]

    def due_ns(self, now: int) -> int | None:
        """When, by its clock, it should end; None: not by itself."""

    def finish(self) -> None:
        """End it."""

    def forget(self) -> None:
        """In a forked child: it is the parent's to end."""


class Keeper:
    """Ends roots when they are due, and does what finalisers may not do themselves."""

    # A finaliser can run inside any allocation, also while the same thread holds one of our locks.
    # So it only puts its work into a `queue.SimpleQueue`, whose ``put`` is reentrant by design.

    def __init__(self, *, threaded: bool = True) -> None:
        self._threaded = threaded
        self._reset()

    def _reset(self) -> None:
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._open: dict[int, Ending] = {}  # by identity, in order
        # A heap: when to look at which root again. It holds none: an ended one is freed at once.
        self._due: list[tuple[int, int]] = []
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None

    def defer(self, work: Callable[[], None]) -> None:
        """Have `work` done soon by another thread (or the next `sweep`)."""
        self._inbox.put(work)

    def start(self) -> None:
        """Make the thread if there is none."""
        with self._lock:
            if self._threaded and self._thread is None:
                thread = threading.Thread(target=self._serve, name="burr-otel", daemon=True)
                with contextlib.suppress(RuntimeError):  # there are too many, or the program ends
                    thread.start()
                    self._thread = thread

    def watch(self, root: Ending) -> None:
        """Take charge of ending `root`."""
        with self._lock:
            self._open[id(root)] = root
            due = root.due_ns(root.clock())
            if due is not None:
                heapq.heappush(self._due, (due, id(root)))
                if self._due[0][1] == id(root):
                    self.defer(lambda: None)  # wakes the thread, which waits for a later one
        self.start()
        if self._inbox.qsize() > _MOST_WAITING:
            # Among many busy threads that one gets the interpreter too seldom to keep up.
            self._work_off(_MOST_HELPED)

    def unwatch(self, root: Ending) -> None:
        """Forget `root`, because it has ended."""
        with self._lock:
            self._open.pop(id(root), None)

    def sweep(self) -> None:
        """Do deferred work and end what is due."""
        self._sweep()
        # The work that was to wake the thread may be done by now.
        self.defer(lambda: None)

    def _sweep(self) -> float | None:
        """Sweep; seconds until more is due, None if nothing is."""
        self._work_off(self._inbox.qsize())  # no more: it may come as fast as it is done
        while True:
            with self._lock:
                if not self._due:
                    return None
                due, number = self._due[0]
                root = self._open.get(number)
                now = due if root is None else root.clock()
                if due > now:
                    return (due - now) / _NS
                heapq.heappop(self._due)
                if root is None:
                    continue
                again = root.due_ns(now)
                if again is not None and again > now:
                    heapq.heappush(self._due, (again, number))
                    continue
            _do(root.finish)

    def _work_off(self, most: int) -> None:
        """Do deferred work."""
        with contextlib.suppress(queue.Empty):
            for _ in range(most):
                _do(self._inbox.get_nowait())

    def finish_all(self) -> None:
        """End every open root; runs at interpreter exit, before the provider's own shutdown."""
        self.sweep()
        with self._lock:
            roots = list(self._open.values())
        for root in roots:
            _do(root.finish)

    def after_fork(self) -> None:
        """In a forked child: forget the parent's roots, its queue and its thread."""
        for root in list(self._open.values()):
            root.forget()
        self._reset()

    def _serve(self) -> None:
        inbox = self._inbox
        while True:
            with contextlib.suppress(queue.Empty):
                _do(inbox.get(timeout=self._sweep()))


def _do(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception as error:
        shield.report("ending an application span", error)


keeper = Keeper()
