"""Exceptions beside span events: as log records, and as the text of a failed snapshot."""

from __future__ import annotations

import os
from typing import Final

from opentelemetry import _logs, trace
from opentelemetry._logs import LogRecord, SeverityNumber

from burr_otel import records, semconv
from burr_otel._version import __version__
from burr_otel.content import ContentPolicy, capture_exception
from burr_otel.errors import SnapshotError
from burr_otel.spans.describe import exception_attributes

_SIGNAL: Final = "OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN"
_MOST_BYTES: Final = 4096


def signals() -> set[str]:
    """Where exceptions go beside span events: ``logs`` instead of these, ``logs/dup`` too."""
    # https://opentelemetry.io/docs/specs/semconv/exceptions/exceptions-spans/ (stability opt-in)
    return {part.strip() for part in os.environ.get(_SIGNAL, "").split(",")} & {"logs", "logs/dup"}


def emit_log(span: trace.Span, policy: ContentPolicy, raised: records.Raised, time_ns: int) -> None:
    """Write an exception as a log record of its span, where that is asked for."""
    if not signals():
        return
    logger = _logs.get_logger(semconv.SCOPE_NAME, __version__, schema_url=semconv.SCHEMA_URL)
    logger.emit(
        LogRecord(
            timestamp=time_ns,
            context=trace.set_span_in_context(span),
            severity_number=SeverityNumber.ERROR,
            event_name=semconv.EVENT_EXCEPTION,
            attributes=exception_attributes(policy, raised),
        )
    )


def snapshot_text(policy: ContentPolicy, error: SnapshotError) -> str:
    """What spans and log lines may say of a snapshot that failed."""
    # The cause may quote the value that could not be kept, so it goes through the content policy.
    cause = policy.exception(capture_exception(error.__cause__ or error, _MOST_BYTES))
    shown = f"{cause.type}: {cause.message}" if cause.message else cause.type
    return error.describe(shown)
