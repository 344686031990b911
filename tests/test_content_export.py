"""What the policy lets through is taken by the SDK and the OTLP encoder, so no batch is lost."""

from __future__ import annotations

import pytest
from hostile import ZOO
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Status, StatusCode

from burr_otel.content import ContentPolicy, capture_exception
from burr_otel.records import Raised


def described(policy: ContentPolicy, error: BaseException) -> Raised:
    """What a span shows of an exception."""
    return policy.exception(capture_exception(error, policy.max_attribute_bytes))


@pytest.mark.one_python
def test_a_batch_with_the_whole_zoo_is_encoded(caplog):
    """Every value as state, attribute, key, name, status and exception: nothing is dropped."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    policy = ContentPolicy(max_attribute_bytes=2000)
    for _, make in ZOO:
        value = make()
        span = tracer.start_span(policy.name(value))
        error = described(policy, ValueError(value))
        made = {
            "state": policy.document("state", {"v": value}),
            "logged": policy.attribute("logged", value),
            policy.name(value) or "empty": policy.attribute("k", [value, value]),
        }
        span.set_attributes({key: attribute.value for key, attribute in made.items()})
        span.add_event(
            "exception",
            {"type": error.type, "message": error.message, "stack": error.traceback},
        )
        span.set_status(Status(StatusCode.ERROR, policy.text(value)))
        span.end()
    request = encode_spans(exporter.get_finished_spans())
    read_back = ExportTraceServiceRequest.FromString(request.SerializeToString())
    spans = read_back.resource_spans[0].scope_spans[0].spans
    assert len(spans) == len(ZOO)
    assert all(len(span.attributes) == 3 for span in spans)
    assert all(len(span.events[0].attributes) == 3 for span in spans)
    assert caplog.records == []
