"""Real Burr runs, through a real collector, as Jaeger has them."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest
from apps import builder, resumed, stream
from burr.core import State, action, default
from collector_api import Collector
from jaeger_api import Jaeger, Trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from sending import PROTOCOLS, content, sending_provider

from burr_otel import OtelTracker
from burr_otel.testing import span_tree

IDENTITY = {"burr.project", "burr.app_id", "session.id"}
JSON_ATTRIBUTES = {"burr.inputs", "burr.result", "burr.state.written", "burr.graph"}


def check_shape(read: Trace, project: str) -> ReadableSpan:
    """What holds for every run of ours in Jaeger; returns the root."""
    assert read.warnings == {}
    [root] = read.roots
    assert root.name == f"invoke_workflow {project}"
    assert root.parent is None
    assert len({span.context.trace_id for span in read.spans}) == 1
    assert len({span.context.span_id for span in read.spans}) == len(read.spans)
    assert root.start_time == min(span.start_time for span in read.spans)
    assert root.end_time >= max(span.end_time for span in read.spans)
    for span in read.spans:
        assert span.start_time < span.end_time, span.name
        assert span.kind is SpanKind.INTERNAL
        assert set(span.attributes) >= IDENTITY, span.name
        assert span.instrumentation_scope.name == "burr_otel"
        for key in JSON_ATTRIBUTES & set(span.attributes):
            json.loads(span.attributes[key])
    return root


# --- in this process, with a provider of the test's own -----------------------------------------


@action(reads=["count"], writes=["count"])
def prepare(state: State, who: str, __tracer) -> State:
    with __tracer("plan") as plan:
        plan.log_attributes(colour="red", parts=[1, 2], nested={"a": [1, None]}, share=0.5)
        with __tracer("inner"):
            pass
    with __tracer("act", span_dependencies=["plan"]):
        pass
    return state.update(count=state["count"] + 1)


@action(reads=["count"], writes=["count"])
def flaky(state: State) -> State:
    if state["count"] == 1 and not flaky_state["failed"]:
        flaky_state["failed"] = True
        raise ValueError("kaputt")
    return state.update(count=state["count"] + 10)


flaky_state = {"failed": False}

WHOLE_TREE = """
invoke_workflow backends
  prepare
    plan
      inner
    act dependency→plan
  flaky [error] (kaputt)
  flaky
  stream *first_item *end
"""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_run_arrives_whole(
    protocol: str, collector: Collector, jaeger: Jaeger, tmp_path: pathlib.Path
) -> None:
    """Everything that a span says arrives, over both protocols: tree, values, events, links, status."""
    flaky_state["failed"] = False
    endpoint = collector.endpoint(protocol)
    with sending_provider("whole", protocol, endpoint) as (provider, kept):
        tracker = OtelTracker("backends", tmp_path, tracer_provider=provider)
        app = (
            builder(tracker, "whole-1", "tester", prepare=prepare, flaky=flaky, stream=stream)
            .with_transitions(("prepare", "flaky", default), ("flaky", "stream", default))
            .with_state(count=0)
            .with_entrypoint("prepare")
            .build()
        )
        app.step(inputs={"who": "wörld"})
        with pytest.raises(ValueError, match="kaputt"):
            app.step()
        app.step()
        _, container = app.stream_result(halt_after=["stream"])
        container.get()
        tracker.close()
    sent = sorted(kept.get_finished_spans(), key=lambda span: (span.start_time, span.end_time))

    read = jaeger.trace(sent[0].context.trace_id, spans=len(sent))

    assert [content(span) for span in read.spans] == [content(span) for span in sent]
    assert f"\n{span_tree(read.spans)}\n" == WHOLE_TREE
    root = check_shape(read, "backends")
    assert root.attributes["burr.partition_key"] == "tester"
    assert (root.attributes["burr.steps"], root.attributes["burr.steps.failed"]) == (4, 1)
    assert root.attributes["gen_ai.conversation.id"] == "whole-1"
    [step] = read.named("prepare")
    assert json.loads(step.attributes["burr.inputs"]) == {"who": "wörld"}
    assert json.loads(step.attributes["burr.state.written"]) == {"count": 1}
    assert step.attributes["burr.action.name"] == "prepare"
    [plan] = read.named("plan")
    assert (plan.attributes["colour"], plan.attributes["share"]) == ("red", 0.5)
    assert json.loads(plan.attributes["nested"]) == {"a": [1, None]}
    [failed, retried] = read.named("flaky")
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes["error.type"] == "ValueError"
    [event] = failed.events
    assert event.attributes["exception.message"] == "kaputt"
    assert "raise ValueError" in event.attributes["exception.stacktrace"]
    assert retried.status.status_code is StatusCode.UNSET
    [streamed] = read.named("stream")
    assert streamed.attributes["burr.stream.items"] == 3


def test_a_resumed_run_points_back_to_the_first(
    collector: Collector, jaeger: Jaeger, tmp_path: pathlib.Path
) -> None:
    """In Jaeger the second trace of a run links to root and last step of the first trace."""
    with sending_provider("resumed", "grpc", collector.grpc_endpoint) as (provider, _):
        traces = []
        for steps in (2, 2):
            tracker = OtelTracker("resumes", tmp_path, tracer_provider=provider)
            app = resumed(tracker, "resumed-1")
            for _ in range(steps):
                app.step()
            tracker.close()
            history = json.loads(
                (tmp_path / "resumes/resumed-1/log.jsonl").read_text().splitlines()[-1]
            )
            traces.append(history["otel"]["trace_id"])
    first, second = (jaeger.trace(trace_id, spans=3) for trace_id in traces)

    assert f"\n{span_tree(first.spans)}" == "\ninvoke_workflow resumes\n  count\n  count"
    root = check_shape(second, "resumes")
    targets = {(link.context.span_id, link.attributes["burr.link.type"]) for link in root.links}
    last = first.named("count")[-1]
    assert targets == {(s.context.span_id, "resume") for s in (first.roots[0], last)}
    assert [span.name for span in second.children(root)] == ["count", "finish"]


# --- in processes of their own, with the settings that a user would set -------------------------


def run_program(code: str, folder: pathlib.Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program as a user would."""
    path = folder / "program.py"
    path.write_text(textwrap.dedent(code))
    done = subprocess.run(
        [sys.executable, path],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": os.fspath(folder), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


HELLO_WORLD_COUNTER = """
    import pathlib, runpy
    import burr
    from burr.core import ApplicationBuilder
    from burr_otel import OtelTracker

    original = ApplicationBuilder.with_tracker

    def with_tracker(self, *args, project="demo_counter", params=None, **kwargs):
        return original(self, OtelTracker(project, (params or {}).get("storage_dir", "~/.burr")))

    ApplicationBuilder.with_tracker = with_tracker
    example = pathlib.Path(burr.__file__).parent / "examples/hello-world-counter/application.py"
    app = runpy.run_path(str(example))["application"](count_up_to=4, app_id="hello-1")
    action, result, state = app.run(halt_after=["result"])
    print("counted", state["counter"])
"""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_burrs_own_example_arrives(
    protocol: str, collector: Collector, jaeger: Jaeger, tmp_path: pathlib.Path
) -> None:
    """hello-world-counter with only its tracker replaced and only OTEL_* set: one whole trace."""
    service = f"hello-{protocol.partition('/')[0]}"
    done = run_program(
        HELLO_WORLD_COUNTER,
        tmp_path,
        OTEL_SERVICE_NAME=service,
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint(protocol),
    )
    assert "counted 4" in done.stdout

    [trace_id] = jaeger.wait_for_traces(service)
    read = jaeger.trace(trace_id, spans=6)

    root = check_shape(read, "demo_counter")
    assert span_tree(read.spans).splitlines() == [
        "invoke_workflow demo_counter",
        *["  counter"] * 4,
        "  result",
    ]
    steps = read.children(root)
    assert [step.attributes["burr.sequence_id"] for step in steps] == list(range(5))
    written = [json.loads(step.attributes["burr.state.written"]) for step in steps[:4]]
    assert written == [{"counter": n} for n in range(1, 5)]
    assert json.loads(steps[4].attributes["burr.result"]) == {"counter": 4}
    assert root.attributes["burr.app_id"] == "hello-1"
    assert root.attributes["burr.partition_key"] == "demo-user"
    assert root.resource.attributes["service.name"] == service
    assert root.resource.attributes["host.name"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_demo_command_sends_its_run(
    protocol: str, collector: Collector, jaeger: Jaeger, tmp_path: pathlib.Path
) -> None:
    """`burr-otel demo` says the trace id of a run that Jaeger then has, with the failed step."""
    done = subprocess.run(
        [sys.executable, "-m", "burr_otel.cli", "demo"],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": os.fspath(tmp_path),
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint(protocol),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [sent] = [line for line in done.stdout.splitlines() if line.startswith("Sent to ")]
    trace_id = sent.rstrip(".").rpartition(" ")[2]

    read = jaeger.trace(trace_id, spans=20)

    check_shape(read, "burr-otel-demo")
    names = [span.name for span in read.children(read.roots[0])]
    assert names[:3] == ["receive_question", "classify", "search_docs"]
    assert names.count("look_up_order") == 2
    failed, retried = read.named("look_up_order")
    assert failed.attributes["error.type"] == "ConnectionResetError"
    assert retried.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_with_nothing_listening_the_run_is_unaffected(
    protocol: str, tmp_path: pathlib.Path
) -> None:
    """An absent collector costs one warning."""
    done = run_program(
        HELLO_WORLD_COUNTER,
        tmp_path,
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
    )

    assert "counted 4" in done.stdout
    assert done.stderr.count("cannot send spans to http://127.0.0.1:9") == 1, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "burr-otel replay" in done.stderr
    assert (tmp_path / ".burr/demo_counter/hello-1/log.jsonl").stat().st_size > 0
