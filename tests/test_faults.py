"""Processes that end badly, and exporters that do not answer."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import apps
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from burr_otel import OtelTracker

PROGRAM = """
import os, signal, sys, time
import apps
from burr_otel import OtelTracker
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
provider = TracerProvider()
line = lambda span: f"{span.name} {(span.attributes or {}).get('burr.outcome')}\\n"
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=line)))
tracker = OtelTracker("proj", sys.argv[1], tracer_provider=provider)
"""


def run_program(code, tmp_path):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + textwrap.dedent(code), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def completed_by_the_next(tmp_path, spans):
    """What the next builder of the run adds."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider)
    apps.resumed(tracker)
    return [(s.name, s.attributes["burr.outcome"]) for s in spans.spans]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("os._exit(7)", 7),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)", -signal.SIGTERM),
    ],
)
def test_a_process_that_ends_without_clean_up_is_completed_by_the_next(end, code, tmp_path, spans):
    """`os._exit` and SIGTERM run nothing of ours; root and step appear when the run is opened."""
    done = run_program(
        f"""
        @apps.action(reads=["count"], writes=["count"])
        def last(state):
            {end}

        app = apps.counter(tracker)
        app.step()
        apps.resumed(tracker, step=last).step()
        """,
        tmp_path,
    )
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines() == ["count ok"]
    assert sorted(completed_by_the_next(tmp_path, spans)) == [
        ("count", "crashed"),
        ("count", "ok"),  # it may never have been sent
        ("invoke_workflow proj", "crashed"),
        ("invoke_workflow proj", "crashed"),
    ]


def test_sys_exit_in_a_step_is_an_error_and_ends_properly(tmp_path):
    """`SystemExit` runs finalisers: everything is exported by the process itself."""
    done = run_program(
        """
        @apps.action(reads=["count"], writes=["count"])
        def last(state):
            sys.exit(3)

        apps.single(tracker, last).step()
        """,
        tmp_path,
    )
    assert done.returncode == 3
    assert done.stdout.splitlines() == ["step error", "invoke_workflow proj error"]
    lines = (tmp_path / "proj" / "a1" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["type"] for line in lines][-1] == "otel_root_end"


class Blocking(SpanExporter):
    """Takes a batch and does not come back until released."""

    def __init__(self):
        self.entered, self.release = threading.Event(), threading.Event()

    def export(self, spans):
        self.entered.set()
        self.release.wait(60)
        return SpanExportResult.SUCCESS


def test_an_exporter_that_blocks_holds_up_no_step(tmp_path):
    """While the exporter hangs, runs go on and memory stays bounded by the queue."""
    exporter = Blocking()
    processor = BatchSpanProcessor(
        exporter, max_queue_size=64, max_export_batch_size=8, schedule_delay_millis=1
    )
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracker = OtelTracker("proj", tmp_path, tracer_provider=provider)
    try:
        apps.counter(tracker, "a0").run(halt_after=["finish"])
        assert exporter.entered.wait(60)
        for number in range(1, 40):
            _, _, state = apps.counter(tracker, f"a{number}").run(halt_after=["finish"])
            assert state["answer"] == 30
        assert len(processor._batch_processor._queue) <= 64
    finally:
        exporter.release.set()
        provider.shutdown()
    assert len(tracker.list_app_ids(None)) == 40
