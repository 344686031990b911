"""What a span says: a pure function of its records.

Live spans, `replay`, `recover`, `show`, `diff` and the HTML page all ask here. Nothing is read
but the arguments, so what is sent later equals what was sent live.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from burr_otel import semconv
from burr_otel.content import Attribute, ContentPolicy, RaisedText
from burr_otel.records import (
    BeginInner,
    BeginRoot,
    BeginStep,
    EndInner,
    EndRoot,
    EndStep,
    LinkIds,
    Logged,
    Raised,
    StreamTimes,
    Usage,
    read_links,
)
from burr_otel.spans.facts import ActionFacts, RunFacts, graph_document
from burr_otel.spans.portable import from_portable

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

DIED: Final = "the process ended before this did"
_EXCEPTION: Final = "exception."
_WHOSE: Final = (semconv.SESSION_ID, semconv.USER_ID)  # the code inside knows better than we
_EXIT: Final = "SystemExit"  # with 0 or nothing it ends a program in order


class SpanEvent(NamedTuple):
    """An event of a span."""

    name: str
    attributes: Mapping[str, AttributeValue]
    time_ns: int


class SpanStatus(NamedTuple):
    """The status of a span; `code` as OpenTelemetry names it."""

    code: str = "UNSET"
    description: str | None = None


class SpanContent(NamedTuple):
    """What a span says, beside its ids, parent and the links that it began with.

    In plain types: whoever only reads runs need not import OpenTelemetry.
    """

    name: str
    attributes: dict[str, AttributeValue]
    events: list[SpanEvent]
    status: SpanStatus
    links: Sequence[LinkIds]


def soonest_end(start_ns: int, end_ns: int) -> int:
    """`end_ns`, or the soonest end: Jaeger warns of a duration that is not positive."""
    return max(end_ns, start_ns + 1)


def exception_attributes(policy: ContentPolicy, raised: Raised | RaisedText) -> dict[str, Any]:
    """What a span says of an exception: type, message and traceback, as far as they are shown."""
    names = semconv.EXCEPTION_TYPE, semconv.EXCEPTION_MESSAGE, semconv.EXCEPTION_STACKTRACE
    texts = policy.exception(RaisedText(*raised))
    return {name: text for name, text in zip(names, texts, strict=True) if text}


class _ContentWriter:
    """Collects the attributes, events and status of one span."""

    def __init__(self, run: RunFacts, attributes: dict[str, AttributeValue]) -> None:
        self.policy: ContentPolicy = run.policy
        self.run, self.attributes = run, attributes
        self.events: list[SpanEvent] = []
        self.status = SpanStatus()
        self._cut: list[str] = []

    def put(self, name: str, content: Attribute | None) -> None:
        """Add content, and remember when it was cut."""
        if content is None:
            return
        value: Any = content.value
        self.attributes[name] = tuple(value) if isinstance(value, list) else value
        if content.truncated and name not in self._cut:
            self._cut.append(name)

    def put_shown(self, shown: Mapping[str, Any]) -> None:
        """Add what a record holds as it was shown."""
        for name, value in shown.items():
            if name == semconv.TRUNCATED:
                self._cut += [each for each in value if each not in self._cut]
            elif not name.startswith(_EXCEPTION):
                self.attributes[name] = tuple(value) if isinstance(value, list) else value

    def put_logged(self, logged: Sequence[Logged]) -> None:
        """Add logged attributes under their own names."""
        for each in logged:
            if each.shown is not None:
                content: Attribute | None = Attribute(*each.shown)
            else:
                content = self.policy.attribute(each.key, each.value.value)
            self.put(self.policy.name(each.key), content)

    def put_usage(self, usage: Usage | None) -> None:
        """Add the tokens that models took and gave."""
        if usage is not None:
            self.attributes[semconv.USAGE_INPUT_TOKENS] = usage.input_tokens
            self.attributes[semconv.USAGE_OUTPUT_TOKENS] = usage.output_tokens
            self.attributes[semconv.USAGE_CALLS] = usage.calls

    def put_exception(
        self, raised: Raised, time_ns: int, shown: Mapping[str, Any], *, failed: bool
    ) -> None:
        """Add an exception: an event, and for a failure status and ``error.type``."""
        if semconv.EXCEPTION_TYPE in shown:
            told = {name: text for name, text in shown.items() if name.startswith(_EXCEPTION)}
        else:
            told = exception_attributes(self.policy, raised)
        kind = str(told.get(semconv.EXCEPTION_TYPE, "Exception"))
        if failed:
            self.attributes[semconv.ERROR_TYPE] = kind
            message = str(told.get(semconv.EXCEPTION_MESSAGE) or kind)
            self.status = SpanStatus("ERROR", message)
        if self.run.settings.exception_events or not failed:
            self.events.append(SpanEvent(semconv.EVENT_EXCEPTION, told, time_ns))

    def put_state(self, name: str, keys: Sequence[str], end: EndStep) -> None:
        """Add a part of the state of a step's end."""
        if end.state is None or not keys or name in end.shown:
            return
        parts = {key: end.state[key] for key in keys if key in end.state}
        self.put(name, self.policy.shown_parts("state", parts, end.grown))

    def put_stream(self, stream: StreamTimes, start_ns: int, end_ns: int) -> None:
        """Add what a stream gave, and when."""
        attributes = self.attributes
        attributes[semconv.STREAM_ITEMS] = stream.items
        if stream.generator_ns is not None:
            attributes[semconv.STREAM_GENERATOR_TIME] = stream.generator_ns / 1e9
        if stream.first_item_ns is not None:
            seconds = max(0, stream.first_item_ns - start_ns) / 1e9
            attributes[semconv.STREAM_TIME_TO_FIRST_ITEM] = seconds
            self.events.append(SpanEvent(semconv.EVENT_STREAM_FIRST_ITEM, {}, stream.first_item_ns))
        items: dict[str, AttributeValue] = {semconv.STREAM_ITEMS: stream.items}
        self.events.append(SpanEvent(semconv.EVENT_STREAM_END, items, end_ns))

    def put_user(self, user: Mapping[str, Any]) -> None:
        """Add attributes that other code set on the span."""
        for key, value in user.get("attributes", ()):
            self.attributes[from_portable(key)] = from_portable(value)

    def done(self, name: str, user: Mapping[str, Any], times: tuple[int, int]) -> SpanContent:
        """The content, with identity last, and with what other code set on the span."""
        if self._cut:
            self.attributes[semconv.TRUNCATED] = tuple(self._cut)
        start_ns, end_ns = times
        events = [
            each._replace(time_ns=min(max(each.time_ns, start_ns), end_ns)) for each in self.events
        ]
        links: Sequence[LinkIds] = ()
        status = self.status
        if user:
            name = str(from_portable(user.get("name", name)))
            events += [
                SpanEvent(from_portable(text), from_portable(attributes), time_ns)
                for text, time_ns, attributes in user.get("events", ())
            ]
            events.sort(key=lambda event: event.time_ns)
            links = read_links(user.get("links"))
            if status == SpanStatus() and "status" in user:
                code, text = user["status"]
                status = SpanStatus(code, from_portable(text))
        return SpanContent(name, self.attributes, events, status, links)


def root(run: RunFacts, graph: Any, begin: BeginRoot, end: EndRoot | None) -> SpanContent:
    """What an application span says; `graph` is its ``graph.json``."""
    writer = _ContentWriter(
        run,
        {
            semconv.GEN_AI_OPERATION_NAME: semconv.INVOKE_WORKFLOW,
            semconv.OPENINFERENCE_SPAN_KIND: "CHAIN",
            semconv.GRAPH_NODE_ID: run.project,
        },
    )
    document = graph_document(graph)
    if document is not None:
        writer.put(semconv.GRAPH, run.policy.attribute(semconv.GRAPH, document))
    shown = begin.about.get("shown") or {}
    if end is None:
        writer.attributes |= run.identity
        writer.put_shown(shown)
        return writer.done(run.name, {}, (begin.time_ns, begin.time_ns))
    writer.put_user(end.user)
    if end.outcome != semconv.CRASHED or end.steps:
        writer.attributes[semconv.STEPS] = end.steps
        writer.attributes[semconv.STEPS_FAILED] = end.failed
    writer.attributes[semconv.OUTCOME] = end.outcome
    writer.put_usage(end.usage)
    writer.put_shown(end.shown)
    if end.error_type is not None:
        writer.attributes[semconv.ERROR_TYPE] = run.policy.name(end.error_type)
    if end.outcome in (semconv.ERROR, semconv.FAILED):
        text = None if end.error is None else run.policy.text(end.error)
        writer.status = SpanStatus("ERROR", text)
    elif end.outcome == semconv.CRASHED:
        writer.status = SpanStatus("ERROR", end.error or DIED)
    writer.attributes |= run.identity
    writer.put_shown(shown)
    return writer.done(run.name, end.user, (begin.time_ns, end.time_ns))


def step(
    run: RunFacts,
    begin: BeginStep,
    end: EndStep | None,
    logged: Sequence[Logged] = (),
) -> SpanContent:
    """What a step's span says."""
    action = run.action(begin.action)
    writer = _ContentWriter(run, dict(action.attributes))
    attributes = writer.attributes
    if begin.method is not None:
        attributes[semconv.EXECUTE_METHOD] = begin.method
    if begin.prior is not None:
        attributes[semconv.GRAPH_NODE_PARENT_ID] = run.policy.name(begin.prior)
    shown = begin.shown
    if semconv.INPUTS not in shown:
        writer.put(semconv.INPUTS, run.policy.shown("inputs", begin.inputs.text))
    writer.put_logged(logged)
    end_ns = begin.time_ns
    user: Mapping[str, Any] = {}
    if end is not None:
        end_ns = soonest_end(begin.time_ns, end.time_ns)
        user = end.user
        writer.put_user(user)
        _end_of_step(writer, action, begin, end, end_ns)
        attributes[semconv.OUTCOME] = end.outcome
    if action.kind == "tool" or run.settings.openinference_content:
        _extra_conventions(writer, action, shown, end)
    attributes[semconv.SEQUENCE_ID] = begin.sequence_id
    attributes |= run.identity
    writer.put_shown(shown)
    if end is not None:
        writer.put_shown(end.shown)
    name = str(attributes[semconv.ACTION_NAME])
    return writer.done(name, user, (begin.time_ns, end_ns))


def _end_of_step(
    writer: _ContentWriter, action: ActionFacts, begin: BeginStep, end: EndStep, end_ns: int
) -> None:
    policy, state = writer.policy, end.state
    failed = end.outcome in (semconv.ERROR, semconv.CRASHED)
    if end.result is not None and semconv.RESULT not in end.shown:
        writer.put(semconv.RESULT, policy.shown("results", end.result.text))
    if state is not None and end.raised is None:
        writer.put_state(semconv.STATE_WRITTEN, action.writes, end)
    elif state is not None and failed and writer.run.settings.capture_state_read == "failed":
        # Burr gives the state before the step when it fails.
        writer.put_state(semconv.STATE_READ, action.reads, end)
    if end.swallowed is not None:
        writer.put_exception(*end.swallowed, {}, failed=False)
    if end.stream is not None:
        writer.put_stream(end.stream, begin.time_ns, end_ns)
    raised, expected = end.raised, end.outcome == semconv.OK
    if raised is not None and (failed or (expected and raised.type != _EXIT)):
        writer.put_exception(raised, end_ns, end.shown, failed=failed)
    elif end.failed is not None:
        writer.status = SpanStatus("ERROR", policy.text(end.failed))
    elif end.outcome == semconv.CRASHED:
        writer.status = SpanStatus("ERROR", DIED)
    if end.snapshot_error is not None:
        writer.attributes[semconv.SNAPSHOT_ERROR] = end.snapshot_error
    writer.put_usage(end.usage)


def _extra_conventions(
    writer: _ContentWriter, action: ActionFacts, shown: Mapping[str, Any], end: EndStep | None
) -> None:
    """What OpenInference and the GenAI conventions call a step's inputs and output."""
    attributes = writer.attributes
    told = {**attributes, **shown, **({} if end is None else end.shown)}
    inputs, result = told.get(semconv.INPUTS), told.get(semconv.RESULT)
    written = told.get(semconv.STATE_WRITTEN)
    if action.kind == "tool":
        if inputs is not None:
            attributes[semconv.GEN_AI_TOOL_ARGUMENTS] = inputs
        output = result if result not in (None, "{}") else written
        if output is not None:
            attributes[semconv.GEN_AI_TOOL_RESULT] = output
    if not writer.run.settings.openinference_content:
        return
    if inputs in (None, "{}"):
        inputs = told.get(semconv.STATE_READ, inputs)
    # Most actions return only state: then that is what they put out.
    output = result if result not in (None, "{}") else written
    for value, name, mime in (
        (inputs, semconv.INPUT_VALUE, semconv.INPUT_MIME_TYPE),
        (output, semconv.OUTPUT_VALUE, semconv.OUTPUT_MIME_TYPE),
    ):
        if value is not None:
            attributes[name], attributes[mime] = value, semconv.MIME_JSON


def inner(
    run: RunFacts,
    begin: BeginInner,
    end: EndInner | None,
    logged: Sequence[Logged] = (),
) -> SpanContent:
    """What the span of ``__tracer`` or ``@trace`` says."""
    writer = _ContentWriter(run, {})
    writer.put_logged(logged)
    user: Mapping[str, Any] = {}
    end_ns = begin.time_ns
    if end is not None:
        end_ns, user = soonest_end(begin.time_ns, end.time_ns), end.user
        writer.put_user(user)
        if end.raised is not None and end.outcome == semconv.ERROR:
            writer.put_exception(end.raised, end_ns, {}, failed=True)
        if end.outcome in (semconv.ABANDONED, semconv.CRASHED):
            writer.attributes[semconv.OUTCOME] = end.outcome
        if end.outcome == semconv.CRASHED:
            writer.status = SpanStatus("ERROR", DIED)
    attributes = writer.attributes
    attributes[semconv.SEQUENCE_ID] = begin.sequence_id
    told: dict[str, Any] = {key: attributes[key] for key in _WHOSE if key in attributes}
    attributes |= run.identity
    attributes |= told
    return writer.done(run.policy.name(begin.name), user, (begin.time_ns, end_ns))
