"""The applications that are run, and their states."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from burr.core import Application, ApplicationBuilder, State, action, default, expr

if TYPE_CHECKING:
    from contenders import Contender

_TEXT = "What do you know about snapshots of state? " * 3
_BYTES = {"1kb": 1_000, "50kb": 50_000, "100kb": 100_000, "5mb": 5_000_000}


def message(number: int) -> dict[str, Any]:
    """About 145 bytes of JSON, no two messages alike."""
    return {"role": "user", "content": f"{_TEXT}{number}", "n": number}


def state_of(shape: str) -> dict[str, Any]:
    """The state at creation: a history of small dicts, or 100 KB of text beside a short one."""
    if shape == "text":
        words = "".join(f"word{number} " for number in range(11_000))
        return {"count": 0, "history": [message(0)], "text": words[:100_000]}
    return {"count": 0, "history": [message(number) for number in range(_BYTES[shape] // 145)]}


def _next(state: State) -> State:
    count = state["count"] + 1
    return state.update(count=count, history=[*state["history"][:-1], message(count)])


@action(reads=["count", "history"], writes=["count", "history"])
def step(state: State) -> State:
    return _next(state)


@action(reads=["count", "history"], writes=["count", "history"])
async def astep(state: State) -> State:
    """Burr copies what is written: in a thread, so that only hooks keep the event loop waiting."""
    return await asyncio.to_thread(_next, state)


@action(reads=["count", "history", "text"], writes=["count", "history", "text"])
def rewrite(state: State) -> State:
    return _next(state).update(text=f"{state['count']:07d} {state['text'][8:]}")


@action(reads=["history"], writes=["history", "answer"])
def turn(state: State, prompt: str) -> tuple[dict[str, Any], State]:
    answer = f"You said: {prompt}"
    told = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"answer": answer}, state.update(history=[*state["history"], *told], answer=answer)


@action(reads=["count"], writes=[])
def result(state: State) -> tuple[dict[str, Any], State]:
    return {"count": state["count"]}, state


ACTIONS = {"step": step, "astep": astep, "rewrite": rewrite, "turn": turn}


def build(
    contender: Contender, values: dict[str, Any], what: str, until: int, app_id: str = "run"
) -> Application:
    """An application whose one action follows itself until `count` is `until`."""
    builder = (
        ApplicationBuilder()
        .with_actions(step=ACTIONS[what], result=result)
        .with_transitions(("step", "step", expr(f"count < {until}")), ("step", "result", default))
        .with_entrypoint("step")
        .with_state(**values)
        .with_identifiers(app_id=app_id)
    )
    return contender.add(builder).build()
