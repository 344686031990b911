"""One trace over threads, tasks and processes: each sub-application under the step that spawned it."""

import asyncio
import contextvars
import gc
import re
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import apps
import parallel_apps
import pytest
from burr.core import ApplicationContext
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from parallel_apps import AsyncDoubles, Doubles, Nested, parallel, recurse
from trees import in_name_order

from burr_otel import OtelTracker
from burr_otel.live.registry import registry
from burr_otel.spans import keeper
from burr_otel.testing import capture_spans, manual_roots, span_tree

ONE_FOR_EACH = """
invoke_workflow proj
  map
    invoke_workflow proj
      double
    invoke_workflow proj
      double
"""
BOTH = """
invoke_workflow proj
  map
    invoke_workflow proj
      double
    invoke_workflow proj
      negate
"""
BOTH_FOR_EACH = """
invoke_workflow proj
  map
    invoke_workflow proj
      double
    invoke_workflow proj
      double
    invoke_workflow proj
      negate
    invoke_workflow proj
      negate
"""
GRAPH_FOR_EACH = """
invoke_workflow proj
  map
    invoke_workflow proj
      first
      second
    invoke_workflow proj
      first
      second
"""
NESTED = """
invoke_workflow proj
  map
    invoke_workflow proj
      inner
        invoke_workflow proj
          double
        invoke_workflow proj
          double
    invoke_workflow proj
      inner
        invoke_workflow proj
          double
        invoke_workflow proj
          double
"""


SHAPES = [
    ("Doubles", ONE_FOR_EACH, [2, 4]),
    ("Both", BOTH, [6, -3]),
    ("BothForEach", BOTH_FOR_EACH, [2, 4, -1, -2]),
    ("Tasks", GRAPH_FOR_EACH, [-2, -4]),
    ("Nested", NESTED, [[2, 2], [4, 4]]),
]


@pytest.mark.parametrize(("kind", "tree", "ns"), SHAPES)
def test_threads_give_one_trace(tracker, spans, kind, tree, ns):
    """On the default thread pool each sub-application is a child of the spawning step."""
    step = getattr(parallel_apps, kind)()
    _, _, state = parallel(tracker, step).run(halt_after=["map"])
    tracker.close()
    check(spans, state, tree, ns)


@pytest.mark.parametrize(("kind", "tree", "ns"), SHAPES)
def test_asyncio_gives_one_trace(tracker, spans, kind, tree, ns):
    """The same on asyncio, where Burr runs the sub-applications with `gather`."""
    step = getattr(parallel_apps, f"Async{kind}")()
    _, _, state = asyncio.run(parallel(tracker, step).arun(halt_after=["map"]))
    tracker.close()
    check(spans, state, tree.replace("double", "adouble").replace("negate", "anegate"), ns)


def check(spans, state, tree, ns):
    assert state["ns"] == ns
    assert in_name_order(spans.tree()) == tree
    assert len({span.context.trace_id for span in spans.spans}) == 1
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_closing_a_copy_leaves_the_original_open(tracker, spans):
    """`close` ends the applications of the tracker and of its copies, not of what it copies."""
    twin = tracker.copy()
    mine, its = apps.counter(tracker, "a1"), apps.counter(twin, "a2")
    mine.step()
    its.step()
    twin.close()
    assert roots(spans) == ["a2"]
    tracker.close()
    assert roots(spans) == ["a1", "a2"]


def roots(spans):
    """App ids of the application spans that have ended."""
    return [s.attributes["burr.app_id"] for s in spans.spans if s.name == "invoke_workflow proj"]


def test_a_sub_application_names_itself_and_its_step_is_recorded(tracker, spans, tmp_path):
    """Each sub-application is a run of its own: its app id on its spans, its state in its log."""
    parallel(tracker, Doubles()).run(halt_after=["map"])
    tracker.close()
    children = [span for span in spans.spans if span.name == "double"]
    ids = {span.attributes["burr.app_id"] for span in children}
    assert len(ids) == 2
    assert "a1" not in ids
    assert sorted(tracker.load(None, app_id)["state"]["n"] for app_id in ids) == [2, 4]
    listed = (tmp_path / "proj" / "a1" / "children.jsonl").read_text()
    assert all(app_id in listed for app_id in ids)


def test_recursive_applications_nest(tracker, spans):
    """An application built inside an action, with `ApplicationContext`, hangs off that step."""
    app = apps.single(tracker, recurse, state={"count": 3})
    _, _, state = app.run(halt_after=["step"])
    tracker.close()
    assert state["count"] == 6
    assert (
        spans.tree()
        == """
invoke_workflow proj
  step
    invoke_workflow proj
      step
        invoke_workflow proj
          step
            invoke_workflow proj
              step
"""
    )


def test_an_application_built_in_a_bare_thread_finds_its_spawning_step(tracker, spans):
    """With `with_spawning_parent` alone, and no context copied: the registry knows the step."""

    @apps.action(reads=["count"], writes=["count"])
    def spawn(state, __context: ApplicationContext):
        def work():
            app = (
                apps.builder(tracker, "child", step=apps.count)
                .with_spawning_parent(__context.app_id, __context.sequence_id)
                .with_state(count=0)
                .with_entrypoint("step")
                .build()
            )
            app.step()
            seen.append(trace.get_current_span())

        thread = threading.Thread(target=contextvars.Context().run, args=(work,))
        thread.start()
        thread.join()
        return state.update(count=1)

    seen = []
    apps.single(tracker, spawn).step()
    tracker.close()
    assert (
        spans.tree()
        == """
invoke_workflow proj
  step
    invoke_workflow proj
      step
"""
    )
    assert seen == [trace.INVALID_SPAN]


def test_the_same_parallel_action_run_twice(tracker, spans):
    """Burr gives both runs the same child ids: each child is under its own step, and linked back."""
    app = parallel(tracker, Doubles(), ns=[1])
    app.step()
    app.step()
    tracker.close()
    assert (
        spans.tree()
        == """
invoke_workflow proj
  map
    invoke_workflow proj
      double
  map
    invoke_workflow proj resume→invoke_workflow proj resume→double
      double
"""
    )
    children = {s.attributes["burr.app_id"] for s in spans.spans if s.name == "double"}
    assert len(children) == 1


def test_a_child_that_fails_is_an_error_all_the_way_up(tracker, spans):
    """The error of a sub-application reaches user and spans: its step, its root, ours."""

    @apps.action(reads=["n"], writes=["n"])
    def fragile(state):
        if state["n"] == 2:
            raise ValueError("two")
        return state.update(n=1)

    class Fragile(Doubles):
        def action(self, state, inputs):
            return fragile

    with pytest.raises(ValueError, match="two"):
        parallel(tracker, Fragile()).run(halt_after=["map"])
    tracker.close()
    assert (
        in_name_order(spans.tree())
        == """
invoke_workflow proj [error] (two)
  map [error] (two)
    invoke_workflow proj
      fragile
    invoke_workflow proj [error] (two)
      fragile [error] (two)
"""
    )


def test_two_live_applications_of_one_id_keep_their_children_apart(tracker, spans):
    """A web server may run one conversation twice at once: a child finds the step that made it."""
    barrier = threading.Barrier(2)

    class Meeting(Doubles):
        def states(self, state, context, inputs):
            barrier.wait(60)  # both steps, of one app id and sequence id, are in progress
            yield state.update(n=1)

    def serve(request):
        with spans.provider.get_tracer("web").start_as_current_span(request):
            parallel(tracker, Meeting()).run(halt_after=["map"])

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(serve, ["GET /a", "GET /b"]))
    tracker.close()
    for request in ["GET /a", "GET /b"]:
        trace_id = spans.named(request).context.trace_id
        found = [span for span in spans.spans if span.context.trace_id == trace_id]
        tree = re.sub(" resume→[a-z_]+( proj)?", "", span_tree(found))
        assert tree == f"{request}{textwrap.indent(ONE_CHILD, '  ')}"


ONE_CHILD = """
invoke_workflow proj
  map
    invoke_workflow proj
      double"""


def test_an_unsampled_parent_has_unsampled_children(clock, tmp_path):
    """One decision a trace: no sub-application of an unsampled run is a trace of its own."""
    with manual_roots(), capture_spans(sampler=ALWAYS_OFF) as spans:
        tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider, clock=clock)
        _, _, state = parallel(tracker, Nested()).run(halt_after=["map"])
        tracker.close()
        assert state["ns"] == [[2, 2], [4, 4]]
        assert spans.spans == []
        assert len(tracker.list_app_ids(None)) == 7


def test_a_child_may_have_a_project_of_its_own(tracker, spans, clock, tmp_path):
    """A parallel action may name another tracker: another project, and still one trace."""

    class Elsewhere(Doubles):
        def tracker(self):
            return OtelTracker("other", tmp_path, tracer_provider=spans.provider, clock=clock)

    parallel(tracker, Elsewhere(), ns=[1]).run(halt_after=["map"])
    keeper.keeper.finish_all()
    assert (
        spans.tree()
        == """
invoke_workflow proj
  map
    invoke_workflow other
      double
"""
    )


def test_a_resumed_child_that_has_done_its_work(tracker, spans):
    """With an initializer Burr hands children their earlier state: a root without a step, linked."""

    def build():
        return (
            apps.builder(tracker, "a1", map=Doubles())
            .with_transitions(("map", "map"))
            .initialize_from(
                tracker,
                resume_at_next_action=True,
                default_state={"ns": [3]},
                default_entrypoint="map",
            )
            .build()
        )

    build().step()
    tracker.close()
    spans.clear()
    _, _, state = build().step()
    tracker.close()
    assert state["ns"] == [6]
    assert (
        re.sub("→elsewhere", "", spans.tree())
        == """
invoke_workflow proj resume resume
  map
    invoke_workflow proj resume resume
"""
    )


async def test_children_that_outlive_their_step(tracker, spans):
    """One task fails and `gather` gives up; the other one ends later, still under its step."""
    go_on, done = asyncio.Event(), asyncio.Event()

    @apps.action(reads=["n"], writes=["n"])
    async def slow_or_broken(state):
        if state["n"] == 1:
            raise ValueError("one")
        await go_on.wait()
        done.set()
        return state.update(n=0)

    class Mixed(AsyncDoubles):
        def action(self, state, inputs):
            return slow_or_broken

    with pytest.raises(ValueError, match="one"):
        await parallel(tracker, Mixed()).arun(halt_after=["map"])
    assert len([span for span in spans.spans if span.name == "slow_or_broken"]) == 1
    go_on.set()
    await done.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    tracker.close()
    assert (
        in_name_order(spans.tree())
        == """
invoke_workflow proj [error] (one)
  map [error] (one)
    invoke_workflow proj
      slow_or_broken
    invoke_workflow proj [error] (one)
      slow_or_broken [error] (one)
"""
    )
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_subclass_with_a_constructor_of_its_own_can_be_copied(spans, tmp_path):
    """Burr copies whatever tracker it is given."""

    class Tenant(OtelTracker):
        def __init__(self, tenant):
            super().__init__("proj", tmp_path, tracer_provider=spans.provider)
            self.tenant = tenant

    tracker = Tenant("ann")
    parallel(tracker, Doubles()).run(halt_after=["map"])
    tracker.close()
    assert in_name_order(spans.tree()) == ONE_FOR_EACH
    assert tracker.copy().tenant == "ann"


def test_unread_streams_leave_nothing_in_their_context(tracker):
    """Burr never says that an unread stream no longer executes; it is forgotten all the same."""
    gc.freeze()  # what other tests have left need not be looked through a hundred times
    try:
        for n in range(100):
            app = apps.single(tracker, apps.stream, f"a{n}")
            app.stream_result(halt_after=["step"])
            del app
            gc.collect()
            keeper.keeper.sweep()
    finally:
        gc.unfreeze()
    app = apps.single(tracker, apps.stream, "last")
    app.stream_result(halt_after=["step"])
    assert len(registry._executing.get()) < 30  # some ended ones wait for their turn


class _DoublesAnew(Doubles):
    def state_initializer(self, **kwargs):
        return None


@pytest.mark.parametrize(("step", "second"), [(Doubles, [2, 4]), (_DoublesAnew, [4, 8])])
def test_a_parallel_action_that_runs_twice(step, second, tracker):
    """Burr gives its branches the same ids, so that they load their earlier state if they may."""
    app = (
        apps.builder(tracker, map=step())
        .with_transitions(("map", "map"))
        .initialize_from(
            tracker,
            resume_at_next_action=True,
            default_state={"ns": [1, 2]},
            default_entrypoint="map",
        )
        .build()
    )
    assert app.step()[2]["ns"] == [2, 4]
    assert app.step()[2]["ns"] == second
