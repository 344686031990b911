"""What others do inside a step: their spans (LLM, HTTP, SQL) and their log lines.

A span processor sees every span of the provider; those whose parent is a Burr span, or a span that
was inside one itself, are stamped, counted and, on request, recorded. The parent tells, so that it
does not matter in which thread or context a span is made.

On request log lines become events of the step's span. A factory of log records sees each line in
the thread and context of the code that logs it, whichever handlers there are. A handler of ours
would silence `logging.basicConfig`, and Python's handler of last resort.
"""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

from burr_otel import semconv
from burr_otel.content import capture_exception, text_safely
from burr_otel.records import BeginInner, Document, EndInner, Logged, Raised
from burr_otel.spans import shield
from burr_otel.spans.burr_span import BurrSpan
from burr_otel.spans.describe import exception_attributes
from burr_otel.spans.provider import ByIdentity
from burr_otel.spans.scope import BurrStep, ids_of, innermost_scope, origin_of

# The Burr UI takes the depth of a span from the dots in its id; unbounded, a log would grow with
# the square of the depth.
_DEEPEST = 16

# The current names of the GenAI conventions, their earlier ones, and OpenInference's.
_INPUT_TOKENS = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.token_count.prompt",
)
_OUTPUT_TOKENS = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
)

_NOT_OF_STEPS: Final = ("burr", "burr_otel", "opentelemetry")  # Burr logs what a step raises
_MOST_LINES: Final = 100  # of a step
_LONGEST_MESSAGE: Final = 2_000  # characters
_MOST_EXCEPTION_BYTES: Final = 16 * 1024


class _ChildPlace:
    """Where a span of others is: in which step, below which other one."""

    __slots__ = ("__weakref__", "above", "burr_step", "burr_uid", "has_usage", "records")

    def __init__(self, step: BurrStep, above: _ChildPlace | None) -> None:
        self.burr_step, self.above = step, above
        self.records: Any = None  # where it is recorded, by this id
        self.burr_uid: str | None = None
        self.has_usage = False  # told by a span below, which this one would only sum up


class ChildSpans(SpanProcessor):
    """Sees the spans of others inside steps."""

    def __init__(self) -> None:
        # A place lives as long as its span object, whether the span is ever ended or not.
        self._places: weakref.WeakValueDictionary[int, _ChildPlace] = weakref.WeakValueDictionary()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Stamp a span inside a step, and record its begin."""
        own: Any = span
        if type(own) is BurrSpan or span.parent is None:
            return
        scope = span.instrumentation_scope
        if scope is not None and scope.name == semconv.SCOPE_NAME:
            return  # ours all the same: Logfire's tracers, for instance, give spans of their own
        try:
            above = self._places.get(span.parent.span_id)
            parent = above or trace.get_current_span(parent_context)
            step = getattr(parent, "burr_step", None)
            if step is None:
                return
            place = self._places[span.context.span_id] = _ChildPlace(step, above)
            span.burr_place = place  # type: ignore[attr-defined]  # where it is held
            said = span.attributes or {}
            for name in (semconv.GEN_AI_CONVERSATION_ID, semconv.GEN_AI_AGENT_NAME):
                if name not in said:
                    span.set_attribute(name, step.run.identity[name])
            place.records = step.child_records
            if place.records is not None:
                _record_begin(span, place, getattr(parent, "burr_uid", None))
        except Exception as error:
            shield.report("looking at a span inside a step", error)

    def on_end(self, span: ReadableSpan) -> None:
        """Add up the usage of a span that was seen to start, and record its end."""
        if type(span) is BurrSpan:
            return
        place = self._places.get(span.context.span_id)
        if place is None:
            return
        try:
            attributes = span.attributes or {}
            _count(attributes, place)
            if place.records is not None:
                _record_end(span, attributes, place)
        except Exception as error:
            shield.report("looking at a span inside a step", error)


# --- usage ----------------------------------------------------------------------------------------


def _count(attributes: Mapping[str, Any], place: _ChildPlace) -> None:
    taken, given = _tokens(attributes, _INPUT_TOKENS), _tokens(attributes, _OUTPUT_TOKENS)
    if taken is None and given is None:
        return
    if not place.has_usage:
        place.burr_step.add_usage(taken or 0, given or 0)
    above = place.above
    while above is not None and not above.has_usage:
        above.has_usage = True
        above = above.above


def _tokens(attributes: Mapping[str, Any], names: Sequence[str]) -> int | None:
    found = (attributes[name] for name in names if name in attributes)
    return next((each for each in found if type(each) is int and each >= 0), None)


# --- records --------------------------------------------------------------------------------------


def _record_begin(span: Span, place: _ChildPlace, parent_uid: str | None) -> None:
    number, sequence_id = f"{span.context.span_id:016x}", place.burr_step.sequence_id
    if parent_uid is None:
        place.burr_uid = f"{sequence_id}:{number}"
    else:
        siblings = parent_uid.count(".") >= _DEEPEST
        place.burr_uid = f"{parent_uid.rpartition('.')[0] if siblings else parent_uid}.{number}"
    scope = span.instrumentation_scope
    place.records.append(
        BeginInner(
            sequence_id,
            place.burr_uid,
            span.name,
            parent_uid,
            (),
            span.start_time or 0,
            origin_of(span.context, ids_of(span.parent), ()),
            kind=span.kind.name,
            scope=scope.name if scope is not None else "",
        )
    )


def _record_end(span: ReadableSpan, attributes: Mapping[str, Any], place: _ChildPlace) -> None:
    records, uid, sequence_id = place.records, place.burr_uid or "", place.burr_step.sequence_id
    end_ns = span.end_time or 0
    for key, value in attributes.items():
        kept = Document(None, list(value) if isinstance(value, tuple) else value)
        records.append(Logged(key, kept, {}, sequence_id, uid, end_ns))
    raised = _raised_in(span, attributes)
    outcome = semconv.OK if raised is None else semconv.ERROR
    records.append(EndInner(sequence_id, uid, end_ns, outcome, ids_of(span.context), raised))


def _raised_in(span: ReadableSpan, attributes: Mapping[str, Any]) -> Raised | None:
    """Why a span failed: what its last exception event says, else its status."""
    if span.status.status_code is not trace.StatusCode.ERROR:
        return None
    told = {
        semconv.EXCEPTION_TYPE: attributes.get(semconv.ERROR_TYPE, "error"),
        semconv.EXCEPTION_MESSAGE: span.status.description or "",
        semconv.EXCEPTION_STACKTRACE: "",
    }
    for event in span.events:
        if event.name == semconv.EVENT_EXCEPTION:
            told |= {name: text for name, text in (event.attributes or {}).items() if name in told}
    return Raised(*(str(text)[-_MOST_EXCEPTION_BYTES:] for text in told.values()))


# --- one processor a provider ---------------------------------------------------------------------


def _added_to(provider: Any) -> ChildSpans:
    processor = ChildSpans()
    if isinstance(provider, TracerProvider):
        # Not the method of a subclass: Phoenix's replaces the exporter that is there.
        TracerProvider.add_span_processor(provider, processor)
    else:
        provider.add_span_processor(processor)
    return processor


_processors = ByIdentity(_added_to)


def child_spans(provider: Any) -> ChildSpans | None:
    """The one processor of a provider, added on the first call; None for one without processors."""
    return _processors[provider] if hasattr(provider, "add_span_processor") else None


# --- log lines ------------------------------------------------------------------------------------


_looking = threading.local()  # a redactor may log, and so may a `__str__`
_factory: functools.partial[logging.LogRecord] | None = None


def see_log_lines() -> None:
    """See log lines from now on; idempotent."""
    global _factory
    if _factory is None:
        _factory = functools.partial(_seen_record, logging.getLogRecordFactory())
        logging.setLogRecordFactory(_factory)


def overlook_log_lines() -> None:
    """See none any more, unless another factory has been put around ours; idempotent."""
    global _factory
    if _factory is not None and logging.getLogRecordFactory() is _factory:
        logging.setLogRecordFactory(_factory.args[0])
        _factory = None


def _seen_record(previous: Any, *args: Any, **kwargs: Any) -> logging.LogRecord:
    record: logging.LogRecord = previous(*args, **kwargs)
    if not getattr(_looking, "here", False):
        _looking.here = True
        try:
            _look_at(record)
        except Exception as error:
            shield.report("adding a log line to a span", error)
        finally:
            _looking.here = False
    return record


def _look_at(record: logging.LogRecord) -> None:
    level, scope = record.levelno, innermost_scope()
    if not level or scope is None or scope.left:  # `logging.makeLogRecord` fills in the level later
        return
    step = scope.tag
    if step.log_events is None or level < step.log_events or step.log_lines >= _MOST_LINES:
        return
    if record.name.partition(".")[0] in _NOT_OF_STEPS:
        return
    step.log_lines += 1
    policy = step.run.policy
    message = policy.attribute(semconv.LOG_MESSAGE, text_safely(record.getMessage))
    told: dict[str, Any] = {
        semconv.LOG_SEVERITY: record.levelname,
        semconv.LOG_LOGGER: policy.name(record.name),
    }
    if message is not None:
        # Cut once its secrets are hidden: half a token is not known to be one.
        told[semconv.LOG_MESSAGE] = str(message.value)[:_LONGEST_MESSAGE]
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        told |= exception_attributes(policy, capture_exception(error, _MOST_EXCEPTION_BYTES))
    scope.current.add_event(semconv.EVENT_LOG, told)
