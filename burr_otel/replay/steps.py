"""Records of steps, and of what is inside them -> their spans."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import orjson
from opentelemetry.sdk.trace import Event, ReadableSpan

from burr_otel import semconv
from burr_otel.replay.content import Sayings
from burr_otel.replay.finished import exact_span, left_open, made_inner, made_step
from burr_otel.replay.parts import Counts, Opened, OpenStep, Session, otel_of, texts
from burr_otel.replay.sessions import source_of
from burr_otel.spans import parents, recorded

if TYPE_CHECKING:
    from opentelemetry.trace import Link, SpanContext
    from opentelemetry.util.types import AttributeValue

    from burr_otel.content import ContentPolicy

__all__ = ["StepReader", "exactly"]

_SHORT_NS: Final = 1_000


class StepReader:
    """Takes the records of steps and gives the spans that they complete.

    Args:
        policy: For what no record keeps.
        openinference: Whether such spans also carry ``input.value`` and ``output.value``.
        time_of: Gives the Unix time of a record in nanoseconds.
        counts: What is counted besides.
    """

    def __init__(
        self,
        policy: ContentPolicy,
        counts: Counts,
        *,
        openinference: bool,
        time_of: Callable[[Mapping[str, Any]], int | None],
    ) -> None:
        self._policy, self._counts = policy, counts
        self._openinference, self._time_of = openinference, time_of

    def begin_step(self, session: Session, record: Mapping[str, Any]) -> list[ReadableSpan]:
        """A step begins."""
        sequence_id, action, otel = record["sequence_id"], record["action"], otel_of(record)
        ended = self.close_ended(session)
        if sequence_id in session.steps:
            session.older.append(session.steps.pop(sequence_id))
        step = self._new_step(session, record, sequence_id, action)
        if step.context.span_id in session.without_begin:
            self._counts.stray += 1  # its end came first, in a log that was tampered with
            return ended
        session.steps[sequence_id] = step
        step.late = session.ended
        if "resource" in otel:  # of a forked process
            session.resource, session.scope = source_of(otel, session.resource)
        if "action" in otel:
            session.facts[action] = recorded.read_facts(action, otel["action"])
        facts = session.facts.get(action)
        reads, step.writes = session.reads_writes.get(action, ((), ()))
        if step.exact:
            known = {**(facts or {}), **step.identity}
            bases = {semconv.INPUTS: _json(record["inputs"])}
            step.attributes = recorded.read_attributes(known, otel, bases)
            if facts is not None:
                step.writes = texts(facts.get(semconv.ACTION_WRITES))
            return ended
        said = Sayings(self._policy, _facts(action, reads, step.writes))
        if session.prior is not None:
            said.attributes[semconv.GRAPH_NODE_PARENT_ID] = session.prior
        said.inputs(record["inputs"], openinference=self._openinference)
        step.attributes = said.done(step.identity)
        return ended

    def _new_step(
        self, session: Session, record: Mapping[str, Any], sequence_id: int, action: str
    ) -> OpenStep:
        otel = otel_of(record)
        occurrence = session.occurrences.get(sequence_id, 0)
        session.occurrences[sequence_id] = occurrence + 1
        trace_id = session.root.context.trace_id
        derived = session.ids.step(trace_id, sequence_id, occurrence)
        context, parent, links = _place(otel, derived, session.root.context)
        exact = recorded.is_exact(otel)
        start_ns = self._time_of(record) or session.last_ns
        return OpenStep(
            name=recorded.read_name(otel, action) if exact else self._policy.name(action),
            context=context,
            parent=parent,
            links=links,
            start_ns=start_ns,
            last_ns=start_ns,
            attributes={},
            exact=exact,
            action=action,
            sequence_id=sequence_id,
            identity={semconv.SEQUENCE_ID: sequence_id, **session.identity},
            occurrence=occurrence,
        )

    def _without_begin(
        self, session: Session, record: Mapping[str, Any], sequence_id: int, end_ns: int
    ) -> OpenStep:
        """A step of which only the end was recorded: nobody knows how long it took."""
        step = self._new_step(session, record, sequence_id, record["action"])
        step.begun = False
        step.start_ns = max(end_ns - _SHORT_NS, min(end_ns, session.root.start_ns))
        session.without_begin.add(step.context.span_id)
        step.attributes = dict(step.identity)
        if not step.exact:
            reads, step.writes = session.reads_writes.get(step.action, ((), ()))
            step.attributes |= _facts(step.action, reads, step.writes)
        return step

    def end_step(self, session: Session, record: Mapping[str, Any]) -> list[ReadableSpan]:
        """A step has ended, with a state or without."""
        otel = otel_of(record)
        sequence_id = record.get("sequence_id", record.get("action_sequence_id"))
        step = session.steps.get(sequence_id)
        end_ns = self._time_of(record) or session.last_ns
        if step is None or step.end is not None:
            step = self._without_begin(session, record, sequence_id, end_ns)
        failed = bool(record.get("exception"))
        outcome = otel.get("outcome") or (semconv.ERROR if failed else semconv.OK)
        session.done += 1
        session.failed += outcome == semconv.ERROR
        session.outcome, session.error, session.last_step = outcome, None, step.context
        if outcome == semconv.OK:
            session.prior = step.action
        step.end, step.end_ns = (record, outcome), end_ns
        if session.key is None:
            # Burr's own client may tell attributes of a step and of spans in it after their ends.
            session.steps[sequence_id] = step
            return []
        session.steps.pop(sequence_id, None)
        return self._close(session, step, record, outcome, end_ns)

    def close_ended(self, session: Session) -> list[ReadableSpan]:
        """The steps of a log of Burr's own client of which nothing more will be said."""
        found: list[ReadableSpan] = []
        for sequence_id, step in list(session.steps.items()):
            if step.end is not None and step.end_ns is not None:
                del session.steps[sequence_id]
                found += self._close(session, step, *step.end, step.end_ns)
        return found

    def _close(
        self,
        session: Session,
        step: OpenStep,
        record: Mapping[str, Any],
        outcome: str,
        end_ns: int,
    ) -> list[ReadableSpan]:
        otel, span = otel_of(record), None
        found = self._close_inner(session, step, semconv.ABANDONED, end_ns)
        if step.exact and recorded.is_exact(otel):
            state = None if record.get("exception") else record.get("state")
            bases = _content_of(record, state, step.writes if step.begun else ())
            span = exactly(
                self._counts, session, step, otel, end_ns, {semconv.OUTCOME: outcome}, bases
            )
        if span is None:
            self._counts.rebuilt += 1
            openinference = self._openinference
            span = made_step(
                session, step, record, outcome, end_ns, self._policy, openinference=openinference
            )
        session.error = span.status.description
        return [*found, span]

    # --- spans inside steps -----------------------------------------------------------------------

    def begin_span(self, session: Session, record: Mapping[str, Any]) -> list[ReadableSpan]:
        """A span inside a step begins."""
        step = session.steps.get(record["action_sequence_id"])
        otel, burr_id, own_name = otel_of(record), record["span_id"], record["span_name"]
        if "scope" in otel:
            self._counts.others += 1
            if step is not None:
                step.others.add(burr_id)
            return []
        if step is None:
            self._counts.stray += 1
            return []
        again = step.uses.get(burr_id, 0)
        step.uses[burr_id] = again + 1
        outer = step.inner.get(record.get("parent_span_id") or "", step)
        trace_id = session.root.context.trace_id
        derived = session.ids.inner(trace_id, step.sequence_id, step.occurrence, burr_id, again)
        context, parent, links = _place(otel, derived, outer.context)
        if context is derived:
            names = record.get("span_dependencies") or ()
            links = parents.links(
                *((step.siblings.get(name), semconv.LINK_DEPENDENCY) for name in names)
            )
        start_ns = self._time_of(record) or step.last_ns
        exact = recorded.is_exact(otel)
        step.inner[burr_id] = Opened(
            name=recorded.read_name(otel, own_name) if exact else self._policy.name(own_name),
            context=context,
            parent=parent,
            links=links,
            start_ns=start_ns,
            last_ns=start_ns,
            attributes=dict(step.identity),
            exact=exact,
        )
        step.siblings[own_name] = context
        step.touch(start_ns)
        return []

    def end_span(self, session: Session, record: Mapping[str, Any]) -> list[ReadableSpan]:
        """A span inside a step has ended."""
        step, burr_id = session.steps.get(record["action_sequence_id"]), record["span_id"]
        if step is not None and burr_id in step.others:
            return []
        inner = None if step is None else step.inner.get(burr_id)
        if step is None or inner is None or inner.end_ns is not None:
            self._counts.stray += 1
            return []
        otel, end_ns = otel_of(record), self._time_of(record) or inner.last_ns
        inner.end_ns = end_ns
        step.touch(end_ns)
        if not (inner.exact and recorded.is_exact(otel)):
            return []  # its step's end brings it, for attributes may follow
        span = exactly(self._counts, session, inner, otel, end_ns, {})
        if span is None:
            return []
        del step.inner[burr_id]
        return [span]

    def attribute(self, session: Session, record: Mapping[str, Any]) -> list[ReadableSpan]:
        """An attribute was logged on a step or on a span inside one."""
        step, burr_id = session.steps.get(record["action_sequence_id"]), record.get("span_id")
        if step is None:
            self._counts.stray += 1
            return []
        if burr_id in step.others:
            return []
        # Old versions of Burr name the step itself as a span that never begins.
        target = step.inner.get(burr_id or "", step)
        target.logged.append((record["key"], record.get("value")))
        target.touch(self._time_of(record) or 0)
        return []

    def stream_mark(self, session: Session, record: Mapping[str, Any]) -> list[ReadableSpan]:
        """A stream begins, gives its first item or ends."""
        step = session.steps.get(record["action_sequence_id"])
        time_ns = self._time_of(record)
        if step is None or time_ns is None:
            self._counts.stray += step is None
            return []
        step.touch(time_ns)
        if record["type"] == "first_item_stream":
            step.events.append(Event(semconv.EVENT_STREAM_FIRST_ITEM, {}, time_ns))
            if not step.exact:
                seconds = (time_ns - step.start_ns) / 1e9
                step.attributes[semconv.STREAM_TIME_TO_FIRST_ITEM] = seconds
        elif record["type"] == "end_stream":
            items: dict[str, AttributeValue] = {semconv.STREAM_ITEMS: record["items_streamed"]}
            step.events.append(Event(semconv.EVENT_STREAM_END, items, time_ns))
            if not step.exact:
                step.attributes.update(items)
        return []

    def leave(
        self, session: Session, outcome: str, end_ns: int | None = None
    ) -> list[ReadableSpan]:
        """The open steps, ended at the time of their last record.

        Args:
            session: Whose they are.
            outcome: How they ended, but those that began when the application span had ended:
                nothing but the death of their process leaves these open.
            end_ns: When the last one ended, if not then.
        """
        found: list[ReadableSpan] = []
        steps = list(session.open_steps())
        session.older.clear()
        session.steps.clear()
        for step in steps:
            last = end_ns is not None and step is steps[-1]
            step_end_ns = end_ns if last and end_ns is not None else step.last_ns
            said = semconv.CRASHED if step.late else outcome
            found += self._close_inner(session, step, said, step_end_ns)
            self._counts.rebuilt += 1
            found.append(left_open(session, step, step.identity, said, step_end_ns, self._policy))
        return found

    def _close_inner(
        self, session: Session, step: OpenStep, outcome: str, end_ns: int
    ) -> list[ReadableSpan]:
        """The spans inside a step that no record completed.

        Args:
            session: Whose they are.
            step: Where they are.
            outcome: Of those that never ended.
            end_ns: When these ended then.
        """
        inner, step.inner = list(step.inner.values()), {}
        self._counts.rebuilt += len(inner)
        return [
            left_open(session, each, step.identity, outcome, end_ns, self._policy)
            if each.end_ns is None
            else made_inner(session, step, each, each.end_ns, self._policy)
            for each in inner
        ]


def exactly(
    counts: Counts,
    session: Session,
    opened: Opened,
    otel: Mapping[str, Any],
    end_ns: int,
    said: Mapping[str, AttributeValue],
    bases: recorded.Bases | None = None,
) -> ReadableSpan | None:
    """See `exact_span`; `None` when its record is damaged, or of a later version."""
    try:
        return exact_span(session, opened, otel, end_ns, said, bases)
    except (KeyError, TypeError, ValueError, AttributeError):
        counts.damaged += 1
        return None


def _place(
    otel: Mapping[str, Any], derived: SpanContext, outer: SpanContext
) -> tuple[SpanContext, SpanContext | None, Sequence[Link]]:
    """Ids, parent and links as recorded; the derived ids below `outer` for a span without."""
    context = parents.context_of(otel, is_remote=False)
    if context is None or not context.trace_flags.sampled:
        return derived, outer, ()
    return context, parents.recorded_parent(otel) or outer, parents.recorded_links(otel)


def _facts(
    action: str, reads: tuple[str, ...], writes: tuple[str, ...]
) -> dict[str, AttributeValue]:
    return {
        semconv.ACTION_NAME: action,
        semconv.ACTION_READS: reads,
        semconv.ACTION_WRITES: writes,
        semconv.OPENINFERENCE_SPAN_KIND: "CHAIN",
        semconv.GRAPH_NODE_ID: action,
    }


def _content_of(
    record: Mapping[str, Any], state: Any, writes: Iterable[str]
) -> dict[str, bytes | None]:
    """The content of a step's end record, as `Step.bases` means it."""
    found: dict[str, bytes | None] = {}
    if record.get("result") is not None:
        found[semconv.RESULT] = _json(record["result"])
    keys = tuple(writes)
    if isinstance(state, Mapping) and keys:
        found[semconv.STATE_WRITTEN] = _json({key: state[key] for key in keys if key in state})
    return found


def _json(value: Any) -> bytes | None:
    try:
        return orjson.dumps(value)
    except (TypeError, ValueError):  # an integer beyond 64 bits
        return None
