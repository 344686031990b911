"""Every query of dashboards/ finds something in a real Prometheus, fed by real runs."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from burr.core import ApplicationBuilder, State, action
from burr.core.action import streaming_action
from installed import installed
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from processes import running, wait_for
from prometheus_api import DASHBOARDS, RULES, Prometheus, hurried
from prometheus_client import start_http_server

from burr_otel import OtelTracker, semconv

PROJECT = "dashboards"
# A person's choice of project and action, and what Grafana makes of its two intervals.
CHOSEN = {"$project": ".*", "$action": ".*", "$__rate_interval": "5m", "$__range": "5m"}


def dashboard_queries() -> list[str]:
    """What the panels of the Grafana dashboard ask."""
    panels = json.loads((DASHBOARDS / "grafana.json").read_text("utf-8"))["panels"]
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    for name, value in CHOSEN.items():
        found = [query.replace(name, value) for query in found]
    return found


@action(reads=[], writes=["order"])
def look_up(state: State, fails: bool) -> State:
    if fails:
        raise ConnectionError("no such order")
    return state.update(order=7)


@streaming_action(reads=["order"], writes=["answer"])
def answer(state: State) -> Iterator[tuple[dict[str, str], State | None]]:
    yield {"answer": "It is"}, None
    yield {"answer": "It is here."}, state.update(answer="It is here.")


def run(tracker: OtelTracker, *, fails: bool) -> None:
    app = (
        ApplicationBuilder()
        .with_actions(look_up, answer)
        .with_transitions(("look_up", "answer"))
        .with_entrypoint("look_up")
        .with_tracker(tracker)
        .build()
    )
    with contextlib.suppress(ConnectionError):
        _, stream = app.stream_result(halt_after=["answer"], inputs={"fails": fails})
        list(stream)


def count_what_no_run_here_has(provider: MeterProvider) -> None:
    """Tokens, of which these runs use none, and runs, whose spans are still open."""
    meter = provider.get_meter("models")
    tokens = meter.create_counter(semconv.METRIC_USAGE_TOKENS, unit="{token}")
    runs = meter.create_histogram(semconv.METRIC_INVOKE_AGENT_DURATION, unit="s")
    for direction in ("input", "output"):
        labels = {semconv.PROJECT: PROJECT, semconv.ACTION_NAME: "answer"}
        tokens.add(100, {**labels, semconv.GEN_AI_TOKEN_TYPE: direction})
    runs.record(1.5, {semconv.PROJECT: PROJECT, semconv.OUTCOME: semconv.OK})


@pytest.fixture(scope="module")
def prometheus_binary() -> pathlib.Path:
    return installed("prometheus", "bin/prometheus")


@contextlib.contextmanager
def exported() -> Iterator[tuple[MeterProvider, str]]:
    """A provider whose metrics this process serves to Prometheus, and where."""
    reader = PrometheusMetricReader()
    server, thread = start_http_server(0, "127.0.0.1")
    try:
        yield MeterProvider([reader], shutdown_on_exit=False), f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def collected(collector: Any) -> Iterator[tuple[MeterProvider, str]]:
    """A provider that sends to a collector, and where that serves to Prometheus."""
    exporter = OTLPMetricExporter(endpoint=collector.grpc_endpoint, insecure=True)
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=500)
    resource = Resource({"service.name": PROJECT})
    yield (
        MeterProvider([reader], resource=resource, shutdown_on_exit=False),
        f"127.0.0.1:{collector.ports.metrics}",
    )


@pytest.fixture(scope="module", params=["exporter", "collector"])
def fed(
    request: pytest.FixtureRequest,
    prometheus_binary: pathlib.Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Prometheus, Callable[[], None]]]:
    """A Prometheus, and a function that makes two more runs for it, one of which fails."""
    if request.param == "collector":
        serving = collected(request.getfixturevalue("collector"))
    else:
        serving = exported()
    folder = tmp_path_factory.mktemp(request.param)
    with serving as (provider, address), contextlib.ExitStack() as stack:
        prometheus = Prometheus(prometheus_binary, folder, address)
        stack.enter_context(running(prometheus.server))
        # Prometheus first: of what happened before it began, no rule speaks.
        wait_for("a scrape", lambda: prometheus.query("up == 1") or None)
        wait_for("a past", lambda: prometheus.query("up offset 5s") or None)
        spans = TracerProvider(shutdown_on_exit=False)
        tracker = stack.enter_context(
            OtelTracker(PROJECT, folder / "runs", tracer_provider=spans, meter_provider=provider)
        )

        def more() -> None:
            run(tracker, fails=False)
            run(tracker, fails=True)
            count_what_no_run_here_has(provider)

        yield prometheus, more
        provider.shutdown()


def test_every_query_of_the_dashboard_finds_something(
    fed: tuple[Prometheus, Callable[[], None]],
) -> None:
    """No panel is empty when there are runs, streams, failures and tokens."""
    prometheus, more = fed
    unanswered = [hurried(query) for query in dashboard_queries()]
    assert len(unanswered) > 15

    def probe() -> bool | None:
        more()
        unanswered[:] = [query for query in unanswered if not numbers(prometheus.query(query))]
        return not unanswered or None

    try:
        wait_for("all panels", probe)
    except TimeoutError:
        pytest.fail("these find nothing:\n" + "\n".join(unanswered))


def numbers(series: list[dict[str, Any]]) -> list[float]:
    """The values but for NaN, which stands for 0 of 0."""
    return [value for each in series if (value := float(each["value"][1])) == value]


def test_every_rule_is_evaluated_and_a_failed_step_alerts(
    fed: tuple[Prometheus, Callable[[], None]],
) -> None:
    """Each recording rule records a series, none has an error, and the failures are told."""
    prometheus, more = fed

    def probe() -> list[dict[str, Any]] | None:
        more()
        rules = prometheus.rules()
        recorded = [r["name"] for r in rules if r["type"] == "recording"]
        alerting = {r["name"] for r in rules if r.get("state") == "firing"}
        told = {"BurrStepFailed", "BurrStepsFailing"} <= alerting
        return rules if told and all(map(prometheus.query, recorded)) else None

    rules = wait_for("every rule", probe)
    assert {rule["health"] for rule in rules} == {"ok"}
    [failed] = [rule for rule in rules if rule["name"] == "BurrStepFailed"]
    [alert] = failed["alerts"]
    assert alert["labels"]["burr_action_name"] == "look_up"
    assert alert["annotations"]["summary"] == f'A step "look_up" of {PROJECT} failed'


@pytest.mark.parametrize(
    "command", [["check", "rules", RULES], ["test", "rules", "prometheus-rules-test.yaml"]]
)
def test_promtool(command: list[str]) -> None:
    """The rules are right, and each alert comes when it should and not otherwise."""
    done = subprocess.run(
        [installed("prometheus", "bin/promtool"), *command],
        cwd=DASHBOARDS,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_configuration_of_the_page(tmp_path: pathlib.Path) -> None:
    """What dashboards/README.md says to write into prometheus.yml is complete, beside the rules."""
    page = (DASHBOARDS / "README.md").read_text("utf-8")
    [block] = re.findall(r"```yaml\n(rule_files.*?)```", page, re.DOTALL)
    (tmp_path / "prometheus.yml").write_text(block)
    (tmp_path / RULES.name).write_text(RULES.read_text("utf-8"))
    done = subprocess.run(
        [installed("prometheus", "bin/promtool"), "check", "config", "prometheus.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case() -> None:
    """An alert that the rules' own tests do not know could never fire and nobody would see."""
    rules, cases = (
        (DASHBOARDS / name).read_text("utf-8")
        for name in ("prometheus-rules.yaml", "prometheus-rules-test.yaml")
    )
    alerts = [line.split()[-1] for line in rules.splitlines() if "- alert:" in line]
    assert len(alerts) >= 6
    assert [name for name in alerts if f"alertname: {name}\n" not in cases] == []
