"""A small support desk as a Burr application, to see what a run looks like.

Two questions go through a graph with a branch and a loop, the order service fails once and is asked
again, and answers are streamed. Everything is made up here: no network, no model, no chance.
"""

# Burr's decorators and its builder are untyped, and its State is generic only for pydantic models.
# mypy: disable-error-code="untyped-decorator, no-untyped-call, type-arg, no-any-return"

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

from burr.core import Application, ApplicationBuilder, State, action, expr
from burr.core.action import streaming_action
from burr.visibility import TracerFactory, trace

DEMO_PROJECT: Final = "burr-otel-demo"

_QUESTIONS: Final = ("How do I send back a pair of shoes?", "Where is my order 1042?")
_ENOUGH_PASSAGES: Final = 3
_PASSAGES: Final = {
    "How do I send back a pair of shoes?": ["Returns are free for 30 days.", "Print the label."],
    "send back shoes label": ["Labels are in your account, under Orders.", "Any post office."],
}


def build_demo(
    tracker: Any, app_id: str | None = None, *, wait: Callable[[float], None] = time.sleep
) -> Application[Any]:
    """Build the support desk; `wait` is called wherever a real step would wait for something."""
    requests_of_orders = itertools.count(1)

    @action(reads=["turn"], writes=["question", "passages", "query", "turn"])
    def receive_question(state: State, question: str) -> State:
        wait(0.004)
        return state.update(
            question=question, query=question, passages=[], turn=state.get("turn", 0) + 1
        )

    @action(reads=["question"], writes=["intent"])
    def classify(state: State, __tracer: TracerFactory) -> State:
        with __tracer("build_prompt"):
            wait(0.006)
        with __tracer("ask_model") as model:
            wait(0.07)
            intent = "order" if "order" in state["question"] else "how_to"
            model.log_attributes(model="tiny-classifier", prompt_tokens=87, completion_tokens=1)
        return state.update(intent=intent)

    @trace()
    def embed(text: str) -> list[float]:
        wait(0.018)
        return [round(len(text) / 40, 3), round(text.count(" ") / 10, 3)]

    @trace(capture_outputs=False)
    def nearest_passages(vector: list[float], query: str) -> list[str]:
        wait(0.03)
        return _PASSAGES.get(query, []) if vector else []

    @action(reads=["query", "passages"], writes=["passages", "query"])
    def search_docs(state: State, __tracer: TracerFactory) -> State:
        with __tracer("retrieve") as retrieve:
            found = nearest_passages(embed(state["query"]), state["query"])
            retrieve.log_attributes(query=state["query"], found=len(found))
        with __tracer("rerank"):
            wait(0.012)
        return state.update(passages=[*state["passages"], *found], query="send back shoes label")

    @action(reads=["question"], writes=["order", "passages"])
    def look_up_order(state: State, __tracer: TracerFactory) -> State:
        number = int("".join(filter(str.isdigit, state["question"])))
        with __tracer("GET /orders/{number}") as request:
            request.log_attributes(number=number)
            wait(0.06)
            if next(requests_of_orders) == 1:
                raise ConnectionResetError("orders.internal closed the connection (request 1)")
        order = {"order": number, "status": "shipped", "arrives": "Thursday"}
        return state.update(order=order, passages=["shipped, Thursday"])

    @streaming_action(reads=["question", "passages", "intent"], writes=["answer"])
    def write_answer(state: State) -> Iterator[tuple[dict[str, Any], State | None]]:
        how_to = " ".join(["Sure, that is easy.", *state["passages"]])
        order = f"Good news: your order is {state['passages'][0]}."
        text = order if state["intent"] == "order" else how_to
        wait(0.09)
        for word in text.split():
            wait(0.008)
            yield {"answer": word}, None
        yield {"answer": text}, state.update(answer=text)

    return (
        ApplicationBuilder()
        .with_actions(receive_question, classify, search_docs, look_up_order, write_answer)
        .with_transitions(
            ("receive_question", "classify"),
            ("classify", "look_up_order", expr("intent == 'order'")),
            ("classify", "search_docs"),
            ("search_docs", "search_docs", expr(f"len(passages) < {_ENOUGH_PASSAGES}")),
            ("search_docs", "write_answer"),
            ("look_up_order", "write_answer"),
            ("write_answer", "receive_question"),
        )
        .with_state(turn=0)
        .with_entrypoint("receive_question")
        .with_identifiers(app_id=app_id or f"demo-{uuid.uuid4().hex[:8]}")
        .with_tracker(tracker)
        .build()
    )


def run_demo(app: Application[Any]) -> None:
    """Ask both questions, running a failed step again as a service would."""
    for question in _QUESTIONS:
        inputs: dict[str, Any] | None = {"question": question}
        while True:
            try:
                app.stream_result(halt_after=["write_answer"], inputs=inputs)[1].get()
                break
            except ConnectionError:
                inputs = None  # the question was received; go on at the step that failed
