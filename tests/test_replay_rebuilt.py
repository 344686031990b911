"""Runs whose log does not keep what was sent: of Burr's own client, not sampled, crashed, damaged."""

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import apps
import pytest
from burr.core import default
from burr.tracking import LocalTrackingClient
from cli_support import RECORDED
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NoOpTracerProvider, StatusCode
from replay_support import assert_same, by_id, stored_runs, stored_spans
from scenarios import Squares

from burr_otel import OtelTracker
from burr_otel.content import ContentPolicy
from burr_otel.spans import provider as provider_module
from burr_otel.testing import span_tree

# Burr's client never closes its files.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SECRET = "sk-ant-api03-NeverToBeSeenAnywhere0123456789abcdef"


def tree(spans):
    return f"\n{span_tree(spans)}\n"


def burrs_client(folder):
    return LocalTrackingClient("proj", str(folder))


# --- Burr's own client --------------------------------------------------------------------------


def test_burrs_recorded_runs_come_out_whole():
    """Every step and every begun span of the 21 runs, under ids of their own, twice the same."""

    def all_spans():
        return {
            project.name: stored_spans(RECORDED, project.name)
            for project in sorted(RECORDED.iterdir())
        }

    first, second = all_spans(), all_spans()
    found = [span for spans in first.values() for span in spans]
    kinds = {"root": 21, "step": 471, "inner": 323}
    roots = [span for span in found if span.parent is None]
    steps = [span for span in found if "burr.action.name" in span.attributes]
    assert (len(roots), len(steps), len(found)) == (21, 471, sum(kinds.values()))
    for project, spans in first.items():
        assert_same(spans, second[project])


def test_what_was_logged_after_a_spans_end_is_on_it():
    """Burr's client tells attributes of spans, and of steps, after their ends."""
    spans = stored_spans(RECORDED, "demo_chatbot_with_traces", app_ids=["chat-1-giraffe"])
    records = (RECORDED / "demo_chatbot_with_traces/chat-1-giraffe/log.jsonl").read_text()
    logged = [r for r in map(json.loads, records.splitlines()) if r["type"] == "attribute"]
    models = [s for s in spans if s.attributes.get("model") and "burr.action.name" in s.attributes]
    on_steps = {r["action_sequence_id"] for r in logged if r["key"] == "model"}
    assert {s.attributes["burr.sequence_id"] for s in models} == on_steps
    chat = [span for span in spans if span.name == "openai.chat"]
    assert chat
    assert all(span.attributes["gen_ai.system"] == "OpenAI" for span in chat)


def test_a_run_of_burrs_client_looks_like_one_of_ours(tmp_path, spans):
    """The same application under both trackers: the same tree, names, contents and outcomes."""

    def run(tracker, app_id):
        app = apps.single(tracker, apps.traced, app_id)
        app.step()
        with contextlib.suppress(ValueError):
            apps.single(tracker, apps.boom, f"{app_id}-failed").step()

    run(burrs_client(tmp_path / "theirs"), "a1")
    with OtelTracker("proj", tmp_path / "ours", tracer_provider=spans.provider) as tracker:
        run(tracker, "a1")
    rebuilt = stored_spans(tmp_path / "theirs")
    assert tree(rebuilt) == spans.tree()
    local = ("code.", "burr.execute.method", "burr.action.tags")  # which only a live tracker knows
    for live in spans.spans:
        [twin] = [
            span
            for span in rebuilt
            if (span.name, span.attributes["burr.app_id"])
            == (live.name, live.attributes["burr.app_id"])
        ]
        expected = {k: v for k, v in live.attributes.items() if not k.startswith(local)}
        graph = json.loads(expected.get("burr.graph", "{}"))
        for told in graph.get("actions", ()):
            del told["file"], told["line"]
        if graph:
            expected["burr.graph"] = json.dumps(graph, separators=(",", ":"))
        assert dict(twin.attributes) == expected
        assert twin.status.status_code is live.status.status_code
        assert twin.status.description == live.status.description
        assert [event.name for event in twin.events] == [event.name for event in live.events]


def test_secrets_of_a_run_of_burrs_client_are_hidden(tmp_path):
    """Its log knows no policy, so the one in force applies: to state, inputs, names and errors."""

    @apps.action(reads=["count"], writes=["token"])
    def leak(state, key: str, __tracer):
        with __tracer(f"use {key}") as span:
            span.log_attributes(password="hunter22", text=f"Bearer {key}")
        raise ValueError(f"bad key {key}")

    with contextlib.suppress(ValueError):
        apps.single(burrs_client(tmp_path), leak).step(inputs={"key": SECRET})
    [failed] = [s for s in stored_spans(tmp_path) if s.name == "step"]
    assert failed.attributes["error.type"] == "ValueError"
    told = repr([span.to_json() for span in stored_spans(tmp_path)])
    assert SECRET not in told
    assert "hunter22" not in told
    shown = repr([s.to_json() for s in stored_spans(tmp_path, policy=ContentPolicy(redact=False))])
    assert SECRET in shown


@pytest.mark.parametrize("capture", ["types", "off"])
def test_capture_settings_apply_to_exceptions_of_burrs_client(capture, tmp_path):
    """Their messages are left out, wherever they stand in a recorded traceback."""
    with contextlib.suppress(ValueError):
        apps.single(burrs_client(tmp_path), apps.boom).step()
    policy = ContentPolicy(exceptions=capture)
    [failed] = [s for s in stored_spans(tmp_path, policy=policy) if s.name == "step"]
    assert failed.events[0].attributes["exception.type"] == "ValueError"
    assert ("exception.stacktrace" in failed.events[0].attributes) is (capture == "types")
    assert "kaputt" not in failed.to_json()
    assert failed.status.description == "ValueError"


def test_spawned_runs_of_burrs_client_are_in_the_spawning_steps_trace(tmp_path):
    """They are found by Burr's pointers, whatever the order in which the runs are read."""
    app = (
        apps.builder(burrs_client(tmp_path), "a1", step=Squares())
        .with_transitions(("step", "step", default))
        .with_state(numbers=[2, 3])
        .with_entrypoint("step")
        .with_parallel_executor(lambda: ThreadPoolExecutor(1))
        .build()
    )
    app.step()
    app.step()
    spans = stored_spans(tmp_path)
    assert (
        tree(spans)
        == """
invoke_workflow proj
  step
    invoke_workflow proj
      square
      square
    invoke_workflow proj
      square
      square
  step
"""
    )
    assert len({span.context.trace_id for span in spans}) == 1
    alone = {s.context.span_id for each in stored_runs(tmp_path) for s in each}
    assert alone == {span.context.span_id for span in spans}


def test_a_fork_of_burrs_client_is_linked_to_the_step(tmp_path):
    """As a live fork is."""
    client = burrs_client(tmp_path)
    apps.counter(client).run(halt_after=["finish"])
    app = apps.resumed(client, "a2", fork_from_app_id="a1", fork_from_sequence_id=1)
    app.run(halt_after=["finish"])
    assert (
        tree(stored_spans(tmp_path))
        == """
invoke_workflow proj
  count
  count
  count
  finish
invoke_workflow proj fork→count
  count
  finish
"""
    )
    [fork] = [s for s in stored_spans(tmp_path) if s.links]
    [step] = [
        s
        for s in stored_spans(tmp_path, app_ids=["a1"])
        if s.attributes.get("burr.sequence_id") == 1
    ]
    assert fork.links[0].context.span_id == step.context.span_id


def write(folder, *records):
    run = folder / "proj" / "a1"
    run.mkdir(parents=True)
    (run / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def begin(number, action="ask", second=0):
    return {
        "type": "begin_entry",
        "start_time": f"2024-05-01T10:00:{second:02d}.000000",
        "action": action,
        "inputs": {},
        "sequence_id": number,
    }


def end(number, action="ask", second=1, exception=None):
    return {
        "type": "end_entry",
        "end_time": f"2024-05-01T10:00:{second:02d}.000000",
        "action": action,
        "result": {},
        "exception": exception,
        "state": {"__SEQUENCE_ID": number},
        "sequence_id": number,
    }


def begin_span(number, span_id, second=0, name="inner"):
    return {
        "type": "begin_span",
        "start_time": f"2024-05-01T10:00:{second:02d}.000000",
        "action_sequence_id": number,
        "span_id": span_id,
        "span_name": name,
        "parent_span_id": None,
        "span_dependencies": [],
    }


def end_span(number, span_id, second=1):
    return {
        "type": "end_span",
        "end_time": f"2024-05-01T10:00:{second:02d}.000000",
        "action_sequence_id": number,
        "span_id": span_id,
    }


UNMATCHED = {
    "a step that never ended": (
        [begin(0), end(0), begin(1, second=2), begin_span(1, "1:0.0", 3)],
        """
invoke_workflow proj [crashed] (the process ended before this did)
  ask
  ask [crashed] (the process ended before this did)
    inner [crashed] (the process ended before this did)
""",
    ),
    "a step that was tried again": (
        [begin(0), begin(0, second=5), end(0, second=6)],
        """
invoke_workflow proj
  ask [crashed] (the process ended before this did)
  ask
""",
    ),
    "an end without a begin": (
        [end(4, second=3), begin(5, second=4), end(5, second=5)],
        """
invoke_workflow proj
  ask
  ask
""",
    ),
    "a span that never ended": (
        [begin(0), begin_span(0, "0:0.0"), end(0)],
        """
invoke_workflow proj
  ask
    inner [abandoned]
""",
    ),
    "the end of a span that never began": (
        [begin(0), end_span(0, "0:0"), end(0), end_span(0, "0:0"), end_span(9, "9:0")],
        """
invoke_workflow proj
  ask
""",
    ),
    "a span of a step that never began": (
        [begin_span(7, "7:0.0"), begin(0), end(0)],
        """
invoke_workflow proj
  ask
""",
    ),
    "records of a later version": (
        [begin(0), {"type": "telepathy", "otel": 7}, end(0), {"type": "begin_entry"}],
        """
invoke_workflow proj
  ask
""",
    ),
}


@pytest.mark.parametrize("name", UNMATCHED)
def test_unmatched_records_give_spans_that_end(name, tmp_path):
    """Each begun step is a span, with an end that is no later than the log's last record."""
    records, expected = UNMATCHED[name]
    write(tmp_path, *records)
    spans = stored_spans(tmp_path)
    assert tree(spans) == expected
    assert len(by_id(spans)) == len(spans)
    [root] = [span for span in spans if span.parent is None]
    last_ns = root.end_time + 1  # a span that began with the last record is a nanosecond long
    assert all(root.start_time <= s.start_time < s.end_time <= last_ns for s in spans)


def test_a_run_of_burrs_client_that_may_go_on_has_no_root_yet(tmp_path):
    """A root that was sent too early would be sent again with another end."""
    write(tmp_path, begin(0), end(0), begin(1, second=2))
    [run] = stored_runs(tmp_path, alive=lambda record, last_ns: True)
    assert [span.name for span in run] == ["ask"]
    assert run.running == ["ask", "invoke_workflow proj"]


def test_the_ids_are_those_that_the_documentation_gives(tmp_path):
    """Anyone can compute them from project, app id, session and sequence id."""

    def number(size, *texts):
        data = b"".join(b"%d:%b" % (len(t.encode()), t.encode()) for t in ("burr-otel/1", *texts))
        return int.from_bytes(hashlib.sha256(data).digest()[:size], "big")

    write(tmp_path, begin(0), end(0), begin(0, second=2), end(0, second=3))
    first, second, root = stored_spans(tmp_path)
    assert root.context.trace_id == number(16, "trace", "proj", "a1", "")
    assert root.context.span_id == number(8, "span", "proj", "a1", "", "root")
    assert first.context.span_id == number(8, "span", "proj", "a1", "", "step", "0", "0")
    assert second.context.span_id == number(8, "span", "proj", "a1", "", "step", "0", "1")


def test_local_times_are_read_in_the_writers_zone_where_the_log_tells_it(tmp_path, monkeypatch):
    """An attribute's UTC time beside a step's local one tells the distance, also for earlier steps."""
    told = {
        "type": "attribute",
        "key": "k",
        "action_sequence_id": 1,
        "span_id": None,
        "value": 1,
        "tags": {},
        "time_logged": "2024-05-01T17:00:02.000000Z",
    }
    write(tmp_path, begin(0), end(0), begin(1, second=2), told, end(1, second=3))
    first = stored_spans(tmp_path)[0]
    assert first.start_time == 1_714_582_800 * 10**9  # 17:00 UTC, and not 10:00


# --- runs of ours that were not traced ------------------------------------------------------------


@pytest.mark.parametrize("why", ["sampler", "noop", "disabled"])
def test_a_run_that_was_not_traced_is_a_whole_trace_when_it_is_sent(
    why, tmp_path, monkeypatch, spans
):
    """The store records whatever the sampler says, so the trace can be had later after all."""
    from burr_otel.testing import SpanCapture

    provider = {
        "sampler": SpanCapture(sampler=ALWAYS_OFF).provider,
        "noop": NoOpTracerProvider(),
        "disabled": None,
    }[why]
    if why == "disabled":
        monkeypatch.setattr(provider_module, "_own", {})  # not for the tests that follow
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with OtelTracker("proj", tmp_path, tracer_provider=provider) as tracker:
        apps.single(tracker, apps.traced).step()
        app = (
            apps.builder(tracker, "parallel", step=Squares())
            .with_transitions(("step", "step", default))
            .with_state(numbers=[2, 3])
            .with_entrypoint("step")
            .with_parallel_executor(lambda: ThreadPoolExecutor(1))
            .build()
        )
        app.step()
    with OtelTracker("proj", tmp_path, tracer_provider=provider) as tracker:
        app = apps.single(tracker, apps.traced)
        app.step()
    replayed = stored_spans(tmp_path)
    assert (
        tree(replayed)
        == """
invoke_workflow proj
  step
    outer
      inner
        helper
invoke_workflow proj
  step
    invoke_workflow proj
      square
    invoke_workflow proj
      square
invoke_workflow proj resume→invoke_workflow proj resume→step
  step
    outer
      inner
        helper
"""
    )
    assert_same(replayed, stored_spans(tmp_path))
    assert all(span.context.trace_flags.sampled for span in replayed)


# --- crashes ------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
import apps
from burr_otel import OtelTracker
from burr_otel.testing import SpanCapture

@apps.action(reads=["count"], writes=["count"])
def step(state, __tracer):
    __tracer.log_attributes(on_step=[1, 2])
    with __tracer("inside") as span:
        span.log_attributes(colour="red", password="hunter22")
        if state["count"] == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    return state.update(count=state["count"] + 1)

tracker = OtelTracker("proj", sys.argv[1], tracer_provider=SpanCapture().provider)
apps.counter(tracker, step=step, partition_key="user-7").run(halt_after=["finish"])
"""


@pytest.fixture
def killed(tmp_path):
    """A store with a run whose process was killed inside a span of its third step."""
    from pathlib import Path

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return tmp_path


def test_what_recovery_sends_is_what_a_replay_sends(killed, spans):
    """Before the recovery and after it: the same spans, so nothing is doubled."""
    before = stored_spans(killed)
    tracker = OtelTracker("proj", killed, tracer_provider=spans.provider)
    [recovered] = tracker.recover("a1")
    after = stored_spans(killed)
    assert_same(before, after)
    sent = by_id(spans.spans)
    assert recovered.spans == ("inside", "count", "invoke_workflow proj")
    assert recovered.again == 4  # what had ended may never have been sent
    assert by_id(after) == sent
    assert (
        tree(after)
        == """
invoke_workflow proj [crashed] (the process ended before this did)
  count
    inside
  count
    inside
  count [crashed] (the process ended before this did)
    inside [crashed] (the process ended before this did)
"""
    )
    crashed = [s for s in spans.spans if s.attributes.get("burr.outcome") == "crashed"]
    [step] = [s for s in crashed if s.name == "count"]
    assert step.attributes["burr.partition_key"] == "user-7"
    assert step.attributes["on_step"] == (1, 2)
    assert step.attributes["code.function.name"].endswith("step")
    assert step.status.status_code is StatusCode.ERROR
    [inside] = [s for s in crashed if s.name == "inside"]
    assert inside.attributes["colour"] == "red"
    assert inside.attributes["password"] == "[redacted]"
    assert "hunter22" not in repr([span.to_json() for span in after])


def test_recovery_that_cannot_send_leaves_the_session_to_others(killed, spans):
    """Its marker stays, and the next one sends the spans."""
    tracker = OtelTracker("proj", killed, tracer_provider=spans.provider)
    [failed] = tracker.recover("a1", lambda _: False)
    assert not failed.sent
    [done] = tracker.recover("a1")
    assert done.sent
    assert len(spans.spans) == 7
    assert tracker.recover("a1") == []


# --- damage -------------------------------------------------------------------------------------


def test_a_damaged_log_gives_the_spans_that_it_still_tells(tmp_path, spans):
    """Any lines lost, cut or turned to garbage: no error, no id twice, and most spans."""
    with OtelTracker("proj", tmp_path, tracer_provider=spans.provider) as tracker:
        apps.single(tracker, apps.traced).step()
        apps.counter(tracker, "a1").run(halt_after=["finish"])
    path = tmp_path / "proj" / "a1" / "log.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    chance = random.Random(7)
    for _ in range(300):
        lines = list(whole)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(lines))
            kind = chance.choice(["drop", "cut", "garbage", "swap"])
            if kind == "drop":
                lines[at] = b""
            elif kind == "cut":
                lines[at] = lines[at][: chance.randrange(len(lines[at]) + 1)]
            elif kind == "garbage":
                lines[at] = bytes(chance.randrange(256) for _ in range(40)) + b"\n"
            else:
                other = chance.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
        path.write_bytes(b"".join(lines))
        found = stored_spans(tmp_path)
        by_id(found)
        assert all(span.start_time < span.end_time for span in found)
