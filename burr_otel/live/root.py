"""The life of an application span.

Burr has no hook for the end of an application. A root ends at the first of: an explicit finish,
the collection of its application, interpreter exit, a time without activity, a longest time open.
Its end time is that of the last activity, whenever we notice.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from burr_otel import semconv
from burr_otel.records import BeginRoot, EndRoot, Usage
from burr_otel.spans import describe, keeper, shield
from burr_otel.spans.scope import ids_of
from burr_otel.spans.start import LiveSpan, unseen

if TYPE_CHECKING:
    from burr_otel.live.shared import Shared
    from burr_otel.spans.facts import RunFacts
    from burr_otel.store import Session

_NS = 1_000_000_000
_NO_USAGE = Usage(0, 0, 0)


class Root:
    """One application span, from its start to its end."""

    __slots__ = (
        "__weakref__",
        "_active",
        "_error",
        "_failed",
        "_idle_since",
        "_last_ns",
        "_linger_ns",
        "_lock",
        "_max_open_ns",
        "_metrics",
        "_opened_at",
        "_outcome",
        "_said",
        "_steps",
        "_usage",
        "begin",
        "clock",
        "context",
        "ended",
        "facts",
        "graph",
        "ids",
        "is_valid",
        "session",
        "span",
        "stand_in",
    )

    def __init__(
        self, shared: Shared, span: LiveSpan, begin: BeginRoot, facts: RunFacts, graph: Any
    ) -> None:
        self._metrics = shared.metrics
        self.span, self.begin, self.facts, self.graph = span, begin, facts, graph
        self.context = span.get_span_context()
        self.is_valid = self.context.is_valid
        self.ids = ids_of(self.context)
        self.stand_in = trace.NonRecordingSpan(self.context)  # the parent of steps
        self.session: Session | None = None  # there is no store, or none that works
        self.ended = False
        self.clock = shared.idle_clock
        self._opened_at = self._idle_since = self.clock()
        self._last_ns = begin.time_ns
        self._linger_ns = _in_ns(shared.config.root_linger)
        self._max_open_ns = _in_ns(shared.config.root_max_open)
        self._active = self._steps = self._failed = 0
        self._outcome = semconv.OK
        self._error: tuple[str | None, str | None] = (None, None)
        self._usage = _NO_USAGE
        self._said: dict[str, Any] | None = None
        self._lock = threading.RLock()  # reentrant: a finaliser may run inside

    @property
    def busy(self) -> bool:
        """Whether a step is in progress."""
        return self._active > 0

    def touch(self, now_ns: int) -> None:
        """Note activity."""
        self._last_ns = max(self._last_ns, now_ns)
        self._idle_since = self.clock()

    def enter(self, now_ns: int) -> None:
        """Note that a step begins."""
        with self._lock:
            self._active += 1
            self._last_ns = max(self._last_ns, now_ns)

    def leave(self, now_ns: int, outcome: str, error: tuple[str | None, str | None]) -> None:
        """Note that a step has ended; `error` is the type and the text of its failure."""
        with self._lock:
            self._active -= 1
            self._steps += 1
            self._failed += outcome in (semconv.ERROR, semconv.FAILED)
            self._outcome, self._error = outcome, error
            self._last_ns = max(self._last_ns, now_ns)
            self._idle_since = self.clock()

    def fail(self, kind: str, text: str) -> None:
        """Note a failure between steps: it is the application's outcome unless a step follows."""
        self._outcome, self._error = semconv.ERROR, (kind, text)

    def add_usage(self, usage: Usage) -> None:
        """Add what a step's models took and gave."""
        with self._lock:
            self._usage = Usage(*(a + b for a, b in zip(self._usage, usage, strict=True)))

    def say(self, attributes: Mapping[str, Any]) -> None:
        """Note attributes for its end that no record of its own would tell."""
        self._said = {**(self._said or {}), **attributes}

    def said(self, name: str) -> bool:
        """Whether such an attribute has been noted."""
        return self._said is not None and name in self._said

    def due_ns(self, now: int) -> int | None:
        """When, by `clock`, it should end if nothing more happens; None: not by itself."""
        with self._lock:
            due = None
            if self._linger_ns is not None:
                due = (now if self._active else self._idle_since) + self._linger_ns
            if self._max_open_ns is not None:
                latest = self._opened_at + self._max_open_ns
                due = latest if due is None else min(due, latest)
            return due

    def finish(self) -> None:
        """End the span at the time of its last activity; idempotent."""
        with self._lock:
            if self.ended:
                return
            self.ended = True
            record = self._end_record()
            span, self.span = self.span, unseen(self.context)
            try:
                told = functools.partial(describe.root, self.facts, self.graph, self.begin, record)
                span.finish(told, record.time_ns)
                seconds = (record.time_ns - self.begin.time_ns) / 1e9
                self._metrics.application_ended(record.outcome, record.error_type, seconds)
            except Exception as error:
                shield.report("ending an application span", error)
        keeper.keeper.unwatch(self)
        if self.session is not None:
            self.session.end(record)
            if self._active:  # a process that dies within the step leaves it to another one
                self.session.mark_open(self.ids, record.time_ns)
                if not self._active:  # another thread has ended the step meanwhile
                    self.session.unmark()
        # The application may live on for long; nobody asks its span for more than its context.
        self._said = None

    def _end_record(self) -> EndRoot:
        kind, text = self._error if self._outcome != semconv.OK else (None, None)
        return EndRoot(
            describe.soonest_end(self.begin.time_ns, self._last_ns),
            self._outcome,
            self.ids,
            self._steps,
            self._failed,
            text,
            kind,
            self._usage if self._usage.calls else None,
            self._said or {},
            self.span.user_data(),
        )

    def forget(self) -> None:
        """In a forked child: the span is the parent's to end, and so may its lock be."""
        self.ended = True
        self._lock = threading.RLock()


@functools.lru_cache(maxsize=64)
def _in_ns(seconds: float | None) -> int | None:
    """The same object for all applications of a setting."""
    return None if seconds is None else int(seconds * _NS)
