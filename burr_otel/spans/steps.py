"""The span of one step: what it says, and the stream that it may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry import trace

from burr_otel import semconv
from burr_otel.spans import exceptions, parents, recorded, roots, shield
from burr_otel.spans.open_span import OpenSpan, outcome_of, start_span
from burr_otel.spans.scope import SpanScope

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.trace import SpanContext
    from opentelemetry.util.types import AttributeValue

    from burr_otel.content import Attribute
    from burr_otel.errors import SnapshotError
    from burr_otel.spans.actions import ActionFacts
    from burr_otel.spans.inner import InnerSpan
    from burr_otel.spans.recorded import Bases, Described
    from burr_otel.spans.shared import Shared

__all__ = ["Step", "StepStart"]

_LONGEST_COMPARED_BYTES = 1024 * 1024  # of larger states, the few kilobytes of a span are kept


class StepStart(NamedTuple):
    """Where and when a step begins.

    Attributes:
        root: The application span.
        identity: Attributes of every span of the run.
        method: Burr's method that runs the application, when known.
        prior: Name of the action before this one, if any.
        outer_error: The exception being handled when the step begins.
        now_ns: Unix time.
    """

    root: SpanContext
    identity: Mapping[str, AttributeValue]
    method: str | None
    prior: str | None
    outer_error: BaseException | None
    now_ns: int


class Step:
    """One step in progress.

    Attributes:
        open_span: Its span.
        record: What the log's begin record keeps of the span.
        sequence_id: Burr's number of the step.
        action: What is known of the action.
        streaming: Whether it is a stream.
        items: Items that the stream has yielded.
        final: Result and state, once known other than from Burr's hooks: what a stream has
            yielded last, what a synchronous action under an asynchronous method gave.
        inner: Its inner spans by identity of Burr's span object.
        named: The latest inner span of each name, for those that name it as a dependency.
    """

    streaming = False
    items = 0
    final: tuple[Any, Any] | None = None
    _links = 0
    _begun = False
    _first_item_ns: int | None = None
    _raised: tuple[Exception, int] | None = None

    def __init__(
        self,
        shared: Shared,
        action: ActionFacts,
        sequence_id: int,
        inputs: Mapping[str, Any],
        start: StepStart,
        settle: Callable[[Step], None],
    ) -> None:
        self.shared = shared
        self.action = action
        self.sequence_id = sequence_id
        self.inner: dict[int, InnerSpan] = {}
        self.named: dict[str, trace.SpanContext] = {}
        self.record: dict[str, Any] = {"time_unix_nano": start.now_ns}
        self._settle = settle
        self._name = action.name
        self._started: dict[str, AttributeValue] = {}
        self.identity = {semconv.SEQUENCE_ID: sequence_id, **start.identity}
        span: trace.Span = trace.INVALID_SPAN
        try:
            span = self._start(start, without_inputs=not inputs)
        except Exception as error:
            shield.report("starting a step span", error)
        self.open_span = OpenSpan(
            span,
            start_ns=start.now_ns,
            identity=self.identity,
            outer_error=start.outer_error,
            step=(str(start.identity[semconv.APP_ID]), sequence_id),
        )
        self.open_span.links = self._links
        if inputs and self.open_span.recording:
            try:
                self._describe_inputs(inputs)
            except Exception as error:
                shield.report("describing a step's inputs", error)

    def _start(self, start: StepStart, *, without_inputs: bool) -> trace.Span:
        if not start.root.is_valid:
            return trace.INVALID_SPAN
        current = parents.ambient()
        started = self._started
        if start.method is not None:
            started[semconv.EXECUTE_METHOD] = start.method
        if start.prior is not None:
            started[semconv.GRAPH_NODE_PARENT_ID] = start.prior
        if without_inputs:
            nothing = self.shared.policy.document("inputs", {})
            self._say(started, semconv.INPUTS, nothing)
            self._say_openinference(started, semconv.INPUT_VALUE, semconv.INPUT_MIME_TYPE, nothing)
        parent, links = parents.step_parent(self.shared.config.step_parent, start.root, current)
        self._name, self._links = self.shared.policy.name(self.action.name), len(links)
        span = start_span(
            self.shared.tracer,
            self._name,
            parent=parent,
            links=links,
            attributes={**self.action.attributes, **started, **self.identity},
            start_ns=start.now_ns,
        )
        context = span.get_span_context()
        self.record |= parents.origin_record(context, parent, links)
        self.record["root_span_id"] = parents.span_text(start.root.span_id)
        if current is not None and current.trace_id != context.trace_id:
            link = parents.link(context, semconv.LINK_STEP)
            trace.get_current_span().add_link(link.context, link.attributes)
        return span

    def _describe_inputs(self, inputs: Mapping[str, Any]) -> None:
        said: dict[str, AttributeValue] = {}
        content = self.shared.policy.document("inputs", inputs)
        self._say(said, semconv.INPUTS, content)
        self._say_openinference(said, semconv.INPUT_VALUE, semconv.INPUT_MIME_TYPE, content)
        self._started |= said
        self.open_span.span.set_attributes(said)

    def _say(self, said: dict[str, AttributeValue], name: str, content: Attribute | None) -> None:
        if content is not None:
            said[name] = content.value
            if content.truncated:
                self.open_span.note_cut(name)

    def _say_openinference(
        self,
        said: dict[str, AttributeValue],
        name: str,
        mime_name: str,
        content: Attribute | None,
    ) -> None:
        if self.shared.config.openinference_content and content is not None:
            self._say(said, name, content)
            said[mime_name] = semconv.MIME_JSON

    def begin_record(self, inputs: bytes | None, *, described: Described) -> dict[str, Any]:
        """What the log's begin record keeps of the span; never raises.

        Args:
            inputs: As the record holds them, see `Bases`.
            described: What the session's log tells already.
        """
        span = self.open_span.readable
        if span is None:
            return self.record
        try:
            members = recorded.begin_members(
                self.action.name, self._name, self._started, {semconv.INPUTS: inputs}
            )
            if described.lacks_source:
                members |= recorded.source_members(span)
            if described.lacks(self.action.name):
                facts = self.action.attributes
                members["action"] = recorded.facts_member(self.action.name, facts)
        except Exception as error:
            shield.report("recording what a span says", error)
            return self.record
        self.record |= members
        return self.record

    def begin_was_recorded(self) -> None:
        """The log holds the begin record."""
        self._begun = True

    def compares_state(self, size_bytes: int) -> bool:
        """Whether the span's written state is to be compared with a state of that size."""
        worth_it = bool(self.action.writes) and size_bytes <= _LONGEST_COMPARED_BYTES
        return worth_it and self.open_span.readable is not None

    def bases(
        self,
        result: Any,
        returned: bytes | None,
        error: BaseException | None,
        written: bytes | None,
    ) -> Bases:
        """What the end record holds of the span's content.

        Args:
            result: The step's result.
            returned: The same as written.
            error: What the step ended with.
            written: What the record holds of the keys that the action writes, see `Bases`.
        """
        found: dict[str, bytes | None] = {}
        if result is not None:
            found[semconv.RESULT] = returned
        if error is None and self._begun and self.action.writes:
            found[semconv.STATE_WRITTEN] = written
        return found

    def end_record(self, end_ns: int, outcome: str, bases: Bases) -> dict[str, Any]:
        """See `OpenSpan.end_record`."""
        facts: tuple[Mapping[str, AttributeValue], ...] = ()
        known = self.open_span.known
        if self._begun and len(known) == len(self.identity):
            facts = (self.action.attributes, self._started)
        elif self._begun:  # logged attributes may have any name
            known = self.open_span.known = {**self.action.attributes, **self._started, **known}
        known[semconv.OUTCOME] = outcome
        return self.open_span.end_record(
            self.record, self._name, end_ns, outcome, bases, facts=facts
        )

    # --- stream ------------------------------------------------------------------------------

    def begin_stream(self) -> None:
        """The step turns out to be a stream: current only while its generator runs."""
        self.streaming = True
        self.open_span.scope.detach()

    def item(self, now_ns: int) -> bool:
        """Count an item.

        Returns:
            Whether it was the first.
        """
        self.items += 1
        if self._first_item_ns is not None:
            return False
        self._first_item_ns = now_ns
        self.open_span.span.add_event(semconv.EVENT_STREAM_FIRST_ITEM, timestamp=now_ns)
        seconds = (now_ns - self.open_span.start_ns) / 1e9
        self.shared.metrics.first_item(self.action.name, seconds)
        return True

    def stream_scope(self) -> SpanScope:
        """See `StreamObserver`."""
        return SpanScope(self.open_span.span, self.open_span.scope)

    def stream_ended(self, result: Any, state: Any) -> None:
        """See `StreamObserver`."""
        self.final = (result, state)

    def stream_failed(self, error: Exception) -> None:
        """See `StreamObserver`: whether the step fails with it is for Burr to say."""
        self._raised = (error, self.shared.clock())

    def stream_dropped(self) -> None:
        """See `StreamObserver`: settled by the keeper, once Burr's hooks had their turn."""
        roots.keeper.defer(lambda: self._settle(self))

    # --- end ---------------------------------------------------------------------------------

    def end(
        self,
        error: BaseException | None,
        end_ns: int,
        *,
        result: Mapping[str, Any] | None,
        state: Any,
        plain: bytes | None = None,
    ) -> tuple[str, str | None]:
        """Say on the span how the step ended; never raises.

        Args:
            error: What it ended with, if not well.
            end_ns: Unix time.
            result: Its result, when known.
            state: The state after it, when known.
            plain: The JSON of what it wrote of that, where all of it is of exact JSON types.

        Returns:
            The outcome, and the message of a failure.
        """
        outcome = outcome_of(error)
        message = None
        said: dict[str, AttributeValue] = {}
        try:
            message = self._describe_end(error, outcome, end_ns)
            if self.open_span.recording:
                self._describe_output(said, error, result, state, plain)
        except Exception as problem:
            shield.report("describing a step", problem)
        said[semconv.OUTCOME] = outcome
        try:
            self.open_span.put_last(said)
        except Exception as problem:
            shield.report("describing a step", problem)
        return outcome, message

    def close(self, outcome: str, end_ns: int) -> None:
        """End the span; never raises.

        Args:
            outcome: What `end` gave.
            end_ns: Unix time of the step's end, whatever it took to keep its state since.
        """
        try:
            self.open_span.end(end_ns)
            seconds = max(0, end_ns - self.open_span.start_ns) / 1e9
            self.shared.metrics.step_ended(self.action.name, outcome, seconds)
        except Exception as problem:
            shield.report("ending a step span", problem)

    def _describe_end(self, error: BaseException | None, outcome: str, end_ns: int) -> str | None:
        span, message = self.open_span.span, None
        if self._raised is not None and self._raised[0] is not error:
            # Burr swallowed it and went on: something to see, and no failure.
            content = self.shared.policy.exception(self._raised[0])
            exceptions.record_exception(span, content, self._raised[1], failed=False)
        if outcome == semconv.ERROR and error is not None:
            content = self.shared.policy.exception(error)
            message = content.message or content.type
            exceptions.record_exception(span, content, end_ns, failed=True)
        if self.streaming:
            span.set_attribute(semconv.STREAM_ITEMS, self.items)
            if self._first_item_ns is not None:
                seconds = (self._first_item_ns - self.open_span.start_ns) / 1e9
                span.set_attribute(semconv.STREAM_TIME_TO_FIRST_ITEM, seconds)
            items: dict[str, AttributeValue] = {semconv.STREAM_ITEMS: self.items}
            span.add_event(semconv.EVENT_STREAM_END, items, timestamp=end_ns)
        return message

    def _describe_output(
        self,
        said: dict[str, AttributeValue],
        error: BaseException | None,
        result: Mapping[str, Any] | None,
        state: Any,
        plain: bytes | None,
    ) -> None:
        policy = self.shared.policy
        returned = written = None
        if result is not None:
            returned = policy.document("results", result)
            self._say(said, semconv.RESULT, returned)
        if state is not None and error is None and self.action.writes:
            values = {key: state[key] for key in self.action.writes if key in state}
            written = policy.document("state", values, plain)
            self._say(said, semconv.STATE_WRITTEN, written)
        # Most actions return only state: then that is what they put out.
        output = returned if result else written
        self._say_openinference(said, semconv.OUTPUT_VALUE, semconv.OUTPUT_MIME_TYPE, output)

    def mark_snapshot_error(self, error: SnapshotError) -> None:
        """Say on the span that its state was not kept."""
        if self.open_span.recording:
            text = exceptions.snapshot_text(self.shared.policy, error)
            self.open_span.span.set_attribute(semconv.SNAPSHOT_ERROR, text)
