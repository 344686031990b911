"""collector-config*.yaml, run unchanged by a real collector in front of a real Jaeger."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Callable

import pytest
from collector_api import (
    AGENT_OVERLAY,
    BASE_CONFIG,
    GATEWAY_OVERLAY,
    HONEYCOMB_OVERLAY,
    REPOSITORY,
    Collector,
    validate,
)
from jaeger_api import Jaeger
from opentelemetry import trace
from processes import http_ok, wait_for
from sending import sending_provider

COMPOSITIONS = {
    "jaeger": (BASE_CONFIG,),
    "jaeger and honeycomb": (BASE_CONFIG, HONEYCOMB_OVERLAY),
    "agent": (BASE_CONFIG, AGENT_OVERLAY),
    "gateway": (BASE_CONFIG, GATEWAY_OVERLAY),
    "honeycomb alone": (
        BASE_CONFIG,
        HONEYCOMB_OVERLAY,
        "yaml:service::pipelines::traces::exporters: [otlp_grpc/honeycomb, forward/steps]",
    ),
}
ACCEPTED = "otelcol_receiver_accepted_spans"
ENQUEUE_FAILED = "otelcol_exporter_enqueue_failed_spans"
SECRET = "sk-CANARYcanaryCANARYcanary01"


def test_every_configuration_is_covered() -> None:
    """A new configuration file gets its own place in these tests."""
    covered = {path for files in COMPOSITIONS.values() for path in files}
    assert set(REPOSITORY.glob("collector-config*.yaml")) <= covered


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_the_collector_accepts_the_configuration(
    name: str, collector_binary: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """`otelcol validate` passes with nothing set in the environment."""
    result = validate(collector_binary, COMPOSITIONS[name], tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_the_collector_starts_without_a_key(
    name: str, new_collector: Callable[..., Collector]
) -> None:
    """A missing HONEYCOMB_API_KEY does not keep the collector from starting and serving."""
    collector = new_collector(configs=COMPOSITIONS[name])
    collector.server.start()
    assert http_ok(f"http://127.0.0.1:{collector.ports.health}/")


def test_everything_listens_on_loopback_unless_told_otherwise() -> None:
    """No default of the configuration opens a port to other machines."""
    defaults = re.findall(r"endpoint: \$\{env:\w+:-([^}]*)\}", BASE_CONFIG.read_text())
    assert len(defaults) == 5
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+", default) for default in defaults)


@pytest.mark.parametrize("death", ["stop", "kill"])
def test_nothing_is_lost_when_jaeger_is_away_and_the_collector_restarts(
    death: str, new_jaeger: Callable[..., Jaeger], new_collector: Callable[..., Collector]
) -> None:
    """Spans that the collector accepted during an outage reach Jaeger after its own restart."""
    jaeger = new_jaeger()
    collector = new_collector(env={"JAEGER_OTLP_ENDPOINT": jaeger.grpc_endpoint})
    collector.server.start()  # Jaeger is not there yet
    sent = 0
    for round_number in range(2):
        with sending_provider("outage", "grpc", collector.grpc_endpoint) as (provider, kept):
            tracer = provider.get_tracer("outage")
            for run in range(20):
                with tracer.start_as_current_span(f"run {round_number}.{run}"):
                    for _ in range(4):
                        tracer.start_span("step", attributes={"payload": "x" * 5000}).end()
        sent += len(kept.get_finished_spans())
        collector.wait_for_own_metric(ACCEPTED, 100)
        getattr(collector.server, death)()
        collector.server.start()
    jaeger.server.start()

    def everything() -> dict | None:
        traces = jaeger.find_traces("outage")
        return traces if sum(map(len, traces.values())) >= sent else None

    traces = wait_for(f"{sent} spans in Jaeger", everything)

    assert sent == 200
    assert len(traces) == 40
    ids = {span.context.span_id for spans in traces.values() for span in spans}
    assert len(ids) == sent
    assert sum(map(len, traces.values())) == sent, "some arrived twice"


def test_more_than_jaeger_takes_in_one_message_arrives_in_several(
    collector: Collector, jaeger: Jaeger
) -> None:
    """A burst of 20 MB does not run into Jaeger's limit of 4 MiB a message."""
    with sending_provider("large", "grpc", collector.grpc_endpoint) as (provider, _):
        tracer = provider.get_tracer("large")
        with tracer.start_as_current_span("root") as root:
            for number in range(200):
                tracer.start_span(f"{number}", attributes={"payload": f"{number} " * 25_000}).end()

    read = jaeger.trace(root.get_span_context().trace_id, spans=201, timeout_s=60)

    assert len(read.spans) == 201
    assert read.warnings == {}


def test_what_the_queue_cannot_hold_is_refused_and_counted(
    new_collector: Callable[..., Collector],
) -> None:
    """A full queue is told to the sender and shows in the collector's own metrics: never silent."""
    collector = new_collector(
        configs=[
            BASE_CONFIG,
            "yaml:exporters::otlp_grpc/jaeger::sending_queue::queue_size: 600000",
            "yaml:exporters::otlp_grpc/jaeger::sending_queue::batch::min_size: 1000",
        ],
        env={"JAEGER_OTLP_ENDPOINT": "127.0.0.1:9"},  # nothing listens there
    )
    collector.server.start()
    endpoint = collector.http_endpoint
    with sending_provider("full", "http/protobuf", endpoint, timeout_s=1) as (provider, _):
        tracer = provider.get_tracer("full")
        for _ in range(1000):
            tracer.start_span("span", attributes={"payload": "x" * 2000}).end()
        collector.wait_for_own_metric(ENQUEUE_FAILED, 1)
    assert collector.own_metric(ENQUEUE_FAILED) > 0


def test_secrets_of_other_instrumentations_stop_at_the_collector(
    collector: Collector, jaeger: Jaeger
) -> None:
    """No planted secret reaches Jaeger, JSON stays JSON, and harmless values are untouched."""
    nested = json.dumps({"api_key": SECRET + '"\\', "kept": 'a "quoted" \\ value'})
    document = json.dumps({"password": SECRET + '"\\', "max_tokens": 5, "nested": nested})
    harmless = {"tokens": "3", "prompt": "the password is on the note", "keys": ["a", "b"]}
    with sending_provider("secrets", "grpc", collector.grpc_endpoint) as (provider, _):
        tracer = provider.get_tracer("secrets")
        with tracer.start_as_current_span(f"ask {SECRET}") as span:
            span.set_attributes({"http.request.header.authorization": f"Basic {SECRET}"})
            span.set_attributes({"db.password": "hunter2 canary", "url": f"http://x/?k={SECRET}"})
            span.set_attributes({"burr.inputs": document, **harmless})
            span.add_event("exception", {"exception.message": f"401 for {SECRET}"})
            span.set_status(trace.Status(trace.StatusCode.ERROR, f"401 for {SECRET}"))

    read = jaeger.trace(span.get_span_context().trace_id).spans[0]

    assert "canary" not in read.to_json().lower()
    inputs = json.loads(read.attributes["burr.inputs"])
    assert inputs["password"] == "****"
    assert inputs["max_tokens"] == 5
    assert json.loads(inputs["nested"]) == {"api_key": "****", "kept": 'a "quoted" \\ value'}
    assert {key: read.attributes[key] for key in harmless} == {**harmless, "keys": ("a", "b")}
    assert read.name == "ask ****"
    assert read.status.description == "401 for ****"


def test_steps_are_counted_by_project_action_and_outcome(collector: Collector) -> None:
    """Prometheus sees each step once under its project, action and outcome, and no other span."""
    with sending_provider("metrics", "grpc", collector.grpc_endpoint) as (provider, _):
        tracer = provider.get_tracer("metrics")
        common = {"burr.project": "p", "burr.app_id": "run-1"}
        with tracer.start_as_current_span("invoke_workflow p", attributes=common):
            for action, outcome in (("a", "ok"), ("a", "ok"), ("a", "error"), ("b", "ok")):
                step = {"burr.action.name": action, "burr.outcome": outcome}
                with tracer.start_as_current_span(action, attributes=common | step):
                    tracer.start_span("GET /", attributes=common).end()

    def counted() -> dict[tuple[str, str], float] | None:
        found = {}
        for line in collector.step_metrics().splitlines():
            if line.startswith("burr_steps_calls_total{") and 'service_name="metrics"' in line:
                assert 'burr_project="p"' in line
                action, outcome = (
                    re.search(f'{key}="([^"]*)"', line)[1]
                    for key in ("burr_action_name", "burr_outcome")
                )
                found[action, outcome] = float(line.split(" # ")[0].rsplit(" ", 1)[1])
        return found if sum(found.values()) >= 4 else None

    assert wait_for("step metrics", counted) == {("a", "ok"): 2, ("a", "error"): 1, ("b", "ok"): 1}
    text = collector.step_metrics()
    assert "burr_steps_duration_seconds_bucket" in text
    assert "run-1" not in text
