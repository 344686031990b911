"""Streams: a step's span lasts until its last item, whoever reads it and however it ends.

python examples/streaming.py
"""

import asyncio
import time

from burr.core import ApplicationBuilder, State, action
from burr.core.action import streaming_action

from burr_otel import OtelTracker

STORY = "A burr holds on to whoever passes until it is carried to where it can grow"


@action(reads=[], writes=["topic"])
def choose(state: State, topic: str) -> State:
    return state.update(topic=topic)


@streaming_action(reads=["topic"], writes=["story"])
def tell(state: State):
    for word in STORY.split():
        time.sleep(0.01)  # where a model would think
        yield {"word": word}, None
    yield {"word": "."}, state.update(story=STORY)


@streaming_action(reads=["topic"], writes=["story"])
async def atell(state: State):
    for word in STORY.split():
        await asyncio.sleep(0.01)
        yield {"word": word}, None
    yield {"word": "."}, state.update(story=STORY)


def build(tracker: OtelTracker, teller):
    return (
        ApplicationBuilder()
        .with_actions(choose=choose, tell=teller)
        .with_transitions(("choose", "tell"))
        .with_entrypoint("choose")
        .with_tracker(tracker)
        .build()
    )


def read_all(app) -> None:
    """To the end: outcome `ok`; events `first_item` and `end`, `burr.stream.items` counts them."""
    _, stream = app.stream_result(halt_after=["tell"], inputs={"topic": "burrs"})
    print(*(item["word"] for item in stream))


def hang_up(app) -> None:
    """The reader goes away: outcome `abandoned`, not an error. A resume runs the step again."""
    _, stream = app.stream_result(halt_after=["tell"], inputs={"topic": "burrs"})
    words = iter(stream)
    print(next(words)["word"], next(words)["word"], "... enough")
    words.close()


async def read_async(app) -> None:
    _, stream = await app.astream_result(halt_after=["tell"], inputs={"topic": "burrs"})
    print(*[item["word"] async for item in stream])


def main() -> None:
    with OtelTracker(project="streaming") as tracker:
        whole, dropped, in_async = build(tracker, tell), build(tracker, tell), build(tracker, atell)
        read_all(whole)
        hang_up(dropped)
        asyncio.run(read_async(in_async))
    for app in (whole, dropped, in_async):
        print(f"Here:      burr-otel show {app.uid}")
    print("In Jaeger: http://localhost:16686/search?service=streaming")


if __name__ == "__main__":
    main()
