"""The applications that are run, and their states."""

from __future__ import annotations

from typing import Any

from burr.core import Application, ApplicationBuilder, State, action, default, expr

CHUNK = 50
"""Steps of one `run` call of the loop."""

_TEXT = "What do you know about snapshots? " * 3


def message(number: int) -> dict[str, Any]:
    """A message of about 140 bytes of JSON, no two of them alike."""
    return {"role": "user", "content": f"{_TEXT}{number}", "n": number}


def list_state(size_bytes: int) -> dict[str, Any]:
    """A conversation: a list of small dicts."""
    return {"n": 0, "history": [message(-number) for number in range(size_bytes // 145)]}


def text_state(size_bytes: int) -> dict[str, Any]:
    """One long text."""
    words = [f"word{number} " for number in range(size_bytes // 9)]
    return {"n": 0, "history": "".join(words)[:size_bytes]}


def _next(state: State) -> State:
    number = state["n"] + 1
    history = state["history"]
    if isinstance(history, str):  # a new text of the same length
        return state.update(n=number, history=history[7:] + f"{number:07d}")
    return state.update(n=number, history=[*history[1:], message(number)])


@action(reads=["n", "history"], writes=["n", "history"])
def advance(state: State) -> State:
    return _next(state)


@action(reads=["n", "history"], writes=["n", "history"])
async def aadvance(state: State) -> State:
    return _next(state)


@action(reads=["n"], writes=["n"])
def done(state: State) -> State:
    return state.update(n=state["n"] + 1)


@action(reads=["history"], writes=["history", "answer"])
def turn(state: State, prompt: str) -> tuple[dict[str, Any], State]:
    answer = f"You said: {prompt}"
    told = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"answer": answer}, state.update(history=[*state["history"], *told], answer=answer)


def loop(contender: Any, values: dict[str, Any], app_id: str = "run") -> Application:
    """One `run(halt_after=["done"])` takes `CHUNK` steps; each writes the whole state anew."""
    builder = (
        ApplicationBuilder()
        .with_actions(advance=advance, done=done)
        .with_transitions(
            ("advance", "advance", expr(f"n % {CHUNK} != {CHUNK - 1}")),
            ("advance", "done", default),
            ("done", "advance", default),
        )
        .with_entrypoint("advance")
        .with_state(**values)
        .with_identifiers(app_id=app_id)
    )
    return contender.attach(builder).build()


def single(contender: Any, values: dict[str, Any], app_id: str, what: Any) -> Application:
    """An application of one action, for `step` and `astep`."""
    builder = (
        ApplicationBuilder()
        .with_actions(advance=what)
        .with_transitions(("advance", "advance", default))
        .with_entrypoint("advance")
        .with_state(**values)
        .with_identifiers(app_id=app_id)
    )
    return contender.attach(builder).build()
