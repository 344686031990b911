"""How a span says that it failed."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

from opentelemetry import _logs, trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.trace import Status, StatusCode

from burr_otel import semconv
from burr_otel._version import __version__
from burr_otel.content import capture_exception

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from burr_otel.content import ContentPolicy, ExceptionContent
    from burr_otel.errors import SnapshotError

__all__ = ["content_of", "formatted", "record_exception", "snapshot_text"]

_SIGNAL = "OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN"


def content_of(policy: ContentPolicy, error: BaseException) -> ExceptionContent:
    """What a span says of an exception."""
    return policy.exception(capture_exception(error, policy.max_attribute_bytes))


def record_exception(
    span: trace.Span, content: ExceptionContent, time_ns: int, *, failed: bool
) -> None:
    """Write an exception on a span.

    Args:
        span: The span.
        content: The encoded exception.
        time_ns: Unix time of the event.
        failed: Whether the span failed with it. Burr swallows what a stream raises after its
            first items and goes on; such an exception is an event, and no error.
    """
    if not span.is_recording():
        return
    attributes: dict[str, AttributeValue] = {
        semconv.EXCEPTION_TYPE: content.type,
        semconv.EXCEPTION_MESSAGE: content.message,
        semconv.EXCEPTION_STACKTRACE: content.stacktrace,
    }
    attributes = {key: value for key, value in attributes.items() if value}
    if failed:
        span.set_attribute(semconv.ERROR_TYPE, content.type)
        span.set_status(Status(StatusCode.ERROR, content.message or content.type))
    # https://opentelemetry.io/docs/specs/semconv/exceptions/exceptions-spans/ (stability opt-in)
    signal = {part.strip() for part in os.environ.get(_SIGNAL, "").split(",")}
    if not signal & {"logs", "logs/dup"} or "logs/dup" in signal:
        span.add_event(semconv.EVENT_EXCEPTION, attributes, timestamp=time_ns)
    if signal & {"logs", "logs/dup"}:
        _emit_log(span, attributes, time_ns)


def _emit_log(span: trace.Span, attributes: dict[str, AttributeValue], time_ns: int) -> None:
    logger = _logs.get_logger(semconv.SCOPE_NAME, __version__, schema_url=semconv.SCHEMA_URL)
    logger.emit(
        LogRecord(
            timestamp=time_ns,
            context=trace.set_span_in_context(span),
            severity_number=SeverityNumber.ERROR,
            event_name=semconv.EVENT_EXCEPTION,
            attributes=attributes,
        )
    )


def snapshot_text(policy: ContentPolicy, error: SnapshotError) -> str:
    """What spans and log lines may say of a snapshot that failed.

    The cause may quote the value that could not be kept, so it goes through the content policy.
    """
    cause = content_of(policy, error.__cause__ or error)
    shown = f"{cause.type}: {cause.message}" if cause.message else cause.type
    return error.describe(shown)


def formatted(error: BaseException) -> str:
    """The traceback as Burr's own tracker records it; survives an exception whose text raises."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))
