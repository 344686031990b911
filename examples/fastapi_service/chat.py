"""A chat service: each request resumes its conversation, asks another service, streams its answer.

uvicorn --factory chat:main --port 8000
curl -N localhost:8000/chat/ann -H 'content-type: application/json' -d '{"message": "jaeger?"}'
"""

import asyncio
import contextlib
import logging
import os

import httpx
from burr.core import ApplicationBuilder, State, action, default
from burr.core.action import streaming_action
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from pydantic import BaseModel
from service import instrumented, start

from burr_otel import OtelTracker

logger = logging.getLogger("chat")


class Message(BaseModel):
    message: str


# --- a conversation: one application an id, built again for each request ----------------------


@action(reads=["history"], writes=["topic", "fact"])
async def look_up(state: State, message: str, facts: httpx.AsyncClient) -> State:
    topic = message.lower().rstrip("?!. ").split()[-1]
    logger.info("looking up %s", topic)
    response = await facts.get(f"/facts/{topic}")
    fact = response.json()["fact"] if response.is_success else f"I know nothing of {topic}."
    return state.update(topic=topic, fact=fact)


@streaming_action(reads=["fact", "history"], writes=["history"])
async def answer(state: State):
    words = state["fact"].split()
    logger.info("answering with %d words", len(words))
    for word in words:
        await asyncio.sleep(0)  # where a model would think
        yield {"word": word}, None
    yield {"word": ""}, state.update(history=[*state["history"], state["fact"]])


async def resume(tracker: OtelTracker, conversation: str, facts: httpx.AsyncClient):
    """The conversation as it stands; its new trace links to that of the last request."""
    return await (
        ApplicationBuilder()
        .with_actions(look_up=look_up.bind(facts=facts), answer=answer)
        .with_transitions(("look_up", "answer", default), ("answer", "look_up", default))
        .with_identifiers(app_id=conversation)
        .with_tracker(tracker)
        .initialize_from(
            tracker.async_loader(),
            resume_at_next_action=True,
            default_state={"history": []},
            default_entrypoint="look_up",
        )
        .abuild()
    )


# --- a classifier: one application a worker, built at start-up and run in many requests --------


@action(reads=[], writes=["kind"])
async def classify(state: State, message: str) -> State:
    kind = "question" if message.endswith("?") else "remark"
    logger.info("it is a %s", kind)
    return state.update(kind=kind)


def build_classifier(tracker: OtelTracker):
    return (
        ApplicationBuilder()
        .with_actions(classify=classify)
        .with_transitions(("classify", "classify", default))
        .with_entrypoint("classify")
        .with_tracker(tracker)
        .build()
    )


# --- the service ------------------------------------------------------------------------------


def create_app(tracker: OtelTracker, facts: httpx.AsyncClient, tracer_provider=None) -> FastAPI:
    HTTPXClientInstrumentor.instrument_client(facts, tracer_provider=tracer_provider)
    classifier, one_at_a_time = build_classifier(tracker), asyncio.Lock()

    @contextlib.asynccontextmanager
    async def lifespan(_app):
        with tracker:  # uvicorn ends by the signal that it got, so nothing else would run at exit
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/chat/{conversation}")
    async def chat(conversation: str, message: Message) -> StreamingResponse:
        burr_app = await resume(tracker, conversation, facts)
        _, container = await burr_app.astream_result(
            halt_after=["answer"], inputs={"message": message.message}
        )

        async def words():
            async for item in container:
                yield item["word"] + " "

        return StreamingResponse(words(), media_type="text/plain")

    @app.post("/classify")
    async def classified(message: Message) -> dict[str, str]:
        async with one_at_a_time:
            _, _, state = await classifier.arun(
                halt_after=["classify"], inputs={"message": message.message}
            )
        return {"kind": state["kind"]}

    return instrumented(app, tracer_provider)


def main() -> FastAPI:
    start("chat")
    return create_app(
        OtelTracker("chat"),  # BURR_OTEL_STORAGE_DIR: a folder, or what several machines share
        httpx.AsyncClient(base_url=os.environ.get("FACTS_URL", "http://localhost:8001")),
    )
