"""A stored run as a tree, with the runs that it spawned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from burr_otel import semconv
from burr_otel.errors import BurrOtelError
from burr_otel.history.fold import Fold
from burr_otel.history.tree import Alive, LeftOut, SessionNode, SpanNode
from burr_otel.records import EndRoot
from burr_otel.store import StoredRun
from burr_otel.store.stored_run import Pointer

_MOST_NESTED_RUNS: Final = 200


class ChildRun(NamedTuple):
    """A run that was forked from a step of this one, or spawned by it."""

    app_id: str
    kind: str  # "fork" or "spawn"
    sequence_id: int | None


@dataclasses.dataclass(slots=True)
class RunTree:
    """One stored run.

    `skipped` says of each part of the log that could not be read why; `stray_ends` counts ends of
    spans that never began, which logs of old Burr versions have. Of a long log only both ends may
    have been read; the session where the first one ends then has `left_out`.
    """

    run: StoredRun
    sessions: list[SpanNode] = dataclasses.field(default_factory=list)
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
            if span.kind == "step" and span.app_id == self.run.app_id
        ]

    @property
    def outcome(self) -> str:
        """How the newest session that did anything ended, or stands."""
        return run_outcome(self.sessions)

    @property
    def active_ns(self) -> int:
        """Time that its sessions took together, without the pauses between them."""
        # Steps may follow after the session's own span has ended by idling.
        return sum(max(each.last_ns, each.last_record_ns) - each.start_ns for each in self.sessions)


def run_outcome(sessions: Sequence[SpanNode]) -> str:
    """How the session that did something last ended, or stands."""
    acted = [
        (each.children[-1].last_record_ns, at) for at, each in enumerate(sessions) if each.children
    ]
    newest = max(acted)[1] if acted else -1
    later = [each.outcome for each in sessions[newest + 1 :] if each.outcome != semconv.OK]
    if later or not acted:
        return later[-1] if later else semconv.OK
    session = sessions[newest]
    is_late = isinstance(session, SessionNode) and session.ended_late
    return session.children[-1].outcome if is_late else session.outcome


def read_run(
    run: StoredRun,
    alive: Alive,
    shown: Callable[[SpanNode], None] = lambda _: None,
    ends: tuple[int, int] | None = None,
) -> RunTree:
    """Read a run's log once, without the runs that it spawned (see `nest_spawned`).

    `shown` is given each span as soon as no later record changes it, and may take of it what a view
    shows; its records are let go of then, so that not all states of a run are held at once. With
    `ends`, only so many of its first and last steps are read.
    """
    fold = Fold.of_run(run)
    for span in fold.spans(run.records(ends), alive):
        shown(span)
        if span.kind != "application":
            span.let_go()
    if ends is not None and run.left_out and fold.sessions:
        _note_left_out(fold, ends[0], run.left_out)
    skipped = [
        f"{length:,} bytes at offset {offset:,}: {reason}" for offset, length, reason in run.skipped
    ]
    if fold.damaged:
        skipped.append(f"{fold.damaged:,} records could not be understood")
    return RunTree(run, list(fold.sessions), children_of(run), skipped, fold.stray_ends)


def _note_left_out(fold: Fold, first: int, steps: int) -> None:
    failed, session = None, fold.sessions[0]
    if len(fold.sessions) == 1 and isinstance(session.end, EndRoot) and not session.ended_late:
        failed = max(0, session.end.failed - session.steps_failed)
    for session in fold.sessions:
        for number, step in enumerate(session.children, 1):
            if step.order == first - 1:  # not there if what the log holds in its place is damaged
                session.left_out = LeftOut(number, steps, failed)


def nest_spawned(tree: RunTree, load: Callable[[str], RunTree | None]) -> None:
    """Put the sessions of spawned runs below the steps that spawned them, at any depth.

    `load` gives the tree of another run of the project, or None when it is gone; a run that cannot
    be read is named in `tree.skipped`, and those beyond the most are counted there.
    """
    seen = {tree.run.app_id}
    trees = [tree]
    for parent in trees:  # grows
        for child in parent.children:
            if child.kind != "spawn" or child.app_id in seen:
                continue
            seen.add(child.app_id)
            if len(seen) - 1 > _MOST_NESTED_RUNS:
                continue
            try:
                found = load(child.app_id)
            except (BurrOtelError, OSError) as error:
                tree.skipped.append(f"the spawned run {child.app_id!r}: {error}")
                continue
            if found is None:
                continue
            numbers = {each.sequence_id for each in parent.children if each.app_id == child.app_id}
            for session in found.sessions:
                step = _spawning_step(parent, numbers, session)
                if step is not None:
                    step.adopt(session)
            trees.append(found)
    more = len(seen) - 1 - _MOST_NESTED_RUNS
    if more > 0:
        tree.skipped.append(f"spawned runs, {more:,} of them; show draws each by its own app id")


def _spawning_step(parent: RunTree, numbers: set[int | None], session: SpanNode) -> SpanNode | None:
    """The step that a child's session ran in: one id may have been spawned again and again."""
    steps = [step for step in parent.steps if step.sequence_id in numbers]
    began_ns = session.start_ns
    around = (step for step in steps if step.start_ns <= began_ns <= (step.end_ns or began_ns))
    return next(around, steps[0] if steps else None)


def children_of(run: StoredRun) -> list[ChildRun]:
    """The runs that were forked from a run or spawned by it, each once."""
    found: dict[ChildRun, None] = {}
    for record in run.children:
        pointer, number = Pointer.read(record.get("child")), record.get("sequence_id")
        if pointer is not None:
            kind = "fork" if record.get("event_type") == "fork" else "spawn"
            found[ChildRun(pointer.app_id, kind, number if type(number) is int else None)] = None
    return list(found)
