"""`run` over PostgreSQL: one statement between two steps, for the end of one and the begin of the next."""

from __future__ import annotations

import json

import apps
import pytest
from burr.core import ApplicationBuilder, State, action, expr
from burr.lifecycle import PostApplicationExecuteCallHook
from postgres_server import Postgres

from burr_otel import OtelTracker, SnapshotError
from burr_otel.store.postgres.database import Database
from burr_otel.testing import SpanCapture

STEPS = 4


@pytest.fixture
def statements(database: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records each statement writes."""
    written: list[int] = []
    real, own = Database.send, Database(database).parameters

    def send(asked: Database, sql: str, values: object = (), *rest: object) -> object:
        # Threads of other tests' databases may still be at work.
        if sql.startswith("INSERT INTO burr_otel.record") and asked.parameters == own:
            written.append(sql.count("($"))
        return real(asked, sql, values, *rest)

    monkeypatch.setattr(Database, "send", send)
    return written


@pytest.mark.parametrize("snapshots", ["full", "delta"])
def test_two_steps_of_a_run_share_a_statement(database, statements, snapshots):
    """The server is asked once a step, and every step is there before the next one's action."""
    seen = []
    tracker = OtelTracker("p", database, snapshots=snapshots)

    def look(number: int) -> None:
        other = OtelTracker("p", database)  # its engine shares the connection, not what is known
        seen.append((number, (other.load(None, "a") or {"sequence_id": None})["sequence_id"]))

    app = apps.telling(tracker, look)
    app.run(halt_after=["finish"])
    assert seen == [(0, None), (1, 0), (2, 1), (3, 2)]
    assert statements[-STEPS - 1 :] == [2] * STEPS + [1]
    assert tracker.load(None, "a")["sequence_id"] == STEPS
    tracker.close()


def test_a_lone_step_is_kept_when_it_returns(database, statements):
    """Nobody knows when the next one comes, so nothing is held back."""
    tracker = OtelTracker("p", database)
    app = apps.telling(tracker)
    app.run(halt_after=["count"])
    for number in range(1, STEPS):
        app.step()
        before = len(statements)
        assert OtelTracker("p", database).load(None, "a")["sequence_id"] == number
        assert len(statements) == before, "reading had nothing to write first"
    tracker.close()


@pytest.mark.parametrize("on_snapshot_error", ["raise", "warn"])
def test_a_state_that_is_not_kept_stops_the_next_step(
    database, postgres: Postgres, caplog, on_snapshot_error
):
    """Its action does not run after a step that is lost; or the log says so and the run goes on."""
    ran: list[int] = []
    spans = SpanCapture()
    tracker = OtelTracker(
        "p", database, on_snapshot_error=on_snapshot_error, tracer_provider=spans.provider
    )
    app = apps.telling(tracker, ran.append)
    name = database.rpartition("/")[2]
    postgres.execute("ALTER TABLE burr_otel.record ADD CHECK (sequence_id <> 1 OR kind <> 2)", name)
    if on_snapshot_error == "raise":
        with pytest.raises(SnapshotError, match="p/a: the state of step 1 could not be kept"):
            app.run(halt_after=["finish"])
        assert ran == [0, 1]
        assert [span.status.is_ok for span in spans.spans if span.name == "count"] == [
            True,
            True,
            False,
        ]
        run = tracker._store.engine.find("p", "a", None)
        told = [json.loads(line.data) for line in run.forward()]
        kinds = [each["type"] for each in told[-3:]]
        assert kinds == ["begin_entry", "begin_entry", "otel_step_end"], "refused, not crashed"
    else:
        app.run(halt_after=["finish"])
        assert ran == [0, 1, 2, 3]
        assert caplog.text.count("the state of step 1 could not be kept") == 1
        assert tracker.load(None, "a")["state"]["count"] == STEPS
    tracker.close()


def test_the_last_state_that_is_not_kept_is_told_by_the_run(database, postgres: Postgres):
    """No step follows, so `run` itself raises; an error of the user's own is not hidden by it."""
    tracker = OtelTracker("p", database)
    app = apps.telling(tracker)
    name = database.rpartition("/")[2]
    postgres.execute(
        f"ALTER TABLE burr_otel.record ADD CHECK (sequence_id <> {STEPS} OR kind <> 2)", name
    )
    with pytest.raises(SnapshotError, match=f"step {STEPS}"):
        app.run(halt_after=["finish"])
    tracker.close()


def test_a_lost_state_is_told_when_another_hook_raises_before_ours(
    database, postgres: Postgres, caplog
):
    """Burr then does not tell that the run is over; the tracker's end says it."""

    class Raises(PostApplicationExecuteCallHook):
        def post_run_execute_call(self, **_: object) -> None:
            raise ZeroDivisionError

    tracker = OtelTracker("p", database)
    app = apps.telling(tracker, lambda _: None, Raises())
    name = database.rpartition("/")[2]
    postgres.execute(
        f"ALTER TABLE burr_otel.record ADD CHECK (sequence_id <> {STEPS} OR kind <> 2)", name
    )
    with pytest.raises(ZeroDivisionError):
        app.run(halt_after=["finish"])
    tracker.close()
    assert caplog.text.count(f"the state of step {STEPS} could not be kept") == 1
    assert OtelTracker("p", database).load(None, "a")["sequence_id"] == STEPS - 1


def test_an_error_between_two_steps_costs_no_state(database):
    """A condition raises: the step before it is kept, and the user sees the error."""

    class Sees(PostApplicationExecuteCallHook):
        def post_run_execute_call(self, **_: object) -> None:
            kept.append(OtelTracker("p", database).load(None, "a")["sequence_id"])

    kept: list[int] = []

    @action(reads=[], writes=["n"])
    def one(state: State) -> State:
        return state.update(n="no number")

    @action(reads=[], writes=[])
    def two(state: State) -> State:
        return state

    tracker = OtelTracker("p", database)
    app = (
        ApplicationBuilder()
        .with_actions(one=one, two=two)
        .with_transitions(("one", "two", expr("n < 3")))
        .with_state(n=0)
        .with_entrypoint("one")
        .with_tracker(tracker)
        .with_hooks(Sees())
        .with_identifiers(app_id="a")
        .build()
    )
    with pytest.raises(TypeError):
        app.run(halt_after=["two"])
    assert kept == [0]
    tracker.close()
