"""More spans at once than an exporter sends, through our own provider to a real collector."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from collector_api import Collector

SPANS = 50_000
ACCEPTED = "otelcol_receiver_accepted_spans"


@pytest.mark.parametrize("queue", ["default", "60000"])
def test_a_burst_costs_bounded_memory_and_what_it_costs_is_counted(
    queue: str, new_collector: Callable[..., Collector], tmp_path: pathlib.Path
) -> None:
    """While the collector stands still the queue fills; all that fits arrives, the rest is told."""
    collector = new_collector(env={"JAEGER_OTLP_ENDPOINT": "127.0.0.1:9"})
    collector.server.start()
    env = {} if queue == "default" else {"OTEL_BSP_MAX_QUEUE_SIZE": queue}
    os.kill(collector.server.pid, signal.SIGSTOP)
    try:
        program = subprocess.Popen(
            [
                *(sys.executable, pathlib.Path(__file__).with_name("burst.py")),
                *(tmp_path / "runs", collector.grpc_endpoint, str(SPANS)),
            ],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "OTEL_EXPORTER_OTLP_TIMEOUT": "60",  # as long as it stands still
                **env,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert program.stdout is not None
        alarm = threading.Timer(240, program.kill)  # nothing else ends a read that waits
        alarm.start()
        ended, grown_mib = program.stdout.readline().split()
        alarm.cancel()
    finally:
        os.kill(collector.server.pid, signal.SIGCONT)
    try:
        _, said = program.communicate("\n", timeout=60)
    finally:
        program.kill()

    arrived = collector.own_metric(ACCEPTED)
    assert int(ended) > SPANS
    if queue == "default":
        told = re.search(r"(\d+) of (\d+) spans did not get to .*burr-otel replay", said)
        assert told is not None, said
        assert int(told[2]) == int(ended)
        assert int(told[1]) == int(ended) - arrived > 0
        assert float(grown_mib) < 60, "more than the queue is kept"
    else:
        assert said == ""
        assert arrived == int(ended)
