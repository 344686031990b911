"""Plain OpenTelemetry SDK spans over real exporters, for tests of the servers themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
    OTLPSpanExporter as GrpcSpanExporter,
)
from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
    OTLPSpanExporter as HttpSpanExporter,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

PROTOCOLS = ("grpc", "http/protobuf")


def exporter(protocol: str, endpoint: str, timeout_s: float) -> SpanExporter:
    """An OTLP exporter to an address such as `http://127.0.0.1:4317`."""
    if protocol == "grpc":
        return GrpcSpanExporter(endpoint=endpoint, insecure=True, timeout=timeout_s)
    return HttpSpanExporter(endpoint=f"{endpoint}/v1/traces", timeout=timeout_s)


@contextlib.contextmanager
def sending_provider(
    service: str, protocol: str, endpoint: str, *, timeout_s: float = 10.0
) -> Iterator[tuple[TracerProvider, InMemorySpanExporter]]:
    """A provider that sends, and keeps a copy of what it sends; everything is out at the end."""
    provider = TracerProvider(
        resource=Resource({"service.name": service, "host.name": "test-host"}),
        shutdown_on_exit=False,
    )
    kept = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    provider.add_span_processor(
        BatchSpanProcessor(exporter(protocol, endpoint, timeout_s), max_queue_size=100_000)
    )
    try:
        yield provider, kept
    finally:
        assert provider.force_flush(30_000), "spans were not taken in time"
        provider.shutdown()


def content(span: ReadableSpan) -> dict[str, Any]:
    """Everything that a span says, as plain values that compare."""
    return {
        "name": span.name,
        "id": (span.context.trace_id, span.context.span_id),
        "parent": span.parent.span_id if span.parent else None,
        "kind": span.kind,
        "attributes": dict(span.attributes),
        "events": [(e.name, dict(e.attributes), e.timestamp) for e in span.events],
        "links": [(k.context.trace_id, k.context.span_id, dict(k.attributes)) for k in span.links],
        "status": (span.status.status_code, span.status.description or ""),
        "times": (span.start_time, span.end_time),
        "resource": dict(span.resource.attributes),
        "scope": (span.instrumentation_scope.name, span.instrumentation_scope.version),
    }
