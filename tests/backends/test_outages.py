"""Twenty applications, a real collector and a real Jaeger, one of which goes away meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from applications import APPLICATIONS, PROJECT
from collector_api import Collector
from jaeger_api import Jaeger
from processes import wait_for

HERE = pathlib.Path(__file__).parent
OUTAGE_S = 60  # a minute, in real time: the retries of the collector must outlast it
SENT = "otelcol_exporter_sent_spans"


class Applications:
    """The running program: what it says, and its end."""

    def __init__(self, folder: pathlib.Path, endpoint: str, **env: str) -> None:
        self.runs = folder / "runs"
        self._log = folder / "applications.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, HERE / "applications.py", self.runs, endpoint],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **env},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "running\n", self.said()

    def said(self) -> str:
        """What it has logged."""
        return self._log.read_text()

    def wait_for_steps(self, steps: int) -> None:
        """Return when that many more steps of one application are on disk."""
        log = self.runs / PROJECT / "application-0" / "log.jsonl"

        def taken() -> int:
            return log.read_text().count('"end_entry"')

        enough = taken() + steps
        wait_for(f"{enough} steps", lambda: taken() >= enough or None)

    def stop(self) -> dict[str, Any]:
        """End the runs; what they made."""
        out, _ = self._process.communicate("stop\n", timeout=60)
        return json.loads(out)

    def kill(self) -> None:
        """End it, if it runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


@pytest.fixture
def start_applications(tmp_path: pathlib.Path) -> Iterator[Callable[..., Applications]]:
    with contextlib.ExitStack() as stack:

        def start(collector: Collector, **env: str) -> Applications:
            applications = Applications(tmp_path, collector.grpc_endpoint, **env)
            stack.callback(applications.kill)
            return applications

        yield start


def ids_in(jaeger: Jaeger) -> set[str]:
    """The ids of all spans of the applications that it has."""
    traces = jaeger.find_traces(PROJECT)
    return {f"{span.context.span_id:016x}" for spans in traces.values() for span in spans}


def wait_for_all(jaeger: Jaeger, wanted: set[str]) -> None:
    """Return when it has every one of them."""
    wait_for(f"{len(wanted)} spans", lambda: wanted <= ids_in(jaeger) or None)


def test_a_collector_killed_under_twenty_applications_loses_nothing(
    new_collector: Callable[..., Collector],
    new_jaeger: Callable[..., Jaeger],
    start_applications: Callable[..., Applications],
) -> None:
    """SIGKILL and a new start: what it had taken is in its files, the rest is sent again."""
    jaeger = new_jaeger()
    jaeger.server.start()
    collector = new_collector(env={"JAEGER_OTLP_ENDPOINT": jaeger.grpc_endpoint})
    collector.server.start()
    applications = start_applications(collector, OTEL_BSP_SCHEDULE_DELAY="100")
    collector.wait_for_own_metric("otelcol_receiver_accepted_spans", APPLICATIONS)
    collector.server.kill()
    applications.wait_for_steps(5)
    collector.server.start()
    applications.wait_for_steps(5)
    made = applications.stop()

    wait_for_all(jaeger, set(made["ids"]))
    assert len(set(made["ids"])) == len(made["ids"]) > APPLICATIONS * 11
    assert applications.said() == ""


def test_a_longer_outage_of_the_collector_is_told_and_replayed(
    new_collector: Callable[..., Collector],
    new_jaeger: Callable[..., Jaeger],
    start_applications: Callable[..., Applications],
) -> None:
    """When the exporter gives up, the spans are lost, which it says; `replay` sends every one."""
    jaeger = new_jaeger()
    jaeger.server.start()
    collector = new_collector(env={"JAEGER_OTLP_ENDPOINT": jaeger.grpc_endpoint})
    collector.server.start()
    # It gives up after this many seconds: ten, unless set.
    applications = start_applications(
        collector, OTEL_BSP_SCHEDULE_DELAY="100", OTEL_EXPORTER_OTLP_TIMEOUT="1"
    )
    collector.server.kill()
    wait_for("a warning", lambda: "cannot send spans" in applications.said() or None)
    collector.server.start()
    wait_for("an end of it", lambda: "takes spans again" in applications.said() or None)
    made = applications.stop()
    everything = set(made["ids"])
    lost = everything - ids_in(jaeger)
    told = re.search(r"Meanwhile (\d+) were lost; `burr-otel replay`", applications.said())
    assert told is not None
    assert 0 < int(told[1]) <= len(everything)

    subprocess.run(
        [
            *(sys.executable, "-m", "burr_otel.cli", "replay", "--project", PROJECT),
            *("--storage-dir", applications.runs, "--to", collector.grpc_endpoint),
        ],
        check=True,
        timeout=60,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert lost
    wait_for_all(jaeger, everything)


def test_jaeger_away_for_a_minute_loses_nothing(
    new_collector: Callable[..., Collector],
    new_jaeger: Callable[..., Jaeger],
    start_applications: Callable[..., Applications],
) -> None:
    """Applications go on meanwhile; all of it arrives afterwards, and each step is counted once."""
    jaeger = new_jaeger()
    jaeger.server.start()
    collector = new_collector(env={"JAEGER_OTLP_ENDPOINT": jaeger.grpc_endpoint})
    collector.server.start()
    applications = start_applications(collector, OTEL_BSP_SCHEDULE_DELAY="100")
    wait_for("the first spans", lambda: ids_in(jaeger) or None)
    jaeger.server.stop()
    gone_at = time.monotonic()
    time.sleep(max(0.0, gone_at + OUTAGE_S - time.monotonic()))
    # Its memory is empty now; what it had before has arrived, so only what comes is looked for.
    before = collector.own_metric(SENT)
    jaeger.server.start()
    made = applications.stop()

    spans = len(made["ids"])
    wait_for(
        f"{spans} spans to be sent",
        lambda: collector.own_metric(SENT) >= spans or None,
        60,
    )
    assert before < spans / 2, "Jaeger was not away"
    arrived = ids_in(jaeger)
    assert arrived <= set(made["ids"])
    assert len(arrived) >= spans - before
    assert applications.said() == ""

    def counted() -> dict[str, float] | None:
        lines = re.findall(
            r'^burr_steps_calls_total\{.*?burr_action_name="(\w+)".*?\} (\d+)',
            collector.step_metrics(),
            re.MULTILINE,
        )
        found = {action: int(count) for action, count in lines}
        return found if found == made["steps"] else None

    wait_for(f"{made['steps']} to be counted", counted)
