"""What a span says: a pure function of its records.

Live spans, `replay`, `recover`, `show`, `diff` and the HTML page all ask here. Nothing is read
but the arguments, so what is sent later equals what was sent live.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from burr_otel import records, semconv
from burr_otel.content import Attribute, ContentPolicy, capture_exception
from burr_otel.errors import SnapshotError
from burr_otel.records.read import read_links
from burr_otel.spans.facts import ActionFacts, RunFacts, from_portable, graph_document

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

_MOST_CAUSE_BYTES: Final = 4096
DIED: Final = "the process ended before this did"
_EXCEPTION: Final = "exception."
_WHOSE: Final = (semconv.SESSION_ID, semconv.USER_ID)  # an inner span keeps what user code set
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
    links: Sequence[records.LinkIds]


def soonest_end(start_ns: int, end_ns: int) -> int:
    """`end_ns`, or the soonest end: Jaeger warns of a duration that is not positive."""
    return max(end_ns, start_ns + 1)


def exception_attributes(policy: ContentPolicy, raised: records.Raised) -> dict[str, Any]:
    """What a span says of an exception: type, message and traceback, as far as they are shown."""
    return _texts(policy.exception(raised))


def _texts(raised: records.Raised) -> dict[str, Any]:
    names = semconv.EXCEPTION_TYPE, semconv.EXCEPTION_MESSAGE, semconv.EXCEPTION_STACKTRACE
    return {name: text for name, text in zip(names, raised, strict=True) if text}


def snapshot_text(policy: ContentPolicy, error: SnapshotError) -> str:
    """What spans and log lines may say of a snapshot that failed."""
    # The cause may quote the value that could not be kept, so it goes through the content policy.
    cause = policy.exception(capture_exception(error.__cause__ or error, _MOST_CAUSE_BYTES))
    shown = f"{cause.type}: {cause.message}" if cause.message else cause.type
    return error.describe(shown)


class _ContentWriter:
    """Collects what one span says."""

    def __init__(
        self,
        run: RunFacts,
        begin_ns: int,
        end: records.EndRoot | records.EndStep | records.EndInner | None,
        attributes: dict[str, AttributeValue],
    ) -> None:
        self.run, self.policy, self.attributes = run, run.policy.of_records, attributes
        self.begin_ns = begin_ns
        self.end_ns = begin_ns if end is None else soonest_end(begin_ns, end.time_ns)
        self._user: Mapping[str, Any] = {} if end is None else end.user
        self.events: list[SpanEvent] = []
        self.status = SpanStatus()
        if end is not None and end.outcome == semconv.CRASHED:
            self.status = SpanStatus("ERROR", DIED)
        self._cut: list[str] = []

    def put(self, name: str, content: Attribute | None) -> None:
        """Add content, and remember when it was cut."""
        if content is not None:
            value: Any = content.value
            self.attributes[name] = tuple(value) if isinstance(value, list) else value
            if content.truncated:
                self._cut.append(name)

    def put_shown(self, shown: Mapping[str, Any]) -> None:
        """Add what a record holds as it was shown."""
        for name, value in shown.items():
            if name == semconv.TRUNCATED:
                self._cut += value
            elif not name.startswith(_EXCEPTION):
                self.attributes[name] = tuple(value) if isinstance(value, list) else value

    def put_from_inside(self, logged: Iterable[records.Logged] = ()) -> None:
        """Add what was logged under its own names, and what other code has set on the span."""
        for each in {each.key: each for each in list(logged)}.values():  # of a key the newest
            if each.shown is not None:
                content: Attribute | None = Attribute(*each.shown)
            else:
                content = self.policy.attribute(each.key, each.value.value)
            self.put(self.policy.name(each.key), content)
        self.attributes.update(from_portable(self._user.get("attributes", [])))

    def put_usage(self, usage: records.Usage | None) -> None:
        """Add the tokens that models took and gave."""
        if usage is not None:
            self.attributes[semconv.USAGE_INPUT_TOKENS] = usage.input_tokens
            self.attributes[semconv.USAGE_OUTPUT_TOKENS] = usage.output_tokens
            self.attributes[semconv.USAGE_CALLS] = usage.calls

    def put_exception(
        self, raised: records.Raised, time_ns: int, shown: Mapping[str, Any], *, failed: bool
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

    def put_state(self, name: str, keys: Sequence[str], end: records.EndStep) -> None:
        """Add a part of the state of a step's end."""
        if end.state is None or not keys or name in end.shown:
            return
        parts = {key: end.state[key] for key in keys if key in end.state}
        self.put(name, self.policy.shown("state", parts, end.grown))

    def put_stream(self, stream: records.StreamTimes) -> None:
        """Add what a stream gave, and when."""
        items: dict[str, AttributeValue] = {semconv.STREAM_ITEMS: stream.items}
        self.attributes |= items
        if stream.generator_ns is not None:
            self.attributes[semconv.STREAM_GENERATOR_TIME] = stream.generator_ns / 1e9
        if stream.first_item_ns is not None:
            seconds = max(0, stream.first_item_ns - self.begin_ns) / 1e9
            self.attributes[semconv.STREAM_TIME_TO_FIRST_ITEM] = seconds
            self.events.append(SpanEvent(semconv.EVENT_STREAM_FIRST_ITEM, {}, stream.first_item_ns))
        self.events.append(SpanEvent(semconv.EVENT_STREAM_END, items, self.end_ns))

    def done(self, name: str, *shown: Mapping[str, Any]) -> SpanContent:
        """The content, with identity and what was `shown` last, and what other code has set."""
        self.attributes |= self.run.identity
        for each in shown:
            self.put_shown(each)
        if self._cut:
            self.attributes[semconv.TRUNCATED] = tuple(dict.fromkeys(self._cut))
        events = [
            each._replace(time_ns=min(max(each.time_ns, self.begin_ns), self.end_ns))
            for each in self.events
        ]
        user, status = self._user, self.status
        if user:
            name = str(from_portable(user.get("name", name)))
            told = from_portable(user.get("events", []))
            events += [SpanEvent(text, attributes, time_ns) for text, time_ns, attributes in told]
            events.sort(key=lambda event: event.time_ns)
            if status == SpanStatus() and "status" in user:
                status = SpanStatus(*from_portable(user["status"]))
        links = read_links(user.get("links"))
        return SpanContent(name, self.attributes, events, status, links)


def root(
    run: RunFacts, graph: Any, begin: records.BeginRoot, end: records.EndRoot | None
) -> SpanContent:
    """What an application span says; `graph` is its ``graph.json``."""
    attributes: dict[str, AttributeValue] = {
        semconv.GEN_AI_OPERATION_NAME: semconv.INVOKE_WORKFLOW,
        semconv.OPENINFERENCE_SPAN_KIND: "CHAIN",
        semconv.GRAPH_NODE_ID: run.project,
    }
    writer = _ContentWriter(run, begin.time_ns, end, attributes)
    document = graph_document(graph)
    if document is not None:
        writer.put(semconv.GRAPH, writer.policy.attribute(semconv.GRAPH, document))
    shown = begin.about.get("shown") or {}
    if end is None:
        return writer.done(run.name, shown)
    writer.put_from_inside()
    if end.outcome != semconv.CRASHED or end.steps:
        attributes[semconv.STEPS] = end.steps
        attributes[semconv.STEPS_FAILED] = end.failed
    attributes[semconv.OUTCOME] = end.outcome
    writer.put_usage(end.usage)
    if end.error_type is not None:
        attributes[semconv.ERROR_TYPE] = writer.policy.name(end.error_type)
    if end.outcome in (semconv.ERROR, semconv.FAILED):
        text = end.error if writer.policy.exceptions == "full" else end.error_type
        writer.status = SpanStatus("ERROR", None if text is None else writer.policy.text(text))
    return writer.done(run.name, end.shown, shown)


def step(
    run: RunFacts,
    begin: records.BeginStep,
    end: records.EndStep | None,
    logged: Iterable[records.Logged] = (),
) -> SpanContent:
    """What a step's span says."""
    action = run.action(begin.action)
    attributes = dict(action.attributes)
    writer = _ContentWriter(run, begin.time_ns, end, attributes)
    if begin.method is not None:
        attributes[semconv.EXECUTE_METHOD] = begin.method
    if begin.prior is not None:
        attributes[semconv.GRAPH_NODE_PARENT_ID] = writer.policy.name(begin.prior)
    if semconv.INPUTS not in begin.shown:
        writer.put(semconv.INPUTS, writer.policy.shown("inputs", begin.inputs.text))
    writer.put_from_inside(logged)
    shown = [begin.shown]
    if end is not None:
        shown.append(end.shown)
        _put_end_of_step(writer, action, end)
    if action.kind == "tool" or run.settings.openinference_content:
        _put_other_conventions(writer, action, shown)
    attributes[semconv.SEQUENCE_ID] = begin.sequence_id
    name = begin.shown.get(semconv.ACTION_NAME, attributes[semconv.ACTION_NAME])
    return writer.done(str(name), *shown)


def _put_end_of_step(writer: _ContentWriter, action: ActionFacts, end: records.EndStep) -> None:
    failed = end.outcome in (semconv.ERROR, semconv.CRASHED)
    if end.result is not None and semconv.RESULT not in end.shown:
        writer.put(semconv.RESULT, writer.policy.shown("results", end.result.text))
    if end.raised is None:
        writer.put_state(semconv.STATE_WRITTEN, action.writes, end)
    elif failed and writer.run.settings.capture_state_read == "failed":
        # Burr gives the state before the step when it fails.
        writer.put_state(semconv.STATE_READ, action.reads, end)
    if end.swallowed is not None:
        shown = _texts(end.swallowed[0]) if writer.policy.shown_only else {}
        writer.put_exception(*end.swallowed, shown, failed=False)
    if end.stream is not None:
        writer.put_stream(end.stream)
    raised, expected = end.raised, end.outcome == semconv.OK
    if raised is not None and (failed or (expected and raised.type != _EXIT)):
        writer.put_exception(raised, writer.end_ns, end.shown, failed=failed)
    elif end.failed is not None:
        is_shown = writer.policy.exceptions == "full"
        writer.status = SpanStatus("ERROR", writer.policy.text(end.failed) if is_shown else None)
    if end.snapshot_error is not None:
        writer.attributes[semconv.SNAPSHOT_ERROR] = end.snapshot_error
    writer.put_usage(end.usage)
    writer.attributes[semconv.OUTCOME] = end.outcome


def _put_other_conventions(
    writer: _ContentWriter, action: ActionFacts, shown: Sequence[Mapping[str, Any]]
) -> None:
    """Add what OpenInference and the GenAI conventions call a step's inputs and output."""
    told: dict[str, Any] = dict(writer.attributes)
    for each in shown:
        told.update(each)
    inputs, output = told.get(semconv.INPUTS), told.get(semconv.RESULT)
    if output in (None, "{}"):  # most actions return only state: then that is what they put out
        output = told.get(semconv.STATE_WRITTEN)
    found = {}
    if action.kind == "tool":
        found = {semconv.GEN_AI_TOOL_ARGUMENTS: inputs, semconv.GEN_AI_TOOL_RESULT: output}
    if writer.run.settings.openinference_content:
        if inputs in (None, "{}"):
            inputs = told.get(semconv.STATE_READ, inputs)
        found |= {semconv.INPUT_VALUE: inputs, semconv.OUTPUT_VALUE: output}
        found[semconv.INPUT_MIME_TYPE] = inputs and semconv.MIME_JSON
        found[semconv.OUTPUT_MIME_TYPE] = output and semconv.MIME_JSON
    writer.attributes.update((name, value) for name, value in found.items() if value is not None)


def inner(
    run: RunFacts,
    begin: records.BeginInner,
    end: records.EndInner | None,
    logged: Iterable[records.Logged] = (),
) -> SpanContent:
    """What the span of ``__tracer`` or ``@trace`` says."""
    attributes: dict[str, AttributeValue] = {}
    writer = _ContentWriter(run, begin.time_ns, end, attributes)
    writer.put_from_inside(logged)
    if end is not None:
        if end.raised is not None and end.outcome == semconv.ERROR:
            writer.put_exception(end.raised, writer.end_ns, end.shown, failed=True)
        if end.outcome in (semconv.ABANDONED, semconv.CRASHED):
            attributes[semconv.OUTCOME] = end.outcome
    attributes[semconv.SEQUENCE_ID] = begin.sequence_id
    whose: dict[str, Any] = {key: attributes[key] for key in _WHOSE if key in attributes}
    return writer.done(writer.policy.name(begin.name), whose)
