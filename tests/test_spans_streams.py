"""Streams: one span each, however they are consumed or not."""

import asyncio
import contextlib
import contextvars
import gc
import threading

import apps
import pytest
from burr.lifecycle import PostRunStepHook
from opentelemetry import trace

from burr_otel import OtelTracker
from burr_otel.spans import keeper

CONSUMED = """
invoke_workflow proj
  step *first_item *end
"""
ABANDONED = """
invoke_workflow proj [abandoned]
  step [abandoned] *first_item *end
"""


def start(tracker, action=apps.stream, **inputs):
    app = apps.single(tracker, action)
    _, container = app.stream_result(halt_after=["step"], inputs=inputs)
    return app, container


def items(spans):
    return spans.named("step").attributes["burr.stream.items"]


def test_a_consumed_stream_counts_its_items(tracker, spans):
    """A stream read to its end is one ok span with its item count and time to first item."""
    _, container = start(tracker)
    assert len(list(container)) == 3
    tracker.close()
    assert spans.tree() == CONSUMED
    found = spans.named("step").attributes
    assert found["burr.stream.items"] == 3
    assert found["burr.stream.time_to_first_item"] > 0
    assert found["burr.execute.method"] == "stream_result"
    assert tracker.load(None, "a1")["state"]["text"] == "w0 w1 w2"


def test_get_alone_consumes_the_stream(tracker, spans):
    """`container.get()` is enough."""
    _, container = start(tracker)
    container.get()
    tracker.close()
    assert spans.tree() == CONSUMED


def test_a_stream_read_by_next_is_complete(tracker, spans):
    """Burr calls no hook at the end of `next(container)`; span and state are kept all the same."""
    app, container = start(tracker)
    with pytest.raises(StopIteration):
        while True:
            next(container)
    app.step()
    tracker.close()
    assert [s.attributes["burr.outcome"] for s in spans.spans] == ["ok", "ok", "ok"]
    first = tracker.load(None, "a1", 0)
    assert (first["position"], first["state"]["text"]) == ("step", "w0 w1 w2")


def test_breaking_out_abandons_the_stream(tracker, spans):
    """A stream that is broken out of is abandoned, without ERROR, with the items so far."""
    _, container = start(tracker)
    for item in container:
        if item["text"] == "w1":
            break
    del item
    gc.collect()
    keeper.keeper.sweep()
    tracker.close()
    assert spans.tree() == ABANDONED
    assert items(spans) == 2


def test_a_dropped_stream_ends_inside_another_step_without_touching_it(tracker, spans):
    """The garbage collector may finalise a stream inside another application's step."""
    _, container = start(tracker)
    iterator = iter(container)
    next(iterator)

    @apps.action(reads=["count"], writes=["count"])
    def other(state):
        nonlocal iterator, container
        before = trace.get_current_span()
        del iterator, container
        gc.collect()
        assert trace.get_current_span() is before
        return state.update(count=1)

    apps.single(tracker, other, app_id="a2").step()
    keeper.keeper.sweep()
    tracker.close()
    assert (
        spans.tree()
        == ABANDONED
        + """invoke_workflow proj
  step
"""
    )


def test_a_stream_never_read_is_abandoned(tracker, spans):
    """A container that is dropped unread gets no hook; its span ends all the same."""
    _, container = start(tracker)
    del container
    gc.collect()
    keeper.keeper.sweep()
    tracker.close()
    assert (
        spans.tree()
        == """
invoke_workflow proj [abandoned]
  step [abandoned] *end
"""
    )
    assert items(spans) == 0


def test_a_stream_that_fails_at_once_is_an_error(tracker, spans):
    """An error before the first item reaches the user and the span."""

    @apps.streaming_action(reads=["count"], writes=["text"])
    def failing(state):
        raise ValueError("early")
        yield {}, None

    _, container = start(tracker, failing)
    with pytest.raises(ValueError, match="early"):
        container.get()
    tracker.close()
    assert (
        spans.tree()
        == """
invoke_workflow proj [error] (early)
  step [error] (early) *end
"""
    )


def test_a_stream_that_fails_midway_is_an_error(tracker, spans):
    """An error between items reaches the user and the span, with the items so far."""

    @apps.streaming_action(reads=["count"], writes=["text"])
    def failing(state):
        yield {"text": "w0"}, None
        raise ValueError("midway")

    _, container = start(tracker, failing)
    with pytest.raises(ValueError, match="midway"):
        container.get()
    tracker.close()
    assert (
        spans.tree()
        == """
invoke_workflow proj [error] (midway)
  step [error] (midway) *first_item *end
"""
    )
    assert [e.name for e in spans.named("step").events].count("exception") == 1


def test_an_error_that_burr_swallows_is_an_event(tracker, spans):
    """After the final item Burr logs an error and goes on: the step is ok, the event stays."""

    @apps.streaming_action(reads=["count"], writes=["text"])
    def failing(state):
        yield {"text": "w0"}, None
        yield {"text": "w0"}, state.update(text="w0")
        raise ValueError("late")

    _, container = start(tracker, failing)
    container.get()
    tracker.close()
    assert spans.tree() == CONSUMED
    assert "exception" in [e.name for e in spans.named("step").events]


def test_spans_inside_the_generator_nest_and_the_consumer_keeps_its_own(spans, tmp_path):
    """While items are consumed, the consumer's current span is its own; the generator's is ours."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider)
    http = spans.provider.get_tracer("http")
    seen = []

    @apps.streaming_action(reads=["count"], writes=["text"])
    def calling(state, __tracer):
        with http.start_as_current_span("llm"):
            yield {"text": "a"}, None
        with __tracer("between"):
            yield {"text": "b"}, None
            with http.start_as_current_span("tool"):
                pass
        yield {"text": "c"}, state.update(text="c")

    with http.start_as_current_span("consumer") as consumer:
        _, container = start(tracker, calling)
        for _ in container:
            seen.append(trace.get_current_span() is consumer)  # noqa: PERF401  # reads as a loop
        assert trace.get_current_span() is consumer
    tracker.close()
    assert seen == [True, True]
    assert (
        spans.tree()
        == """
consumer
  invoke_workflow proj
    step *first_item *end
      llm
      between
        tool
"""
    )


def test_a_burr_span_inside_anothers_span_inside_a_stream(tracker, spans):
    """The closest parent counts: what a generator has made current, not just the step."""
    http = spans.provider.get_tracer("http")

    @apps.streaming_action(reads=["count"], writes=["text"])
    def calling(state, __tracer):
        with http.start_as_current_span("llm"):
            yield {"text": "a"}, None
            with __tracer("parse"):
                pass
        yield {"text": "a"}, state.update(text="a")

    _, container = start(tracker, calling)
    container.get()
    tracker.close()
    assert (
        spans.tree()
        == """
invoke_workflow proj
  step *first_item *end
    llm
      parse
"""
    )


@pytest.mark.parametrize("copied", [True, False])
def test_a_stream_consumed_in_another_thread(tracker, spans, caplog, copied):
    """Built here, consumed there: one span, nothing left current, no complaint of OpenTelemetry.

    Burr 0.43 itself raises `TypeError` at the end in a thread that copied no context; the span is
    right in that case too.
    """
    _, container = start(tracker)
    left = []

    def consume():
        with contextlib.nullcontext() if copied else pytest.raises(TypeError):
            list(container)
        left.append(trace.get_current_span())

    context = contextvars.copy_context() if copied else contextvars.Context()
    thread = threading.Thread(target=context.run, args=(consume,))
    thread.start()
    thread.join()
    tracker.close()
    assert spans.tree() == CONSUMED
    assert left == [trace.INVALID_SPAN]
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert "detach" not in caplog.text


def test_a_stream_begun_here_and_finished_in_another_thread(tracker, spans, caplog):
    """Attached in one context and ended in another: neither is left with the step's span."""
    _, container = start(tracker)
    items = iter(container)
    next(items)
    left = []

    def finish():
        list(items)
        left.append(trace.get_current_span())

    thread = threading.Thread(target=contextvars.copy_context().run, args=(finish,))
    thread.start()
    thread.join()
    tracker.close()
    assert spans.tree() == CONSUMED
    assert left == [trace.INVALID_SPAN]
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert "detach" not in caplog.text


def test_two_open_streams_do_not_mix(tracker, spans):
    """Streams of two applications consumed in turns keep their counts."""
    _, one = start(tracker)
    two_app = apps.single(tracker, apps.stream, app_id="a2")
    _, two = two_app.stream_result(halt_after=["step"], inputs={"words": 2})
    first, second = iter(one), iter(two)
    next(first)
    next(second)
    list(second)
    list(first)
    tracker.close()
    counts = [s.attributes["burr.stream.items"] for s in spans.spans if s.name == "step"]
    assert counts == [3, 2]


def test_async_stream_is_consumed(tracker, spans, caplog):
    """The asynchronous twin."""

    async def scenario():
        app = apps.single(tracker, apps.astream)
        _, container = await app.astream_result(halt_after=["step"])
        return [item["text"] async for item in container]

    assert asyncio.run(scenario()) == ["w0", "w1", "w2"]
    tracker.close()
    assert spans.tree() == CONSUMED
    assert items(spans) == 3
    assert "detach" not in caplog.text


def test_async_stream_consumed_in_another_task(tracker, spans, caplog):
    """Built in one task, consumed in another."""

    async def scenario():
        app = apps.single(tracker, apps.astream)
        _, container = await app.astream_result(halt_after=["step"])

        async def consume():
            async for _ in container:
                pass
            return trace.get_current_span()

        assert await asyncio.create_task(consume()) is trace.INVALID_SPAN

    asyncio.run(scenario())
    tracker.close()
    assert spans.tree() == CONSUMED
    assert "detach" not in caplog.text


def test_async_stream_broken_out_of(tracker, spans, caplog):
    """An asynchronous stream that is closed early is abandoned."""

    async def scenario():
        app = apps.single(tracker, apps.astream)
        _, container = await app.astream_result(halt_after=["step"])
        iterator = aiter(container) if hasattr(__builtins__, "aiter") else container.__aiter__()
        await iterator.__anext__()
        await iterator.aclose()

    asyncio.run(scenario())
    keeper.keeper.sweep()
    tracker.close()
    assert spans.tree() == ABANDONED
    assert "detach" not in caplog.text


def test_steps_before_a_stream_are_steps(tracker, spans):
    """`stream_result` first runs the actions before the streaming one."""
    app = (
        apps.builder(tracker, "a1", count=apps.count, stream=apps.stream)
        .with_transitions(("count", "stream", apps.default))
        .with_state(count=0)
        .with_entrypoint("count")
        .build()
    )
    _, container = app.stream_result(halt_after=["stream"])
    container.get()
    tracker.close()
    assert (
        spans.tree()
        == """
invoke_workflow proj
  count
  stream *first_item *end
"""
    )


def test_stream_result_over_a_plain_action(tracker, spans):
    """A step that does not stream is an ordinary step under `stream_result` too."""
    _, container = start(tracker, apps.count)
    container.get()
    tracker.close()
    assert (
        spans.tree()
        == """
invoke_workflow proj
  step
"""
    )


def calling(spans, model):
    @apps.streaming_action(reads=["count"], writes=["text"])
    def stream(state):
        for word in ("w0", "w1", "w2"):
            with spans.provider.get_tracer("http").start_as_current_span(model):
                yield {"text": word}, None
        yield {"text": model}, state.update(text=model)

    return stream


def test_streams_of_two_live_applications_of_one_id(tracker, spans):
    """Each is current while its own generator runs, whichever stream is read first."""
    _, one = start(tracker, calling(spans, "one"))
    _, two = start(tracker, calling(spans, "two"))
    list(one)
    list(two)
    steps = [span.context.span_id for span in spans.spans if span.name == "step"]
    assert [span.parent.span_id for span in spans.spans if span.name == "one"] == [steps[0]] * 3
    assert [span.parent.span_id for span in spans.spans if span.name == "two"] == [steps[1]] * 3


def test_a_stream_beside_an_unread_one_of_the_same_id(tracker, spans):
    """Burr tells of no execute call while a stream is unread; the new one is counted all the same."""
    kept = start(tracker)
    _, container = start(tracker)
    assert [trace.get_current_span() for _ in container] == [trace.INVALID_SPAN] * 3
    assert items(spans) == 3
    assert kept


def test_two_trackers_of_one_stream(tracker, spans, tmp_path):
    """Both are current while the generator runs, and neither for its consumer."""
    other = OtelTracker("other", tmp_path, tracer_provider=spans.provider)
    app = (
        apps.builder(tracker, step=calling(spans, "model"))
        .with_tracker(other)
        .with_entrypoint("step")
        .with_state(count=0)
        .build()
    )
    _, container = app.stream_result(halt_after=["step"])
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert [trace.get_current_span() for _ in container] == [trace.INVALID_SPAN] * 3
    steps = [span for span in spans.spans if span.name == "step"]
    assert [step.attributes["burr.stream.items"] for step in steps] == [3, 3]
    assert all(step.attributes["burr.stream.generator_time"] > 0 for step in steps)
    over = {span.parent.span_id for span in spans.spans if span.name == "model"}
    assert over < {step.context.span_id for step in steps}


async def begun_and_gone_on(tracker, held, last):
    """A stream that `held` keeps has begun, a step has completed after it, and `last` is next."""
    to = [("count", name, apps.expr(f"go == {name!r}")) for name in ("talk", "count", "last")]
    app = (
        apps.builder(tracker, talk=apps.astream, count=apps.count, last=last)
        .with_transitions(*to)
        .with_state(count=0, go="talk")
        .with_entrypoint("count")
        .build()
    )
    await app.astep()
    _, container = await app.astream_result(halt_after=["talk"])
    held.append(container.__aiter__())
    await held[0].__anext__()
    app.update_state(app.state.update(go="count"))
    await app.astep()
    app.update_state(app.state.update(go="last"))
    return app


async def finalise(held):
    held.clear()
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_stream_that_is_finalised_late_ends_no_other_stream(tracker):
    """Burr then tells the id of the step in progress, with the state before the dropped stream."""
    held = []

    @apps.streaming_action(reads=["count"], writes=["text"])
    async def last(state):
        await finalise(held)
        yield {"text": "w0"}, None

    async def scenario():
        app = await begun_and_gone_on(tracker, held, last)
        _, container = await app.astream_result(halt_after=["last"])
        iterator = container.__aiter__()
        await iterator.__anext__()
        with contextlib.suppress(KeyError):  # of Burr's own, which has forgotten this step
            await iterator.aclose()

    asyncio.run(scenario())
    assert tracker.load(None, "a1")["state"]["count"] == 2


def test_a_step_in_which_a_stream_is_finalised_late_stays_not_current(tracker):
    """Burr ends the step from the finaliser's task, and raises at its own end."""
    held = []

    @apps.action(reads=["count"], writes=["count"])
    async def last(state):
        await finalise(held)
        return state

    async def scenario():
        app = await begun_and_gone_on(tracker, held, last)
        with pytest.raises(KeyError):
            await app.astep()
        return trace.get_current_span()

    assert asyncio.run(scenario()) is trace.INVALID_SPAN


def test_an_unread_stream_leaves_no_later_step_current(tracker, spans):
    """Another hook keeps its end from us, in a context in which Burr tells of execute calls."""

    class Failing(PostRunStepHook):
        def post_run_step(self, *, action, **told):
            raise ValueError

    app = (
        apps.builder(None, talk=apps.stream, count=apps.count)
        .with_hooks(Failing())
        .with_tracker(tracker)
        .with_transitions(("talk", "count", apps.expr("count == 5")), ("talk", "talk"))
        .with_state(count=0)
        .with_entrypoint("talk")
        .build()
    )
    _, container = contextvars.Context().run(app.stream_result, halt_after=["talk"])
    with pytest.raises(ValueError):
        app.step()
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert container
