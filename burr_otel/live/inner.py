"""The spans inside of a step, and what its action logs."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from burr_otel import semconv
from burr_otel.live.capture import (
    held_bytes,
    raised_of,
    show_attribute,
    surrounding_attributes,
)
from burr_otel.records import BeginInner, EndInner, LinkIds, Logged
from burr_otel.spans import describe, shield
from burr_otel.spans.burr_span import BurrSpan
from burr_otel.spans.describe import exception_attributes
from burr_otel.spans.scope import (
    Scope,
    current_context,
    current_span_context,
    ids_of,
    innermost_scope,
    links_to,
    origin_of,
)
from burr_otel.spans.start import NO_SPAN, LiveSpan

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from burr_otel.live.shared import Shared
    from burr_otel.live.step import LiveStep
    from burr_otel.store import Session


class InnerSpan(Scope):
    """One span of ``__tracer`` or ``@trace``, started and made current."""

    # It stays in `LiveStep.inner` for as long as anything holds Burr's span object: a child may
    # begin, and attributes may come, after its end. An action may make any number of them.

    def __init__(
        self,
        step: LiveStep,
        burr_span: Any,
        dependencies: Sequence[str],
        now_ns: int,
        outer_error: BaseException | None,
        session: Session | None,
    ) -> None:
        self._step, self._burr_span, self._outer_error = step, burr_span, outer_error
        self.logged: dict[str, Logged] = {}
        self.span: LiveSpan = NO_SPAN
        self._ended = False
        enclosing = step.target(burr_span.parent)
        self.tag, self.parent = step.tag, enclosing
        self.outer = outer = current_context()
        needed = tuple(map(step.shared.policy.name_kept, dependencies))
        links = links_to(*((step.named.get(name), semconv.LINK_DEPENDENCY) for name in needed))
        self.begin = BeginInner(
            step.sequence_id,
            burr_span.uid,
            step.shared.policy.name_kept(burr_span.name),
            burr_span.parent.uid if burr_span.parent else None,
            needed,
            now_ns,
        )
        try:
            self._start(enclosing, outer, links)
        except Exception as error:
            shield.report("starting a span inside a step", error)
        span: LiveSpan = self.span
        self.context = span.get_span_context()
        self.current = span.current
        around = surrounding_attributes(step.shared.config, outer)
        if around:
            self.current.set_attributes(around)
        step.inner[id(burr_span)] = self
        step.named[self.begin.name] = ids_of(self.context)
        self.enter(outer)
        if session is not None:
            session.append(self.begin)

    def _start(
        self, enclosing: LiveStep | InnerSpan, outer: Context, links: Sequence[LinkIds]
    ) -> None:
        step = self._step
        starter = step.shared.starter
        parent = enclosing.current
        # What is current inside the enclosing Burr span, an HTTP span say, is the closer parent;
        # in a thread that copied no context, what is current has nothing to do with it.
        current = trace.get_current_span(outer)
        inside = innermost_scope(outer)
        if current_span_context(outer) is not None and enclosing.encloses(inside):
            parent = current
        if starter is None or not parent.get_span_context().is_valid:
            return
        facts = step.root.facts
        self.span = starter.start(
            facts.policy.of_records.name(self.begin.name),
            parent,
            outer,
            links,
            (facts.identity,),
            self.begin.time_ns,
            step.tag,
        )
        over = ids_of(parent.get_span_context())
        origin = origin_of(self.span.get_span_context(), over, links)
        self.begin = self.begin._replace(origin=origin)
        told = functools.partial(describe.inner, facts, self.begin, None, self.logged.values())
        self.span.begin(told, parent, outer)
        if isinstance(self.span, BurrSpan):
            self.span.burr_uid = self.begin.span_id

    def end(
        self,
        now_ns: int,
        session: Session | None,
        in_flight: BaseException | None,
        *,
        abandoned: bool = False,
    ) -> None:
        """End the span, with what `sys.exc_info` reports; Burr tells its hooks nothing of it."""
        if self._ended:
            return
        self._ended = True
        self.leave()
        error = None if in_flight is self._outer_error else in_flight
        shared, span = self._step.shared, self.span
        outcome = semconv.ABANDONED if abandoned else shared.outcome_of(error)
        raised, shown = None if error is None else raised_of(error), {}
        if raised is not None and shared.policy.asks_user:
            shown = exception_attributes(shared.policy, raised)
        record = EndInner(
            self.begin.sequence_id,
            self.begin.span_id,
            now_ns,
            outcome,
            ids_of(self.context),
            raised,
            shown,
            span.user_data(),
        )
        if session is not None:
            session.append(record)
        try:
            logged, facts = self.logged.values(), self._step.root.facts
            told = functools.partial(describe.inner, facts, self.begin, record, logged)
            end_ns = describe.soonest_end(self.begin.time_ns, now_ns)
            span.finish(told, end_ns, held_bytes(logged, raised))
        except Exception as problem:
            shield.report("ending a span inside a step", problem)
        inner, identity = self._step.inner, id(self._burr_span)
        self._gone = weakref.ref(self._burr_span, lambda _: inner.pop(identity, None))
        self._burr_span = None


def logged_records(
    shared: Shared,
    attributes: Mapping[str, Any],
    burr_span: Any,
    sequence_id: int,
    tags: Mapping[str, Any],
    run: str,
) -> Iterator[tuple[Logged, Any]]:
    """The records of logged attributes with the values, one by one: each may be large."""
    now_ns = shared.clock()
    uid = None if burr_span is None else burr_span.uid
    for key, value in attributes.items():
        kept, shown = show_attribute(shared, run, key, value)
        name = shared.policy.name_kept(key)
        yield Logged(name, kept, tags, sequence_id, uid, now_ns, shown), value
