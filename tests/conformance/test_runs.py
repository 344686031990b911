"""`run` on every engine: what is written between two steps may be written at once, and not later."""

from __future__ import annotations

import subprocess
import sys

import apps
import pytest

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


@pytest.mark.parametrize("snapshots", ["full", "delta"])
def test_a_step_of_a_run_is_kept_before_the_next_action(storage_dir, snapshots):
    """Another tracker finds its state from within that action, and the last one after the run."""
    other = OtelTracker("p", storage_dir)
    found = []

    def look(number: int) -> None:
        loaded = other.load(None, "a")
        found.append(None if loaded is None else loaded["state"]["count"])

    with OtelTracker("p", storage_dir, snapshots=snapshots) as tracker:
        apps.telling(tracker, look).run(halt_after=["finish"])
        assert found == [None, 1, 2, 3]
        assert other.load(None, "a")["sequence_id"] == STEPS
    assert [other.load(None, "a", each)["state"]["count"] for each in range(STEPS)] == [1, 2, 3, 4]


@pytest.mark.parametrize("snapshots", ["full", "delta"])
def test_another_process_writes_while_a_step_is_in_progress(storage_dir, snapshots):
    """A difference does not build on it: it is written whole, before the next action."""
    other = OtelTracker("p", storage_dir)
    found = []

    def intrude(number: int) -> None:
        if number == 2:
            subprocess.run([sys.executable, "-c", INTRUDER, storage_dir], check=True, timeout=120)
        if number:
            found.append(other.load(None, "a", number - 1)["state"]["count"])

    with OtelTracker("p", storage_dir, snapshots=snapshots) as tracker:
        apps.telling(tracker, intrude).run(halt_after=["finish"])
    assert found == [1, 2, 3]
    assert other.load(None, "a")["state"]["count"] == STEPS
    assert [other.load(None, "a", each)["state"]["count"] for each in range(STEPS)] == [1, 2, 3, 4]
