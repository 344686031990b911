"""Applications built with `abuild`, which takes asynchronous loaders only."""

import asyncio

import apps
import pytest
from burr.core import default, expr


def builder(tracker, app_id, **initialize):
    return (
        apps.builder(tracker, app_id, count=apps.acount, finish=apps.finish)
        .with_transitions(("count", "count", expr("count < 3")), ("count", "finish", default))
        .initialize_from(
            tracker.async_loader(),
            resume_at_next_action=True,
            default_state={"count": 0},
            default_entrypoint="count",
            **initialize,
        )
    )


def test_resume_and_fork_with_abuild(tracker, spans):
    """`async_loader()` resumes and forks as the tracker itself does."""

    async def scenario():
        app = await builder(tracker, "a1").abuild()
        await app.astep()
        await app.astep()
        again = await builder(tracker, "a1").abuild()
        _, _, state = await again.arun(halt_after=["finish"])
        assert state["answer"] == 30
        fork = await builder(tracker, "a2", fork_from_app_id="a1", fork_from_sequence_id=0).abuild()
        assert fork.state["count"] == 1
        _, _, state = await fork.arun(halt_after=["finish"])
        assert state["answer"] == 30

    asyncio.run(scenario())
    tracker.close()
    assert [s.attributes["burr.app_id"] for s in spans.spans].count("a2") == 4


def test_the_async_loader_lists_and_knows_nothing_of_unknown_runs(tracker):
    """The same answers as the synchronous loader's."""
    apps.counter(tracker).step()
    loader = tracker.async_loader()
    assert asyncio.run(loader.list_app_ids(None)) == ["a1"]
    assert asyncio.run(loader.load(None, "nobody")) is None
    with pytest.raises(ValueError, match="Sequence number 7 not found"):
        asyncio.run(loader.load(None, "a1", 7))
