"""`burr-otel replay` into a real Jaeger: what it has then is what it would have had live."""

from __future__ import annotations

import collections
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import burr
import pytest
from collector_api import Collector
from jaeger_api import Jaeger, Trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode
from scenarios import SCENARIOS
from sending import content, sending_provider

from burr_otel import OtelTracker
from burr_otel.spans import keeper
from burr_otel.testing import manual_roots, span_tree

DEMO_DATA = pathlib.Path(burr.__file__).parent / "tracking" / "server" / "demo_data"


def replay(*arguments: str | os.PathLike[str], home: pathlib.Path) -> dict[str, Any]:
    """The command's answer, which must be that all went well."""
    done = subprocess.run(
        [sys.executable, "-m", "burr_otel.cli", "replay", "--json", *arguments],
        env={
            "PATH": os.environ["PATH"],
            "HOME": os.fspath(home),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["refused"] == 0
    return answer


def said(span: ReadableSpan) -> dict[str, Any]:
    """Everything that a span says; Jaeger sorts events and links once somebody has looked."""
    found = content(span)
    return {
        **found,
        "events": sorted(found["events"], key=lambda event: event[2]),
        "links": sorted(found["links"], key=lambda link: link[:2]),
    }


def ours(spans: list[ReadableSpan]) -> dict[int, dict[str, Any]]:
    """Everything that the spans of ours say, by id."""
    return {
        span.context.span_id: said(span)
        for span in spans
        if span.instrumentation_scope.name == "burr_otel"
    }


def shown(jaeger: Jaeger, trace_id: int | str) -> list[str]:
    """Names of the spans that Jaeger's page shows of a trace: equal ones count once."""
    wanted = trace_id if isinstance(trace_id, str) else f"{trace_id:032x}"
    answer = jaeger._get(f"/api/v3/traces/{wanted}")
    return [
        span["name"]
        for batch in answer["result"]["resourceSpans"]
        for scoped in batch.get("scopeSpans", ())
        for span in scoped.get("spans", ())  # where all were equal to others
    ]


@pytest.mark.parametrize(
    "name",
    ["inner_spans", "failed_then_retried", "stream", "resumed", "forked", "parallel_in_threads"],
)
def test_a_replayed_run_is_in_jaeger_as_a_live_one(
    name: str,
    collector: Collector,
    jaeger: Jaeger,
    new_jaeger: Callable[..., Jaeger],
    tmp_path: pathlib.Path,
) -> None:
    """The same run in two Jaegers, sent live to one and replayed to the other: span for span equal.

    Replayed to the one that has it, it is still there once, and Jaeger warns of nothing.
    """
    runs = tmp_path / "runs"
    with manual_roots(), sending_provider("shop", "grpc", collector.grpc_endpoint) as (made, kept):
        SCENARIOS[name].run(
            lambda **settings: OtelTracker("proj", runs, tracer_provider=made, **settings),
            made.get_tracer("service"),
        )
        keeper.keeper.finish_all()
    sent = kept.get_finished_spans()
    other = new_jaeger("other")
    other.server.start()
    to = f"http://{other.grpc_endpoint}"
    answer = replay("--storage-dir", runs, "--to", to, home=tmp_path)
    traces = {span.context.trace_id for span in sent}
    for trace_id in traces:
        jaeger.trace(trace_id, spans=sum(span.context.trace_id == trace_id for span in sent))
    to = f"http://{jaeger.grpc_endpoint}"
    again = replay("--storage-dir", runs, "--to", to, home=tmp_path)

    assert answer["spans"] == again["spans"] == len(sent)
    for trace_id in traces:
        expected = [span for span in sent if span.context.trace_id == trace_id]
        own = ours(expected)
        live = jaeger.trace(trace_id, spans=2 * len(expected))
        replayed = other.trace(trace_id, spans=len(expected))
        assert ours(replayed.spans) == own
        assert all(said(span) == own[span.context.span_id] for span in live.spans)
        assert len(shown(jaeger, trace_id)) == len(expected)
        assert live.warnings == replayed.warnings == {}


def recorded() -> dict[str, collections.Counter[str]]:
    """How many records of each type each of Burr's recorded runs has."""
    found = {}
    for log in sorted(DEMO_DATA.glob("*/*/log.jsonl")):
        types = [json.loads(line)["type"] for line in log.read_text().splitlines()]
        found[f"{log.parts[-3]}/{log.parts[-2]}"] = collections.Counter(types)
    return found


def test_burrs_recorded_runs_reach_jaeger_complete(
    new_jaeger: Callable[..., Jaeger], tmp_path: pathlib.Path
) -> None:
    """Every step and every begun span of each of the 21 runs, in one trace a run; twice the same."""
    jaeger = new_jaeger()
    jaeger.server.start()
    to = f"http://{jaeger.grpc_endpoint}"
    answer = replay("--storage-dir", DEMO_DATA, "--to", to, home=tmp_path)
    second = replay("--storage-dir", DEMO_DATA, "--to", to, home=tmp_path)

    assert answer == second
    runs = recorded()
    assert len(answer["runs"]) == len(runs) == 21
    assert answer["spans"] == sum(1 + r["begin_entry"] + r["begin_span"] for r in runs.values())
    all_steps: dict[str, list[ReadableSpan]] = {}
    for run in answer["runs"]:
        types = runs[f"{run['project']}/{run['app_id']}"]
        [trace_id] = run["trace_ids"]
        # Jaeger keeps what comes twice twice, and shows what is equal once.
        trace = jaeger.trace(trace_id, spans=2 * run["spans"])
        first = ours(trace.spans)
        assert len(trace.spans) == 2 * len(first) == 2 * run["spans"]
        assert all(said(span) == first[span.context.span_id] for span in trace.spans)
        assert trace.warnings == {}
        assert len(shown(jaeger, trace_id)) == run["spans"]
        trace = Trace([span for span in trace.spans if first.pop(span.context.span_id, None)], {})
        [root] = trace.roots
        assert root.name == f"invoke_workflow {run['project']}"
        assert root.resource.attributes["service.name"] == run["project"]
        steps = trace.children(root)
        assert len(steps) == types["end_entry"]
        all_steps[run["app_id"]] = steps
        numbers = sorted(step.attributes["burr.sequence_id"] for step in steps)
        assert numbers == list(range(len(steps)))
        assert len(trace.spans) - len(steps) - 1 == types["begin_span"]
        for span in trace.spans:
            assert root.start_time <= span.start_time < span.end_time <= root.end_time
            assert span.attributes["burr.app_id"] == run["app_id"]
    failures = [step for steps in all_steps.values() for step in steps if step.events]
    assert {step.attributes["error.type"] for step in failures} == {"openai.AuthenticationError"}
    for step in failures:
        stacktrace = step.events[0].attributes["exception.stacktrace"]
        assert stacktrace.startswith("Traceback")
        assert "[redacted]" in stacktrace
        assert step.status.status_code is StatusCode.ERROR


def test_runs_that_were_sent_to_nobody_reach_jaeger_later(
    jaeger: Jaeger, tmp_path: pathlib.Path
) -> None:
    """With nothing listening the run goes on; the replay brings the trace, with its own ids."""
    program = tmp_path / "program.py"
    program.write_text(
        "import apps\n"
        "from burr_otel import OtelTracker\n"
        "with OtelTracker('unheard', 'runs') as tracker:\n"
        "    apps.counter(tracker).run(halt_after=['finish'])\n"
    )
    subprocess.run(
        [sys.executable, program],
        env={
            "PATH": os.environ["PATH"],
            "HOME": os.fspath(tmp_path),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
            "OTEL_SERVICE_NAME": "unheard-service",
        },
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=True,
    )
    answer = replay(
        "--storage-dir", tmp_path / "runs", "--to", f"http://{jaeger.grpc_endpoint}", home=tmp_path
    )

    [run] = answer["runs"]
    trace = jaeger.trace(run["trace_ids"][0], spans=5)
    assert span_tree(trace.spans).splitlines() == [
        "invoke_workflow unheard",
        *["  count"] * 3,
        "  finish",
    ]
    assert trace.roots[0].resource.attributes["service.name"] == "unheard-service"
    assert jaeger.wait_for_traces("unheard-service") == run["trace_ids"]
