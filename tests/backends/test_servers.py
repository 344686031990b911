"""The servers, their configuration and the reading back, proved with plain SDK spans."""

from __future__ import annotations

import pytest
from collector_api import Collector
from jaeger_api import Jaeger
from opentelemetry import trace
from phoenix_api import Phoenix
from sending import PROTOCOLS, content, sending_provider


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_jaeger_gives_back_exactly_what_was_sent(
    protocol: str, collector: Collector, jaeger: Jaeger
) -> None:
    """What a test reads from Jaeger is what left the process: no type, link or time is lost."""
    service = f"plain-{protocol.partition('/')[0]}"
    with sending_provider(service, protocol, collector.endpoint(protocol)) as (provider, kept):
        tracer = provider.get_tracer("plain", "1.2")
        values = {"b": True, "i": 2**62, "f": 2.0, "s": "ü", "l": ["a", "b"], "n": [], "e": ""}
        with tracer.start_as_current_span("root", attributes=values) as root:
            with tracer.start_as_current_span("failing") as failing:
                failing.add_event("event", {"x": 1})
                failing.set_status(trace.Status(trace.StatusCode.ERROR, "broken"))
            link = trace.Link(failing.get_span_context(), {"burr.link.type": "step"})
            with tracer.start_as_current_span("linked", links=[link]):
                pass

    read = jaeger.trace(root.get_span_context().trace_id, spans=3)

    sent = sorted(kept.get_finished_spans(), key=lambda span: span.start_time)
    assert [content(span) for span in read.spans] == [content(span) for span in sent]
    assert [span.name for span in read.roots] == ["root"]
    assert read.warnings == {}
    assert service in jaeger.services()


def test_jaegers_warnings_are_seen(jaeger: Jaeger) -> None:
    """A trace that Jaeger complains of does not pass as clean: here, one that ends before it starts."""
    with sending_provider("backwards", "grpc", f"http://{jaeger.grpc_endpoint}") as (provider, _):
        span = provider.get_tracer("plain").start_span("backwards", start_time=2_000_000_000)
        span.end(end_time=1_000_000_000)

    read = jaeger.trace(span.get_span_context().trace_id)

    assert list(read.warnings) == ["backwards"]


def test_a_missing_trace_is_reported_with_what_is_there(jaeger: Jaeger) -> None:
    """A test that waits for too much fails with a message that helps."""
    with pytest.raises(TimeoutError, match=r"with 1 spans: not within 0\.1 s; Jaeger has 0: \[\]"):
        jaeger.trace(0xABC, timeout_s=0.1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_phoenix_gives_back_what_was_sent(protocol: str, phoenix: Phoenix) -> None:
    """Phoenix takes OTLP over both protocols and answers with names, parents, values and status."""
    endpoint = phoenix.grpc_endpoint if protocol == "grpc" else phoenix.http_endpoint
    with sending_provider("plain", protocol, endpoint) as (provider, _):
        tracer = provider.get_tracer("plain")
        kind = {"openinference.span.kind": "CHAIN"}
        with (
            tracer.start_as_current_span("root", attributes={"i": 2**62, **kind}) as root,
            tracer.start_as_current_span("failing") as failing,
        ):
            failing.set_status(trace.Status(trace.StatusCode.ERROR, "broken"))

    first, second = phoenix.spans(root.get_span_context().trace_id, count=2)

    assert (first["name"], first["parent_id"], first["span_kind"]) == ("root", None, "CHAIN")
    assert first["attributes"]["i"] == 2**62
    assert (second["name"], second["parent_id"]) == ("failing", first["context"]["span_id"])
    assert (second["status_code"], second["status_message"]) == ("ERROR", "broken")
