"""What a run looks like, in every way in which Burr can run it."""

import asyncio
import contextvars
import gc
import json
import threading
import weakref

import apps
import pytest
from burr.core import ApplicationBuilder
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from burr_otel import OtelTracker, SnapshotError
from burr_otel.live.run import Run
from burr_otel.store import Session

COUNTER = """
invoke_workflow proj
  count
  count
  count
  finish
"""


def test_run_gives_one_root_with_the_steps_in_order(tracker, spans):
    """`run` gives one trace: the application span, and each step as its child."""
    apps.counter(tracker).run(halt_after=["finish"])
    tracker.close()
    assert spans.tree() == COUNTER
    assert len({span.context.trace_id for span in spans.spans}) == 1


def test_step_and_iterate_give_the_same_tree(tracker, spans):
    """`step` and `iterate` trace as `run` does."""
    app = apps.counter(tracker)
    app.step()
    for _ in app.iterate(halt_after=["finish"]):
        pass
    tracker.close()
    assert spans.tree() == COUNTER
    methods = [s.attributes["burr.execute.method"] for s in spans.spans if s.parent]
    assert methods == ["step", "step", "step", "step"]


@pytest.mark.parametrize("step", [apps.count, apps.acount])
def test_arun_gives_the_same_tree(tracker, spans, step):
    """`arun` traces as `run` does, over asynchronous and over synchronous actions."""
    asyncio.run(apps.counter(tracker, step=step).arun(halt_after=["finish"]))
    tracker.close()
    assert spans.tree() == COUNTER


@pytest.mark.parametrize("step", [apps.count, apps.acount])
def test_arun_keeps_the_state_after_each_step(tracker, step):
    """Burr reports the state before a sync action under `arun`; the store has the one after."""
    asyncio.run(apps.counter(tracker, step=step).arun(halt_after=["finish"]))
    states = [tracker.load(None, "a1", n)["state"]["count"] for n in range(3)]
    assert states == [1, 2, 3]
    last = tracker.load(None, "a1")
    assert (last["position"], last["sequence_id"], last["state"]["answer"]) == ("finish", 3, 30)


def test_arun_shows_the_results_of_synchronous_actions(tracker, spans):
    """Burr tells its hooks no result of a sync action under `arun`; the span has it all the same."""
    asyncio.run(apps.counter(tracker).arun(halt_after=["finish"]))
    assert json.loads(spans.named("finish").attributes["burr.result"]) == {"answer": 30}


def test_an_unread_stream_costs_a_later_run_nothing(tracker, spans):
    """Burr 0.43 calls no execute hooks for an application while a stream of it was never read.

    Its later steps, also synchronous actions under `arun`, are traced and kept to the last one.
    """
    app = (
        apps.builder(tracker, "a1", stream=apps.stream, count=apps.count)
        .with_transitions(
            ("stream", "count", apps.default), ("count", "count", apps.expr("count < 3"))
        )
        .with_state(count=0)
        .with_entrypoint("stream")
        .build()
    )
    app.stream_result(halt_after=["stream"])
    asyncio.run(app.arun(halt_after=["count"]))
    tracker.close()
    assert (
        spans.tree()
        == """
invoke_workflow proj
  stream [abandoned] *end
  stream
  count
"""
    )
    assert tracker.load(None, "a1")["state"]["count"] == 1


def test_a_step_says_what_it_did(tracker, spans):
    """Inputs, result, written state, identity, method and place of definition are on the span."""

    def greet(state, name, __tracer):
        return {"said": f"hi {name}"}, state.update(said=f"hi {name}")

    greet = apps.action(reads=["count"], writes=["said"])(greet)
    app = apps.single(tracker, greet, partition_key="u1")
    app.step(inputs={"name": "Ann"})
    tracker.close()
    found = dict(spans.named("step").attributes)
    assert json.loads(found["burr.inputs"]) == {"name": "Ann"}
    assert json.loads(found["burr.result"]) == {"said": "hi Ann"}
    assert json.loads(found["burr.state.written"]) == {"said": "hi Ann"}
    assert found["burr.project"] == "proj"
    assert found["burr.app_id"] == found["session.id"] == "a1"
    assert found["burr.partition_key"] == "u1"
    assert found["burr.sequence_id"] == 0
    assert found["burr.action.name"] == found["graph.node.id"] == "step"
    assert found["burr.outcome"] == "ok"
    assert found["code.function.name"].endswith("greet")
    assert "graph.node.parent_id" not in found


def test_who_a_span_is_survives_the_limit_of_attributes(spans, tmp_path):
    """A span at its limit drops the oldest, so the attributes that name the run are set last."""
    kept = InMemorySpanExporter()
    limits = SpanLimits(max_span_attributes=7)
    provider = TracerProvider(span_limits=limits, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))

    @apps.action(reads=["count"], writes=["count"])
    def chatty(state, __tracer):
        with __tracer("inner") as inner:
            inner.log_attributes(**{f"k{number}": number for number in range(20)})
        __tracer.log_attributes(**{f"k{number}": number for number in range(20)})
        raise ValueError("also an error has attributes")

    with OtelTracker("proj", tmp_path, tracer_provider=provider) as tracker:
        app = apps.single(tracker, chatty, partition_key="u1")
        with pytest.raises(ValueError):
            app.step()
    found = kept.get_finished_spans()
    assert [span.name for span in found] == ["inner", "step", "invoke_workflow proj"]
    run = {
        "burr.project": "proj",
        "burr.app_id": "a1",
        "burr.partition_key": "u1",
        "session.id": "a1",
        "gen_ai.conversation.id": "a1",
        "gen_ai.agent.name": "proj",
    }
    for span in found:
        assert run.items() <= dict(span.attributes).items()
        assert len(span.attributes) == 7
    assert [span.attributes.get("burr.sequence_id") for span in found] == [0, 0, None]


def test_the_root_describes_the_application(tracker, spans):
    """The application span carries the graph, the outcome and the GenAI identity."""
    apps.counter(tracker, partition_key="u1").run(halt_after=["finish"])
    tracker.close()
    found = dict(spans.named("invoke_workflow proj").attributes)
    assert found["gen_ai.operation.name"] == "invoke_workflow"
    assert found["gen_ai.agent.name"] == "proj"
    assert found["gen_ai.conversation.id"] == "a1"
    assert (found["burr.outcome"], found["burr.steps"], found["burr.steps.failed"]) == ("ok", 4, 0)
    graph = json.loads(found["burr.graph"])
    assert graph["entrypoint"] == "count"
    assert {"from": "count", "to": "finish", "condition": "default"} in graph["transitions"]
    count = next(each for each in graph["actions"] if each["name"] == "count")
    assert (count["reads"], count["writes"]) == (["count"], ["count"])
    assert count["file"].endswith("apps.py")


def test_the_scope_names_package_version_and_schema(tracker, spans):
    """Spans carry our instrumentation scope."""
    apps.counter(tracker).step()
    scope = spans.named("count").instrumentation_scope
    assert (scope.name, scope.version) == ("burr_otel", __import__("burr_otel").__version__)
    assert scope.schema_url.startswith("https://opentelemetry.io/schemas/")


def test_spans_made_by_an_action_nest_under_its_step(tracker, spans):
    """Whatever an action calls finds the step as its current span."""

    @apps.action(reads=["count"], writes=["count"])
    def call(state):
        with spans.provider.get_tracer("http").start_as_current_span("GET /"):
            return state.update(count=1)

    apps.single(tracker, call).step()
    tracker.close()
    assert (
        spans.tree()
        == """
invoke_workflow proj
  step
    GET /
"""
    )


def test_inner_spans_nest_and_carry_logged_attributes(tracker, spans):
    """`__tracer`, `@trace` and `log_attributes` give inner spans with their attributes."""
    apps.single(tracker, apps.traced).step()
    tracker.close()
    assert (
        spans.tree()
        == """
invoke_workflow proj
  step
    outer
      inner
        helper
"""
    )
    outer = spans.named("outer").attributes
    assert outer["colour"] == "red"
    assert list(outer["parts"]) == [1, 2]
    assert json.loads(outer["nested"]) == {"a": 1}
    assert outer["burr.sequence_id"] == 0
    assert spans.named("step").attributes["on_step"] is True
    assert spans.named("helper").attributes["return"] == "HI"


def test_span_dependencies_become_links(tracker, spans):
    """An inner span links to the siblings that it names."""

    @apps.action(reads=["count"], writes=["count"])
    def work(state, __tracer):
        with __tracer("fetch"):
            pass
        with __tracer("use", span_dependencies=["fetch", "unknown"]):
            pass
        return state.update(count=1)

    apps.single(tracker, work).step()
    tracker.close()
    assert (
        spans.tree()
        == """
invoke_workflow proj
  step
    fetch
    use dependency→fetch
"""
    )


def test_an_action_may_make_any_number_of_inner_spans(tmp_path):
    """A span that has ended, and that nothing can refer to any more, is let go within the step."""
    alive = weakref.WeakSet()

    class Watch(SpanProcessor):
        def on_start(self, span, parent_context=None):
            alive.add(span)

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Watch())

    @apps.action(reads=["count"], writes=["count"])
    def work(state, __tracer):
        for _ in range(30):
            with __tracer("outer"), __tracer("inner"):
                pass
        gc.collect()
        return state.update(count=len(alive))

    with OtelTracker("proj", tmp_path, tracer_provider=provider) as tracker:
        _, _, state = apps.single(tracker, work).step()
    assert state["count"] <= 4  # root and step, and at most the last pair


def test_an_inner_span_that_begins_after_the_one_around_it_ended(tracker, spans):
    """A thread that took the context along still finds its parent, which is let go of then only."""

    @apps.action(reads=["count"], writes=["count"])
    def work(state, __tracer):
        ended = threading.Event()

        def late():
            assert ended.wait(30)
            with __tracer("late"):
                pass

        with __tracer("outer"):
            thread = threading.Thread(target=contextvars.copy_context().run, args=(late,))
            thread.start()
        ended.set()
        thread.join()
        return state.update(count=1)

    apps.single(tracker, work).step()
    tracker.close()
    assert (
        spans.tree()
        == """
invoke_workflow proj
  step
    outer
      late
"""
    )


def test_a_failing_action_keeps_its_exception_and_shows_it(tracker, spans):
    """The user's own exception object comes through; step and root say that it failed."""
    error = ValueError("kaputt")

    @apps.action(reads=["count"], writes=["count"])
    def fail(state):
        raise error

    app = apps.single(tracker, fail)
    with pytest.raises(ValueError) as caught:
        app.step()
    assert caught.value is error
    tracker.close()
    assert (
        spans.tree()
        == """
invoke_workflow proj [error] (kaputt)
  step [error] (kaputt)
"""
    )
    step = spans.named("step")
    assert step.attributes["error.type"] == "ValueError"
    (event,) = step.events
    assert event.name == "exception"
    assert event.attributes["exception.type"] == "ValueError"
    assert event.attributes["exception.message"] == "kaputt"
    assert "raise error" in event.attributes["exception.stacktrace"]


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        (KeyboardInterrupt(), "error"),
        (SystemExit(3), "error"),
        (SystemExit(0), "ok"),
        (SystemExit(), "ok"),
    ],
    ids=repr,
)
def test_ctrl_c_in_a_step_is_a_failure_that_a_resume_retries(tracker, spans, kind, outcome):
    """Burr hides a `BaseException` from its hooks; span and store know of it all the same.

    A program that exits in order has not failed, but its step has not completed either.
    """
    attempts = []

    @apps.action(reads=["count"], writes=["count"])
    def interrupted(state):
        attempts.append(1)
        if len(attempts) == 1:
            raise kind
        return state.update(count=state["count"] + 1)

    with pytest.raises(type(kind)):
        apps.counter(tracker, step=interrupted).run(halt_after=["finish"])
    tracker.close()
    span = spans.named("count")
    assert span.attributes["burr.outcome"] == outcome
    assert span.status.is_unset == (outcome == "ok")
    assert bool(span.events) == (outcome == "error")
    assert tracker.load(None, "a1")["status"] == "failed"
    _, _, state = apps.resumed(tracker, step=interrupted).run(halt_after=["finish"])
    assert state["answer"] == 30


def test_a_cancelled_step_is_cancelled_and_retried_by_a_resume(tracker, spans):
    """Cancellation is an outcome of its own, without ERROR, and the step counts as unfinished."""

    async def scenario():
        started = asyncio.Event()

        @apps.action(reads=["count"], writes=["count"])
        async def wait(state):
            started.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(apps.single(tracker, wait).astep())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    tracker.close()
    assert (
        spans.tree()
        == """
invoke_workflow proj [cancelled]
  step [cancelled]
"""
    )
    assert tracker.load(None, "a1")["status"] == "failed"


def test_an_outer_except_block_does_not_make_a_step_fail(tracker, spans):
    """A run inside somebody's `except` block sees that exception in flight; it is not its own."""
    try:
        raise RuntimeError("handled elsewhere")
    except RuntimeError:
        asyncio.run(apps.counter(tracker).arun(halt_after=["finish"]))
        apps.counter(tracker, app_id="a2").run(halt_after=["finish"])
        apps.single(tracker, apps.traced, "a3").step()
        apps.single(tracker, apps.stream, "a4").stream_result(halt_after=["step"])[1].get()
    tracker.close()
    assert {span.attributes["burr.app_id"] for span in spans.spans} == {"a1", "a2", "a3", "a4"}
    assert {span.attributes.get("burr.outcome", "ok") for span in spans.spans} == {"ok"}
    assert not any(span.events for span in spans.spans if span.attributes["burr.app_id"] == "a3")
    assert {span.status.status_code for span in spans.spans} == {StatusCode.UNSET}


def test_the_current_span_is_what_it_was(tracker, spans):
    """Neither steps nor inner spans nor failures leave a span current."""
    before = trace.get_current_span()
    apps.single(tracker, apps.traced).step()
    with pytest.raises(ValueError):
        apps.single(tracker, apps.boom, app_id="a2").step()
    assert trace.get_current_span() is before


def test_resume_continues_and_links_to_the_earlier_trace(tracker, spans):
    """A run stopped after some steps continues at the next action; its new root links back."""
    first = apps.counter(tracker)
    first.step()
    first.step()
    tracker.close()
    spans.clear()
    _, _, state = apps.resumed(tracker).run(halt_after=["finish"])
    tracker.close()
    assert state["answer"] == 30
    assert (
        spans.tree()
        == """
invoke_workflow proj resume→elsewhere resume→elsewhere
  count
  finish
"""
    )


def test_fork_starts_at_the_forked_step_and_links_to_it(tracker, spans):
    """A fork from sequence id 1 has that step's state, a new trace and a link to the step."""
    apps.counter(tracker).run(halt_after=["finish"])
    tracker.close()
    step = next(s for s in spans.spans if s.attributes.get("burr.sequence_id") == 1)
    spans.clear()
    app = apps.resumed(tracker, app_id="a2", fork_from_app_id="a1", fork_from_sequence_id=1)
    assert app.state["count"] == 2
    app.run(halt_after=["finish"])
    tracker.close()
    assert (
        spans.tree()
        == """
invoke_workflow proj fork→elsewhere
  count
  finish
"""
    )
    (link,) = spans.named("invoke_workflow proj").links
    assert link.context.span_id == step.context.span_id
    assert link.attributes["burr.link.type"] == "fork"


def test_a_fork_links_to_the_step_of_the_partition_that_it_forks(tracker, spans):
    """One app id under two partition keys is two runs, whichever was there first."""
    for key in ("one", "two"):
        apps.counter(tracker, "a1", partition_key=key).run(halt_after=["finish"])
    tracker.close()
    steps = [span for span in spans.spans if span.attributes.get("burr.sequence_id") == 1]
    (forked,) = [span for span in steps if span.attributes["burr.partition_key"] == "two"]
    apps.resumed(
        tracker,
        app_id="a2",
        fork_from_app_id="a1",
        fork_from_partition_key="two",
        fork_from_sequence_id=1,
    )
    tracker.close()
    (link,) = spans.spans[-1].links
    assert link.context.span_id == forked.context.span_id


def test_one_tracker_serves_several_applications(tracker, spans):
    """Interleaved applications of one tracker keep their spans and their states apart."""
    one, two = apps.counter(tracker, "a1"), apps.counter(tracker, "a2", upto=2)
    one.step()
    two.step()
    one.run(halt_after=["finish"])
    two.run(halt_after=["finish"])
    tracker.close()
    assert spans.tree() == COUNTER + "".join(COUNTER[1:].split("  count\n", 1))
    assert tracker.load(None, "a1")["state"]["answer"] == 30
    assert tracker.load(None, "a2")["state"]["answer"] == 20
    assert sorted(tracker.list_app_ids(None)) == ["a1", "a2"]


def test_an_application_built_in_a_request_is_in_its_trace(tracker, spans):
    """The span current at creation is the root's parent."""
    with spans.provider.get_tracer("web").start_as_current_span("POST /chat"):
        apps.counter(tracker, upto=1).run(halt_after=["finish"])
    tracker.close()
    assert (
        spans.tree()
        == """
POST /chat
  invoke_workflow proj
    count
    finish
"""
    )


def test_a_step_in_another_trace_links_both_ways(tracker, spans):
    """An application built once and run in a request: linked to the request, and back."""
    app = apps.counter(tracker)
    with spans.provider.get_tracer("web").start_as_current_span("POST /chat"):
        app.step()
    tracker.close()
    assert (
        spans.tree()
        == """
invoke_workflow proj
  count ambient→POST /chat
POST /chat step→count
"""
    )


def test_step_parent_ambient_puts_steps_into_the_request(spans, clock, tmp_path):
    """`step_parent="ambient"`: the request is the parent, and the step links to its application."""
    tracker = OtelTracker(
        "proj", tmp_path, tracer_provider=spans.provider, clock=clock, step_parent="ambient"
    )
    app = apps.counter(tracker)
    with spans.provider.get_tracer("web").start_as_current_span("POST /chat"):
        app.step()
    app.step()
    tracker.close()
    assert (
        spans.tree()
        == """
invoke_workflow proj
  count
POST /chat
  count application→invoke_workflow proj
"""
    )


def test_state_without_a_tracker_is_not_touched(tmp_path):
    """An application that nobody tracks streams and runs as before."""
    app = (
        ApplicationBuilder()
        .with_actions(stream=apps.stream)
        .with_transitions()
        .with_state(count=0)
        .with_entrypoint("stream")
        .build()
    )
    _, container = app.stream_result(halt_after=["stream"])
    assert [item["text"] for item in container] == ["w0", "w1", "w2"]
    assert container.get()[1]["text"] == "w0 w1 w2"


@pytest.mark.parametrize("policy", ["raise", "warn"])
def test_a_snapshot_that_cannot_be_written_is_marked_on_a_proper_span(
    spans, clock, tmp_path, monkeypatch, caplog, policy
):
    """The disk fails after the step: span and root are whole, the user is told by error or warning."""
    tracker = OtelTracker(
        "proj", tmp_path, tracer_provider=spans.provider, clock=clock, on_snapshot_error=policy
    )
    app = apps.counter(tracker)
    app.step()

    def full(self, *arguments, **more):
        raise SnapshotError(self.run, OSError(28, "No space left on device"), sequence_id=1)

    monkeypatch.setattr(Session, "end_step", full)
    if policy == "raise":
        with pytest.raises(SnapshotError, match="state of step 1 could not be kept"):
            app.step()
    else:
        app.step()
        assert "No space left on device" in caplog.text
    monkeypatch.undo()
    tracker.close()
    failed = [s for s in spans.spans if s.attributes.get("burr.sequence_id") == 1]
    assert ["No space left" in s.attributes["burr.snapshot.error"] for s in failed] == [True]
    assert [s.attributes["burr.outcome"] for s in failed] == ["ok"]
    assert tracker.load(None, "a1")["sequence_id"] == 0


@pytest.mark.parametrize("how", ["step", "astep", "stream_result"])
def test_a_step_says_only_what_it_was_given(tracker, spans, how):
    """`astep` and streams pass all inputs of the call to their hooks; a step shows its own."""

    @apps.action(reads=["count"], writes=["count"])
    def take(state, mine, other=1):
        return state.update(count=mine)

    app = apps.single(tracker, take)
    inputs = {"mine": 2, "not_mine": 3}
    if how == "step":
        app.step(inputs=inputs)
    elif how == "astep":
        asyncio.run(app.astep(inputs=inputs))
    else:
        app.stream_result(halt_after=["step"], inputs=inputs)[1].get()
    assert json.loads(spans.named("step").attributes["burr.inputs"]) == {"mine": 2}


def test_a_burr_that_tells_no_state_has_none_kept(tracker, spans, monkeypatch, caplog):
    """Were Burr's inner step another one, the state before the step would not be taken for its own."""
    monkeypatch.setattr(Run, "step", lambda *_: None)
    asyncio.run(apps.single(tracker, apps.count).astep())
    tracker.close()
    assert (
        spans.tree()
        == """
invoke_workflow proj
  step
"""
    )
    assert tracker.load(None, "a1") is None
    assert "not made for this version of Burr" in caplog.text
