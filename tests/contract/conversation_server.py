"""A web service as people write it: each request builds the run again and takes one step."""

import os

from burr.core import ApplicationBuilder, State, action
from fastapi import FastAPI

from burr_otel import OtelTracker

app = FastAPI()
tracker = OtelTracker("chat", os.environ["CHAT_STORAGE"])


@action(reads=["history"], writes=["history"])
def answer(state: State, prompt: str) -> State:
    return state.append(history={"prompt": prompt, "pid": os.getpid()})


@app.post("/{conversation}/{prompt}")
def chat(conversation: str, prompt: str) -> dict:
    """One turn."""
    application = (
        ApplicationBuilder()
        .with_actions(answer=answer)
        .with_transitions(("answer", "answer"))
        .with_identifiers(app_id=conversation, partition_key="users")
        .with_tracker(tracker)
        .initialize_from(
            tracker,
            resume_at_next_action=True,
            default_state={"history": []},
            default_entrypoint="answer",
        )
        .build()
    )
    history = application.run(halt_after=["answer"], inputs={"prompt": prompt})[2]["history"]
    return {"turns": len(history), "pid": os.getpid(), "last": history[-1]["prompt"]}
