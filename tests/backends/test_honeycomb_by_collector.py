"""collector-config-honeycomb.yaml in front of the Honeycomb stand-in: outages, and a wrong key."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import apps
import pytest
from collector_api import BASE_CONFIG, HONEYCOMB_OVERLAY, Collector
from honeycomb_stand_in import KEY, honeycomb
from otlp_servers import closed_port
from processes import wait_for
from sending import sending_provider

from burr_otel import OtelTracker
from burr_otel.cli import main
from burr_otel.testing import manual_roots

ALONE = "yaml:service::pipelines::traces::exporters: [otlp_grpc/honeycomb, forward/steps]"
CONFIGS = (BASE_CONFIG, HONEYCOMB_OVERLAY, ALONE)
FAILED = "otelcol_exporter_send_failed_spans"


def started(new_collector: Callable[..., Collector], endpoint: str, key: str) -> Collector:
    collector = new_collector(
        configs=CONFIGS,
        env={
            "HONEYCOMB_ENDPOINT": endpoint.removeprefix("http://").replace(
                "localhost", "127.0.0.1"
            ),
            "HONEYCOMB_INSECURE": "true",
            "HONEYCOMB_API_KEY": key,
        },
    )
    collector.server.start()
    return collector


def test_a_wrong_key_is_final_for_the_collector_and_replay_mends_it(
    new_collector: Callable[..., Collector],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The collector drops what is refused for its key, disk queue or not, and says so.

    The runs' files have it all: a replay through a collector with the right key brings every span.
    """
    with honeycomb("grpc", KEY) as (stand_in, endpoint):
        wrong = started(new_collector, endpoint, "hcaik_" + "0" * 58)
        with (
            manual_roots(),
            sending_provider("proj", "grpc", wrong.grpc_endpoint) as (made, kept),
            OtelTracker("proj", tmp_path / "runs", tracer_provider=made) as tracker,
        ):
            apps.counter(tracker).run(halt_after=["finish"])
        sent = [f"{span.context.span_id:016x}" for span in kept.get_finished_spans()]
        wrong.wait_for_own_metric(FAILED, len(sent))
        assert "unknown API key" in wrong.server.log()
        assert "Dropping data" in wrong.server.log()
        wrong.server.stop()

        right = started(new_collector, endpoint, KEY)  # over the same queue on disk
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        arguments = ["--to", right.grpc_endpoint, "--storage-dir", str(tmp_path / "runs")]
        with pytest.raises(SystemExit) as ended:
            main(["replay", *arguments])
        assert not ended.value.code
        wait_for("every span", lambda: len(stand_in.span_ids) >= len(sent) or None)
    assert sorted(stand_in.span_ids) == sorted(sent)
    assert stand_in.violations == []


def test_an_outage_and_a_restart_lose_nothing(new_collector: Callable[..., Collector]) -> None:
    """While Honeycomb cannot be reached the spans are in the queue on disk, whatever the key was."""
    away = started(new_collector, closed_port(), "hcaik_" + "0" * 58)
    with sending_provider("proj", "grpc", away.grpc_endpoint) as (made, kept):
        for _ in range(50):
            made.get_tracer("t").start_span("step").end()
    away.wait_for_own_metric("otelcol_receiver_accepted_spans", 50)
    away.server.stop()
    with honeycomb("grpc", KEY) as (stand_in, endpoint):
        started(new_collector, endpoint, KEY)
        wait_for("every span", lambda: len(stand_in.span_ids) >= 50 or None)
    sent = [f"{span.context.span_id:016x}" for span in kept.get_finished_spans()]
    assert sorted(stand_in.span_ids) == sorted(sent)
