"""What a view draws: spans, and runs made of them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from burr_otel import semconv

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["RUNNING", "UNFINISHED", "Child", "Failure", "Mark", "Pointer", "RunView", "ViewSpan"]

RUNNING = "running"  # begun, not ended, and its writer lives
UNFINISHED = "unfinished"  # an inner span whose step ended and which itself never did

Kind = Literal["application", "step", "span"]


@dataclasses.dataclass(slots=True)
class Mark:
    """A moment within a span.

    Attributes:
        name: What happened, for instance ``first item``.
        time_ns: When, in nanoseconds since the epoch.
        items: How many stream items there had been, when the record tells.
    """

    name: str
    time_ns: int
    items: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """Why a step failed.

    Attributes:
        type: Class name of the exception, or an empty string.
        message: Its message.
        stacktrace: The whole traceback as recorded.
    """

    type: str
    message: str
    stacktrace: str

    def __str__(self) -> str:
        return (
            f"{self.type}: {self.message}"
            if self.type and self.message
            else self.type or self.message
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Pointer:
    """Another run, and the step of it (or of this run, for a `Child`) where they meet."""

    app_id: str
    sequence_id: int | None = None
    partition_key: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Child:
    """A run that began in this one.

    Attributes:
        app_id: The child.
        kind: Whether it was forked from a step's state or spawned by a running step.
        sequence_id: The step of this run.
    """

    app_id: str
    kind: Literal["fork", "spawn"]
    sequence_id: int | None


@dataclasses.dataclass(slots=True, eq=False)
class ViewSpan:
    """One bar of the waterfall.

    Attributes:
        kind: An application session, a step, or a span within a step.
        name: Name as recorded, not yet fit for a terminal (see `burr_otel.view.text`).
        start_ns: Nanoseconds since the epoch.
        end_ns: The same, or ``None`` when no end was recorded; an unfinished span has its step's.
        outcome: One of the outcomes of `burr_otel.semconv`, or ``running`` or ``unfinished``.
        app_id: The run that it belongs to (a spawned run is drawn within its parent).
        session: Id of the session that wrote it; ``None`` in logs of plain Burr.
        sequence_id: Step number, for steps and the spans within them.
        burr_id: Burr's own id of an inner span.
        trace_id: 32 hex digits, or ``None`` when it was never traced.
        span_id: 16 hex digits, or ``None``.
        links: Spans of other traces that it is linked to, as recorded (ids and link type).
        failure: The exception of a failed step.
        attributes: What was logged on it.
        details: Inputs, result and written state of a step, when they were asked for.
        marks: Stream marks in order.
        children: Spans within it, in the order in which they began.
        begun: Whether its begin was recorded; else its start is a guess.
        lives: Of a session: whether whoever writes it still lives.
    """

    kind: Kind
    name: str
    start_ns: int
    end_ns: int | None = None
    outcome: str = semconv.OK
    app_id: str = ""
    session: str | None = None
    sequence_id: int | None = None
    burr_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    links: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    failure: Failure | None = None
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    marks: list[Mark] = dataclasses.field(default_factory=list)
    children: list[ViewSpan] = dataclasses.field(default_factory=list)
    begun: bool = True
    lives: bool = False

    @property
    def failed(self) -> bool:
        """Whether it ended badly: an error, or a crash of its process."""
        return self.outcome in (semconv.ERROR, semconv.CRASHED)

    @property
    def last_ns(self) -> int:
        """Its end, or the last thing known of it when no end was recorded."""
        if self.end_ns is not None:
            return self.end_ns
        latest = self.start_ns
        for span, _ in self.walk():
            own = span.start_ns if span.end_ns is None else span.end_ns
            latest = max(latest, own, *(mark.time_ns for mark in span.marks))
        return latest

    def walk(self) -> Iterator[tuple[ViewSpan, int]]:
        """This span and everything below it with its depth, in the order of drawing."""
        # A stack, not recursion: user code may nest spans deeper than Python recurses.
        stack = [(self, 0)]
        while stack:
            span, depth = stack.pop()
            yield span, depth
            stack.extend((child, depth + 1) for child in reversed(span.children))


@dataclasses.dataclass(slots=True)
class RunView:
    """One stored run.

    Attributes:
        project: Its project.
        app_id: Its application id.
        path: Folder of its files.
        partition_key: Its partition key.
        sessions: One application span for each session, in file order.
        forked_from: The run and step that it was forked from.
        spawned_by: The run and step that spawned it.
        children: Runs forked from it or spawned by it.
        skipped: Why parts of its log could not be read, one text each.
        stray_ends: How many spans ended that never began (logs of old Burr versions have them).
    """

    project: str
    app_id: str
    path: str
    partition_key: str | None = None
    sessions: list[ViewSpan] = dataclasses.field(default_factory=list)
    forked_from: Pointer | None = None
    spawned_by: Pointer | None = None
    children: list[Child] = dataclasses.field(default_factory=list)
    skipped: list[str] = dataclasses.field(default_factory=list)
    stray_ends: int = 0

    def walk(self) -> Iterator[tuple[ViewSpan, int]]:
        """Every span with its depth, in the order of drawing."""
        for session in self.sessions:
            yield from session.walk()

    @property
    def steps(self) -> list[ViewSpan]:
        """The run's own steps, in the order in which they began."""
        return [
            span
            for session in self.sessions
            for span in session.children
            if span.kind == "step" and span.app_id == self.app_id
        ]

    @property
    def outcome(self) -> str:
        """How the newest session that did anything ended, or stands."""
        for session in reversed(self.sessions):
            if session.children:
                last = session.children[-1]
                later = session.end_ns is not None and last.start_ns >= session.end_ns
                return last.outcome if later else session.outcome
            if session.outcome != semconv.OK:
                return session.outcome
        return semconv.OK

    @property
    def active_ns(self) -> int:
        """Time that its sessions took together, without the pauses between them."""
        return sum(
            # Steps may follow after the session's own span has ended by idling.
            max([session.last_ns, *(step.last_ns for step in session.children)]) - session.start_ns
            for session in self.sessions
        )
