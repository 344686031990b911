"""Burr applications that several tests run."""

import asyncio

from burr.core import ApplicationBuilder, State, action, default, expr
from burr.core.action import streaming_action
from burr.visibility import trace


@action(reads=["count"], writes=["count"])
def count(state: State) -> State:
    return state.update(count=state["count"] + 1)


@action(reads=["count"], writes=["count"])
async def acount(state: State) -> State:
    await asyncio.sleep(0)
    return state.update(count=state["count"] + 1)


@action(reads=["count"], writes=["answer"])
def finish(state: State) -> tuple[dict, State]:
    result = {"answer": state["count"] * 10}
    return result, state.update(**result)


@action(reads=[], writes=["count"])
def boom(state: State) -> State:
    raise ValueError("kaputt")


@trace()
def helper(word: str) -> str:
    return word.upper()


@action(reads=["count"], writes=["count"])
def traced(state: State, __tracer) -> State:
    with __tracer("outer") as span:
        span.log_attributes(colour="red", parts=[1, 2], nested={"a": 1})
        with __tracer("inner", span_dependencies=[]):
            helper("hi")
    __tracer.log_attributes(on_step=True)
    return state.update(count=state["count"] + 1)


@streaming_action(reads=["count"], writes=["text"])
def stream(state: State, words: int = 3):
    parts = []
    for n in range(words):
        parts.append(f"w{n}")
        yield {"text": parts[-1]}, None
    text = " ".join(parts)
    yield {"text": text}, state.update(text=text)


@streaming_action(reads=["count"], writes=["text"])
async def astream(state: State, words: int = 3):
    parts = []
    for n in range(words):
        await asyncio.sleep(0)
        parts.append(f"w{n}")
        yield {"text": parts[-1]}, None
    text = " ".join(parts)
    yield {"text": text}, state.update(text=text)


def builder(tracker, app_id="a1", partition_key=None, **actions):
    """A builder with the given actions, tracked."""
    built = (
        ApplicationBuilder()
        .with_actions(**actions)
        .with_identifiers(app_id=app_id, partition_key=partition_key)
    )
    return built.with_tracker(tracker) if tracker is not None else built


def counter(tracker, app_id="a1", upto=3, step=count, **identifiers):
    """Counts to `upto`, then answers ten times that."""
    return (
        builder(tracker, app_id, count=step, finish=finish, **identifiers)
        .with_transitions(("count", "count", expr(f"count < {upto}")), ("count", "finish", default))
        .with_state(count=0)
        .with_entrypoint("count")
        .build()
    )


def telling(tracker, tell=lambda _: None, *hooks, upto=4):
    """Counts as `counter`, with a large text beside it; tells how far it is from inside each step.

    The hooks come before the tracker's.
    """

    @action(reads=["count"], writes=["count"])
    def count(state: State) -> State:
        tell(state["count"])
        return state.update(count=state["count"] + 1)

    return (
        builder(None, "a", count=count, finish=finish)
        .with_hooks(*hooks)
        .with_tracker(tracker)
        .with_transitions(("count", "count", expr(f"count < {upto}")), ("count", "finish", default))
        .with_state(count=0, text="x" * 5_000)
        .with_entrypoint("count")
        .build()
    )


def single(tracker, step, app_id="a1", state=None, **identifiers):
    """Runs one action again and again."""
    return (
        builder(tracker, app_id, step=step, **identifiers)
        .with_transitions(("step", "step", default))
        .with_state(**({"count": 0} if state is None else state))
        .with_entrypoint("step")
        .build()
    )


def answering(tracker, app_id="a1"):
    """One action, named `answer`; docs/processes.md builds it in its examples."""
    answer = action(reads=[], writes=["answer"])(lambda state: state.update(answer="42"))
    return builder(tracker, app_id, answer=answer).with_entrypoint("answer").build()


def resumed(tracker, app_id="a1", upto=3, step=count, loader=None, **initialize):
    """The counter, continued from what the tracker holds."""
    return (
        builder(tracker, app_id, count=step, finish=finish)
        .with_transitions(("count", "count", expr(f"count < {upto}")), ("count", "finish", default))
        .initialize_from(
            loader or tracker,
            resume_at_next_action=True,
            default_state={"count": 0},
            default_entrypoint="count",
            **initialize,
        )
        .build()
    )
