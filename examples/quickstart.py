"""A first run: a few steps, the trace of them, and their state on disk.

python examples/quickstart.py
"""

from burr.core import ApplicationBuilder, State, action, default, expr

from burr_otel import OtelTracker


@action(reads=[], writes=["question"])
def ask(state: State, question: str) -> State:
    return state.update(question=question)


@action(reads=["question"], writes=["words"])
def count_words(state: State, __tracer) -> State:
    with __tracer("split") as span:  # a span of your own, below the step
        words = state["question"].split()
        span.log_attributes(longest=max(words, key=len))
    return state.update(words=len(words))


@action(reads=["words"], writes=["answer"])
def short_answer(state: State) -> State:
    return state.update(answer="Yes.")


@action(reads=["words"], writes=["answer"])
def long_answer(state: State) -> State:
    return state.update(answer=f"You asked with {state['words']} words: let me think.")


def main() -> None:
    # Leaving the tracker ends the application's span and sends what there is to send.
    with OtelTracker(project="quickstart") as tracker:
        app = (
            ApplicationBuilder()
            .with_actions(ask, count_words, short_answer, long_answer)
            .with_transitions(
                ("ask", "count_words", default),
                ("count_words", "short_answer", expr("words < 4")),
                ("count_words", "long_answer", default),
            )
            .with_entrypoint("ask")
            .with_tracker(tracker)
            .build()
        )
        _, _, state = app.run(
            halt_after=["short_answer", "long_answer"],
            inputs={"question": "Where do I see what my agent did?"},
        )
    print(state["answer"])
    print(f"Here:      burr-otel show {app.uid}")
    print("In Jaeger: http://localhost:16686/search?service=quickstart")


if __name__ == "__main__":
    main()
