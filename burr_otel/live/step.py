"""A step in progress, and the spans inside of it."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from burr_otel import semconv
from burr_otel.live.capture import (
    captured,
    light,
    raised_of,
    show,
    show_attribute,
    show_names,
    show_prompt,
)
from burr_otel.live.surroundings import OPENINFERENCE, surrounding_attributes
from burr_otel.printable import logger_of_lines
from burr_otel.records import (
    NO_DOCUMENT,
    BeginInner,
    BeginStep,
    EndInner,
    Logged,
    Raised,
    SpanIds,
    StreamTimes,
)
from burr_otel.spans import describe, keeper, parents, shield
from burr_otel.spans.burr_span import BurrSpan
from burr_otel.spans.contexts import current_span_context, ids_of, link, links_to, origin_of
from burr_otel.spans.scope import SPAN_KEY, BurrStep, Scope, current_context, innermost_scope
from burr_otel.spans.start import NO_SPAN, unseen

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanContext

    from burr_otel.live.initial import Digests
    from burr_otel.live.run import Run
    from burr_otel.live.shared import Shared
    from burr_otel.spans.facts import ActionFacts
    from burr_otel.spans.start import LiveSpan
    from burr_otel.store import Session

logger = logger_of_lines("burr_otel")


class LiveStep(Scope):
    """One step in progress."""

    labels: dict[str, str]  # of its measurements
    begin: BeginStep
    streaming = running = traced = False
    items = generator_ns = 0
    # Result and state, once known other than from Burr's hooks: what a stream has yielded last,
    # what a synchronous action under an asynchronous method gave.
    final: tuple[Any, Any] | None = None
    first_item_ns: int | None = None
    swallowed: tuple[Raised, int] | None = None
    digests: Digests | None = None  # of `state_before`, once an application is spawned
    span: LiveSpan = NO_SPAN
    _raised_id = 0

    def __init__(
        self,
        run: Run,
        action: ActionFacts,
        sequence_id: int,
        state_before: Any,
        outer_error: BaseException | None,
    ) -> None:
        self._run, self.shared, self.root, self.action = run, run.shared, run.root, action
        self.state_before, self.outer_error = state_before, outer_error
        self.sequence_id = sequence_id
        self.tag = BurrStep(run.root.facts, sequence_id)
        self.tag.log_events = run.shared.log_events
        self.tag.sends_baggage = run.shared.config.send_baggage
        self.logged: list[Logged] = []
        self.inner: dict[int, InnerSpan] = {}  # by identity of Burr's span object
        self.named: dict[str, SpanContext] = {}
        self.claims = [True]  # who pops it ends the step: a list's `pop` is atomic

    @property
    def run(self) -> str:
        """``project/app_id``, for messages."""
        return self._run.name

    def start(
        self,
        inputs: Mapping[str, Any],
        method: str | None,
        prior: str | None,
        now_ns: int,
    ) -> None:
        """Begin the span, make it current, and make the record; a failed span costs no record."""
        shared, root, action = self.shared, self.root, self.action
        outer, document = current_context(), NO_DOCUMENT
        shown: dict[str, Any] = {}
        if inputs:
            document, _ = captured(shared, self.run, "inputs", semconv.INPUTS, inputs, shown)
        if root.is_valid and (shared.shows_more or action.kind == "llm"):
            self._show_more(inputs, prior, shown)
        if shared.config.baggage_keys or OPENINFERENCE in sys.modules:
            shown |= surrounding_attributes(shared.config, outer)
        parent: trace.Span = root.stand_in
        over: SpanContext | SpanIds | None = root.ids
        links: Sequence[Link] = ()
        current = trace.get_current_span(outer) if SPAN_KEY in outer else None
        try:
            if root.is_valid and shared.starter is not None:
                if current is not None:
                    parent, over, links = self._place(current, outer)
                self.span = shared.starter.start(
                    str(shown.get(semconv.ACTION_NAME) or action.attributes[semconv.ACTION_NAME]),
                    parent,
                    outer,
                    links,
                    (action.attributes, root.facts.identity),
                    now_ns,
                    self.tag,
                )
        except Exception as error:
            shield.report("starting a step span", error)
        span = self.span
        self.context = self.tag.context = span.get_span_context()
        self.current, self.outer = span.current, outer
        origin = origin_of(self.context, over, links)
        self.begin = BeginStep(
            self.sequence_id,
            action.name,
            document,
            now_ns,
            origin,
            None if origin is None or root.ids is None else root.ids.span_id,
            method,
            prior,
            shown,
        )
        told = functools.partial(describe.step, root.facts, self.begin, None, self.logged)
        span.begin(told, parent, outer)
        self.traced = span.is_recording()
        if current is not None:
            self._link_back(current)
        self.enter()

    def _show_more(
        self, inputs: Mapping[str, Any], prior: str | None, shown: dict[str, Any]
    ) -> None:
        """Put into `shown` what only the hook can show."""
        policy, settings, state = self.shared.policy, self.shared.settings, self.state_before
        if self.shared.shows_more:
            show_names(policy, self.action, prior, shown)
        if settings.capture_state_read == "all":
            read = {key: state[key] for key in self.action.reads if key in state}
            show(shown, semconv.STATE_READ, policy.document("state", read))
        if self.action.kind == "llm":
            show_prompt(policy, self.action, inputs, state, shown)

    def _place(
        self, current: trace.Span, outer: Context
    ) -> tuple[trace.Span, SpanContext | SpanIds | None, Sequence[Link]]:
        """The parent, and links, where a span of others or of another application is current."""
        root = self.root
        policy, ambient = self.shared.config.step_parent, current_span_context(outer)
        chosen, links = parents.step_parent(policy, root.context, ambient)
        if chosen is root.context:
            return root.stand_in, root.ids, links
        return current, chosen, links

    def _link_back(self, current: trace.Span) -> None:
        """Link to this step from a span of another trace that is current around it."""
        ambient = current.get_span_context()
        if ambient is None or not (ambient.is_valid and self.context.is_valid):
            return
        if ambient.trace_id == self.context.trace_id:
            return
        try:
            back = link(self.context, semconv.LINK_STEP)
            current.add_link(back.context, back.attributes)
        except Exception as error:  # Datadog's API warns, and warnings may be errors
            logger.debug("no link back to step %s: %s", self.sequence_id, error)

    def end_inner(self, end_ns: int, session: Session | None) -> None:
        """The step is over: no span inside of it stays open."""
        for inner in reversed(list(self.inner.values())):
            inner.end(end_ns, session, None, abandoned=True)

    # --- stream -------------------------------------------------------------------------------

    def begin_stream(self) -> None:
        """The step turns out to be a stream: current only while its generator runs."""
        self.streaming = True
        self.pause()

    def item(self, now_ns: int) -> bool:
        """Count an item; whether it was the first."""
        self.items += 1
        if self.first_item_ns is not None:
            return False
        self.first_item_ns = now_ns
        return True

    def stream_times(self) -> StreamTimes | None:
        """What the end record says of the stream."""
        if not self.streaming:
            return None
        return StreamTimes(self.items, self.first_item_ns, self.generator_ns)

    def go_on_unseen(self) -> None:
        """The span has ended before the stream: what follows is recorded and not shown."""
        self.span, self.traced = unseen(self.context), False
        self.claims = [True]

    def stream_resumed(self) -> tuple[Context, int]:
        """The generator goes on: make the step current; gives what `stream_suspended` needs."""
        self.running = True
        return self.resume(), self.shared.idle_clock()

    def stream_suspended(self, entered: tuple[Context, int]) -> None:
        """The generator has yielded: its consumer's context is current again."""
        consumer, began = entered
        self.running = False
        self.generator_ns += max(0, self.shared.idle_clock() - began)
        self.suspend(consumer)

    def stream_failed(self, error: Exception) -> None:
        """The action's own generator raised; whether the step fails with it is for Burr to say."""
        self._raised_id = id(error)
        self.swallowed = raised_of(error), self.shared.clock()

    def stream_dropped(self) -> None:
        """The generator can never run again; a finaliser calls this, so it must only defer work."""
        keeper.keeper.defer(lambda: self._run.settle_stream(self))

    def swallowed_unless(self, error: BaseException | None) -> tuple[Raised, int] | None:
        """What the generator raised, if that is not what the step failed with."""
        return None if error is not None and id(error) == self._raised_id else self.swallowed

    # --- inside -------------------------------------------------------------------------------

    def target(self, burr_span: Any) -> LiveStep | InnerSpan:
        """Our span for a span object of Burr's; the step for None or an unknown one."""
        return self.inner.get(id(burr_span)) or self

    def log(
        self,
        attributes: Mapping[str, Any],
        burr_span: Any,
        tags: Mapping[str, Any],
        session: Session | None,
    ) -> None:
        """The action logs attributes on the step, or on an inner span."""
        target = self.target(burr_span)
        for record, value in logged_records(
            self.shared, attributes, burr_span, self.sequence_id, tags, self.run
        ):
            if session is not None:
                session.append(record)
            target.logged.append(light(self.shared, record, value))


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
        yield Logged(str(key), kept, tags, sequence_id, uid, now_ns, shown), value


def mark_failed(why: str) -> None:
    """Let the step that runs here count as failed although it raises nothing.

    Its outcome is then ``failed``, and its span's status ERROR. Outside of a step nothing happens.

    Args:
        why: What is wrong, in a sentence; redacted as all texts are.
    """
    scope = innermost_scope()
    if scope is not None:
        scope.tag.failed = str(why)


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
        self.logged: list[Logged] = []
        self.span: LiveSpan = NO_SPAN
        self._ended = False
        enclosing = step.target(burr_span.parent)
        self.tag, self.parent = step.tag, enclosing
        self.outer = outer = current_context()
        links = links_to(
            *((step.named.get(name), semconv.LINK_DEPENDENCY) for name in dependencies)
        )
        self.begin = BeginInner(
            step.sequence_id,
            burr_span.uid,
            str(burr_span.name),
            burr_span.parent.uid if burr_span.parent else None,
            tuple(map(str, dependencies)),
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
        step.named[burr_span.name] = self.context
        self.enter()
        if session is not None:
            session.append(self.begin)

    def _start(self, enclosing: LiveStep | InnerSpan, outer: Context, links: list[Link]) -> None:
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
            facts.policy.name(self.begin.name),
            parent,
            outer,
            links,
            (facts.identity,),
            self.begin.time_ns,
            step.tag,
        )
        origin = origin_of(self.span.get_span_context(), parent.get_span_context(), links)
        self.begin = self.begin._replace(origin=origin)
        told = functools.partial(describe.inner, facts, self.begin, None, self.logged)
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
        user = span.user_data()
        name = shared.policy.name(self.begin.name)
        if shared.policy.asks_user and name != self.begin.name:
            user = {"name": name, **user}
        record = EndInner(
            self.begin.sequence_id,
            self.begin.span_id,
            now_ns,
            outcome,
            ids_of(self.context),
            None if error is None else raised_of(error),
            user,
        )
        if session is not None:
            session.append(record)
        try:
            told = functools.partial(
                describe.inner, self._step.root.facts, self.begin, record, self.logged
            )
            span.finish(told, describe.soonest_end(self.begin.time_ns, now_ns))
        except Exception as problem:
            shield.report("ending a span inside a step", problem)
        inner, identity = self._step.inner, id(self._burr_span)
        self._gone = weakref.ref(self._burr_span, lambda _: inner.pop(identity, None))
        self._burr_span = None
