"""Burr applications whose steps are full of spans of others: threads, tasks, streams, branches."""

import asyncio
import contextvars
import threading

import apps
import parallel_apps
from burr.core import action
from burr.core.action import streaming_action
from opentelemetry import trace

import burr_otel


def call(service, name="call"):
    """What an HTTP or LLM instrumentation does: a span, and one below it."""
    with service.start_as_current_span(name), service.start_as_current_span(f"{name} below"):
        pass


def run_all(tracker, service):
    """Runs one application of each kind."""

    @action(reads=["count"], writes=["count"])
    def threads(state, __tracer):
        with __tracer("inner"):
            call(service, "in an inner span")
        around = contextvars.copy_context()
        thread = threading.Thread(target=around.run, args=(call, service, "in a thread"))
        thread.start()
        thread.join()
        return state.update(count=1)

    @action(reads=["count"], writes=["count"])
    async def tasks(state):
        async def ask():
            call(service, "in a task")
            await asyncio.sleep(0)

        await asyncio.gather(ask(), ask())
        return state.update(count=1)

    @streaming_action(reads=["count"], writes=["count"])
    def stream(state):
        call(service, "before an item")
        yield {"count": 1}, None
        call(service, "after an item")
        yield {"count": 2}, state.update(count=2)

    @streaming_action(reads=["count"], writes=["count"])
    async def astream(state):
        call(service, "before an async item")
        yield {"count": 1}, None
        call(service, "after an async item")
        yield {"count": 2}, state.update(count=2)

    async def read(app):
        _, items = await app.astream_result(halt_after=["step"])
        async for _ in items:
            call(service, "in the consumer")

    apps.single(tracker, threads, "threads").step()
    asyncio.run(apps.single(tracker, tasks, "tasks").astep())
    _, items = apps.single(tracker, stream, "stream").stream_result(halt_after=["step"])
    for _ in items:
        call(service, "in the consumer")
    asyncio.run(read(apps.single(tracker, astream, "astream")))

    @action(reads=["n"], writes=["n"])
    def branch(state):
        call(service, "in a branch")
        return state

    class Branches(parallel_apps.Doubles):
        def action(self, state, inputs):
            return branch

    @action(reads=["n"], writes=["n"])
    async def abranch(state):
        call(service, "in an async branch")
        return state

    class AsyncBranches(parallel_apps.AsyncDoubles):
        def action(self, state, inputs):
            return abranch

    parallel_apps.parallel(tracker, Branches(), "branches").run(halt_after=["map"])
    app = parallel_apps.parallel(tracker, AsyncBranches(), "abranches")
    asyncio.run(app.arun(halt_after=["map"]))


def set_up():
    """In a worker's process: the global provider sends."""
    burr_otel.configure(service_name="worker")


@action(reads=["n"], writes=["n"])
def calls_globally(state):
    """Calls by the global provider, as instrumentations do."""
    call(trace.get_tracer("http"))
    return state.update(n=state["n"] * 2)


class Calls(parallel_apps.Doubles):
    """Calls in each branch."""

    def action(self, state, inputs):
        return calls_globally
