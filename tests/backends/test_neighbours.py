"""Libraries that bring providers, processors or readers of their own, in one process with us."""

from __future__ import annotations

import importlib.util
import os
import pathlib
from collections.abc import Iterator

import pytest
from otlp_receiver import Receiver, receiving
from programs import run_program


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def need(module: str) -> None:
    """Skip or fail the test when a neighbour is not installed."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # of the package that it is in
        found = None
    if found is None:
        reason = f'{module} is not installed; run pip install "burr-otel[neighbours]"'
        if os.environ.get("BURR_OTEL_REQUIRE_BACKENDS") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


def names(receiver: Receiver) -> list[str]:
    return sorted(span.name for span in receiver.spans)


RUN = ["count", "count", "count", "finish", "invoke_workflow proj"]


def test_logfire(receiver: Receiver, tmp_path: pathlib.Path) -> None:
    """Its provider can be neither hashed nor compared; the run is in it, beside its own spans."""
    need("logfire")
    code = """
    import apps, logfire
    from burr_otel import OtelTracker
    logfire.configure(send_to_logfire=False, console=False)
    with logfire.span("request"), OtelTracker("proj", "runs", record_child_spans=True) as tracker:
        apps.counter(tracker).run(halt_after=["finish"])
    """
    done = run_program(code, tmp_path, **receiver.environ)
    assert done.stderr == ""
    assert names(receiver) == sorted([*RUN, "request"])


def test_phoenix_register(receiver: Receiver, tmp_path: pathlib.Path) -> None:
    """Its provider drops its exporter when a processor is added its own way."""
    need("phoenix.otel")
    code = """
    import os, apps
    from burr_otel import OtelTracker
    from phoenix.otel import register
    endpoint = os.environ.pop("OTEL_EXPORTER_OTLP_ENDPOINT") + "/v1/traces"
    provider = register(endpoint=endpoint, protocol="http/protobuf", verbose=False, batch=True)
    with OtelTracker("proj", "runs", record_child_spans=True) as tracker:
        apps.counter(tracker).run(halt_after=["finish"])
    with provider.get_tracer("other").start_as_current_span("theirs"):
        pass
    """
    done = run_program(code, tmp_path, **receiver.environ)
    assert done.stderr == ""
    assert names(receiver) == sorted([*RUN, "theirs"])


def test_prometheus(receiver: Receiver, tmp_path: pathlib.Path) -> None:
    """However many trackers were closed, a scrape has each series once."""
    need("opentelemetry.exporter.prometheus")
    code = """
    import apps, collections
    from burr_otel import OtelTracker
    from opentelemetry import metrics
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider
    from prometheus_client import REGISTRY, generate_latest
    metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))
    for number in range(20):
        with OtelTracker("proj", "runs") as tracker:
            apps.counter(tracker, f"a{number}").run(halt_after=["finish"])
    lines = [l for l in generate_latest(REGISTRY).decode().splitlines() if l.startswith("burr")]
    series = collections.Counter(line.rsplit(" ", 1)[0] for line in lines)
    print(len(series) > 5, max(series.values()))
    """
    assert run_program(code, tmp_path, **receiver.environ).stdout == "True 1\n"
