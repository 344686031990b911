"""Asynchronous applications over PostgreSQL: the event loop never waits for the server."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest
from burr.core import ApplicationBuilder, State, action
from burr.lifecycle import PostRunStepHook, PostRunStepHookAsync

from burr_otel import OtelTracker, SnapshotError
from burr_otel.live.answers import AnswersHook
from burr_otel.store.postgres.database import Database


@action(reads=["n"], writes=["n"])
async def think(state: State) -> State:
    await asyncio.sleep(0)
    return state.update(n=state["n"] + 1)


@action(reads=["n"], writes=["n"])
def count(state: State) -> State:
    return state.update(n=state["n"] + 1)


def builder(
    tracker: OtelTracker, *hooks: object, app_id: str = "a", one=think
) -> ApplicationBuilder:
    return (
        ApplicationBuilder()
        .with_actions(one=one, two=one)
        .with_transitions(("one", "two"), ("two", "one"))
        .with_state(n=0)
        .with_entrypoint("one")
        .with_tracker(tracker)
        .with_hooks(*hooks)
        .with_identifiers(app_id=app_id)
    )


class Waits:
    """Counts which threads wait for the server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, delay_s: float = 0.0) -> None:
        self.threads: list[str] = []
        real = Database.send

        def send(database: Database, sql: str, *rest: object) -> object:
            if sql.startswith("INSERT INTO burr_otel.record"):
                self.threads.append(threading.current_thread().name)
                time.sleep(delay_s)
            return real(database, sql, *rest)

        monkeypatch.setattr(Database, "send", send)


def answers_of(app) -> list[AnswersHook]:
    return [each for each in app._adapter_set.adapters if isinstance(each, AnswersHook)]


@pytest.mark.parametrize("snapshots", ["full", "delta"])
async def test_no_step_waits_on_the_event_loop(database, monkeypatch, snapshots):
    """Every step's state is kept before the next step, and the loop's thread writes none of it."""
    tracker = OtelTracker("p", database, snapshots=snapshots)
    app = await builder(tracker).abuild()
    waits = Waits(monkeypatch)
    for number in range(6):
        await app.astep()
        loaded = await tracker.async_loader().load(None, "a")
        assert loaded["state"]["n"] == number + 1
    await app.arun(halt_after=["two"])
    assert waits.threads
    assert threading.current_thread().name not in waits.threads
    tracker.close()


async def test_one_loop_serves_others_while_a_conversation_waits(database, monkeypatch):
    """A server that takes 300 ms for an answer delays its own conversation only."""
    tracker = OtelTracker("p", database)
    apps = [await builder(tracker, app_id=f"app-{n}").abuild() for n in range(20)]
    Waits(monkeypatch, delay_s=0.3)
    turns, done = 0, asyncio.Event()

    async def tick() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    await asyncio.gather(*(app.astep() for app in apps))
    done.set()
    await ticking
    assert turns > 100
    assert {tracker.load(None, f"app-{n}")["state"]["n"] for n in range(20)} == {1}
    tracker.close()


def test_a_synchronous_application_has_no_asynchronous_hook(database, caplog):
    """Burr would warn in each of its steps."""
    tracker = OtelTracker("p", database)
    app = builder(tracker, one=count).build()
    with caplog.at_level(logging.WARNING):
        app.step()
    assert answers_of(app) == []
    assert "asynchronous hooks" not in caplog.text
    tracker.close()


async def test_an_application_with_asynchronous_actions_needs_no_abuild(database, monkeypatch):
    """`build()` is what most programs call."""
    tracker = OtelTracker("p", database)
    app = builder(tracker).build()
    assert len(answers_of(app)) == 1
    waits = Waits(monkeypatch)
    await app.arun(halt_after=["two"])
    assert threading.current_thread().name not in waits.threads
    assert tracker.load(None, "a")["state"]["n"] == 2
    tracker.close()


async def test_a_synchronous_action_in_an_asynchronous_application(database):
    """Burr tells its hook the state before such a step; what is kept is the one after it."""
    tracker = OtelTracker("p", database)
    app = await builder(tracker, one=count).abuild()
    await app.astep()
    assert tracker.load(None, "a")["state"]["n"] == 1
    tracker.close()


async def test_files_have_no_asynchronous_hook(tmp_path):
    """They answer at once."""
    tracker = OtelTracker("p", tmp_path)
    assert answers_of(await builder(tracker).abuild()) == []


@pytest.mark.parametrize("on_snapshot_error", ["raise", "warn"])
async def test_a_state_that_is_not_kept_is_told_after_its_step(
    database, postgres, caplog, on_snapshot_error
):
    """The step raises what could not be kept, or logs it."""
    tracker = OtelTracker("p", database, on_snapshot_error=on_snapshot_error)
    app = await builder(tracker).abuild()
    name = database.rpartition("/")[2]
    postgres.execute("ALTER TABLE burr_otel.record ADD CHECK (sequence_id <> 1 OR kind <> 2)", name)
    await app.astep()
    if on_snapshot_error == "raise":
        with pytest.raises(SnapshotError, match="p/a: the state of step 1 could not be kept"):
            await app.astep()
    else:
        await app.astep()
        assert "the state of step 1 could not be kept" in caplog.text
    await app.astep()
    assert tracker.load(None, "a")["sequence_id"] == 2
    tracker.close()


async def test_a_begin_that_is_not_kept_stops_the_step(database, postgres):
    """The action does not run, as in a synchronous application."""
    ran = []

    @action(reads=["n"], writes=["n"])
    async def act(state: State) -> State:
        ran.append(state["n"])
        return state.update(n=state["n"] + 1)

    tracker = OtelTracker("p", database)
    app = await builder(tracker, one=act).abuild()
    name = database.rpartition("/")[2]
    postgres.execute("ALTER TABLE burr_otel.record ADD CHECK (sequence_id <> 1 OR kind <> 1)", name)
    await app.astep()
    with pytest.raises(SnapshotError, match="step 1"):
        await app.astep()
    assert ran == [0]
    await app.astep()
    assert ran == [0, 1]
    tracker.close()


async def test_a_hook_that_raises_first_costs_no_state(database):
    """Burr then calls no asynchronous hook; the end of the call waits in its place."""

    class Raises(PostRunStepHook):
        def post_run_step(self, **_: object) -> None:
            raise ZeroDivisionError

    tracker = OtelTracker("p", database)
    app = await builder(tracker, Raises()).abuild()
    with pytest.raises(ZeroDivisionError):
        await app.astep()
    assert OtelTracker("p", database).load(None, "a")["state"]["n"] == 1
    tracker.close()


async def test_differences_go_on_after_another_process_came_between(database):
    """A displaced difference is handed over again, whole."""
    tracker, other = (OtelTracker("p", database, snapshots="delta") for _ in range(2))
    app = await builder(tracker).abuild()
    await app.astep()
    await app.astep()
    run = tracker._store.engine.find("p", "a", None)
    line = b'{"type":"end_entry","sequence_id":77}\n'
    run._query(
        "INSERT INTO burr_otel.record (run_id, number, kind, sequence_id, session, body) "
        "VALUES ($1, $2, 2, 77, '', $3)",
        run.run_id,
        run.extent().size_bytes,
        line,
    )
    for number in range(3, 6):
        await app.astep()
        assert other.load(None, "a")["state"]["n"] == number
        assert other.load(None, "a", number - 1)["state"]["n"] == number
    tracker.close()


async def test_a_cancelled_step_is_kept_as_cancelled(database):
    """A resume runs it again."""
    started = asyncio.Event()

    @action(reads=["n"], writes=["n"])
    async def hang(state: State) -> State:
        started.set()
        await asyncio.sleep(60 if state["n"] == 0 else 0)
        return state.update(n=state["n"] + 1)

    tracker = OtelTracker("p", database)
    app = await builder(tracker, one=hang).abuild()
    task = asyncio.create_task(app.astep())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    kept = tracker.load(None, "a")
    assert (kept["status"], kept["state"]["n"]) == ("failed", 0)
    tracker.close()


class Away:
    """A server that answers nobody, from when an action calls `begin` until the end."""

    def __init__(self, tracker: OtelTracker) -> None:
        self._lock = tracker._store.engine._writer.database.lock
        self._held, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold)

    def _hold(self) -> None:
        with self._lock:
            self._held.set()
            self._over.wait()

    def begin(self) -> None:
        self._thread.start()
        self._held.wait()

    def end(self) -> None:
        self._over.set()
        self._thread.join()


async def test_a_step_that_is_cancelled_before_its_action_waits_no_longer(database):
    """Who limits the time of a step is not held up by a server that is away."""
    tracker = OtelTracker("p", database)
    app = await builder(tracker).abuild()
    await app.astep()
    away = Away(tracker)
    away.begin()
    task = asyncio.create_task(app.astep())
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=10)
    away.end()
    assert done == {task}
    assert task.cancelled()
    await app.astep()
    assert tracker.load(None, "a")["state"]["n"] == 2
    tracker.close()


async def test_a_lost_state_of_a_cancelled_step_is_logged(database, postgres, caplog):
    """Nobody is left to be told otherwise: the step was complete when it was cancelled."""
    tracker = OtelTracker("p", database)
    away, acted = Away(tracker), asyncio.Event()

    @action(reads=["n"], writes=["n"])
    async def act(state: State) -> State:
        away.begin()
        acted.set()
        return state.update(n=state["n"] + 1)

    app = await builder(tracker, one=act).abuild()
    name = database.rpartition("/")[2]
    postgres.execute("ALTER TABLE burr_otel.record ADD CHECK (sequence_id <> 0 OR kind <> 2)", name)
    task = asyncio.create_task(app.astep())
    await acted.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task], timeout=10)
    assert task.cancelled()
    away.end()
    tracker.close()
    assert "p/a: the state of step 0 could not be kept" in caplog.text


async def test_other_asynchronous_hooks_run_beside(database):
    """They are Burr's to call."""
    seen = []

    class Other(PostRunStepHookAsync):
        async def post_run_step(self, *, sequence_id: int, **_: object) -> None:
            seen.append(sequence_id)

    tracker = OtelTracker("p", database)
    app = await builder(tracker, Other()).abuild()
    await app.astep()
    assert seen == [0]
    tracker.close()
