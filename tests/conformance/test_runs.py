"""`run` on every engine: what is written between two steps may be written at once, and not later."""

from __future__ import annotations

import subprocess
import sys

import pytest
from burr.core import Application, ApplicationBuilder, State, action, expr

from burr_otel import OtelTracker

STEPS = 4

INTRUDER = """
import sys
from burr_otel.store.engines import open_engine
from burr_otel.store.port import END

run = open_engine(sys.argv[1]).find("p", "a", None)
line = b'{"type":"end_entry","sequence_id":77}\\n'
run.append(line, (END, 77), durability="flush")
"""


def build(tracker: OtelTracker, act) -> Application:
    """An application whose `run` takes four steps; each calls `act` with its number, from 0."""

    @action(reads=["n"], writes=["n"])
    def count(state: State) -> State:
        act(state["n"])
        return state.update(n=state["n"] + 1)

    @action(reads=["n"], writes=[])
    def end(state: State) -> State:
        return state

    return (
        ApplicationBuilder()
        .with_actions(count=count, end=end)
        .with_transitions(("count", "count", expr(f"n < {STEPS}")), ("count", "end"))
        .with_state(n=0, text="x" * 5_000)
        .with_entrypoint("count")
        .with_tracker(tracker)
        .with_identifiers(app_id="a")
        .build()
    )


@pytest.mark.parametrize("snapshots", ["full", "delta"])
def test_a_step_of_a_run_is_kept_before_the_next_action(storage_dir, snapshots):
    """Another tracker finds its state from within that action, and the last one after the run."""
    other = OtelTracker("p", storage_dir)
    found = []

    def look(number: int) -> None:
        loaded = other.load(None, "a")
        found.append(None if loaded is None else loaded["state"]["n"])

    with OtelTracker("p", storage_dir, snapshots=snapshots) as tracker:
        build(tracker, look).run(halt_after=["end"])
        assert found == [None, 1, 2, 3]
        assert other.load(None, "a")["sequence_id"] == STEPS
    assert [other.load(None, "a", each)["state"]["n"] for each in range(STEPS)] == [1, 2, 3, 4]


@pytest.mark.parametrize("snapshots", ["full", "delta"])
def test_another_process_writes_while_a_step_is_in_progress(storage_dir, snapshots):
    """A difference does not build on it: it is written whole, before the next action."""
    other = OtelTracker("p", storage_dir)
    found = []

    def intrude(number: int) -> None:
        if number == 2:
            subprocess.run([sys.executable, "-c", INTRUDER, storage_dir], check=True, timeout=120)
        if number:
            found.append(other.load(None, "a", number - 1)["state"]["n"])

    with OtelTracker("p", storage_dir, snapshots=snapshots) as tracker:
        build(tracker, intrude).run(halt_after=["end"])
    assert found == [1, 2, 3]
    assert other.load(None, "a")["state"]["n"] == STEPS
    assert [other.load(None, "a", each)["state"]["n"] for each in range(STEPS)] == [1, 2, 3, 4]
