"""Servers and processes that die, sleep or disagree about the time, over PostgreSQL."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest
from burr.core import ApplicationBuilder, State, action
from postgres_server import PgBouncer, Postgres
from processes import wait_for

from burr_otel import OtelTracker, RunLockedError, SnapshotError
from burr_otel.recover import Recovered
from burr_otel.store.postgres import database as database_module
from burr_otel.store.postgres.database import Database

CHILD = pathlib.Path(__file__).with_name("postgres_child.py")


@action(reads=["n"], writes=["n"])
def count(state: State) -> State:
    return state.update(n=state["n"] + 1)


def build(tracker: OtelTracker, app_id: str = "a", **state: object):
    return (
        ApplicationBuilder()
        .with_actions(count=count)
        .with_transitions(("count", "count"))
        .initialize_from(
            tracker,
            resume_at_next_action=True,
            default_state={"n": 0, **state},
            default_entrypoint="count",
        )
        .with_tracker(tracker)
        .with_identifiers(app_id=app_id)
        .build()
    )


def start(url: str, mode: str, **environment: str) -> subprocess.Popen[str]:
    """Another machine: a process with a home of its own; it says what it does, a line each."""
    return subprocess.Popen(
        [sys.executable, CHILD, url, mode],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, "HOME": "/nonexistent", **environment},
    )


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    process.stdout.close()
    process.stdin.close()


def recover(tracker: OtelTracker, app_id: str = "a") -> list[Recovered]:
    return tracker.recover(app_id, lambda _spans: True)


def expire(postgres: Postgres, url: str, host: str = "%") -> None:
    """The leases run out, as they do 15 s after the last renewal."""
    postgres.execute(
        f"UPDATE burr_otel.writer SET lease_until = now() - interval '1 s' WHERE host LIKE '{host}'",
        url.rpartition("/")[2],
    )


def ends(tracker: OtelTracker, app_id: str = "a") -> list[int]:
    records = tracker._store.read(app_id).records()
    return [each["sequence_id"] for each in records if each["type"] == "end_entry"]


def test_the_server_is_killed_during_a_hundred_turns(new_postgres: Postgres, monkeypatch):
    """And started again: every acknowledged state is there, each once, and the run goes on."""
    url = new_postgres.make_database("d")
    tracker = OtelTracker("p", url)
    app = build(tracker)

    def kill_now_and_then() -> None:
        for _ in range(3):
            time.sleep(0.3)
            new_postgres.kill()
            new_postgres.start()

    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    acknowledged = []
    while len(acknowledged) < 100 or killer.is_alive():
        try:
            app.step()
        except SnapshotError:
            continue
        acknowledged.append(app.sequence_id)
    killer.join()
    kept = ends(tracker)
    assert len(kept) == len(set(kept))
    assert set(acknowledged) <= set(kept)
    assert tracker.load(None, "a")["state"]["n"] == app.state["n"]
    tracker.close()


def test_an_outage_is_waited_for_and_then_told(new_postgres: Postgres, monkeypatch):
    """After its patience a step says SnapshotError; the next ones do not wait again."""
    monkeypatch.setattr(database_module, "OUTAGE_S", 0.5)
    url = new_postgres.make_database("d")
    tracker = OtelTracker("p", url)
    app = build(tracker)
    app.step()
    new_postgres.stop()
    with pytest.raises(SnapshotError, match="does not answer as it should") as caught:
        app.step()
    assert "p/a: the state of step 1" in str(caught.value)
    pauses: list[float] = []
    monkeypatch.setattr(database_module.time, "sleep", pauses.append)
    with pytest.raises(SnapshotError):
        app.step()
    assert pauses == []
    monkeypatch.undo()
    new_postgres.start()
    app.step()
    assert tracker.load(None, "a")["state"]["n"] == app.state["n"]
    tracker.close()


def test_a_short_outage_costs_nothing(new_postgres: Postgres):
    """The step waits until the server is back."""
    url = new_postgres.make_database("d")
    tracker = OtelTracker("p", url)
    app = build(tracker)
    app.step()
    new_postgres.stop()
    again = threading.Timer(1.0, new_postgres.start)
    again.start()
    app.step()
    again.join()
    assert ends(tracker) == [0, 1]
    tracker.close()


def test_a_server_that_hangs_is_given_up(new_postgres: Postgres, monkeypatch):
    """Stopped as it is, it takes connections and answers nothing."""
    url = new_postgres.make_database("d")
    tracker = OtelTracker("p", url)
    app = build(tracker)
    app.step()
    monkeypatch.setattr(database_module, "_ANSWER_S", 0.5)
    monkeypatch.setattr(database_module, "OUTAGE_S", 0.1)
    backends = new_postgres.execute("SELECT pid FROM pg_stat_activity")
    everyone = [*(pid for (pid,) in backends), new_postgres.pid]

    def signal_all(number: int) -> None:
        for pid in everyone:
            with contextlib.suppress(ProcessLookupError):  # the query's own has ended, say
                os.kill(pid, number)

    signal_all(signal.SIGSTOP)
    try:
        with pytest.raises(SnapshotError):
            app.step()
    finally:
        signal_all(signal.SIGCONT)
    monkeypatch.undo()
    app.step()
    assert tracker.load(None, "a")["state"]["n"] == app.state["n"]
    tracker.close()


def test_a_conversation_goes_from_machine_to_machine(database, postgres: Postgres):
    """Three processes, one killed inside a step: the next one completes its spans, once."""
    first = start(database, "three-steps")
    assert first.communicate()[0].split() == ["1", "2", "3"]
    second = start(database, "hang-in-a-step", FAKE_HOST="second")
    assert second.stdout.readline().strip() == "4"
    assert second.stdout.readline().strip() == "inside"
    end(second)
    tracker = OtelTracker("p", database)
    assert recover(tracker) == []  # its lease has not run out
    expire(postgres, database, "second")
    (crashed,) = recover(tracker)
    assert (crashed.spans, crashed.sent) == (("count", "invoke_workflow p"), True)
    assert recover(tracker) == []
    third = start(database, "three-steps")
    assert third.communicate()[0].split() == ["5", "6", "7"]
    tracker.close()


def test_two_machines_in_one_run_at_once(database):
    """Both go on, and nobody's connection is spoilt."""
    both = [start(database, "ten-steps") for _ in range(2)]
    said = [process.communicate()[0].split() for process in both]
    assert [len(each) for each in said] == [10, 10]
    assert len(ends(OtelTracker("p", database))) == 20


def test_a_process_that_slept_through_its_lease(database, postgres: Postgres):
    """Its run is taken over meanwhile; when it wakes up it is refused, and mixes no step in."""
    sleeper = start(database, "exclusive-steps", FAKE_HOST="sleeper")
    try:
        assert sleeper.stdout.readline().strip() == "1"
        tracker = OtelTracker("p", database, exclusive=True)
        with pytest.raises(RunLockedError, match="on sleeper"):
            build(tracker)
        os.kill(sleeper.pid, signal.SIGSTOP)
        expire(postgres, database, "sleeper")
        app = build(tracker)
        app.step()
        os.kill(sleeper.pid, signal.SIGCONT)
        sleeper.stdin.write("\n")
        sleeper.stdin.flush()
        assert sleeper.stdout.readline().strip() == "RunLockedError"
        app.step()
        assert ends(tracker) == [0, 1, 2]
        tracker.close()
    finally:
        end(sleeper)


def test_a_process_that_slept_goes_on_where_others_may_write(database, postgres: Postgres):
    """Without exclusive=True it is one of two sessions of a run."""
    sleeper = start(database, "plain-steps", FAKE_HOST="sleeper")
    try:
        assert sleeper.stdout.readline().strip() == "1"
        os.kill(sleeper.pid, signal.SIGSTOP)
        expire(postgres, database, "sleeper")
        tracker = OtelTracker("p", database)
        assert len(recover(tracker)) == 1
        os.kill(sleeper.pid, signal.SIGCONT)
        sleeper.stdin.write("\n")
        sleeper.stdin.flush()
        assert sleeper.stdout.readline().strip() == "2"
        assert tracker.load(None, "a")["state"]["n"] == 2
    finally:
        end(sleeper)


def test_a_lease_is_renewed_while_a_session_is_open(database, postgres: Postgres):
    """By a process that does nothing else meanwhile."""
    sleeper = start(database, "plain-steps", FAKE_HOST="idle")
    name = database.rpartition("/")[2]
    query = "SELECT lease_until FROM burr_otel.writer WHERE host = 'idle'"
    try:
        assert sleeper.stdout.readline().strip() == "1"
        before = wait_for("a lease", lambda: postgres.execute(query, name) or None)
        wait_for("its renewal", lambda: postgres.execute(query, name) != before or None)
    finally:
        end(sleeper)


@pytest.mark.parametrize("hours", [-1, 1])
def test_clocks_that_differ_by_an_hour(database, postgres: Postgres, hours):
    """Who lives is decided by the server's clock, and the newest state by the order of writing."""
    shift = hours * 3_600 * 10**9
    away = start(database, "hang-in-a-step", FAKE_HOST="away", CLOCK_SHIFT_NS=str(shift))
    try:
        assert away.stdout.readline().strip() == "1"
        assert away.stdout.readline().strip() == "inside"
        tracker = OtelTracker("p", database)
        assert recover(tracker) == []
        app = build(tracker)
        app.step()
        assert tracker.load(None, "a")["state"]["n"] == 2
    finally:
        end(away)
    expire(postgres, database, "away")
    assert [each.sent for each in recover(tracker)] == [True]
    tracker.close()


HOSTILE = {
    "nul": "a\0b",
    "nan": math.nan,
    "infinite": [math.inf, -math.inf],
    "surrogate": "\ud800",
    "large": 2**90,
    "negative": -(2**63) - 1,
    "\0key": {"\ud800": "\0"},
    "json": '\\u0000 "\\"',
    "long": "x" * 20_000_000,
}


@pytest.mark.parametrize("pooled", [False, True])
def test_hostile_values_come_back_equal(database, pgbouncer: PgBouncer, pooled):
    """NUL, NaN, surrogates, integers beyond 64 bits and 20 MB; through PgBouncer, too."""
    url = pgbouncer.url(database.rpartition("/")[2]) if pooled else database
    tracker = OtelTracker("p", url)
    app = build(tracker, **HOSTILE)
    app.step()
    state = OtelTracker("p", url).load(None, "a")["state"].get_all()
    assert math.isnan(state.pop("nan"))
    assert state["n"] == 1
    assert {key: state[key] for key in HOSTILE if key != "nan"} == {
        key: value for key, value in HOSTILE.items() if key != "nan"
    }
    tracker.close()


def test_conversations_in_threads_through_pgbouncer(database, pgbouncer: PgBouncer):
    """Three server connections serve eight conversations, with differences and claims."""
    url = pgbouncer.url(database.rpartition("/")[2])
    tracker = OtelTracker("p", url, snapshots="delta", exclusive=True)
    failures: list[Exception] = []

    def talk(which: int) -> None:
        try:
            app = build(tracker, f"app-{which}", history=["hello"] * 100)
            for _ in range(10):
                app.step()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=talk, args=(which,)) for which in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {tracker.load(None, f"app-{n}")["state"]["n"] for n in range(8)} == {10}
    tracker.close()


def test_a_long_run_is_read_in_bounded_time(database, postgres: Postgres, monkeypatch):
    """Of a million records, the latest state and any step take a handful of statements."""
    tracker = OtelTracker("p", database)
    app = build(tracker)
    app.step()
    app.step()
    tracker.close()
    name = database.rpartition("/")[2]
    postgres.execute(
        """
        INSERT INTO burr_otel.record (run_id, number, kind, sequence_id, session, body)
        SELECT 1, tail + 10 * n, 0, -1, '', convert_to('{"a":123}' || chr(10), 'UTF8')
        FROM generate_series(0, 999999) AS n, (
          SELECT max(number + octet_length(body)) AS tail FROM burr_otel.record) AS t
        """,
        name,
    )
    asked: list[str] = []
    real, own = Database.send, tracker._store.engine._writer.database

    def send(database: Database, sql: str, *rest: object) -> object:
        if database is own:  # threads of other tests' databases may still be at work
            asked.append(sql)
        return real(database, sql, *rest)

    monkeypatch.setattr(Database, "send", send)
    assert tracker.load(None, "a")["state"]["n"] == 2
    assert tracker.load(None, "a", 0)["state"]["n"] == 1
    assert 2 <= len(asked) <= 10
    plan = "\n".join(
        str(row[0])
        for row in postgres.execute(
            "EXPLAIN SELECT number FROM burr_otel.record WHERE run_id = 1 AND kind = 2 AND kind > 0 "
            "ORDER BY number DESC LIMIT 1",
            name,
        )
    )
    assert "Seq Scan" not in plan
