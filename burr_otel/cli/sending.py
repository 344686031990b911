"""Sending spans from the command line: to an endpoint that answers, with an answer to show."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING, Final, NamedTuple

from opentelemetry.sdk.environment_variables import OTEL_SDK_DISABLED
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from burr_otel.cli.endpoint import answers
from burr_otel.spans.exporters import Protocol, endpoint_from_environ

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Target", "Witness", "collected_warnings", "find_target", "make_provider"]

_TRACES_EXPORTER: Final = "OTEL_TRACES_EXPORTER"
_HTTP_DEFAULT: Final = "http://localhost:4318"
_EXPORT_TIMEOUT_S: Final = 5.0


class Target(NamedTuple):
    """Where spans go.

    Attributes:
        endpoint: What was asked.
        protocol: How to talk to it.
        problem: Why nothing can be sent there; empty when it answers.
        unreachable: Whether the problem is that nobody answers.
    """

    endpoint: str
    protocol: Protocol
    problem: str = ""
    unreachable: bool = False


def find_target() -> Target:
    """Ask the endpoint of the ``OTEL_*`` variables, or of the local default, whether it answers."""
    endpoint, protocol = endpoint_from_environ()
    if os.environ.get(OTEL_SDK_DISABLED, "").strip().lower() == "true":
        return Target(endpoint, protocol, f"{OTEL_SDK_DISABLED} is true, so no trace was made.")
    exporters = os.environ.get(_TRACES_EXPORTER, "otlp")
    if "otlp" not in [name.strip() for name in exporters.split(",")]:
        return Target(
            endpoint, protocol, f"{_TRACES_EXPORTER} is {exporters!r}, so nothing was sent by OTLP."
        )
    if answers(endpoint):
        return Target(endpoint, protocol)
    given = any(name.startswith("OTEL_EXPORTER_OTLP") for name in os.environ)
    if not given and answers(_HTTP_DEFAULT):
        return Target(_HTTP_DEFAULT, "http/protobuf")
    return Target(
        endpoint,
        protocol,
        f"No OTLP endpoint answers at {endpoint}, so the trace was not sent.",
        unreachable=True,
    )


class Witness(SpanExporter):
    """An exporter that remembers what became of the spans.

    Attributes:
        sent: Spans that the endpoint took.
        refused: Spans that it did not.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.sent = self.refused = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send, and count."""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.sent += len(spans)
        else:
            self.refused += len(spans)
        return result

    def shutdown(self) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter."""
        return self._exporter.force_flush(timeout_millis)


def make_provider(service_name: str, target: Target) -> tuple[TracerProvider, Witness | None]:
    """A provider that sends to the target, or makes trace ids and sends nothing.

    Args:
        service_name: Its ``service.name``, unless ``OTEL_SERVICE_NAME`` is set.
        target: Where to send.
    """
    attributes = {
        "service.name": os.environ.get("OTEL_SERVICE_NAME") or service_name,
        "host.name": socket.gethostname(),
    }
    provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    if target.problem:
        return provider, None
    witness = Witness(_exporter(target))
    provider.add_span_processor(BatchSpanProcessor(witness))
    return provider, witness


def _exporter(target: Target) -> SpanExporter:
    # Each takes a good part of a second to import, so only the one in use is.
    if target.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as GrpcExporter,
        )

        return GrpcExporter(timeout=_EXPORT_TIMEOUT_S)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter as HttpExporter,
    )

    return HttpExporter(timeout=_EXPORT_TIMEOUT_S)


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message, without the traceback."""
        self.texts.append(record.getMessage())


@contextlib.contextmanager
def collected_warnings(*names: str) -> Iterator[list[str]]:
    """Keep warnings of these loggers, and of those below them, instead of printing them."""
    collector = _Collector()
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(collector)
        logger.propagate = False
    try:
        yield collector.texts
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(collector)
            logger.propagate = propagate
