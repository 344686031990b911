"""The span of one step: what it says, and the stream that it may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from opentelemetry import context as otel_context
from opentelemetry import trace

from burr_otel import semconv
from burr_otel.spans import exceptions, parents, recorded, roots, shield
from burr_otel.spans.open_span import OpenSpan, outcome_of, sampled
from burr_otel.spans.scope import SpanScope

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.context import Context
    from opentelemetry.util.types import AttributeValue

    from burr_otel.content import Attribute
    from burr_otel.errors import SnapshotError
    from burr_otel.spans.actions import ActionFacts
    from burr_otel.spans.inner import InnerSpan
    from burr_otel.spans.recorded import Bases, Described
    from burr_otel.spans.roots import Root
    from burr_otel.spans.shared import Shared

__all__ = ["Step"]

_LONGEST_COMPARED_BYTES = 1024 * 1024  # of larger states, the few kilobytes of a span are kept


class Step:
    """One step in progress.

    Args:
        shared: What the tracker's runs share.
        root: The application span.
        action: What is known of the action.
        sequence_id: Burr's number of the step.
        inputs: What the action takes of the caller's inputs.
        method: Burr's method that runs the application, when known.
        prior: Name of the action before this one as a span may carry it, if any.
        outer_error: The exception being handled when the step begins.
        now_ns: Unix time.
        settle: Ends the step if it is a stream that Burr does not end.

    Attributes:
        open_span: Its span.
        action: What is known of the action.
        sequence_id: Burr's number of the step.
        begun: Whether the log holds the begin record.
        streaming: Whether it is a stream.
        items: Items that the stream has yielded.
        final: Result and state, once known other than from Burr's hooks: what a stream has
            yielded last, what a synchronous action under an asynchronous method gave.
        inner: Its inner spans by identity of Burr's span object.
        named: The latest inner span of each name, for those that name it as a dependency.
        identity: Attributes that it shares with its inner spans.
        shown_name: The action's name as spans carry it.
        labels: What measurements of it carry.
    """

    labels: dict[str, str]
    streaming = begun = False
    items = 0
    final: tuple[Any, Any] | None = None
    _raised: tuple[Exception, int] | None = None
    _first_item_ns: int | None = None
    _ids = b""
    _links = 0
    _usual = False  # whether the span says just what a reader of the log expects of it

    def __init__(
        self,
        shared: Shared,
        root: Root,
        action: ActionFacts,
        sequence_id: int,
        inputs: Mapping[str, Any],
        method: str | None,
        prior: str | None,
        outer_error: BaseException | None,
        now_ns: int,
        settle: Callable[[Step], None],
    ) -> None:
        self.shared, self.action, self.sequence_id = shared, action, sequence_id
        self.inner: dict[int, InnerSpan] = {}
        self.named: dict[str, trace.SpanContext] = {}
        self.identity = {semconv.SEQUENCE_ID: sequence_id, **root.identity}
        self._settle = settle
        self._method, self._prior = method, prior
        self.shown_name = str(action.attributes[semconv.ACTION_NAME])
        self._origin = b'"time_unix_nano":%d' % now_ns
        self._started: dict[str, AttributeValue] = {}
        self._said: dict[str, AttributeValue] = {}
        self._expected: dict[str, AttributeValue] = {}
        outer = otel_context.get_current()
        span: trace.Span = trace.INVALID_SPAN
        if root.is_valid:
            try:
                span = self._start(root, outer, inputs, now_ns)
            except Exception as error:
                shield.report("starting a step span", error)
        self.open_span = OpenSpan(
            span,
            start_ns=now_ns,
            identity=self.identity,
            outer_error=outer_error,
            step=(str(root.identity[semconv.APP_ID]), sequence_id),
            outer=outer,
        )
        if inputs and self.open_span.recording:
            try:
                self._describe_inputs(inputs)
            except Exception as error:
                shield.report("describing a step's inputs", error)

    def _start(
        self, root: Root, outer: Context, inputs: Mapping[str, Any], now_ns: int
    ) -> trace.Span:
        parent, ambient = root.stand_in, None
        links: list[trace.Link] = []
        current = trace.get_current_span(outer)
        if current is not trace.INVALID_SPAN:
            ambient = parents.context_in(current)
            over, links = parents.step_parent(self.shared.config.step_parent, root.context, ambient)
            if over is not root.context:
                parent = trace.NonRecordingSpan(over)
        over = parent.get_span_context()
        # One decision a trace: under an unsampled parent, no sampler is asked.
        span = self._sampled(parent, links, inputs, now_ns, outer) if sampled(over) else parent
        context = span.get_span_context()
        ids = parents.id_members(context)
        if ids:
            self._ids = ids + b","
            origin = parents.origin_members(ids, over, links)
            self._origin = b'%b,%b,"root_span_id":"%016x"' % (
                self._origin,
                origin,
                root.context.span_id,
            )
        if ambient is not None and ambient.trace_id != context.trace_id:
            link = parents.link(context, semconv.LINK_STEP)
            current.add_link(link.context, link.attributes)
        return span

    def _sampled(
        self,
        parent: trace.Span,
        links: list[trace.Link],
        inputs: Mapping[str, Any],
        now_ns: int,
        outer: Context,
    ) -> trace.Span:
        started = self._started
        if self._method is not None:
            started[semconv.EXECUTE_METHOD] = self._method
        if self._prior is not None:
            started[semconv.GRAPH_NODE_PARENT_ID] = self._prior
        if not inputs:
            self._say_inputs(started, inputs)
        self._links = len(links)
        self._expected = {**self.action.attributes, **started, **self.identity}
        return self.shared.tracer.start_span(
            self.shown_name,
            trace.set_span_in_context(parent, outer),
            links=links,
            attributes=self._expected,
            start_time=now_ns,
        )

    def _describe_inputs(self, inputs: Mapping[str, Any]) -> None:
        said: dict[str, AttributeValue] = {}
        self._say_inputs(said, inputs)
        self._started |= said
        self._expected |= said
        self.open_span.span.set_attributes(said)

    def _say_inputs(self, said: dict[str, AttributeValue], inputs: Mapping[str, Any]) -> None:
        content = self.shared.policy.document("inputs", inputs)
        self._say(said, semconv.INPUTS, content)
        if self.shared.config.openinference_content:
            self._say(said, semconv.INPUT_VALUE, content, semconv.INPUT_MIME_TYPE)

    def _say(
        self,
        said: dict[str, AttributeValue],
        name: str,
        content: Attribute | None,
        mime_name: str | None = None,
    ) -> None:
        if content is None:
            return
        said[name] = content.value
        if mime_name is not None:
            said[mime_name] = semconv.MIME_JSON
        if content.truncated:
            self.open_span.note_cut(name)

    def begin_record(self, inputs: bytes | None, *, described: Described) -> bytes:
        """What the log's begin record keeps of the span, as JSON members; never raises.

        Args:
            inputs: As the record holds them, see `Bases`.
            described: What the session's log tells already.
        """
        span = self.open_span.readable
        if span is None:
            return self._origin
        try:
            members = [self._origin, self._begin_members(inputs)]
            if described.lacks_source:
                members.append(orjson.dumps(recorded.source_members(span))[1:-1])
            if described.lacks(self.action.name):
                facts = recorded.facts_member(self.action.name, self.action.attributes)
                members.append(b'"action":%b' % orjson.dumps(facts))
        except Exception as error:
            shield.report("recording what a span says", error)
            return self._origin
        return b",".join(members)

    def _begin_members(self, inputs: bytes | None) -> bytes:
        own_name, said = self.action.name, self._started.get(semconv.INPUTS)
        usual = self.shown_name == own_name and not self.shared.config.openinference_content
        if usual and isinstance(said, str) and said.encode() == inputs:
            return recorded.usual_begin(self._method, self._prior)
        bases = {semconv.INPUTS: inputs}
        members = recorded.begin_members(own_name, self.shown_name, self._started, bases)
        return orjson.dumps(members)[1:-1]

    def compares_state(self, size_bytes: int) -> bool:
        """Whether the span's written state is to be compared with a state of that size."""
        if not self.action.writes or self.open_span.readable is None:
            return False
        return size_bytes <= _LONGEST_COMPARED_BYTES

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
        if error is None and self.begun and self.action.writes:
            found[semconv.STATE_WRITTEN] = written
        return found

    def end_record(self, end_ns: int, outcome: str, bases: Bases) -> bytes:
        """What the log's end record keeps of the span, as JSON members; never raises.

        Args:
            end_ns: Unix time of its end.
            outcome: How it ended.
            bases: Content that this record holds.
        """
        usual = b'%b"time_unix_nano":%d,"outcome":"%b"' % (self._ids, end_ns, outcome.encode())
        span = self.open_span.readable
        if span is None:
            return usual
        try:
            if self._usual and recorded.left_alone(span, self.shown_name, self._links):
                members = recorded.usual_end(self._said, bases, self.open_span.truncated)
                if members is not None:
                    return b"%b,%b" % (usual, members)
            known = {**self.identity, **self.open_span.logged, semconv.OUTCOME: outcome}
            if self.begun:  # logged attributes may have any name
                known = {**self.action.attributes, **self._started, **known}
            record = recorded.end_record(
                span,
                ids=parents.record_of(self.open_span.context),
                name=self.shown_name,
                start_ns=self.open_span.start_ns,
                end_ns=end_ns,
                outcome=outcome,
                links=self._links,
                known=known,
                bases=bases,
            )
            return orjson.dumps(record)[1:-1]
        except Exception as error:
            shield.report("recording what a span says", error)
            return usual

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
        self.shared.metrics.first_item(self.labels, seconds)
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
        said = self._said
        recording = self.open_span.span.is_recording()
        try:
            if error is not None or self.streaming or self._raised is not None:
                message = self._describe_end(error, outcome, end_ns)
            if recording:
                self._describe_output(error, result, state, plain)
        except Exception as problem:
            shield.report("describing a step", problem)
        if not recording:
            return outcome, message
        last = {**said, semconv.OUTCOME: outcome}
        try:
            as_expected = self.open_span.put_last(last, {**self._expected, **last})
            self._usual = as_expected and self.begun and not self.open_span.logged
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
            self.shared.metrics.step_ended(self.labels, outcome, seconds)
        except Exception as problem:
            shield.report("ending a step span", problem)

    def _describe_end(self, error: BaseException | None, outcome: str, end_ns: int) -> str | None:
        span, message = self.open_span.span, None
        if self._raised is not None and self._raised[0] is not error:
            # Burr swallowed it and went on: something to see, and no failure.
            content = exceptions.content_of(self.shared.policy, self._raised[0])
            exceptions.record_exception(span, content, self._raised[1], failed=False)
        if outcome == semconv.ERROR and error is not None:
            content = exceptions.content_of(self.shared.policy, error)
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
        error: BaseException | None,
        result: Mapping[str, Any] | None,
        state: Any,
        plain: bytes | None,  # noqa: ARG002
    ) -> None:
        policy, said = self.shared.policy, self._said
        returned = written = None
        if result is not None:
            returned = policy.document("results", result)
            self._say(said, semconv.RESULT, returned)
        if state is not None and error is None and self.action.writes:
            values = {key: state[key] for key in self.action.writes if key in state}
            written = policy.document("state", values)
            self._say(said, semconv.STATE_WRITTEN, written)
        if self.shared.config.openinference_content:
            # Most actions return only state: then that is what they put out.
            output = returned if result else written
            self._say(said, semconv.OUTPUT_VALUE, output, semconv.OUTPUT_MIME_TYPE)

    def mark_snapshot_error(self, error: SnapshotError) -> None:
        """Say on the span that its state was not kept."""
        if self.open_span.span.is_recording():
            text = exceptions.snapshot_text(self.shared.policy, error)
            self.open_span.span.set_attribute(semconv.SNAPSHOT_ERROR, text)
