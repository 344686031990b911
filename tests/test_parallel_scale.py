"""Many applications at once, and many steps: right parents, nothing kept that is over."""

import asyncio
import collections
import gc
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import apps
import pytest
from burr.lifecycle import PreRunStepHook
from opentelemetry import trace
from parallel_apps import AsyncDoubles, Doubles, parallel

from burr_otel import OtelTracker
from burr_otel.live.registry import registry
from burr_otel.spans import keeper

pytestmark = pytest.mark.one_python


def shapes(spans):
    """How many traces there are of each shape: names with the names of their parents."""
    by_trace = collections.defaultdict(list)
    names = {span.context.span_id: span.name for span in spans}
    for span in spans:
        parent = names[span.parent.span_id] if span.parent else None
        by_trace[span.context.trace_id].append((span.name, parent))
    return collections.Counter(tuple(sorted(each, key=str)) for each in by_trace.values())


COUNTER = tuple(
    sorted(
        [
            ("invoke_workflow proj", None),
            ("count", "invoke_workflow proj"),
            ("finish", "invoke_workflow proj"),
        ],
        key=str,
    )
)


def nothing_is_left():
    """Whether every application was freed and struck out, and every root ended."""
    gc.collect()
    keeper.keeper.sweep()
    return len(registry) == 0 and not keeper.keeper._open


def test_sixteen_threads_with_two_hundred_applications_each(spans, tmp_path):
    """One tracker in 16 threads: each of 3,200 applications is a trace with its own steps."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider)

    def serve(thread):
        for n in range(200):
            apps.counter(tracker, f"{thread}-{n}", upto=1).run(halt_after=["finish"])
            assert trace.get_current_span() is trace.INVALID_SPAN

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(serve, range(16)))
    assert nothing_is_left()
    assert shapes(spans.spans) == {COUNTER: 3200}
    assert len(tracker.list_app_ids(None)) == 3200


def test_five_hundred_applications_on_one_event_loop(spans, tmp_path):
    """`gather` of 500 applications whose steps interleave."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider)

    async def serve(n):
        app = apps.counter(tracker, str(n), upto=1, step=apps.acount)
        await app.arun(halt_after=["finish"])
        assert trace.get_current_span() is trace.INVALID_SPAN

    async def everyone():
        await asyncio.gather(*(serve(n) for n in range(500)))

    asyncio.run(everyone())
    assert nothing_is_left()
    assert shapes(spans.spans) == {COUNTER: 500}


def test_parallel_actions_in_many_threads(spans, tmp_path):
    """Spawning steps in 8 threads, with 8 sub-applications each: every child finds its own."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider)

    def serve(thread):
        app = parallel(tracker, Doubles(), app_id=f"a{thread}", ns=range(8))
        _, _, state = app.run(halt_after=["map"])
        assert state["ns"] == list(range(0, 16, 2))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(serve, range(8)))
    assert nothing_is_left()
    (shape, traces), *others = shapes(spans.spans).items()
    assert (traces, others) == (8, [])
    assert collections.Counter(shape) == {
        ("invoke_workflow proj", None): 1,
        ("map", "invoke_workflow proj"): 1,
        ("invoke_workflow proj", "map"): 8,
        ("double", "invoke_workflow proj"): 8,
    }


def test_a_hundred_sub_applications_on_one_event_loop(tracker, spans):
    """One spawning step and 100 sub-applications in tasks."""
    app = parallel(tracker, AsyncDoubles(), ns=range(100))
    asyncio.run(app.arun(halt_after=["map"]))
    del app
    assert nothing_is_left()
    assert collections.Counter(*shapes(spans.spans))["invoke_workflow proj", "map"] == 100


def test_ten_thousand_steps_keep_no_memory(spans, tmp_path):
    """The memory of a long-lived application does not grow with its steps."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider)
    app = apps.single(tracker, apps.count)

    def steps(count):
        for _ in range(count):
            app.step()
        spans.clear()
        gc.collect()

    steps(500)  # caches fill
    before = sys.getallocatedblocks()
    steps(9_000)
    assert sys.getallocatedblocks() - before < 900
    tracemalloc.start()  # sees more, and makes all of it several times as slow
    try:
        steps(100)
        before_bytes, _ = tracemalloc.get_traced_memory()
        steps(1_000)
        after_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after_bytes - before_bytes < 10_000


def test_applications_of_one_tracker_share_their_tables_of_hooks(tracker):
    """Burr makes two for each, of 2.5 KB; an application with another hook has its own."""

    class Other(PreRunStepHook):
        def pre_run_step(self, *, app_id: str, **_: object) -> None:
            seen.append(app_id)

    def build(app_id, *hooks):
        steps = apps.builder(tracker, app_id, step=apps.count).with_hooks(*hooks)
        return steps.with_state(count=0).with_entrypoint("step").build()

    def tables(app):
        own = app._adapter_set
        return own.adapters[-1]._adapter_set, own.sync_hooks["post_application_create"]

    seen: list[str] = []
    one, two, other = build("one"), build("two"), build("three", Other())
    assert all(a is b for a, b in zip(tables(one), tables(two), strict=True))
    assert tables(other)[0] is not tables(one)[0]
    for app in (one, two, other):
        app.step()
        assert tracker.load(None, app.uid)["state"]["count"] == 1
    assert seen == ["three"]


def test_five_hundred_applications_keep_no_memory(spans, tmp_path):
    """Nor does that of a process with its applications: not even before they were due to end."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider, snapshots="off")

    def run(count):
        for n in range(count):
            apps.single(tracker, apps.count, f"a{n}").step()
        assert nothing_is_left()
        spans.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = run(500)
        after = run(500)
    finally:
        tracemalloc.stop()
    assert after - before < 50_000


def test_threads_that_come_and_go_leave_nothing(tracker, spans):
    """A thread a request: what it made current dies with it."""
    app = apps.single(tracker, apps.count)
    left = []

    def serve():
        app.step()
        left.append(trace.get_current_span())

    for _ in range(50):
        thread = threading.Thread(target=serve)
        thread.start()
        thread.join()
    tracker.close()
    assert left == [trace.INVALID_SPAN] * 50
    assert len([span for span in spans.spans if span.name == "step"]) == 50
