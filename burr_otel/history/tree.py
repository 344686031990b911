"""What a run's records become: spans in sessions, each with its begin and end record."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

from burr_otel import semconv
from burr_otel.records.types import (
    BeginInner,
    BeginRoot,
    BeginStep,
    EndInner,
    EndRoot,
    EndStep,
    LinkIds,
    Logged,
    Raised,
    SpanIds,
    StreamMark,
    Usage,
)

RUNNING: Final = "running"  # begun, not ended, and its writer lives
OK: Final = "ok"
ERROR: Final = "error"
CRASHED: Final = "crashed"
ABANDONED: Final = "abandoned"
BAD: Final = frozenset({ERROR, CRASHED, "failed"})

Kind = Literal["application", "step", "span"]


class LeftOut(NamedTuple):
    """Steps of a session that were not read: where among its children they were, and how many."""

    at: int
    steps: int
    failed: int | None  # None: not known


@dataclasses.dataclass(slots=True, eq=False)
class SpanNode:
    """A session's application span, a step, or a span inside a step.

    `end_ns` is None when no end was recorded, and `closed_ns` then says when a reader takes it to
    have ended; an inner span that its step left open has its step's end. `begun` is False when the
    begin record is lost, so that the start is a guess. `is_foreign` marks a span that other code
    made and the log only mentions. `occurrence` counts the earlier steps of its number in the
    session, or the earlier uses of its Burr id in the step, `order` all steps before it in the log.
    `before` is the record of the state that a step found. `failure`, `details` and `attributes`
    are what a view shows, see `view.content`. `above` is the span around it, `step` the step around
    an inner one at any depth; `below_ns` the latest time in it, once asked for. `left_out` is of a
    session of a long log, see `RunTree`.
    """

    kind: Kind
    name: str
    start_ns: int
    end_ns: int | None = None
    outcome: str = OK
    app_id: str = ""
    session: str | None = None
    sequence_id: int | None = None
    burr_id: str | None = None
    ids: SpanIds | None = None
    links: list[LinkIds] = dataclasses.field(default_factory=list)
    begin: BeginRoot | BeginStep | BeginInner | None = None
    end: EndRoot | EndStep | EndInner | None = None
    logged: list[Logged] = dataclasses.field(default_factory=list)
    marks: list[StreamMark] = dataclasses.field(default_factory=list)
    above: SpanNode | None = None
    step: SpanNode | None = None
    children: list[SpanNode] = dataclasses.field(default_factory=list)
    begun: bool = True
    is_foreign: bool = False
    occurrence: int = 0
    order: int = 0
    last_record_ns: int = 0
    closed_ns: int | None = None
    lives: bool = False
    before: EndStep | BeginRoot | None = None
    usage: Usage | None = None
    failure: Raised | None = None
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)
    below_ns: int | None = None
    left_out: LeftOut | None = None

    @property
    def is_bad(self) -> bool:
        """Whether it ended badly: an error, a failure, or a crash of its process."""
        return self.outcome in BAD

    @property
    def trace_id(self) -> str | None:
        """32 hex digits; None when it was never traced."""
        return None if self.ids is None else f"{self.ids.trace_id:032x}"

    @property
    def span_id(self) -> str | None:
        """16 hex digits, or None."""
        return None if self.ids is None else f"{self.ids.span_id:016x}"

    @property
    def last_ns(self) -> int:
        """Its end, or the last thing known of it when no end was recorded."""
        if self.end_ns is not None:
            return self.end_ns
        if self.below_ns is None:
            # Deepest first, and kept: each span of a chain would walk all of the chain below it.
            for span, _ in reversed([*self.walk()]):
                own = span.start_ns if span.end_ns is None else span.end_ns
                marks = (mark.time_ns for mark in span.marks)
                below = (each.below_ns or 0 for each in span.children)
                span.below_ns = max([own, *marks, *below])
        return max(self.start_ns, self.below_ns or 0)

    def adopt(self, child: SpanNode) -> None:
        """Take a span in, below this one."""
        self.children.append(child)
        self.forget_last()

    def forget_last(self) -> None:
        """Ask anew for the latest time in it, and in what it is in."""
        node: SpanNode | None = self
        while node is not None and node.below_ns is not None:
            node.below_ns, node = None, node.above

    def let_go(self) -> None:
        """Forget the records, which may hold megabytes; what a view shows was taken from them."""
        self.end = self.before = None
        self.logged = []
        if not isinstance(self.begin, BeginRoot):
            self.begin = None

    def touch(self, time_ns: int) -> None:
        """Note when a record about it was written."""
        self.last_record_ns = max(self.last_record_ns, self.start_ns, time_ns)

    def walk(self) -> Iterator[tuple[SpanNode, int]]:
        """This span and everything below it with its depth, in the order of drawing."""
        # A stack, not recursion: user code may nest spans deeper than Python recurses.
        stack = [(self, 0)]
        while stack:
            span, depth = stack.pop()
            yield span, depth
            stack.extend((child, depth + 1) for child in reversed(span.children))


@dataclasses.dataclass(slots=True, eq=False)
class SessionNode(SpanNode):
    """The application span of one session, and what else is known of the session.

    `donor` is the session whose application span a forked process goes on with, `previous` the one
    before this one in the log. `last_failure` is what the last step raised, if it failed.
    `ended_late` tells that the last step ended, or stands open, after the application span had
    ended; `recovered` that another process has completed what this one's left open.
    """

    donor: SessionNode | None = None
    previous: SessionNode | None = None
    last_step: SpanNode | None = None
    last_failure: Raised | None = None
    steps_ended: int = 0
    steps_failed: int = 0
    recovered: bool = False
    ended_late: bool = False

    @property
    def initial(self) -> str | None:
        """What a spawned application began with beyond its step's state, as its span says it."""
        shown = self.begin.about.get("shown") if isinstance(self.begin, BeginRoot) else None
        told = shown.get(semconv.STATE_INITIAL) if isinstance(shown, dict) else None
        return told if isinstance(told, str) else None

    @property
    def top(self) -> SessionNode:
        """The session whose application span this one's steps hang off."""
        node = self
        while node.donor is not None:
            node = node.donor
        return node


@dataclasses.dataclass(frozen=True, slots=True)
class Pointer:
    """Another run, and the step of it where the two meet."""

    app_id: str
    sequence_id: int | None = None
    partition_key: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ChildRun:
    """A run that was forked from a step of this one, or spawned by it."""

    app_id: str
    kind: Literal["fork", "spawn"]
    sequence_id: int | None


@dataclasses.dataclass(slots=True)
class RunTree:
    """One stored run.

    `skipped` says of each part of the log that could not be read why; `stray_ends` counts ends of
    spans that never began, which logs of old Burr versions have. Of a long log only both ends may
    have been read; the session where the first one ends then has `left_out`.
    """

    project: str
    app_id: str
    place: str
    partition_key: str | None = None
    sessions: list[SpanNode] = dataclasses.field(default_factory=list)
    forked_from: Pointer | None = None
    spawned_by: Pointer | None = None
    children: list[ChildRun] = dataclasses.field(default_factory=list)
    skipped: list[str] = dataclasses.field(default_factory=list)
    stray_ends: int = 0

    def walk(self) -> Iterator[tuple[SpanNode, int]]:
        """Every span with its depth, in the order of drawing."""
        for session in self.sessions:
            yield from session.walk()

    @property
    def steps(self) -> list[SpanNode]:
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
        return run_outcome(self.sessions)

    @property
    def active_ns(self) -> int:
        """Time that its sessions took together, without the pauses between them."""
        return sum(
            # Steps may follow after the session's own span has ended by idling.
            max([session.last_ns, *(step.last_ns for step in session.children)]) - session.start_ns
            for session in self.sessions
        )


def run_outcome(sessions: Sequence[SpanNode]) -> str:
    """How the session that did something last ended, or stands."""
    acted = [
        (each.children[-1].last_record_ns, at) for at, each in enumerate(sessions) if each.children
    ]
    newest = max(acted)[1] if acted else -1
    for session in reversed(sessions[newest + 1 :]):
        if session.outcome != OK:
            return session.outcome
    if not acted:
        return OK
    session = sessions[newest]
    if getattr(session, "ended_late", False):
        return session.children[-1].outcome
    return session.outcome
