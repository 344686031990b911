"""The instruments, through the collector, as Prometheus reads them."""

from __future__ import annotations

import pathlib

from apps import counter, stream
from apps import single as application
from collector_api import Collector
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NoOpTracerProvider
from processes import wait_for

from burr_otel import OtelTracker


def test_steps_are_counted_in_prometheus_text(collector: Collector, tmp_path: pathlib.Path) -> None:
    """Durations, active steps, time to first item and snapshot sizes arrive; app ids do not."""
    exporter = OTLPMetricExporter(endpoint=collector.grpc_endpoint, insecure=True)
    provider = MeterProvider(
        [PeriodicExportingMetricReader(exporter, export_interval_millis=60_000)],
        resource=Resource({"service.name": "metered"}),
        shutdown_on_exit=False,
    )
    tracker = OtelTracker(
        "metered", tmp_path, tracer_provider=NoOpTracerProvider(), meter_provider=provider
    )
    counter(tracker, "secret-app-id").run(halt_after=["finish"])
    _, container = application(tracker, stream, "another-app-id").stream_result(halt_after=["step"])
    list(container)
    provider.force_flush()

    def probe() -> str | None:
        text = collector.step_metrics()
        return text if "burr_step_duration" in text else None

    text = wait_for("burr_step_duration at the collector", probe)
    provider.shutdown()
    lines = [line for line in text.splitlines() if 'burr_project="metered"' in line]

    def value(name: str, **labels: str) -> float:
        [found] = [
            line
            for line in lines
            if line.startswith(f"{name}{{")
            and all(f'{key}="{label}"' in line for key, label in labels.items())
        ]
        return float(found.rpartition("}")[2].split()[0])

    duration = "burr_step_duration_seconds_count"
    assert value(duration, burr_action_name="count", burr_outcome="ok") == 3
    assert value(duration, burr_action_name="step", burr_outcome="ok") == 1
    assert value("burr_step_active", burr_action_name="count") == 0
    assert value("burr_stream_time_to_first_item_seconds_count", burr_action_name="step") == 1
    assert value("burr_snapshot_bytes_count") == 5
    assert "app-id" not in text
