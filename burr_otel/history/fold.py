"""Records of one run, in file order -> spans. Pure: no files, no clock.

Logs are read as they are found: records of several sessions interleaved, begins without an end
(the process died, or still runs), ends without a begin (torn logs, old Burr versions), and logs of
Burr's own client, which have neither sessions nor trace ids.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from burr_otel.history.settle import Alive, settle
from burr_otel.history.tree import OK, RUNNING, SessionNode, SpanNode
from burr_otel.records import (
    BeginInner,
    BeginRoot,
    BeginStep,
    DamageError,
    EndInner,
    EndRoot,
    EndStep,
    Logged,
    SpanIds,
    StreamMark,
    StreamTimes,
    Zone,
    read,
    writer_zone,
)
from burr_otel.store import StoredRun

LOST: Final = "(begin not recorded)"
_SHORT_NS: Final = 1_000
_FIRST_ITEM, _END_STREAM = "first_item_stream", "end_stream"


@dataclasses.dataclass
class _Open:
    """What is kept of a session while its records come in."""

    node: SessionNode
    steps: dict[int, SpanNode] = dataclasses.field(default_factory=dict)
    begun_again: list[SpanNode] = dataclasses.field(default_factory=list)
    # By the step's number, the newest of each id of Burr's.
    inner: dict[int, dict[str, SpanNode]] = dataclasses.field(default_factory=dict)
    occurrences: dict[int, int] = dataclasses.field(default_factory=dict)
    ended_without_begin: set[SpanIds | int] = dataclasses.field(default_factory=set)
    prior: str | None = None
    state: EndStep | BeginRoot | None = None


class Fold:
    """Takes the records of one run and gives the spans that no later record changes.

    With `keep` False, spans that were given are forgotten, so that a log of any length takes little
    memory.
    """

    def __init__(
        self,
        project: str,
        app_id: str,
        *,
        keep: bool = True,
        zone: Zone | None = None,
    ) -> None:
        self.sessions: list[SessionNode] = []
        self.stray_ends = self.damaged = self.foreign = self._steps = 0
        self._name, self._app_id = f"invoke_workflow {project}", app_id
        self._keep, self._zone = keep, zone
        self._open: dict[str | None, _Open] = {}
        self._state: EndStep | BeginRoot | None = None  # the newest record that has one
        self._newest: _Open | None = None  # the session of the newest step
        self._handlers: dict[type, Callable[[_Open, Any], list[SpanNode]]] = {
            BeginStep: self._begin_step,
            EndStep: self._end_step,
            BeginInner: self._begin_inner,
            EndInner: self._end_inner,
            Logged: self._log,
            StreamMark: self._mark,
            EndRoot: self._end_root,
        }

    @classmethod
    def of_run(cls, run: StoredRun, *, keep: bool = True) -> Fold:
        """One that takes times without a zone for those of the run's writer."""
        zone = functools.cache(lambda: writer_zone(run.records()))
        return cls(run.project, run.app_id, keep=keep, zone=zone)

    def spans(self, records: Iterable[Mapping[str, Any]], alive: Alive) -> Iterator[SpanNode]:
        """All spans of a run, each as soon as it is complete."""
        for record in records:
            yield from self.add(record)
        yield from self.finish(alive)

    def add(self, raw: Mapping[str, Any]) -> list[SpanNode]:
        """Take the next record, and give the spans that it completes, those inside others first."""
        if not isinstance(raw.get("type"), str):
            return []
        try:
            record = read(raw, self._zone)
            return [] if record is None else self._take(record)
        except (DamageError, KeyError, TypeError, ValueError, AttributeError, OverflowError):
            self.damaged += 1
            return []

    def finish(self, alive: Alive) -> list[SpanNode]:
        """Decide what is still open; give the spans that were not given yet."""
        found: list[SpanNode] = []
        for session in self._open.values():
            found += self._close_ended(session)
        for session in self._open.values():
            steps = [*session.begun_again, *session.steps.values()]
            settle(session.node, steps, alive)
            for step in steps:
                inner = [span for span, depth in step.walk() if depth and not span.is_foreign]
                found += [*reversed(inner), step]
            found.append(session.node)
        return found

    def _take(self, record: Any) -> list[SpanNode]:
        if record.session is not None and type(record.session) is not str:
            raise TypeError("a session's id is a text")
        if isinstance(record, BeginRoot):
            self._begin_root(record)
            return []
        if not isinstance(record, EndRoot) and type(record.sequence_id) is not int:
            raise TypeError("a step's number is an integer")
        session = self._session_of(record)
        session.node.last_record_ns = max(session.node.last_record_ns, record.time_ns)
        return self._handlers[type(record)](session, record)

    # --- sessions -------------------------------------------------------------------------------

    def _session_of(self, record: Any) -> _Open:
        session = self._open.get(record.session)
        if session is None and isinstance(record, BeginInner | EndInner | Logged | StreamMark):
            session = self._newest if record.session is None else None
        if session is None:
            session = self._new_session(record.session, record.time_ns)
            session.node.begun = False
            origin, root = getattr(record, "origin", None), getattr(record, "root_span_id", None)
            if origin is not None and root is not None:  # its own record is lost
                session.node.ids = origin.ids._replace(span_id=root)
        return session

    def _new_session(self, key: str | None, time_ns: int) -> _Open:
        node = SessionNode(
            "application",
            self._name,
            time_ns,
            outcome=RUNNING,
            app_id=self._app_id,
            session=key,
            last_record_ns=time_ns,
            previous=self.sessions[-1] if self.sessions else None,
        )
        self.sessions.append(node)
        self._open[key] = _Open(node)
        return self._open[key]

    def _begin_root(self, record: BeginRoot) -> None:
        session = self._open.get(record.session)
        if session is None:
            session = self._new_session(record.session, record.time_ns)
        node = session.node
        if node.begin is not None:
            self.damaged += 1
            return
        node.begin, node.begun, node.start_ns = record, True, record.time_ns
        node.last_record_ns = max(node.last_record_ns, record.time_ns)
        forked = self._open.get(record.fields.get("forked_from"))
        if forked is not None and forked is not session:
            node.donor = forked.node
        if record.origin is not None:
            node.ids, node.links = record.origin.ids, list(record.origin.links)
        if record.state is not None:
            session.state = self._state = record

    def _end_root(self, session: _Open, record: EndRoot) -> list[SpanNode]:
        node = session.node
        if record.outcome == "crashed":
            node.recovered = True
        # A second end is that of a step which a killed process left open when the first had come.
        if node.end is None:
            node.end, node.end_ns, node.outcome = record, record.time_ns, record.outcome
            node.usage = record.usage
        return []

    # --- steps ----------------------------------------------------------------------------------

    def _begin_step(self, session: _Open, record: BeginStep) -> list[SpanNode]:
        found, number = self._close_ended(session), record.sequence_id
        step = session.steps.get(number)
        if step is not None and (step.begin is not None or step.end is not None):
            session.begun_again.append(session.steps.pop(number))
            step = None
        if record.prior is None and "crc" not in record.otel:
            record = record._replace(prior=session.prior)
        ids = None if record.origin is None else record.origin.ids
        if (ids or number) in session.ended_without_begin:
            return found  # its end came first, in a log that was tampered with
        step = step or self._new_step(session, number, record.time_ns)
        step.name, step.begin, step.begun, step.ids = record.action, record, True, ids
        step.start_ns = record.time_ns or session.node.last_record_ns
        step.links = [] if record.origin is None else list(record.origin.links)
        step.touch(record.time_ns)
        # Another session's steps may stand between; its own last state is the one it saw.
        step.before = session.state or self._state
        return found

    def _new_step(self, session: _Open, number: int, time_ns: int) -> SpanNode:
        start_ns = time_ns or session.node.last_record_ns
        step = SpanNode(
            "step",
            LOST,
            start_ns,
            outcome=RUNNING,
            app_id=self._app_id,
            session=session.node.session,
            sequence_id=number,
            above=session.node,
            occurrence=session.occurrences.get(number, 0),
            order=self._steps,
            last_record_ns=start_ns,
            begun=False,
        )
        session.occurrences[number] = step.occurrence + 1
        self._steps += 1
        session.steps[number] = step
        self._newest = session
        if self._keep or not session.node.children:
            session.node.adopt(step)
        else:
            session.node.children[:] = [step]
        return step

    def _step_of(self, session: _Open, record: Any) -> SpanNode:
        """The step that a record speaks of; a stand-in for one whose begin is lost."""
        step = session.steps.get(record.sequence_id)
        if step is None:
            step = self._new_step(session, record.sequence_id, record.time_ns)
        return step

    def _end_step(self, session: _Open, record: EndStep) -> list[SpanNode]:
        number, node = record.sequence_id, session.node
        step = session.steps.get(number)
        if step is None or step.end is not None:
            step = self._new_step(session, number, record.time_ns)
        if step.begin is None:
            step.ids = record.ids
            session.ended_without_begin.add(record.ids or number)
            if not step.children and not step.marks:
                step.start_ns = max(record.time_ns - _SHORT_NS, min(record.time_ns, node.start_ns))
        if record.stream is None and step.marks:
            record = record._replace(stream=_stream_times(step.marks))
        step.name, step.end, step.usage = record.action, record, record.usage
        step.end_ns, step.outcome = record.time_ns or step.last_record_ns, record.outcome
        step.touch(record.time_ns)
        node.ended_late = node.end is not None
        node.steps_ended += 1
        node.steps_failed += step.is_bad
        node.last_step, node.last_failure = step, record.raised if step.is_bad else None
        if record.outcome == OK:
            session.prior = record.action
        if record.state is not None:
            session.state = self._state = record
        if node.session is None:
            return []  # Burr's client may tell attributes of a step and its spans after their ends
        del session.steps[number]
        return self._complete(session, step)

    def _close_ended(self, session: _Open) -> list[SpanNode]:
        """The steps of a log of Burr's own client of which nothing more will be said."""
        found: list[SpanNode] = []
        if session.node.session is None:
            for number, step in list(session.steps.items()):
                if step.end is not None:
                    del session.steps[number]
                    found += self._complete(session, step)
        return found

    def _complete(self, session: _Open, step: SpanNode) -> list[SpanNode]:
        """A step that has ended, behind the spans in it."""
        session.inner.pop(step.sequence_id or 0, None)
        if not step.children:
            return [step]
        inner = [span for span, depth in step.walk() if depth]
        for span in inner:
            if span.end is None:
                span.outcome, span.closed_ns = "abandoned", step.end_ns
                span.end_ns = step.end_ns
        return [*(span for span in reversed(inner) if not span.is_foreign), step]

    # --- spans inside steps -----------------------------------------------------------------------

    def _log(self, session: _Open, record: Logged) -> list[SpanNode]:
        step = self._step_of(session, record)
        # Old versions of Burr name the step itself as a span that never begins.
        target = session.inner.get(record.sequence_id, {}).get(record.span_id or "", step)
        target.logged.append(_with_time(record, target))
        target.touch(record.time_ns)
        step.touch(record.time_ns)
        return []

    def _mark(self, session: _Open, record: StreamMark) -> list[SpanNode]:
        step = self._step_of(session, record)
        step.marks.append(record)
        step.touch(record.time_ns)
        return []

    def _begin_inner(self, session: _Open, record: BeginInner) -> list[SpanNode]:
        step, origin = self._step_of(session, record), record.origin
        inner = session.inner.setdefault(record.sequence_id, {})
        above, earlier = inner.get(record.parent_span_id or "", step), inner.get(record.span_id)
        span = SpanNode(
            "span",
            record.name,
            record.time_ns or step.last_record_ns,
            outcome=RUNNING,
            app_id=self._app_id,
            session=step.session,
            sequence_id=step.sequence_id,
            burr_id=record.span_id,
            ids=None if origin is None else origin.ids,
            links=[] if origin is None else list(origin.links),
            begin=record,
            above=above,
            step=step,
            occurrence=0 if earlier is None else earlier.occurrence + 1,
            is_foreign="scope" in record.otel,
        )
        self.foreign += span.is_foreign
        inner[record.span_id] = span
        above.adopt(span)
        step.touch(span.start_ns)
        return []

    def _end_inner(self, session: _Open, record: EndInner) -> list[SpanNode]:
        span = session.inner.get(record.sequence_id, {}).get(record.span_id)
        if span is None or span.end is not None:
            self.stray_ends += 1
            return []
        span.end, span.outcome = record, record.outcome
        span.end_ns = record.time_ns or span.last_record_ns or span.start_ns
        step = session.steps.get(record.sequence_id)
        if step is not None:
            step.touch(record.time_ns)
        return []


def _with_time(record: Logged, target: SpanNode) -> Logged:
    return record if record.time_ns else record._replace(time_ns=target.last_record_ns)


def _stream_times(marks: list[StreamMark]) -> StreamTimes | None:
    """What a stream's marks tell, for a log whose steps' ends do not."""
    end = next((mark for mark in marks if mark.kind == _END_STREAM), None)
    first = next((mark for mark in marks if mark.kind == _FIRST_ITEM), None)
    if end is None and first is None:
        return None
    return StreamTimes(end.items or 0 if end else 0, first.time_ns if first else None, 0)
