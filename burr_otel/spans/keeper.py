"""The one thread that ends application spans whose time has come."""

from __future__ import annotations

import heapq
import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol

from burr_otel.spans import shield

_NS = 1_000_000_000
_FEW = 16  # ended roots that are not worth clearing away


class Ending(Protocol):
    """An application span that ends some day."""

    due: int
    ended: bool
    clock: Callable[[], int]

    def __lt__(self, other: Any) -> bool:
        """Whether it is due sooner."""

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
        self._due: list[Ending] = []
        self._lock = threading.RLock()
        self._open: dict[Ending, None] = {}  # in order
        self._thread: threading.Thread | None = None

    def defer(self, work: Callable[[], None]) -> None:
        """Have `work` done soon by another thread (or the next `sweep`)."""
        self._inbox.put(work)

    def watch(self, root: Ending) -> None:
        """Take charge of ending `root`."""
        with self._lock:
            self._open[root] = None
            due = root.due_ns(root.clock())
            if due is not None:
                self._push(root, due)
                self._inbox.put(lambda: None)  # wakes the thread
            if self._threaded and self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="burr-otel", daemon=True)
                self._thread.start()

    def unwatch(self, root: Ending) -> None:
        """Forget `root`, because it has ended."""
        with self._lock:
            self._open.pop(root, None)
            # An ended root would stay in the heap, with all its application made, until it is due.
            if len(self._due) > 2 * len(self._open) + _FEW:
                self._due = [each for each in self._due if not each.ended]
                heapq.heapify(self._due)

    def sweep(self) -> float | None:
        """Do deferred work and end what is due; seconds until more is due, None if nothing is."""
        while True:
            try:
                work = self._inbox.get_nowait()
            except queue.Empty:
                break
            _do(work)
        while True:
            with self._lock:
                if not self._due:
                    return None
                root = self._due[0]
                now = root.clock()
                if root.due > now:
                    return (root.due - now) / _NS
                heapq.heappop(self._due)
                if root.ended:
                    continue
                due = root.due_ns(now)
                if due is not None and due > now:
                    self._push(root, due)
                    continue
            _do(root.finish)

    def finish_all(self) -> None:
        """End every open root; runs at interpreter exit, before the provider's own shutdown."""
        self.sweep()
        with self._lock:
            roots = list(self._open)
        for root in roots:
            _do(root.finish)

    def after_fork(self) -> None:
        """In a forked child: forget the parent's roots, its queue and its thread."""
        for root in list(self._open):
            root.forget()
        self._reset()

    def _push(self, root: Ending, due: int) -> None:
        root.due = due  # of one that is not in the heap
        heapq.heappush(self._due, root)

    def _serve(self) -> None:
        inbox = self._inbox
        while True:
            try:
                work = inbox.get(timeout=self.sweep())
            except queue.Empty:
                continue
            _do(work)


def _do(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception as error:
        shield.report("ending an application span", error)


keeper = Keeper()
