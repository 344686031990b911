"""The application span's life, and the one thread that ends those whose time has come.

Burr has no hook for the end of an application. A root ends at the first of: an explicit finish,
the collection of its application, interpreter exit, a time without activity, a longest time open.
Its end time is that of the last activity, whenever we notice.
"""

from __future__ import annotations

import atexit
import functools
import heapq
import os
import queue
import threading
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import NonRecordingSpan, Status, StatusCode

from burr_otel import semconv
from burr_otel.spans import parents, recorded, shield
from burr_otel.spans.shared import root_attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

__all__ = ["Keeper", "Root", "keeper"]

_NS = 1_000_000_000
_FEW = 16  # ended roots that are not worth clearing away
_NOTHING: Mapping[str, AttributeValue] = {}  # one for all


class Root:
    """One application span.

    Attributes:
        span: The span, recording or not.
        context: Its context.
        is_valid: Whether that is valid.
        stand_in: A span of the same context, which is the parent of steps.
        started_ns: Unix time of its start.
        ended: Whether it has been ended.
        last_activity_ns: Unix time of the last execute call, step or stream item.
        outcome: Outcome of the last finished step, the one that the application ended with.
        identity: The attributes that every span of the run carries.
        graph_says: What it says of the graph since its start.
        links: How many links it began with.
        on_end: Called once with the end time and the outcome.
        due: When the keeper looks at it next.
    """

    __slots__ = (
        "__weakref__",
        "_active",
        "_error",
        "_failed",
        "_linger_ns",
        "_lock",
        "_max_open_ns",
        "_steps",
        "clock",
        "context",
        "due",
        "ended",
        "graph_says",
        "identity",
        "is_valid",
        "last_activity_ns",
        "links",
        "on_end",
        "outcome",
        "span",
        "stand_in",
        "started_ns",
    )

    def __init__(
        self,
        span: Span,
        *,
        identity: dict[str, AttributeValue],
        started_ns: int,
        linger: float | None,
        max_open: float | None,
        clock: Callable[[], int],
    ) -> None:
        self.span = span
        self.context = span.get_span_context()
        self.is_valid = self.context.is_valid
        self.stand_in = NonRecordingSpan(self.context)
        self.ended = False
        self.last_activity_ns = started_ns
        self.outcome = semconv.OK
        self.clock = clock
        self.identity = identity
        self.graph_says: Mapping[str, AttributeValue] = _NOTHING
        self.links = 0
        self.started_ns = started_ns
        self._linger_ns = _in_ns(linger)
        self._max_open_ns = _in_ns(max_open)
        self.on_end: Callable[[int, str], None] = _unheard
        self.due = 0
        self._active = self._steps = self._failed = 0
        self._error: str | None = None
        self._lock = threading.RLock()  # reentrant: a finaliser may run inside

    def __lt__(self, other: Root) -> bool:
        """Whether the keeper looks at this one sooner; of equals, the elder one."""
        return (self.due, self.started_ns) < (other.due, other.started_ns)

    @property
    def busy(self) -> bool:
        """Whether a step is in progress."""
        return self._active > 0

    def touch(self, now_ns: int) -> None:
        """Note activity."""
        self.last_activity_ns = max(self.last_activity_ns, now_ns)

    def enter(self, now_ns: int) -> None:
        """Note that a step begins."""
        with self._lock:
            self._active += 1
            self.last_activity_ns = max(self.last_activity_ns, now_ns)

    def leave(self, now_ns: int, outcome: str, error: str | None) -> None:
        """Note that a step has ended.

        Args:
            now_ns: When.
            outcome: One of the outcomes in `semconv`.
            error: Text of the step's failure, for the status, if it failed.
        """
        with self._lock:
            self._active -= 1
            self._steps += 1
            self._failed += outcome == semconv.ERROR
            self.outcome, self._error = outcome, error
            self.last_activity_ns = max(self.last_activity_ns, now_ns)

    def due_ns(self, now_ns: int) -> int | None:
        """When this root should end if nothing more happens; `None`: not by itself."""
        with self._lock:
            due = None
            if self._linger_ns is not None:
                since = now_ns if self._active else self.last_activity_ns
                due = since + self._linger_ns
            if self._max_open_ns is not None:
                latest = self.started_ns + self._max_open_ns
                due = latest if due is None else min(due, latest)
            return due

    def finish(self) -> None:
        """End the span at the time of its last activity; idempotent."""
        with self._lock:
            if self.ended:
                return
            self.ended = True
            # Jaeger warns of a duration that is not positive.
            end_ns = max(self.last_activity_ns, self.started_ns + 1)
            try:
                self.span.set_attributes(
                    {
                        semconv.STEPS: self._steps,
                        semconv.STEPS_FAILED: self._failed,
                        semconv.OUTCOME: self.outcome,
                        **self.identity,
                    }
                )
                if self.outcome == semconv.ERROR:
                    self.span.set_status(Status(StatusCode.ERROR, self._error))
                self.span.end(end_ns)
            except Exception as error:
                shield.report("ending an application span", error)
        self.on_end(end_ns, self.outcome)
        # The application may live on for long; nobody asks its span for more than its context.
        self.span = self.stand_in
        self.graph_says, self.on_end = _NOTHING, _unheard

    def end_record(self, end_ns: int, outcome: str) -> dict[str, Any]:
        """What the log's end record keeps of the span; see `recorded.end_record`."""
        return recorded.end_record(
            self.span,
            ids=parents.record_of(self.context),
            name=getattr(self.span, "name", ""),
            start_ns=self.started_ns,
            end_ns=end_ns,
            outcome=outcome,
            links=self.links,
            known={**self._known(), semconv.OUTCOME: outcome},
            bases={},
        )

    def _known(self) -> dict[str, AttributeValue]:
        """Attributes as a reader of the log knows them before the record of the span's end."""
        project, app_id = str(self.identity[semconv.PROJECT]), str(self.identity[semconv.APP_ID])
        # The identity has the partition key, too.
        return {**root_attributes(project, app_id, None), **self.identity, **self.graph_says}

    def forget(self) -> None:
        """In a forked child: the span is the parent's to end, and so may its lock be."""
        self.ended = True
        self._lock = threading.RLock()


class Keeper:
    """Ends roots when they are due, and does what finalisers may not do themselves.

    A finaliser can run inside any allocation, also while the same thread holds one of our locks.
    So it only puts its work into a `queue.SimpleQueue`, whose ``put`` is reentrant by design.
    """

    def __init__(self, *, threaded: bool = True) -> None:
        self._threaded = threaded
        self._reset()

    def _reset(self) -> None:
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._due: list[Root] = []
        self._lock = threading.RLock()
        self._open: dict[Root, None] = {}  # in order
        self._thread: threading.Thread | None = None

    def defer(self, work: Callable[[], None]) -> None:
        """Have `work` done soon by another thread (or the next `sweep`)."""
        self._inbox.put(work)

    def watch(self, root: Root) -> None:
        """Take charge of ending `root`."""
        with self._lock:
            self._open[root] = None
            due = root.due_ns(root.clock())
            if due is not None:
                self._push(root, due)
                self._inbox.put(_nothing)
            if self._threaded and self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="burr-otel", daemon=True)
                self._thread.start()

    def unwatch(self, root: Root) -> None:
        """Forget `root`, because it has ended."""
        with self._lock:
            self._open.pop(root, None)
            # An ended root would stay in the heap, with all its application made, until it is due.
            if len(self._due) > 2 * len(self._open) + _FEW:
                self._due = [each for each in self._due if not each.ended]
                heapq.heapify(self._due)

    def sweep(self) -> float | None:
        """Do deferred work and end what is due.

        Returns:
            Seconds until the next root is due, `None` when there is none.
        """
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

    def _push(self, root: Root, due: int) -> None:
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


@functools.lru_cache(maxsize=64)
def _in_ns(seconds: float | None) -> int | None:
    """The same object for all applications of a setting."""
    return None if seconds is None else int(seconds * _NS)


def _unheard(end_ns: int, outcome: str) -> None:
    """Nobody waits for the end of the span."""


def _nothing() -> None:
    """Wake the thread."""


def _do(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception as error:
        shield.report("ending an application span", error)


keeper = Keeper()


def register_exit() -> None:
    """Have roots ended at exit *before* the providers that exist by now shut down.

    `atexit` runs last in, first out, so this is called again whenever a provider came to be.
    """
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)


def _at_exit() -> None:
    keeper.finish_all()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: keeper.after_fork())  # noqa: PLW0108  # `keeper` is swapped in tests
