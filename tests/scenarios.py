"""Ways to run a Burr application, each with the traces that it must give.

Run in memory by `test_scenarios.py`, and through a real collector into a real Jaeger by
`backends/test_scenarios_in_jaeger.py`; the expected text is the same.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import apps
from burr.core import ApplicationBuilder, ApplicationContext, State, action, default
from burr.core.parallelism import MapStates, RunnableGraph

from burr_otel import OtelTracker


class Scenario(NamedTuple):
    """A way to run applications.

    Attributes:
        run: Called with a function that makes a tracker of given settings, and a tracer for spans
            of the surrounding service.
        tree: All traces as text, in order of their start.
        traces: How many they are.
    """

    run: Callable[[Callable[..., OtelTracker], Any], None]
    tree: str
    traces: int = 1


SCENARIOS: dict[str, Scenario] = {}


def scenario(tree, traces=1):
    def register(function):
        SCENARIOS[function.__name__] = Scenario(function, tree, traces)
        return function

    return register


@scenario("""
invoke_workflow proj
  count
  count
  count
  finish
""")
def run(make, service):
    with make() as tracker:
        apps.counter(tracker).run(halt_after=["finish"])


@scenario("""
invoke_workflow proj
  count
  count
  count
  finish
""")
def arun_over_sync_actions(make, service):
    with make() as tracker:
        asyncio.run(apps.counter(tracker).arun(halt_after=["finish"]))


@scenario("""
invoke_workflow proj
  step
    outer
      inner
        helper
""")
def inner_spans(make, service):
    with make() as tracker:
        apps.single(tracker, apps.traced).step()


@scenario("""
invoke_workflow proj
  step [error] (once)
  step
""")
def failed_then_retried(make, service):
    attempts = []

    @action(reads=["count"], writes=["count"])
    def flaky(state: State) -> State:
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("once")
        return state.update(count=1)

    with make() as tracker:
        app = apps.single(tracker, flaky)
        with contextlib.suppress(ValueError):
            app.step()
        app.step()


@scenario("""
invoke_workflow proj [error] (kaputt)
  count
  finish
  boom [error] (kaputt)
""")
def failed(make, service):
    with make() as tracker:
        app = (
            apps.builder(tracker, "a1", count=apps.count, finish=apps.finish, boom=apps.boom)
            .with_transitions(("count", "finish", default), ("finish", "boom", default))
            .with_state(count=0)
            .with_entrypoint("count")
            .build()
        )
        with contextlib.suppress(ValueError):
            app.run(halt_after=["boom"])


@scenario("""
invoke_workflow proj [cancelled]
  step [cancelled]
""")
def cancelled(make, service):
    async def main(tracker):
        started = asyncio.Event()

        @action(reads=["count"], writes=["count"])
        async def wait(state: State) -> State:
            started.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(apps.single(tracker, wait).astep())
        await started.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    with make() as tracker:
        asyncio.run(main(tracker))


@scenario("""
invoke_workflow proj
  step *first_item *end
""")
def stream(make, service):
    with make() as tracker:
        _, container = apps.single(tracker, apps.stream).stream_result(halt_after=["step"])
        list(container)


@scenario("""
invoke_workflow proj
  step *first_item *end
""")
def async_stream(make, service):
    async def main(tracker):
        app = apps.single(tracker, apps.astream)
        _, container = await app.astream_result(halt_after=["step"])
        async for _ in container:
            pass

    with make() as tracker:
        asyncio.run(main(tracker))


@scenario("""
invoke_workflow proj [abandoned]
  step [abandoned] *first_item *end
""")
def stream_abandoned(make, service):
    with make() as tracker:
        _, container = apps.single(tracker, apps.stream).stream_result(halt_after=["step"])
        iterator = iter(container)
        next(iterator)
        iterator.close()


@scenario("""
POST /chat
  invoke_workflow proj
    count
    finish
""")
def built_in_a_request(make, service):
    with make() as tracker, service.start_as_current_span("POST /chat"):
        apps.counter(tracker, upto=1).run(halt_after=["finish"])


@scenario(
    """
invoke_workflow proj
  count ambient→POST /chat
POST /chat step→count
""",
    traces=2,
)
def run_in_a_request(make, service):
    with make() as tracker:
        app = apps.counter(tracker)
        with service.start_as_current_span("POST /chat"):
            app.step()


@scenario(
    """
invoke_workflow proj
POST /chat
  count application→invoke_workflow proj
""",
    traces=2,
)
def run_in_a_request_as_its_child(make, service):
    with make(step_parent="ambient") as tracker:
        app = apps.counter(tracker)
        with service.start_as_current_span("POST /chat"):
            app.step()


@scenario(
    """
invoke_workflow proj
  count
invoke_workflow proj resume→invoke_workflow proj resume→count
  count
  count
  finish
""",
    traces=2,
)
def resumed(make, service):
    with make() as tracker:
        apps.counter(tracker).step()
    with make() as tracker:
        apps.resumed(tracker).run(halt_after=["finish"])


@scenario("""
invoke_workflow proj
  count
  invoke_workflow proj resume→invoke_workflow proj resume→count
    count
    count
    finish
""")
def resumed_in_the_same_trace(make, service):
    with make() as tracker:
        apps.counter(tracker).step()
    with make(on_resume="continue") as tracker:
        apps.resumed(tracker).run(halt_after=["finish"])


@scenario(
    """
invoke_workflow proj
  count
  count
  count
  finish
invoke_workflow proj fork→count
  count
  finish
""",
    traces=2,
)
def forked(make, service):
    with make() as tracker:
        apps.counter(tracker).run(halt_after=["finish"])
        app = apps.resumed(tracker, "a2", fork_from_app_id="a1", fork_from_sequence_id=1)
        app.run(halt_after=["finish"])


class Squares(MapStates):
    """Squares each number of the state in an application of its own."""

    def states(self, state, context, inputs):
        for number in state["numbers"]:
            yield state.update(number=number)

    def action(self, state, inputs):
        @action(reads=["number"], writes=["square"])
        def square(state: State) -> State:
            return state.update(square=state["number"] ** 2)

        return RunnableGraph.create(square)

    def reduce(self, state, states):
        return state.update(squares=[each["square"] for each in states])

    @property
    def reads(self):
        return ["numbers"]

    @property
    def writes(self):
        return ["squares"]


@scenario("""
invoke_workflow proj
  step
    invoke_workflow proj
      square
    invoke_workflow proj
      square
""")
def parallel_in_threads(make, service):
    with make() as tracker:
        app = (
            apps.builder(tracker, "a1", step=Squares())
            .with_transitions(("step", "step", default))
            .with_state(numbers=[2, 3])
            .with_entrypoint("step")
            # One worker, so that the children start in order.
            .with_parallel_executor(lambda: ThreadPoolExecutor(1))
            .build()
        )
        _, _, state = app.step()
        assert state["squares"] == [4, 9]


@scenario("""
invoke_workflow proj
  step
    invoke_workflow proj
      count
      finish
""")
def recursive(make, service):
    @action(reads=["count"], writes=["count"])
    def spawn(state: State, __context: ApplicationContext) -> State:
        child = (
            ApplicationBuilder()
            .with_actions(count=apps.count, finish=apps.finish)
            .with_transitions(("count", "finish", default))
            .with_state(count=0)
            .with_entrypoint("count")
            .with_identifiers(app_id="child")
            .with_spawning_parent(__context.app_id, __context.sequence_id)
            .with_tracker(__context.tracker.copy())
            .build()
        )
        _, _, inner = child.run(halt_after=["finish"])
        return state.update(count=inner["count"])

    with make() as tracker:
        apps.single(tracker, spawn).step()
