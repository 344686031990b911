"""Burr applications that run other applications in processes of their own."""

import multiprocessing
import os
from concurrent.futures import Executor, Future, ProcessPoolExecutor

import apps
import cloudpickle
from burr.core import ApplicationContext, State, action
from parallel_apps import Doubles, double


def child(tracker, context, n):
    """A sub-application for a process of its own: doubles `n`."""
    app_id, sequence_id = context
    app = (
        apps.builder(tracker, f"{app_id}-{n}", step=double)
        .with_spawning_parent(app_id, sequence_id)
        .with_state(n=n)
        .with_entrypoint("step")
        .build()
    )
    _, _, state = app.run(halt_after=["step"])
    return state["n"]


@action(reads=["ns"], writes=["ns"])
def in_processes(state: State, method: str, __context: ApplicationContext) -> State:
    """Runs `child` in a pool of processes started in a given way."""
    here = (__context.app_id, __context.sequence_id)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        futures = [pool.submit(child, __context.tracker.copy(), here, n) for n in state["ns"]]
        return state.update(ns=[each.result() for each in futures])


@action(reads=["ns"], writes=["ns"])
def in_forks(state: State, __context: ApplicationContext) -> State:
    """Runs `child` in forks that end without any clean-up."""
    for n in state["ns"]:
        pid = os.fork()
        if pid == 0:
            try:
                child(__context.tracker, (__context.app_id, __context.sequence_id), n)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
    return state.update(ns=[])


def _call(pickled):
    function, arguments = cloudpickle.loads(pickled)
    return cloudpickle.dumps(function(*arguments))


class KillingExecutor(Executor):
    """Two processes for Burr's parallel actions, killed when the last result is there.

    Burr's tasks are local functions, which cloudpickle carries and pickle does not.
    """

    def __init__(self):
        self._pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))

    def submit(self, function, /, *arguments):
        done = Future()

        def pass_on(inner):
            if inner.exception() is not None:
                done.set_exception(inner.exception())
            else:
                done.set_result(cloudpickle.loads(inner.result()))

        inner = self._pool.submit(_call, cloudpickle.dumps((function, arguments)))
        inner.add_done_callback(pass_on)
        return done

    def shutdown(self, wait=True, *, cancel_futures=False):
        for process in self._pool._processes.values():
            process.kill()
        self._pool.shutdown(wait, cancel_futures=cancel_futures)


@action(reads=["n"], writes=["n"])
def fragile(state: State) -> State:
    if state["n"] == 2:
        raise ValueError("two")
    return state.update(n=1)


class Fragile(Doubles):
    def action(self, state, inputs):
        return fragile


@action(reads=["n"], writes=["n"])
def pid(state: State) -> State:
    return state.update(n=os.getpid())


class Pids(Doubles):
    """In which process each sub-application runs."""

    def action(self, state, inputs):
        return pid
