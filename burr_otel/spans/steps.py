"""The span of one step: what it says, and the stream that it may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry import trace

from burr_otel import semconv
from burr_otel.spans import exceptions, parents, roots, shield
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
    from burr_otel.spans.shared import Shared

__all__ = ["Step", "StepStart"]


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
        final: Result and state that the stream has yielded last, once it has.
        inner: Its inner spans by identity of Burr's span object.
    """

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
        self.streaming = False
        self.items = 0
        self.final: tuple[Any, Any] | None = None
        self.inner: dict[int, InnerSpan] = {}
        self.record: dict[str, Any] = {"time_unix_nano": start.now_ns}
        self._settle = settle
        self._first_item_ns: int | None = None
        self._raised: tuple[Exception, int] | None = None
        self.identity = {semconv.SEQUENCE_ID: sequence_id, **start.identity}
        span: trace.Span = trace.INVALID_SPAN
        try:
            span = self._start(start)
        except Exception as error:
            shield.report("starting a step span", error)
        self.open_span = OpenSpan(
            span,
            start_ns=start.now_ns,
            identity=self.identity,
            outer_error=start.outer_error,
            step=(str(start.identity[semconv.APP_ID]), sequence_id),
        )
        try:
            self._describe_start(start, inputs)
        except Exception as error:
            shield.report("describing a step's inputs", error)

    def _start(self, start: StepStart) -> trace.Span:
        if not start.root.is_valid:
            return trace.INVALID_SPAN
        current = parents.ambient()
        parent, links = parents.step_parent(self.shared.config.step_parent, start.root, current)
        span = start_span(
            self.shared.tracer,
            self.shared.policy.name(self.action.name),
            parent=parent,
            links=links,
            attributes={**self.action.attributes, **self.identity},
            start_ns=start.now_ns,
        )
        context = span.get_span_context()
        self.record |= parents.origin_record(context, parent, links)
        self.record["root_span_id"] = trace.format_span_id(start.root.span_id)
        if current is not None and current.trace_id != context.trace_id:
            link = parents.link(context, semconv.LINK_STEP)
            trace.get_current_span().add_link(link.context, link.attributes)
        return span

    def _describe_start(self, start: StepStart, inputs: Mapping[str, Any]) -> None:
        if not self.open_span.recording:
            return
        if start.method is not None:
            self.open_span.span.set_attribute(semconv.EXECUTE_METHOD, start.method)
        if start.prior is not None:
            self.open_span.span.set_attribute(semconv.GRAPH_NODE_PARENT_ID, start.prior)
        content = self.shared.policy.document("inputs", inputs)
        self.open_span.put(semconv.INPUTS, content)
        self._put_openinference(semconv.INPUT_VALUE, semconv.INPUT_MIME_TYPE, content)

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
    ) -> tuple[str, str | None]:
        """Describe how the step ended and end its span; never raises.

        Args:
            error: What it ended with, if not well.
            end_ns: Unix time.
            result: Its result, when known.
            state: The state after it, when known.

        Returns:
            The outcome, and the message of a failure.
        """
        outcome = outcome_of(error)
        message = None
        try:
            message = self._describe_end(error, outcome, end_ns)
            self._describe_output(error, result, state)
        except Exception as problem:
            shield.report("describing a step", problem)
        try:
            self.open_span.end(end_ns, {semconv.OUTCOME: outcome})
            seconds = max(0, end_ns - self.open_span.start_ns) / 1e9
            self.shared.metrics.step_ended(self.action.name, outcome, seconds)
        except Exception as problem:
            shield.report("ending a step span", problem)
        return outcome, message

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
        self, error: BaseException | None, result: Mapping[str, Any] | None, state: Any
    ) -> None:
        if not self.open_span.recording:
            return
        policy = self.shared.policy
        returned = written = None
        if result is not None:
            returned = policy.document("results", result)
            self.open_span.put(semconv.RESULT, returned)
        if state is not None and error is None and self.action.writes:
            values = {key: state[key] for key in self.action.writes if key in state}
            written = policy.document("state", values)
            self.open_span.put(semconv.STATE_WRITTEN, written)
        # Most actions return only state: then that is what they put out.
        output = returned if result else written
        self._put_openinference(semconv.OUTPUT_VALUE, semconv.OUTPUT_MIME_TYPE, output)

    def _put_openinference(self, name: str, mime_name: str, content: Attribute | None) -> None:
        if self.shared.config.openinference_content and content is not None:
            self.open_span.put(name, content)
            self.open_span.span.set_attribute(mime_name, semconv.MIME_JSON)

    def mark_snapshot_error(self, error: SnapshotError) -> None:
        """Say on the span that its state was not kept."""
        if self.open_span.recording:
            text = exceptions.snapshot_text(self.shared.policy, error)
            self.open_span.span.set_attribute(semconv.SNAPSHOT_ERROR, text)
