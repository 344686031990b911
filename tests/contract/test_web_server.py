"""Several worker processes that all serve all conversations."""

import asyncio
from pathlib import Path

import httpx
from servers import serve
from store_support import folder_of, log_records, read_by_burr

from burr_otel.store import Store

CONVERSATIONS, TURNS, WORKERS = 20, 50, 4


async def converse(client, number, workers):
    """A user who waits for each answer before the next prompt."""
    for turn in range(1, TURNS + 1):
        reply = await client.post(f"/user{number}/prompt{turn}")
        assert reply.status_code == 200, reply.text
        told = reply.json()
        assert (told["turns"], told["last"]) == (turn, f"prompt{turn}"), "a turn was lost"
        workers.add(told["pid"])


async def everybody(url, workers):
    """All users at once; each request on a new connection, so that any worker may get it."""
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        users = (converse(client, number, workers) for number in range(CONVERSATIONS))
        await asyncio.gather(*users)


def test_a_thousand_requests_to_four_workers_resume_twenty_conversations(tmp_path):
    """Any worker continues what any other did, at once, with no error and no warning."""
    folder = Path(__file__).parent
    workers = set()
    log = tmp_path / "server.log"
    env = {"CHAT_STORAGE": str(tmp_path), "OTEL_TRACES_EXPORTER": "none"}
    with (
        log.open("wb") as errors,
        serve("conversation_server:app", workers=WORKERS, env=env, cwd=folder, log=errors) as url,
    ):
        asyncio.run(everybody(url, workers))
    assert len(workers) > 1, "several workers took part"
    assert log.read_text() == ""
    store = Store("chat", tmp_path)
    assert len(store.list_app_ids("users")) == CONVERSATIONS
    for number in range(CONVERSATIONS):
        app_id = f"user{number}"
        loaded = store.load("users", app_id)
        assert loaded["sequence_id"] == TURNS - 1
        prompts = [each["prompt"] for each in loaded["state"]["history"]]
        assert prompts == [f"prompt{turn}" for turn in range(1, TURNS + 1)]
        records = log_records(folder_of(store, app_id) / "log.jsonl")
        ends = [each["sequence_id"] for each in records if each["type"] == "end_entry"]
        assert ends == list(range(TURNS))
        assert len({each["otel"]["session"] for each in records}) == TURNS
        assert not list(folder_of(store, app_id).glob("*.torn-*"))
        middle = store.load("users", app_id, 25)
        assert len(middle["state"]["history"]) == 26
    read_by_burr(store, "user0")
