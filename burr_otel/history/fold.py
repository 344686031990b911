"""Records of one run, in file order -> spans. Pure: no files, no clock.

Logs are read as they are found: records of several sessions interleaved, begins without an end
(the process died, or still runs), ends without a begin (torn logs, old Burr versions), and logs of
Burr's own client, which have neither sessions nor trace ids.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from burr_otel import semconv
from burr_otel.history.tree import RUNNING, Alive, SessionNode, SpanNode, settle
from burr_otel.records import (
    BeginInner,
    BeginRoot,
    BeginStep,
    EndInner,
    EndRoot,
    EndStep,
    Logged,
    StreamMark,
    StreamTimes,
)
from burr_otel.records.read import DamageError, Zone, read, writer_zone
from burr_otel.store import StoredRun

LOST: Final = "(begin not recorded)"
_SHORT_NS: Final = 1_000


class Fold:
    """Takes the records of one run and gives the spans that no later record changes.

    With `keep` False, spans that were given are forgotten, so that a log of any length takes little
    memory.
    """

    def __init__(
        self, project: str, app_id: str, *, keep: bool = True, zone: Zone | None = None
    ) -> None:
        self.sessions: list[SessionNode] = []
        self.stray_ends = self.damaged = self.foreign = self._steps = 0
        self._name, self._app_id = f"invoke_workflow {project}", app_id
        self._keep, self._zone = keep, zone
        self._by_id: dict[str | None, SessionNode] = {}
        self._state: EndStep | BeginRoot | None = None  # the newest record that has one
        self._newest: SessionNode | None = None  # that of the newest step
        self._handlers: dict[type, Callable[[SessionNode, Any], list[SpanNode] | None]] = {
            BeginRoot: self._begin_root,
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
        zone = functools.cache(lambda: writer_zone(StoredRun(run.log).records()))
        return cls(run.project, run.app_id, keep=keep, zone=zone)

    def spans(self, records: Iterable[Mapping[str, Any]], alive: Alive) -> Iterator[SpanNode]:
        """All spans of a run, each as soon as it is complete."""
        for record in records:
            yield from self.add(record)
        yield from self.finish(alive)

    def add(self, raw: Mapping[str, Any]) -> list[SpanNode]:
        """Take the next record, and give the spans that it completes, those inside others first."""
        try:
            record = read(raw, self._zone)
            if record is None:
                return []
            session = self._session_of(record)
            session.touch(record.time_ns)
            return self._handlers[type(record)](session, record) or []
        except (DamageError, KeyError, TypeError, ValueError, AttributeError, OverflowError):
            self.damaged += 1
            return []

    def finish(self, alive: Alive) -> list[SpanNode]:
        """Decide what is still open; give the spans that were not given yet."""
        found: list[SpanNode] = []
        for session in self.sessions:
            found += self._close_ended(session)
            steps = [*session.begun_again, *session.open_steps.values()]
            settle(session, steps, alive)
            for step in steps:
                found += _with_inner(step)
            found.append(session)
            session.state = None
        return found

    # --- sessions -------------------------------------------------------------------------------

    def _session_of(self, record: Any) -> SessionNode:
        key = record.otel.get("session")
        if key is not None and type(key) is not str:
            raise TypeError("a session's id is a text")
        session = self._by_id.get(key)
        if session is None and isinstance(record, BeginInner | EndInner | Logged | StreamMark):
            session = self._newest if key is None else None
        if session is None:
            session = self._by_id[key] = SessionNode(
                "application",
                self._name,
                record.time_ns,
                outcome=RUNNING,
                app_id=self._app_id,
                session=key,
                begun=False,
                previous=self.sessions[-1] if self.sessions else None,
            )
            self.sessions.append(session)
            if isinstance(record, BeginStep) and record.origin and record.root_span_id is not None:
                session.ids = record.origin.ids._replace(span_id=record.root_span_id)
        return session

    def _begin_root(self, session: SessionNode, record: BeginRoot) -> None:
        if session.begin is not None:
            raise DamageError("a session begins once")
        session.begin, session.begun, session.start_ns = record, True, record.time_ns
        forked = self._by_id.get(record.fields.get("forked_from"))
        if forked is not None and forked.top is not session:
            session.donor = forked
        if record.origin is not None:
            session.ids, session.links = record.origin.ids, list(record.origin.links)
        if record.state is not None:
            session.state = self._state = record

    def _end_root(self, session: SessionNode, record: EndRoot) -> None:
        session.recovered = session.recovered or record.outcome == semconv.CRASHED
        # A second end is that of a step which a killed process left open when the first had come.
        if session.end is None:
            session.end, session.end_ns, session.outcome = record, record.time_ns, record.outcome
            session.usage = record.usage

    # --- steps ----------------------------------------------------------------------------------

    def _begin_step(self, session: SessionNode, record: BeginStep) -> list[SpanNode]:
        found, number = self._close_ended(session), record.sequence_id
        step = session.open_steps.get(number)
        if step is not None and (step.begin is not None or step.end is not None):
            session.begun_again.append(session.open_steps.pop(number))
            step = None
        if record.prior is None and "crc" not in record.otel:
            record = record._replace(prior=session.prior)
        ids = None if record.origin is None else record.origin.ids
        if (ids or number) in session.ended_without_begin:
            return found  # its end came first, in a log that was tampered with
        step = step or self._new_step(session, record)
        step.name, step.begin, step.begun, step.ids = record.action, record, True, ids
        step.start_ns = record.time_ns or session.last_record_ns
        step.links = [] if record.origin is None else list(record.origin.links)
        step.touch(record.time_ns)
        # Another session's steps may stand between; its own last state is the one it saw.
        step.before = session.state or self._state
        return found

    def _new_step(self, session: SessionNode, record: Any) -> SpanNode:
        start_ns, number = record.time_ns or session.last_record_ns, record.sequence_id
        step = SpanNode(
            "step",
            LOST,
            start_ns,
            outcome=RUNNING,
            app_id=self._app_id,
            session=session.session,
            sequence_id=number,
            above=session,
            occurrence=session.occurrences.get(number, 0),
            order=self._steps,
            last_record_ns=start_ns,
            begun=False,
        )
        session.occurrences[number] = step.occurrence + 1
        session.open_steps[number] = step
        self._steps += 1
        self._newest = session
        if not self._keep:
            session.children.clear()
        session.children.append(step)
        return step

    def _step_of(self, session: SessionNode, record: Any) -> SpanNode:
        """The step that a record speaks of; a stand-in for one whose begin is lost."""
        return session.open_steps.get(record.sequence_id) or self._new_step(session, record)

    def _end_step(self, session: SessionNode, record: EndStep) -> list[SpanNode]:
        number, step = record.sequence_id, self._step_of(session, record)
        if step.end is not None:
            step = self._new_step(session, record)
        if step.begin is None:
            step.ids = record.ids
            session.ended_without_begin.add(record.ids or number)
            if not step.children and not step.marks:
                earliest_ns = min(record.time_ns, session.start_ns)
                step.start_ns = max(record.time_ns - _SHORT_NS, earliest_ns)
        if record.stream is None and step.marks:
            record = record._replace(stream=_stream_times(step.marks))
        step.name, step.end, step.usage = record.action, record, record.usage
        step.end_ns, step.outcome = record.time_ns or step.last_record_ns, record.outcome
        step.touch(record.time_ns)
        session.ended_late = session.end is not None
        session.steps_ended += 1
        session.steps_failed += step.is_bad
        session.last_step, session.last_failure = step, record.raised if step.is_bad else None
        if record.outcome == semconv.OK:
            session.prior = record.action
        if record.state is not None:
            session.state = self._state = record
        # Burr's client may tell attributes of a step and its spans after their ends.
        return [] if session.session is None else self._complete(session, step)

    def _close_ended(self, session: SessionNode) -> list[SpanNode]:
        """The steps of a log of Burr's own client of which nothing more will be said."""
        ended = [step for step in session.open_steps.values() if step.end is not None]
        return [span for step in ended for span in self._complete(session, step)]

    def _complete(self, session: SessionNode, step: SpanNode) -> list[SpanNode]:
        """A step that has ended, behind the spans in it."""
        session.open_steps.pop(step.sequence_id or 0, None)
        session.inner.pop(step.sequence_id or 0, None)
        for span, depth in step.walk():
            if depth and span.end is None:
                span.outcome, span.closed_ns = semconv.ABANDONED, step.end_ns
                span.end_ns = step.end_ns
        return _with_inner(step)

    # --- spans inside steps -----------------------------------------------------------------------

    def _log(self, session: SessionNode, record: Logged) -> None:
        step = self._step_of(session, record)
        # Old versions of Burr name the step itself as a span that never begins.
        target = session.inner.get(record.sequence_id, {}).get(record.span_id or "", step)
        if not record.time_ns:
            record = record._replace(time_ns=target.last_ns)
        target.logged.append(record)
        target.touch(record.time_ns)
        step.touch(record.time_ns)

    def _mark(self, session: SessionNode, record: StreamMark) -> None:
        step = self._step_of(session, record)
        step.marks.append(record)
        step.touch(record.time_ns)

    def _begin_inner(self, session: SessionNode, record: BeginInner) -> None:
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
        above.children.append(span)
        step.touch(span.start_ns)

    def _end_inner(self, session: SessionNode, record: EndInner) -> None:
        span = session.inner.get(record.sequence_id, {}).get(record.span_id)
        if span is None or span.step is None or span.end is not None:
            self.stray_ends += 1
            return
        span.end, span.outcome = record, record.outcome
        span.end_ns = record.time_ns or span.last_ns
        span.step.touch(record.time_ns)


def _with_inner(step: SpanNode) -> list[SpanNode]:
    """A step behind the spans in it, the deepest first."""
    return [span for span, _ in step.walk()][::-1]


def _stream_times(marks: list[StreamMark]) -> StreamTimes | None:
    """What a stream's marks tell, for a log whose steps' ends do not."""
    end = next((mark for mark in marks if mark.kind == "end_stream"), None)
    first = next((mark for mark in marks if mark.kind == "first_item_stream"), None)
    if end is None and first is None:
        return None
    return StreamTimes(end.items or 0 if end else 0, first.time_ns if first else None, 0)
