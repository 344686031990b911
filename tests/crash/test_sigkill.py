"""Writers killed at random moments: the run loads, and resumes to the same result."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from store_support import folder_of, read_by_burr

sys.path.insert(0, str(Path(__file__).parent))
from crash_app import STEPS, build

from burr_otel.store import Store

KILLS = 200


@pytest.mark.one_python
def test_two_hundred_killed_writers_lose_at_most_the_step_in_flight(tmp_path):
    """The state that loads is that of the last reported step or of the one after it."""
    script = Path(__file__).with_name("crash_app.py")
    seed = int.from_bytes(os.urandom(4), "big")
    done = subprocess.run(
        [sys.executable, script, tmp_path, str(KILLS), str(seed)],
        stdout=subprocess.PIPE, check=True, timeout=180,
    )  # fmt: skip
    reported = json.loads(done.stdout)["steps"]
    assert len(reported) == KILLS
    undisturbed, _ = build(tmp_path, "undisturbed")
    expected = undisturbed.run(halt_after=["finish"])[2]["result"]
    store = Store("crash", tmp_path)
    early, late, torn = 0, 0, []
    for app_id, steps in reported.items():
        known = app_id in store.list_app_ids() and store.exists(app_id)
        assert known or steps == 0, f"{app_id} (seed {seed})"
        loaded = store.load(None, app_id) if known else None
        sequence_id = -1 if loaded is None else loaded["sequence_id"]
        assert sequence_id in (steps - 1, steps), f"{app_id} after {steps} steps (seed {seed})"
        if loaded is not None:
            assert loaded["state"]["n"] == sequence_id + 1
        early += steps == 0
        late += sequence_id == steps
        app, tracker = build(tmp_path, app_id)
        final = app.run(halt_after=["finish"])[2]
        assert (final["n"], final["result"]) == (STEPS, expected), f"{app_id} (seed {seed})"
        tracker.close()
        torn += [app_id] * bool(list(folder_of(store, app_id).glob("log.jsonl.torn-*")))
    for app_id in sorted({*torn, *sorted(reported)[::20]}):
        shown, _ = read_by_burr(store, app_id)
        assert [step.step_start_log.sequence_id for step in shown] == list(range(STEPS + 1))
        assert all(step.step_end_log is not None for step in shown)
    assert early < KILLS / 2, "most were killed in the middle of a run"
    assert len(set(reported.values())) > STEPS / 2, "at different steps"
    print(  # noqa: T201  # what -s shows of the run
        f"seed {seed}: {late} snapshots were kept and not yet reported, {len(torn)} lines were torn"
    )
