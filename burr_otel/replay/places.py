"""Where the spans of a run stand: their ids, parents and links, as recorded or derived."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from burr_otel import semconv
from burr_otel.errors import BurrOtelError
from burr_otel.history.content import session_of
from burr_otel.history.fold import Fold
from burr_otel.history.read import pointer_of
from burr_otel.history.times import RecordTimes
from burr_otel.history.tree import Pointer, SessionNode, SpanNode
from burr_otel.records import BeginInner, BeginRoot, LinkIds, Origin, SpanIds
from burr_otel.replay.ids import DerivedIds
from burr_otel.store import Store, StoredRun

_MOST_REMEMBERED: Final = 64  # runs
_DEEPEST: Final = 200  # runs that spawn runs
_SAMPLED: Final = 1


class Places:
    """The ids, parents and links of the spans of one run."""

    def __init__(self, run: StoredRun, find_step: Callable[[Pointer, int], SpanIds | None]) -> None:
        self._run, self._find_step = run, find_step
        self._roots: dict[str | None, tuple[SpanIds, SpanIds | None]] = {}

    def of(self, span: SpanNode) -> Origin:
        """Ids, parent and links of a span."""
        if isinstance(span, SessionNode):
            return self._session(span.top)
        ids, origin = self.ids(span), getattr(span.begin, "origin", None)
        over = None if span.above is None else self.ids(span.above)
        if origin is not None and _is_sampled(origin.ids):
            return Origin(ids, origin.parent or over, origin.links)
        return Origin(ids, over, self._dependencies(span))

    def ids(self, span: SpanNode) -> SpanIds:
        """The ids of a span."""
        if isinstance(span, SessionNode):
            return self._root(span.top)[0]
        if span.ids is not None and _is_sampled(span.ids):
            return span.ids
        session = session_of(span)
        derived, trace_id = self._derived(session), self.ids(session).trace_id
        if span.kind == "step":
            return derived.step(trace_id, span.sequence_id or 0, span.occurrence)
        step = _step_of(span)
        place = step.sequence_id or 0, step.occurrence
        return derived.inner(trace_id, place, span.burr_id or "", span.occurrence)

    def _session(self, session: SessionNode) -> Origin:
        begin = session.begin
        if session.ids is not None and _is_sampled(session.ids):
            recorded = begin.origin if isinstance(begin, BeginRoot) else None
            return recorded or Origin(session.ids)
        ids, parent = self._root(session)
        fork = self._pointer(session, "parent_pointer", self._run.parent_pointer)
        before = session.previous
        last_step = None if before is None else before.last_step
        links = _links(
            (None if fork is None else self._find_step(fork, session.start_ns), semconv.LINK_FORK),
            (None if before is None else self.ids(before), semconv.LINK_RESUME),
            (None if last_step is None else self.ids(last_step), semconv.LINK_RESUME),
        )
        return Origin(ids, parent, links)

    def _root(self, session: SessionNode) -> tuple[SpanIds, SpanIds | None]:
        """Ids of an application span, and its derived parent."""
        if session.ids is not None and _is_sampled(session.ids):
            return session.ids, None
        found = self._roots.get(session.session)
        if found is None:
            run = self._run
            spawner = self._pointer(session, "spawning_parent_pointer", run.spawning_parent_pointer)
            parent = None if spawner is None else self._find_step(spawner, session.start_ns)
            derived = self._derived(session)
            if session.ids is not None:
                trace_id = session.ids.trace_id  # runs that it spawned have recorded this one
            else:
                trace_id = derived.trace_id() if parent is None else parent.trace_id
            if parent is not None and parent.trace_id != trace_id:
                parent = None
            found = self._roots[session.session] = derived.root(trace_id), parent
        return found

    def _pointer(self, session: SessionNode, name: str, default: Any) -> Pointer | None:
        begin = session.begin
        return pointer_of(
            begin.fields.get(name, default) if isinstance(begin, BeginRoot) else default
        )

    def _derived(self, session: SessionNode) -> DerivedIds:
        return DerivedIds(self._run.project, self._run.app_id, session.session)

    def _dependencies(self, span: SpanNode) -> tuple[LinkIds, ...]:
        if not isinstance(span.begin, BeginInner) or not span.begin.dependencies:
            return ()
        named: dict[str, SpanNode] = {}
        for other, _ in _step_of(span).walk():
            if other is not span and other.start_ns <= span.start_ns:
                named[other.name] = other
        wanted = [named[name] for name in span.begin.dependencies if name in named]
        return _links(*((self.ids(other), semconv.LINK_DEPENDENCY) for other in wanted))


def _step_of(span: SpanNode) -> SpanNode:
    return span.step or span


def _is_sampled(ids: SpanIds) -> bool:
    return bool(ids.flags & _SAMPLED)


def _links(*targets: tuple[SpanIds | None, str]) -> tuple[LinkIds, ...]:
    found: dict[tuple[int, int], LinkIds] = {}
    for ids, kind in targets:
        if ids is not None:
            found.setdefault((ids.trace_id, ids.span_id), LinkIds(ids, kind))
    return tuple(found.values())


class _Begun(NamedTuple):
    """A step of another run that has begun."""

    start_ns: int
    session: str | None
    occurrence: int
    ids: SpanIds | None


class _Relative(NamedTuple):
    """What is remembered of another run: its steps by number, and its sessions."""

    steps: dict[int, list[_Begun]]
    sessions: dict[str | None, SessionNode]
    run: StoredRun


class Relatives:
    """Finds steps of other runs of a project by Burr's pointers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, _Relative | None] = {}
        self._depth = 0

    def find_step(self, pointer: Pointer, before_ns: int) -> SpanIds | None:
        """The span of the step that a pointer names, of several the last begun by `before_ns`."""
        if self._depth >= _DEEPEST:
            return None
        relative = self._relative(pointer.app_id)
        number = -1 if pointer.sequence_id is None else pointer.sequence_id
        begun = [] if relative is None else relative.steps.get(number, [])
        if relative is None or not begun:
            return None
        earlier = [each for each in begun if each.start_ns <= before_ns]
        step = (earlier or begun[:1])[-1]
        if step.ids is not None and _is_sampled(step.ids):
            return step.ids
        self._depth += 1
        try:
            session = relative.sessions[step.session]
            trace_id = Places(relative.run, self.find_step).ids(session).trace_id
        finally:
            self._depth -= 1
        ids = DerivedIds(self._store.project, pointer.app_id, step.session)
        return ids.step(trace_id, number, step.occurrence)

    def _relative(self, app_id: str) -> _Relative | None:
        if app_id not in self._known:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.pop(next(iter(self._known)))
            self._known[app_id] = self._read(app_id)
        return self._known[app_id]

    def _read(self, app_id: str) -> _Relative | None:
        steps: dict[int, list[_Begun]] = {}

        def note(spans: Iterable[SpanNode]) -> None:
            for span in spans:
                if span.kind == "step" and span.begin is not None and span.sequence_id is not None:
                    begun = _Begun(span.start_ns, span.session, span.occurrence, span.ids)
                    steps.setdefault(span.sequence_id, []).append(begun)

        try:
            run = self._store.read(app_id)
            fold = Fold(run.project, run.app_id, keep=False, times=RecordTimes(run.records))
            for record in run.records():
                note(fold.add(record))
            note(fold.finish(lambda _fields, _last_ns: False))
        except (BurrOtelError, OSError):
            return None  # another store has it, or none
        for each in steps.values():
            each.sort(key=lambda step: step.start_ns)
        return _Relative(steps, {each.session: each for each in fold.sessions}, run)
