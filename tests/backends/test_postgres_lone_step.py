"""A lone step over PostgreSQL: its records are sent, and the answers are read later."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator

import apps
import psycopg
import pytest
from postgres_server import Postgres
from processes import wait_for
from programs import in_child

from burr_otel import OtelTracker, RunLockedError, SnapshotError
from burr_otel.store.postgres import database as database_module
from burr_otel.testing import SpanCapture

_ADD = (
    "INSERT INTO burr_otel.record (run_id, number, kind, sequence_id, session, body) "
    "SELECT run_id, max(number + octet_length(body)), 0, -1, '', '{\"type\":\"others\"}\n' "
    "FROM burr_otel.record GROUP BY run_id"
)


@pytest.fixture
def name(database: str) -> str:
    """Of the database."""
    return database.rpartition("/")[2]


@pytest.fixture
def steps(database: str, postgres: Postgres, name: str) -> Callable[[], list[str]]:
    """What is in the database of steps, whoever asks."""

    def found() -> list[str]:
        rows = postgres.execute("SELECT body FROM burr_otel.record ORDER BY number", name)
        told = [json.loads(body) for (body,) in rows]
        kinds = ("begin_entry", "end_entry", "others")
        return [
            f"{each['type']} {each.get('sequence_id', '')}".strip()
            for each in told
            if each["type"] in kinds
        ]

    return found


@contextlib.contextmanager
def nothing_is_written(postgres: Postgres, name: str) -> Iterator[None]:
    """The server takes records, and keeps those who send them waiting."""
    with psycopg.connect(postgres.url(name)) as connection:
        connection.execute("LOCK TABLE burr_otel.record IN EXCLUSIVE MODE")
        yield


def is_waiting(postgres: Postgres) -> bool:
    """Whether the server has got a record that it cannot write yet."""
    return bool(
        postgres.execute(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND query LIKE 'INSERT INTO burr_otel.record%'"
        )
    )


def drop_connections(postgres: Postgres, name: str) -> None:
    """The server ends all connections to a database, whatever they are doing."""
    postgres.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )


def test_the_action_does_not_wait_for_the_answer(database, postgres: Postgres, name, steps):
    """It runs while the server has not written the step's begin; both are there in the end."""
    waited: list[bool] = []
    with contextlib.ExitStack() as stack:

        def tell(number: int) -> None:
            if number == 1:
                wait_for("the begin at the server", lambda: is_waiting(postgres) or None, 20)
                waited.append(True)
                stack.close()

        tracker = OtelTracker("p", database)
        app = apps.telling(tracker, tell)
        app.step()
        stack.enter_context(nothing_is_written(postgres, name))
        app.step()
    assert waited == [True]
    assert steps() == ["begin_entry 0", "end_entry 0", "begin_entry 1", "end_entry 1"]
    assert tracker.load(None, "a")["state"]["count"] == 2
    tracker.close()


def test_a_begin_arrives_although_its_process_is_killed(database, postgres: Postgres, name, steps):
    """What has been sent does not depend on who sent it: the step counts as begun."""

    def work() -> None:
        def tell(number: int) -> None:
            if number == 1:
                os.kill(os.getpid(), signal.SIGKILL)

        app = apps.telling(OtelTracker("p", database), tell)
        app.step()
        app.step()

    assert in_child(work) == -signal.SIGKILL
    wait_for("the begin", lambda: len(steps()) == 3 or None, 20)
    assert steps() == ["begin_entry 0", "end_entry 0", "begin_entry 1"]


@pytest.mark.parametrize("is_written", [True, False])
def test_a_begin_whose_answer_is_lost_is_there_once(
    database, postgres: Postgres, name, steps, is_written
):
    """The connection breaks while the action runs, after the server wrote it, or before."""

    def tell(number: int) -> None:
        if number == 1 and is_written:
            wait_for("the begin", lambda: len(steps()) == 3 or None, 20)
            drop_connections(postgres, name)
        elif number == 1:
            wait_for("the begin at the server", lambda: is_waiting(postgres) or None, 20)
            drop_connections(postgres, name)
            stack.close()

    with contextlib.ExitStack() as stack:
        tracker = OtelTracker("p", database)
        app = apps.telling(tracker, tell)
        app.step()
        if not is_written:
            # The connection that holds the lock is dropped with the rest.
            stack.enter_context(contextlib.suppress(psycopg.OperationalError))
            stack.enter_context(nothing_is_written(postgres, name))
        app.step()
    assert steps() == ["begin_entry 0", "end_entry 0", "begin_entry 1", "end_entry 1"]
    tracker.close()


def test_a_begin_goes_behind_what_others_wrote_while_the_action_runs(
    database, postgres: Postgres, name, steps
):
    """It is refused in its place, which is found out before the action is over."""

    def tell(number: int) -> None:
        if number == 1:
            wait_for("the begin", lambda: len(steps()) == 4 or None, 20)

    tracker = OtelTracker("p", database)
    app = apps.telling(tracker, tell)
    app.step()
    writer = tracker._store.engine._writer
    writer._leased.clear()  # whose renewal would find it out as well
    writer._wake.put(True)
    postgres.execute(_ADD, name)
    app.step()
    assert steps() == ["begin_entry 0", "end_entry 0", "others", "begin_entry 1", "end_entry 1"]
    assert tracker.load(None, "a")["state"]["count"] == 2
    tracker.close()


@pytest.mark.parametrize("method", ["step", "run"])
def test_a_begin_that_the_server_refuses_is_told(database, postgres: Postgres, name, method):
    """By the step's end, after its span has ended; in a `run` by the next step, at the latest."""
    spans = SpanCapture()
    tracker = OtelTracker("p", database, tracer_provider=spans.provider)
    app = apps.telling(tracker)
    postgres.execute("ALTER TABLE burr_otel.record ADD CHECK (sequence_id <> 0 OR kind <> 1)", name)
    with pytest.raises(SnapshotError, match="p/a: the state of step 0 could not be kept"):
        app.step() if method == "step" else app.run(halt_after=["finish"])
    tracker.close()
    assert "count" in [span.name for span in spans.spans]


def test_a_state_that_the_server_refuses_is_told(database, postgres: Postgres, name):
    """By `step` itself, when the span has ended well: it does not wait for the server's answer."""
    spans = SpanCapture()
    tracker = OtelTracker("p", database, tracer_provider=spans.provider)
    app = apps.telling(tracker)
    app.step()
    postgres.execute("ALTER TABLE burr_otel.record ADD CHECK (sequence_id <> 1 OR kind <> 2)", name)
    with pytest.raises(SnapshotError, match="p/a: the state of step 1 could not be kept"):
        app.step()
    assert [span.status.is_ok for span in spans.spans if span.name == "count"] == [True, True]
    assert tracker.load(None, "a")["sequence_id"] == 0
    app.step()
    assert tracker.load(None, "a")["sequence_id"] == 2
    tracker.close()


def test_no_action_runs_while_the_server_is_away(new_postgres: Postgres, monkeypatch):
    """It has been shut down since the last step, and later it takes no connection."""
    monkeypatch.setattr(database_module, "OUTAGE_S", 0.1)
    ran: list[int] = []
    tracker = OtelTracker("p", new_postgres.make_database("d"))
    app = apps.telling(tracker, ran.append)
    app.step()
    new_postgres.stop()
    for _ in range(2):
        with pytest.raises(SnapshotError, match="does not answer as it should"):
            app.step()
    assert ran == [0]
    new_postgres.start()
    tracker.close()


def test_who_has_the_run_for_itself_waits_for_the_answer(database, postgres: Postgres, name):
    """No action runs once another session has the run."""
    ran: list[int] = []
    tracker = OtelTracker("p", database, exclusive=True)
    app = apps.telling(tracker, ran.append)
    app.step()
    postgres.execute("UPDATE burr_otel.run SET claim = 'theirs', claimed_by = NULL", name)
    with pytest.raises(RunLockedError):
        app.step()
    assert ran == [0]
    tracker.close()


def test_the_answer_is_read_by_whoever_asks_the_server_first(database, steps):
    """An action that looks at its own run finds the step that it is in."""
    seen: list[object] = []
    tracker = OtelTracker("p", database)

    def tell(number: int) -> None:
        run = tracker._store.engine.find("p", "a", None)
        told = [json.loads(line.data) for line in run.forward()]
        seen.append((number, told[-1]["type"], told[-1]["sequence_id"]))

    app = apps.telling(tracker, tell)
    app.step()
    app.step()
    assert seen == [(0, "begin_entry", 0), (1, "begin_entry", 1)]
    tracker.close()
