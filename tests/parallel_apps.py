"""Burr applications that run other applications: in threads, tasks and by recursion."""

from collections.abc import Callable
from concurrent.futures import Executor
from typing import ClassVar

import apps
from burr.core import ApplicationBuilder, ApplicationContext, State, action
from burr.core.parallelism import (
    MapActions,
    MapActionsAndStates,
    MapStates,
    RunnableGraph,
    SubGraphTask,
    TaskBasedParallelAction,
)


@action(reads=["n"], writes=["n"])
def double(state: State) -> State:
    return state.update(n=state["n"] * 2)


@action(reads=["n"], writes=["n"])
def negate(state: State) -> State:
    return state.update(n=-state["n"])


@action(reads=["n"], writes=["n"])
async def adouble(state: State) -> State:
    return state.update(n=state["n"] * 2)


@action(reads=["n"], writes=["n"])
async def anegate(state: State) -> State:
    return state.update(n=-state["n"])


class Reads:
    """What all parallel actions here read and write."""

    reads: ClassVar = ["ns"]
    writes: ClassVar = ["ns"]


class Sync(Reads):
    """On the executor: threads by default."""

    def reduce(self, state, states):
        return state.update(ns=[each["n"] for each in states])


class Async(Reads):
    """On asyncio."""

    def is_async(self):
        return True

    async def reduce(self, state, states):
        return state.update(ns=[each["n"] async for each in states])


class EachNumber:
    def states(self, state, context, inputs):
        for n in state["ns"]:
            yield state.update(n=n)


class SumOnce:
    def state(self, state, inputs):
        return state.update(n=sum(state["ns"]))


class Doubles(EachNumber, Sync, MapStates):
    def action(self, state, inputs):
        return double


class AsyncDoubles(EachNumber, Async, MapStates):
    def action(self, state, inputs):
        return adouble


class Both(SumOnce, Sync, MapActions):
    def actions(self, state, context, inputs):
        yield double
        yield negate


class AsyncBoth(SumOnce, Async, MapActions):
    def actions(self, state, context, inputs):
        yield adouble
        yield anegate


class BothForEach(EachNumber, Sync, MapActionsAndStates):
    def actions(self, state, context, inputs):
        yield double
        yield negate


class AsyncBothForEach(EachNumber, Async, MapActionsAndStates):
    def actions(self, state, context, inputs):
        yield adouble
        yield anegate


def two_steps(first, second):
    """A graph that runs one action after the other."""
    app = (
        ApplicationBuilder()
        .with_actions(first=first, second=second)
        .with_transitions(("first", "second"))
        .with_entrypoint("first")
        .build()
    )
    return RunnableGraph(graph=app.graph, entrypoint="first", halt_after=["second"])


class Tasks(Sync, TaskBasedParallelAction):
    """Whole graphs, under ids of the user's choice, with the parent's own tracker."""

    def tasks(self, state, context, inputs):
        for n in state["ns"]:
            yield SubGraphTask(
                graph=two_steps(double, negate),
                inputs={},
                state=state.update(n=n),
                application_id=f"{context.app_id}-{n}",
                tracker=context.tracker,
            )


class AsyncTasks(Async, TaskBasedParallelAction):
    async def tasks(self, state, context, inputs):
        for n in state["ns"]:
            yield SubGraphTask(
                graph=two_steps(adouble, anegate),
                inputs={},
                state=state.update(n=n),
                application_id=f"{context.app_id}-{n}",
                tracker=context.tracker,
            )


class Nested(Sync, MapStates):
    """Doubles, twice, each in an application of its own."""

    def states(self, state, context, inputs):
        for n in state["ns"]:
            yield state.update(ns=[n, n])

    def action(self, state, inputs):
        return Doubles().with_name("inner")

    def reduce(self, state, states):
        return state.update(ns=[each["ns"] for each in states])


class AsyncNested(Async, MapStates):
    def states(self, state, context, inputs):
        for n in state["ns"]:
            yield state.update(ns=[n, n])

    def action(self, state, inputs):
        return AsyncDoubles().with_name("inner")

    async def reduce(self, state, states):
        return state.update(ns=[each["ns"] async for each in states])


def parallel(
    tracker,
    step,
    app_id="a1",
    ns=(1, 2),
    executor: Callable[[], Executor] | None = None,
    **identifiers,
):
    """An application whose one action runs others."""
    built = (
        apps.builder(tracker, app_id, map=step, **identifiers)
        .with_transitions(("map", "map"))
        .with_state(ns=list(ns))
        .with_entrypoint("map")
    )
    if executor is not None:
        built = built.with_parallel_executor(executor)
    return built.build()


@action(reads=["count"], writes=["count"])
def recurse(state: State, __context: ApplicationContext) -> State:
    """Counts down, each number in an application inside the last one's step."""
    left = state["count"]
    if left == 0:
        return state.update(count=0)
    app = (
        apps.builder(__context.tracker, f"{__context.app_id}-{left}", step=recurse)
        .with_spawning_parent(__context.app_id, __context.sequence_id, __context.partition_key)
        .with_state(count=left - 1)
        .with_entrypoint("step")
        .build()
    )
    _, _, after = app.run(halt_after=["step"])
    return state.update(count=left + after["count"])
