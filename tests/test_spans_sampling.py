"""Sampling and suppression: never half a trace, and the store always records."""

import asyncio
import contextlib

import apps
import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from parallel_apps import AsyncDoubles, Doubles

from burr_otel import OtelTracker
from burr_otel.testing import capture_spans


class EveryOther(Sampler):
    """Samples every second span whatever its parent: the worst that a sampler can do."""

    def __init__(self):
        self.calls = 0

    def should_sample(self, parent_context, trace_id, name, *args, **kwargs):
        self.calls += 1
        decision = Decision.RECORD_AND_SAMPLE if self.calls % 2 else Decision.DROP
        return SamplingResult(decision)

    def get_description(self):
        return "every other"


@pytest.fixture
def sampled(spans, tmp_path, clock):
    """Make a tracker with the given sampler, and what it captures."""

    def make(sampler):
        capture = capture_spans(sampler=sampler)
        captured = capture.__enter__()
        made.append(capture)
        return OtelTracker(
            "proj", tmp_path, tracer_provider=captured.provider, clock=clock
        ), captured

    made = []
    yield make
    for capture in made:
        capture.__exit__(None, None, None)


def run_all(tracker, app_id="a1"):
    """Steps, inner spans and a stream; whether the current span was sampled inside the action."""
    seen = []

    @apps.action(reads=["count"], writes=["count"])
    def look(state, __tracer):
        with __tracer("inner"):
            seen.append(trace.get_current_span().get_span_context().trace_flags.sampled)
        return state.update(count=state["count"] + 1)

    app = (
        apps.builder(tracker, app_id, look=look, stream=apps.stream)
        .with_transitions(("look", "stream", apps.default), ("stream", "look", apps.default))
        .with_state(count=0)
        .with_entrypoint("look")
        .build()
    )
    app.step()
    _, container = app.stream_result(halt_after=["stream"])
    list(container)
    tracker.close()
    return seen


WHOLE = """
invoke_workflow proj
  look
    inner
  stream *first_item *end
"""


def test_an_unsampled_run_makes_no_span_and_tells_what_it_calls(sampled):
    """Nothing is exported, what the action calls is not sampled either, all is stored."""
    tracker, captured = sampled(ALWAYS_OFF)
    assert run_all(tracker) == [False]
    assert not captured.spans
    assert tracker.load(None, "a1")["state"]["text"] == "w0 w1 w2"


def test_an_unsampled_request_makes_an_unsampled_run(sampled):
    """The decision of the request around the application holds for all of it."""
    tracker, captured = sampled(ParentBased(TraceIdRatioBased(1.0)))
    request = NonRecordingSpan(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(0)))
    with trace.use_span(request):
        assert run_all(tracker) == [False]
    assert not captured.spans


def test_a_ratio_sampler_keeps_or_drops_whole_traces(sampled):
    """Of 60 runs at one half, each trace is whole."""
    tracker, captured = sampled(ParentBased(TraceIdRatioBased(0.5)))
    for number in range(60):
        run_all(tracker, f"a{number}")
    by_trace = {}
    for span in captured.spans:
        by_trace.setdefault(span.context.trace_id, []).append(span.name)
    assert 0 < len(by_trace) < 60
    assert {len(names) for names in by_trace.values()} == {4}


def test_a_sampler_that_ignores_parents_cannot_drop_a_run_in_the_middle(sampled):
    """A run whose root was dropped stays dropped, though the sampler would take its steps."""
    sampler = EveryOther()
    tracker, captured = sampled(sampler)
    sampler.calls = 1
    run_all(tracker)
    assert not captured.spans
    assert sampler.calls == 2


def test_suppression_switched_in_mid_run_changes_nothing(sampled):
    """The decision was made at the root."""
    tracker, captured = sampled(None)
    app = apps.counter(tracker)
    app.step()
    with suppress_instrumentation():
        app.step()
    app.run(halt_after=["finish"])
    tracker.close()
    assert (
        captured.tree()
        == """
invoke_workflow proj
  count
  count
  count
  finish
"""
    )


@pytest.mark.parametrize("step", [apps.traced, apps.stream, AsyncDoubles(), Doubles()])
def test_suppression_in_mid_run_splits_no_step(sampled, step):
    """What is inside a step is decided with its trace: inner spans, streams, sub-applications."""
    trees = []
    for app_id, mid_run in (("free", contextlib.nullcontext), ("a1", suppress_instrumentation)):
        tracker, captured = sampled(None)
        app = apps.single(tracker, step, app_id, {"count": 0, "ns": [1, 2]})
        with mid_run():
            if step is apps.stream:
                list(app.stream_result(halt_after=["step"])[1])
            else:
                asyncio.run(app.astep())
        tracker.close()
        trees.append(captured.tree())
    assert trees[0] == trees[1]
    assert captured.spans


@pytest.mark.parametrize("step", [AsyncDoubles(), Doubles()])
def test_what_a_suppressed_application_spawns_is_not_traced(sampled, step):
    """Nor in threads, which know nothing of the suppression."""
    tracker, captured = sampled(None)
    with suppress_instrumentation():
        app = apps.single(tracker, step, state={"ns": [1, 2]})
    asyncio.run(app.astep())
    tracker.close()
    assert not captured.spans


def test_an_application_built_under_suppression_is_not_traced(sampled):
    """Suppression where the application is built holds for all of it; the store records."""
    tracker, captured = sampled(None)
    with suppress_instrumentation():
        app = apps.counter(tracker)
    app.run(halt_after=["finish"])
    tracker.close()
    assert not captured.spans
    assert tracker.load(None, "a1")["state"]["answer"] == 30


def test_a_no_op_provider_costs_nothing_and_changes_nothing(tmp_path, clock):
    """With a provider that makes no spans, the current span stays the caller's."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=trace.NoOpTracerProvider(), clock=clock)
    before = otel_context.get_current()
    run_all(tracker)
    assert otel_context.get_current() == before
    assert tracker.load(None, "a1")["state"]["text"] == "w0 w1 w2"


def test_without_a_store_there_are_spans_only(spans, clock, tmp_path):
    """`snapshots="off"`: no file is made, and nothing can be loaded."""
    tracker = OtelTracker(
        "proj", tmp_path / "x", tracer_provider=spans.provider, clock=clock, snapshots="off"
    )
    run_all(tracker)
    assert spans.tree() == WHOLE
    assert not (tmp_path / "x").exists()
    assert tracker.load(None, "a1") is None
