"""Crashes and outages, as Jaeger shows them."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import textwrap

from apps import counter, resumed
from collector_api import Collector
from jaeger_api import Jaeger
from sending import sending_provider

from burr_otel import OtelTracker
from burr_otel.spans import keeper
from burr_otel.testing import manual_roots, span_tree

KILLED = """
import os, signal, sys
import apps, burr_otel
from burr_otel import OtelTracker

provider = burr_otel.configure("proj", sys.argv[2])
tracker = OtelTracker("proj", sys.argv[1])

@apps.action(reads=["count"], writes=["count"])
def step(state):
    if state["count"] == 2:
        provider.force_flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return state.update(count=state["count"] + 1)

apps.counter(tracker, step=step).run(halt_after=["finish"])
"""


def test_a_killed_run_is_whole_in_jaeger_once_it_is_resumed(
    collector: Collector, jaeger: Jaeger, tmp_path: pathlib.Path
) -> None:
    """SIGKILL in a step: the resume sends what was open; no missing parent, no id twice."""
    tests = pathlib.Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), collector.grpc_endpoint],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), *sys.path])},
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    with (
        manual_roots(),
        sending_provider("proj", "grpc", collector.grpc_endpoint) as (made, kept),
        OtelTracker("proj", tmp_path, tracer_provider=made) as tracker,
    ):
        _, _, state = resumed(tracker).run(halt_after=["finish"])
    assert state["answer"] == 30
    crashed, resumption = (s for s in kept.get_finished_spans() if s.name == "invoke_workflow proj")
    assert resumption.links[0].context.span_id == crashed.context.span_id
    first = jaeger.trace(crashed.context.trace_id, spans=6)
    # What may never have arrived is sent again under the same ids; Jaeger's page shows it once.
    once = list({span.context.span_id: span for span in first.spans}.values())
    assert first.warnings == {}
    assert (
        f"\n{span_tree(once)}\n"
        == """
invoke_workflow proj [crashed] (the process ended before this did)
  count
  count
  count [crashed] (the process ended before this did)
"""
    )
    second = jaeger.trace(resumption.context.trace_id, spans=3)
    assert second.warnings == {}
    assert len(second.roots) == 1
    ids = [s.context.span_id for s in [*once, *second.spans]]
    assert len(set(ids)) == len(ids) == 7


def test_a_collector_that_restarts_in_mid_run_loses_nothing(
    new_collector, jaeger: Jaeger, tmp_path: pathlib.Path
) -> None:
    """The exporter retries for as long as a short restart takes."""
    collector = new_collector(env={"JAEGER_OTLP_ENDPOINT": jaeger.grpc_endpoint})
    collector.server.start()
    with (
        manual_roots(),
        sending_provider("proj", "grpc", collector.grpc_endpoint) as (made, kept),
        OtelTracker("proj", tmp_path, tracer_provider=made) as tracker,
    ):
        app = counter(tracker)
        app.step()
        assert made.force_flush()
        collector.server.kill()
        app.step()
        collector.server.start()
        app.run(halt_after=["finish"])
        keeper.keeper.finish_all()
    trace_id = kept.get_finished_spans()[0].context.trace_id
    assert len(jaeger.trace(trace_id, spans=5).spans) == 5
