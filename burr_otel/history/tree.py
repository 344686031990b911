"""What a run's records become: spans in sessions, and what of them still runs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from burr_otel import semconv
from burr_otel.config import OtelConfig
from burr_otel.records import (
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
from burr_otel.store import StoredRun

RUNNING: Final = "running"  # begun, not ended, and its writer lives
BAD: Final = frozenset({semconv.ERROR, semconv.CRASHED, semconv.FAILED})


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
    an inner one at any depth. `left_out` is of a session of a long log, see `RunTree`.
    """

    kind: Literal["application", "step", "span"]
    name: str
    start_ns: int
    end_ns: int | None = None
    outcome: str = semconv.OK
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
        return max(self.start_ns, self.last_record_ns) if self.end_ns is None else self.end_ns

    def adopt(self, session: SpanNode) -> None:
        """Take in the session of a run that this step spawned; it may outlast all else in here."""
        self.children = sorted([*self.children, session], key=lambda span: span.start_ns)
        session.above = self
        node: SpanNode | None = self
        while node is not None:
            if node.end_ns is None:
                node.touch(session.last_ns)
            node = node.above

    def let_go(self) -> None:
        """Forget the records, which may hold megabytes; what a view shows was taken from them."""
        self.begin = self.end = self.before = None
        self.logged = []

    def touch(self, time_ns: int) -> None:
        """Note when a record about it, or about what is in it, was written."""
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

    The fields from `open_steps` on are kept while its records come in: the steps of which more may
    be said, by number; those that were begun again; the newest inner span of each id of Burr's, by
    the step's number; and the newest record with a state.
    """

    donor: SessionNode | None = None
    previous: SessionNode | None = None
    last_step: SpanNode | None = None
    last_failure: Raised | None = None
    steps_ended: int = 0
    steps_failed: int = 0
    recovered: bool = False
    ended_late: bool = False
    open_steps: dict[int, SpanNode] = dataclasses.field(default_factory=dict)
    begun_again: list[SpanNode] = dataclasses.field(default_factory=list)
    inner: dict[int, dict[str, SpanNode]] = dataclasses.field(default_factory=dict)
    occurrences: dict[int, int] = dataclasses.field(default_factory=dict)
    ended_without_begin: set[SpanIds | int] = dataclasses.field(default_factory=set)
    prior: str | None = None
    state: EndStep | BeginRoot | None = None

    @property
    def root(self) -> BeginRoot:
        """Its first record; an empty one if that is lost, or in a log of Burr's own client."""
        return self.begin if isinstance(self.begin, BeginRoot) else BeginRoot({}, self.start_ns)

    @property
    def initial(self) -> str | None:
        """What a spawned application began with beyond its step's state, as its span says it."""
        shown = self.root.about.get("shown")
        told = shown.get(semconv.STATE_INITIAL) if isinstance(shown, dict) else None
        return told if isinstance(told, str) else None

    @property
    def top(self) -> SessionNode:
        """The session whose application span this one's steps hang off."""
        node = self
        while node.donor is not None:
            node = node.donor
        return node


def session_of(span: SpanNode) -> SessionNode:
    """The session that a span belongs to."""
    node = span.step or span
    session = node if isinstance(node, SessionNode) else node.above
    if not isinstance(session, SessionNode):
        raise TypeError(f"span {span.name!r} is in no session")
    return session


# --- what no record ended: whether it still runs, crashed, or is over -----------------------------

Alive = Callable[[Mapping[str, Any], int], bool]
"""Whether the writer of a session lives: the fields of its begin record (none when that is lost, or
in a log of Burr's own client) and the time of its last record."""


def writer_lives() -> Callable[[StoredRun], Alive]:
    """Gives what judges the sessions of a run."""
    # Of whom the store does not know it (another host, logs of Burr's client, which name no
    # process) is taken to live until it is silent for so long.
    dead_before_ns = OtelConfig.resolve().dead_before_ns(time.time_ns())

    def judge(run: StoredRun) -> Alive:
        def lives(fields: Mapping[str, Any], last_ns: int) -> bool:
            owner = fields.get("owner")
            known = run.owner_lives(owner) if isinstance(owner, Mapping) else None
            return last_ns > dead_before_ns if known is None else known

        return lives

    return judge


def settle(session: SessionNode, open_steps: Sequence[SpanNode], alive: Alive) -> None:
    """Give a session, and its steps without an end in their order, the outcome that they have."""
    is_burrs = session.session is None
    session.lives = not session.recovered and alive(session.root.fields, session.last_record_ns)
    newest = session.children[-1] if session.children else None
    for step in open_steps:
        # Burr's client has one endless session: a step that another one followed is over.
        lives = session.lives and (step is newest or not is_burrs)
        step.outcome = RUNNING if lives else semconv.CRASHED
        if not lives:
            last = session if step is open_steps[-1] else step
            step.closed_ns = last.last_record_ns
        for span, depth in reversed([*step.walk()]):
            if depth and span.end is None:
                span.outcome, span.closed_ns = step.outcome, step.closed_ns
            if depth and span.above is not None:
                span.above.touch(span.last_ns)
    if session.end is not None:
        session.ended_late = session.ended_late or bool(open_steps)
        return
    # Burr's client does not record when an application ends, nor that it goes on. A forked process
    # has no application span of its own: it ended between two steps.
    if is_burrs or (session.donor is not None and not session.lives and not open_steps):
        session.outcome = newest.outcome if newest is not None else semconv.OK
    else:
        session.outcome = RUNNING if session.lives else semconv.CRASHED
    if not session.lives:
        session.closed_ns = session.last_record_ns
