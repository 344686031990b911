"""A step in progress, and the spans inside of it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from burr_otel import semconv
from burr_otel.content import text_safely
from burr_otel.live.capture import (
    OPENINFERENCE,
    Digests,
    captured,
    light,
    raised_of,
    show,
    show_names,
    show_prompt,
    state_digests,
    surrounding_attributes,
)
from burr_otel.live.inner import InnerSpan, logged_records
from burr_otel.printable import logger
from burr_otel.records import (
    NO_DOCUMENT,
    BeginStep,
    LinkIds,
    Logged,
    Raised,
    SpanIds,
    StreamMark,
    StreamTimes,
)
from burr_otel.spans import describe, keeper, shield
from burr_otel.spans.scope import (
    SPAN_KEY,
    BurrStep,
    Scope,
    current_context,
    current_span_context,
    ids_of,
    innermost_scope,
    links_to,
    origin_of,
)
from burr_otel.spans.start import NO_SPAN, LiveSpan, unseen

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from burr_otel.live.run import Run
    from burr_otel.spans.facts import ActionFacts
    from burr_otel.store import Session


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
    _digests: Digests | None = None
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
        self.logged: dict[str, Logged] = {}  # the newest of each key
        self.inner: dict[int, InnerSpan] = {}  # by identity of Burr's span object
        self.named: dict[str, SpanIds | None] = {}
        self.claims = [True]  # who pops it ends the step: a list's `pop` is atomic

    @property
    def run(self) -> str:
        """``project/app_id``, for messages."""
        return self._run.name

    @property
    def digests(self) -> Digests:
        """Checksums of the state that it found, for applications that it spawns."""
        if self._digests is None:
            self._digests = state_digests(self.state_before)
        return self._digests

    def start(
        self,
        inputs: Mapping[str, Any],
        method: str | None,
        prior: str | None,
        now_ns: int,
    ) -> None:
        """Begin the span and make the record; a failed span costs no record."""
        shared, root, action = self.shared, self.root, self.action
        outer, document = current_context(), NO_DOCUMENT
        shown: dict[str, Any] = {}
        if inputs:
            document, _ = captured(self, "inputs", inputs, shown)
        if root.is_valid and (shared.shows_more or action.kind == "llm"):
            self._show_more(inputs, prior, shown)
        if shared.config.baggage_keys or OPENINFERENCE in sys.modules:
            shown |= surrounding_attributes(shared.config, outer)
        parent: trace.Span = root.stand_in
        over = root.ids
        links: Sequence[LinkIds] = ()
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
        told = functools.partial(describe.step, root.facts, self.begin, None, self.logged.values())
        span.begin(told, parent, outer)
        self.traced = span.is_recording()
        if current is not None:
            self._link_back(current)

    def _show_more(
        self, inputs: Mapping[str, Any], prior: str | None, shown: dict[str, Any]
    ) -> None:
        """Put into `shown` what only the hook can show."""
        policy, settings, state = self.shared.policy, self.shared.settings, self.state_before
        if self.shared.shows_more:
            show_names(self, prior, shown)
        if settings.capture_state_read == "all":
            read = {key: state[key] for key in self.action.reads if key in state}
            show(shown, semconv.STATE_READ, policy.document("state", read))
        if self.action.kind == "llm":
            show_prompt(self, inputs, shown)

    def _place(
        self, current: trace.Span, outer: Context
    ) -> tuple[trace.Span, SpanIds | None, Sequence[LinkIds]]:
        """The parent, and links, where a span of others or of another application is current."""
        root, ambient = self.root, current_span_context(outer)
        if ambient is not None and self.shared.config.step_parent == "ambient":
            return current, ids_of(ambient), links_to((root.ids, semconv.LINK_APPLICATION))
        if ambient is None or ambient.trace_id == root.context.trace_id:
            return root.stand_in, root.ids, ()
        return root.stand_in, root.ids, links_to((ids_of(ambient), semconv.LINK_AMBIENT))

    def _link_back(self, current: trace.Span) -> None:
        """Link to this step from a span of another trace that is current around it."""
        ambient = current.get_span_context()
        if ambient is None or not (ambient.is_valid and self.context.is_valid):
            return
        if ambient.trace_id == self.context.trace_id:
            return
        try:
            current.add_link(self.context, {semconv.LINK_TYPE: semconv.LINK_STEP})
        except Exception as error:  # Datadog's API warns, and warnings may be errors
            logger.debug("no link back to step %s: %s", self.sequence_id, error)

    def end_inner(self, end_ns: int, session: Session | None) -> None:
        """The step is over: no span inside of it stays open."""
        for inner in reversed(list(self.inner.values())):
            inner.end(end_ns, session, None, abandoned=True)

    # --- stream -------------------------------------------------------------------------------

    def begin_stream(self, session: Session | None) -> None:
        """The step turns out to be a stream: current only while its generator runs."""
        self.streaming = True
        self.leave()
        if session is not None:
            session.append(StreamMark("begin_stream", self.sequence_id, self.shared.clock()))

    def item(self, session: Session | None) -> None:
        """Count an item; of the first, tell when it came."""
        now = self.shared.clock()
        self.root.touch(now)
        self.items += 1
        if self.first_item_ns is not None:
            return
        self.first_item_ns = now
        self.shared.metrics.first_item.record(max(0, now - self.begin.time_ns) / 1e9, self.labels)
        if session is not None:
            session.append(StreamMark("first_item_stream", self.sequence_id, now))

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
        keeper.keeper.defer(lambda: self._run.drop(self))

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
            target.logged[record.key] = light(self.shared, record, value)


def mark_failed(why: str) -> None:
    """Let the step that runs here count as failed although it raises nothing.

    Its outcome is then ``failed``, and its span's status ERROR. Outside of a step nothing happens.

    Args:
        why: What is wrong, in a sentence; redacted as all texts are.
    """
    scope = innermost_scope()
    if scope is not None:
        scope.tag.failed = text_safely(str, why)
