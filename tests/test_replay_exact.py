"""What is replayed is what was sent live: attribute for attribute, event for event."""

import asyncio
import contextlib
import datetime as dt
import enum
import functools
import json
import os

import apps
import numpy as np
import pytest
from burr.core import ApplicationContext, State, action, default
from burr.core.action import streaming_action
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags, TraceState
from programs import in_child
from replay_support import assert_same, ours, stored_runs, stored_spans, told
from scenarios import SCENARIOS

from burr_otel import OtelTracker
from burr_otel.content import ContentPolicy
from burr_otel.errors import SnapshotError
from burr_otel.spans import keeper
from burr_otel.testing import capture_spans, manual_roots

SECRET = "sk-ant-api03-NeverToBeSeenAnywhere0123456789abcdef"
OPEN = ContentPolicy(redact=False, max_attribute_bytes=1_000_000)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_comes_back_as_it_was_sent(name, spans, tmp_path):
    """Steps, streams, failures, forks, resumes, parallel runs: live and replayed are equal."""

    def make(**settings):
        return OtelTracker("proj", tmp_path, tracer_provider=spans.provider, **settings)

    SCENARIOS[name].run(make, spans.provider.get_tracer("service"))
    keeper.keeper.finish_all()
    assert_same(ours(spans.spans), stored_spans(tmp_path))


@action(reads=["count"], writes=["count", "notes", "token"])
def rich(state: State, question: str, token: str, __tracer) -> tuple[dict, State]:
    with __tracer("think about " + token) as thought:
        thought.log_attributes(
            colour="red",
            parts=[1, 2],
            mixed=[1, "a"],
            nested={"a": [1, {"b": None}]},
            big=1 << 70,
            odd=float("nan"),
            nothing=None,
            raw=b"bytes",
            password=token,
            long="x" * 40_000,
            many=list(range(1000)),
            texts=["a", "b"],
            flag=True,
        )
    __tracer.log_attributes(**{"on the step": 1, "secret": token})
    result = {"answer": question * 3, "token": token}
    return result, state.update(count=1, notes=["n" * 100] * 1000, token=token)


def run_rich(tracker, question="why?"):
    app = apps.single(tracker, rich, state={"count": 0, "notes": [], "token": ""})
    app.step(inputs={"question": question, "token": SECRET})


SETTINGS = [
    {},
    {"openinference_content": True},
    {"capture": "types"},
    {"capture": "off"},
    {"capture_state": "off", "capture_results": "types"},
    {"redact": False},
    {"max_attribute_bytes": 64},
    {"redactor": lambda path, value: "R" if path.endswith("answer") else value},
    {"redact_keys": ("count",)},
]


@pytest.mark.parametrize("chosen", SETTINGS, ids=lambda each: ",".join(each) or "default")
@pytest.mark.parametrize("reader", [ContentPolicy(), OPEN], ids=["default", "open"])
def test_content_comes_back_as_it_was_shown_whatever_the_readers_settings(
    chosen, reader, spans, tmp_path
):
    """Hidden stays hidden, cut stays cut, and what was left out stays out.

    A reader who hides more than the run did has the last word.
    """
    with OtelTracker("proj", tmp_path, tracer_provider=spans.provider, **chosen) as tracker:
        run_rich(tracker)
    replayed = stored_spans(tmp_path, policy=reader)
    if reader.redact and not chosen.get("redact", True):
        assert SECRET not in repr([(s.name, dict(s.attributes)) for s in replayed])
        return
    assert_same(spans.spans, replayed)
    if chosen.get("redact", True):
        assert SECRET not in repr([(s.name, dict(s.attributes)) for s in replayed])
    assert "sent back" not in repr(replayed)


def test_runs_kept_as_differences_come_back_too(spans, tmp_path):
    """A written state is made again from what changed."""
    with OtelTracker(
        "proj", tmp_path, tracer_provider=spans.provider, snapshots="delta"
    ) as tracker:
        app = apps.single(tracker, rich, state={"count": 0, "notes": [], "token": ""})
        for number in range(4):
            app.step(inputs={"question": f"{number}?", "token": f"{SECRET}{number}"})
    assert b'"burr_otel_delta"' in (tmp_path / "proj" / "a1" / "log.jsonl").read_bytes()
    assert_same(spans.spans, stored_spans(tmp_path))


def test_an_ordinary_step_says_nothing_twice_in_the_log(tracker, spans, tmp_path):
    """Its span is derived from its record, which keeps ids, times and outcome beside Burr's data."""
    app = apps.counter(tracker, upto=100)
    app.run(halt_after=["finish"])
    tracker.close()
    lines = (tmp_path / "proj" / "a1" / "log.jsonl").read_bytes().splitlines()
    begin, end = (json.loads(line)["otel"] for line in lines[-5:-3])
    ids = {"session", "time_unix_nano", "trace_id", "span_id", "flags", "crc"}
    assert set(begin) - ids == {"parent_span_id", "root_span_id", "method", "prior"}
    assert set(end) - ids <= {"outcome", "int64", "grown", "state_crc"}


def test_long_content_is_not_kept_twice(tracker, spans, tmp_path):
    """Of a value that was cut for the span, the log keeps where, and not the text again."""

    @action(reads=["count"], writes=["count"])
    def grow(state: State) -> State:
        return state.update(count=["y" * 100] * 2000)

    apps.single(tracker, grow).step()
    tracker.close()
    end = (tmp_path / "proj" / "a1" / "log.jsonl").read_bytes().splitlines()[-2]
    otel = json.loads(end)["otel"]
    assert len(json.dumps(otel)) < 700
    assert len(spans.named("grow" if False else "step").attributes["burr.state.written"]) > 10_000
    assert_same(spans.spans, stored_spans(tmp_path))


def test_what_the_action_does_to_its_span_comes_back(spans, tmp_path):
    """Attributes, events, links, status and name that user code set through OpenTelemetry."""
    far = SpanContext(5, 6, True, TraceFlags(1), TraceState([("vendor", "x")]))

    @action(reads=["count"], writes=["count"])
    def touch(state: State) -> State:
        span = trace.get_current_span()
        span.set_attribute("mine", [1.5, 2.5])
        span.set_attribute("burr.action.name", "another")
        span.set_attribute("huge", float("inf"))
        span.add_event("halfway", {"n": 1})
        span.add_link(far, {"why": "because"})
        span.set_status(Status(StatusCode.ERROR, "not good"))
        span.update_name("renamed")
        return state.update(count=1)

    with OtelTracker("proj", tmp_path, tracer_provider=spans.provider) as tracker:
        apps.single(tracker, touch).step()
    assert_same(spans.spans, stored_spans(tmp_path))


def test_numbers_and_texts_of_subclasses_stay_what_they_are(spans, tmp_path):
    """A score of numpy's is a number to the backend, as on a span of the SDK's, and no text."""
    mine = {
        "score": np.float64(0.5),
        "level": enum.IntEnum("Level", ["low"]).low,
        "role": enum.Enum("Role", {"user": "U"}, type=str).user,
    }

    @action(reads=[], writes=[])
    def rate(state: State) -> State:
        trace.get_current_span().set_attributes(mine)
        trace.get_current_span().add_event("rated", mine)
        return state

    with OtelTracker("proj", tmp_path, tracer_provider=spans.provider) as tracker:
        apps.single(tracker, rate).step()
    sent = spans.named("step")
    for held in (sent.attributes, sent.events[0].attributes):
        found = [held[name] for name in mine]
        assert repr(found) == "[0.5, 1, 'U']"
    assert_same(spans.spans, stored_spans(tmp_path))


def test_a_span_limit_is_respected(tmp_path):
    """Attributes that a limit of the SDK dropped or cut are not brought back."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(
        resource=Resource({"service.name": "limited"}),
        span_limits=SpanLimits(max_span_attributes=7, max_span_attribute_length=20),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(SimpleSpanProcessor(kept))
    with manual_roots(), OtelTracker("proj", tmp_path, tracer_provider=provider) as tracker:
        run_rich(tracker, "a long question " * 10)
    assert_same(kept.get_finished_spans(), stored_spans(tmp_path))


def test_the_resource_is_that_of_the_process_that_ran(tmp_path):
    """A replay says the service, host and instance that the run said, not its own."""
    kept = InMemorySpanExporter()
    resource = Resource({"service.name": "shop", "host.name": "far", "ports": [1, 2]}, "schema")
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    with manual_roots(), OtelTracker("proj", tmp_path, tracer_provider=provider) as tracker:
        apps.counter(tracker).run(halt_after=["finish"])
    replayed = stored_spans(tmp_path)
    assert_same(kept.get_finished_spans(), replayed)
    assert replayed[0].resource == resource


class Odd:
    """An object that Burr keeps as text."""

    def __str__(self):
        return "an odd one"


class Hostile:
    """An object that cannot be looked at."""

    def __repr__(self):
        raise RuntimeError("no")


def cycle():
    made = {}
    made["me"] = made
    return made


HOSTILE = {
    "huge int": 2**70,
    "nan": float("nan"),
    "infinities": [float("inf"), float("-inf"), -0.0],
    "tuple": (1, (2, "a")),
    "set": {1},
    "bytes": b"\x00\xff",
    "lone surrogate": "a\ud800b",
    "surrogate key": {"\udfff": 1},
    "other keys": {1: "a", None: "b", (1, 2): "c"},
    "nul and controls": "\x00\x1b[31m\u202e",
    "datetime": dt.datetime(2025, 1, 31, tzinfo=dt.timezone.utc),
    "long text": "ä" * 40_000,
    "long list": list(range(20_000)),
    "deep": functools.reduce(lambda inner, _: [inner], range(200), 1),
    "cycle": cycle(),
    "object": Odd(),
    "unreadable object": Hostile(),
    "burr's own key": {"__burr_serde__": "pickle", "value": "x"},
    "numpy": np.arange(3),
    "secret in text": f"Authorization: Bearer {SECRET}",
    "secret under a key": {"api_key": SECRET, "nested": [{"password": "hunter22"}]},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_values_come_back_as_they_were_shown(name, spans, tmp_path):
    """Whatever a user keeps in inputs, state, result and attributes."""
    value = HOSTILE[name]

    @action(reads=["count"], writes=["count"])
    def take(state: State, given: object, __tracer) -> tuple[dict, State]:
        with __tracer("inner") as span:
            span.log_attributes(value=value)
        return {"value": value}, state.update(count=value)

    tracker = OtelTracker(
        "proj", tmp_path, tracer_provider=spans.provider, on_snapshot_error="warn"
    )
    with tracker, contextlib.suppress(Exception):
        apps.single(tracker, take).step(inputs={"given": value})
    assert_same(spans.spans, stored_spans(tmp_path))


@pytest.mark.parametrize("name", ["lone \ud800", "é", "x" * 100, f"token={SECRET}"])
def test_an_action_of_any_name_comes_back_as_it_was_shown(name, spans, tmp_path):
    """Its name stands in the graph, in its spans, and as the action before the next one."""
    tracker = OtelTracker(
        "proj", tmp_path, tracer_provider=spans.provider, on_snapshot_error="warn"
    )
    with tracker:
        app = (
            apps.builder(tracker, **{name: apps.count})
            .with_transitions((name, name))
            .with_state(count=0)
            .with_entrypoint(name)
            .build()
        )
        app.step()
        app.step()
    assert_same(spans.spans, stored_spans(tmp_path))
    assert SECRET not in str([told(span) for span in spans.spans])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=60)
@given(given_=JSON, kept=JSON, logged=st.dictionaries(st.text(min_size=1), JSON, max_size=3))
def test_any_json_comes_back_as_it_was_shown(given_, kept, logged, tmp_path_factory):
    """Inputs, result, state and attributes of any JSON value."""
    folder = tmp_path_factory.mktemp("run")

    @action(reads=["count"], writes=["count"])
    def take(state: State, given: object, __tracer) -> tuple[dict, State]:
        __tracer.log_attributes(**logged)
        return {"kept": kept}, state.update(count=kept)

    with manual_roots(), capture_spans() as spans:
        with OtelTracker("proj", folder, tracer_provider=spans.provider) as tracker:
            apps.single(tracker, take).step(inputs={"given": given_})
        live = [(s.name, repr(dict(s.attributes))) for s in spans.spans]
    back = sorted(stored_spans(folder), key=lambda s: (s.start_time, s.context.span_id))
    assert [(s.name, dict(sorted(eval_(s).items()))) for s in back] == [
        (name, dict(sorted(eval_text(text).items()))) for name, text in live
    ]


def eval_(span):
    return eval_text(repr(dict(span.attributes)))


def eval_text(text):
    """Attributes as text, so that NaN equals NaN."""
    return {key: repr(value) for key, value in eval(text, {"nan": "nan", "inf": "inf"}).items()}


def test_a_state_that_cannot_be_kept_leaves_its_span_in_the_log(spans, tmp_path):
    """The step's span was sent, so a replay sends it too."""

    @action(reads=["count"], writes=["count"])
    def take(state: State) -> State:
        cycle = []
        cycle.append(cycle)
        return state.update(count=cycle)

    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider)
    with tracker, pytest.raises(SnapshotError):
        apps.single(tracker, take).step()
    assert "burr.snapshot.error" in spans.named("step").attributes
    assert_same(spans.spans, stored_spans(tmp_path))


@streaming_action(reads=["count"], writes=["text"])
def failing_stream(state: State):
    yield {"text": "a"}, None
    raise ValueError("midway")


@pytest.mark.parametrize("way", ["next", "never", "failing", "dropped"])
def test_streams_that_end_in_other_ways(way, spans, tmp_path):
    """Read by `next`, never read, failing midway, dropped: the span that was sent comes back."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider)
    with tracker:
        app = apps.single(tracker, failing_stream if way == "failing" else apps.stream)
        _, container = app.stream_result(halt_after=["step"])
        if way == "next":
            with contextlib.suppress(StopIteration):
                while True:
                    next(container)
        elif way == "dropped":
            next(iter(container))
        elif way == "failing":
            with contextlib.suppress(Exception):
                list(container)
        del container
        keeper.keeper.sweep()
        app.step() if way != "failing" else None
        del app
    keeper.keeper.finish_all()
    assert_same(spans.spans, stored_spans(tmp_path))


def test_steps_after_the_end_of_the_application_span(spans, clock, tmp_path):
    """They hang off the ended root in a replay too."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider, clock=clock)
    app = apps.counter(tracker)
    app.step()
    clock.advance(10)
    keeper.keeper.sweep()
    app.run(halt_after=["finish"])
    tracker.close()
    assert_same(spans.spans, stored_spans(tmp_path))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_steps_of_a_forked_child(spans, tmp_path):
    """They are steps of the parent's application span, under the parent's resource."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider)
    app = apps.counter(tracker)
    app.step()

    def work():
        spans.clear()
        app.step()
        (tmp_path / "child").write_text(spans.spans[0].to_json())

    assert in_child(work) == 0
    tracker.close()
    sent = json.loads((tmp_path / "child").read_text())
    (tmp_path / "child").unlink()
    replayed = stored_spans(tmp_path)
    child = {f"0x{s.context.span_id:016x}": s for s in replayed}.pop(sent["context"]["span_id"])
    assert json.loads(child.to_json()) == sent
    assert_same(spans.spans, [s for s in replayed if s is not child])


def test_a_live_run_is_replayed_as_far_as_it_has_been_sent(spans, tmp_path):
    """Ended steps are; the open application span is named as running, and not made up."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider)
    app = apps.counter(tracker)
    app.step()
    [run] = stored_runs(tmp_path, alive=lambda record, last_ns: True)
    assert_same(spans.spans, list(run))
    assert run.running == ["invoke_workflow proj"]
    tracker.close()
    assert_same(spans.spans, stored_spans(tmp_path))


def test_spans_of_others_are_not_ours_to_send(spans, tmp_path):
    """What `record_child_spans` wrote for the Burr UI was sent by whoever made it."""
    other = spans.provider.get_tracer("http")

    @action(reads=["count"], writes=["count"])
    def call(state: State) -> State:
        with other.start_as_current_span("GET", attributes={"url": "x"}):
            return state.update(count=1)

    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider, record_child_spans=True)
    with tracker:
        apps.single(tracker, call).step()
    [run] = stored_runs(tmp_path)
    assert_same(ours(spans.spans), list(run))
    assert run.foreign == 1


def test_an_async_application_comes_back(spans, tmp_path):
    """The state that arrives one hook late is in the right record, and the span as it was."""

    @action(reads=["count"], writes=["count"])
    async def nested(state: State, __context: ApplicationContext) -> State:
        await asyncio.sleep(0)
        return state.update(count=state["count"] + 1)

    async def main(tracker):
        app = (
            apps.builder(tracker, "a1", "user-7", first=apps.count, then=nested)
            .with_transitions(("first", "then", default))
            .with_state(count=0)
            .with_entrypoint("first")
            .build()
        )
        await app.arun(halt_after=["then"])

    with OtelTracker("proj", tmp_path, tracer_provider=spans.provider) as tracker:
        asyncio.run(main(tracker))
    replayed = stored_spans(tmp_path)
    assert_same(spans.spans, replayed)
    assert {s.attributes["burr.partition_key"] for s in replayed} == {"user-7"}
