"""The application span's life; the keeper ends those whose time has come.

Burr has no hook for the end of an application. A root ends at the first of: an explicit finish,
the collection of its application, interpreter exit, a time without activity, a longest time open.
Its end time is that of the last activity, whenever we notice.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import NonRecordingSpan, Status, StatusCode

from burr_otel import semconv
from burr_otel.spans import parents, recorded, shield
from burr_otel.spans.keeper import Keeper
from burr_otel.spans.shared import root_attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

__all__ = ["Root", "keeper"]

_NS = 1_000_000_000
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


@functools.lru_cache(maxsize=64)
def _in_ns(seconds: float | None) -> int | None:
    """The same object for all applications of a setting."""
    return None if seconds is None else int(seconds * _NS)


def _unheard(end_ns: int, outcome: str) -> None:
    """Nobody waits for the end of the span."""


keeper = Keeper()
