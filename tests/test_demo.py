"""The demo application, with Burr's own tracker: what it does must not depend on ours."""

import json
import logging

import pytest
from burr.tracking import LocalTrackingClient

from burr_otel.demo import DEMO_PROJECT, build_demo, run_demo


@pytest.fixture
def quiet_burr(monkeypatch):
    """Burr logs the failing step's traceback; a test's output should not carry it."""
    monkeypatch.setattr(logging.getLogger("burr.core.application"), "disabled", True)


def _run(tmp_path, app_id=None):
    waits = []
    tracker = LocalTrackingClient(DEMO_PROJECT, storage_dir=str(tmp_path))
    app = build_demo(tracker, app_id, wait=waits.append)
    run_demo(app)
    log = tmp_path / DEMO_PROJECT / app.uid / "log.jsonl"
    return app, [json.loads(line) for line in log.read_text().splitlines()], waits


def test_demo_shows_a_branch_a_loop_a_retry_and_streams(tmp_path, quiet_burr):
    """The run has everything that the waterfall is meant to show, in this order."""
    app, records, _ = _run(tmp_path, "demo-1")
    assert app.uid == "demo-1"
    ends = [record for record in records if record["type"] == "end_entry"]
    assert [(end["action"], end["exception"] is None) for end in ends] == [
        ("receive_question", True),
        ("classify", True),
        ("search_docs", True),
        ("search_docs", True),
        ("write_answer", True),
        ("receive_question", True),
        ("classify", True),
        ("look_up_order", False),
        ("look_up_order", True),
        ("write_answer", True),
    ]
    kinds = {record["type"] for record in records}
    assert {"begin_span", "attribute", "first_item_stream", "end_stream"} <= kinds


def test_demo_is_the_same_each_time(tmp_path, quiet_burr):
    """Two runs differ in nothing but ids and times."""
    timeless = []
    for name in ("a", "b"):
        app, records, waits = _run(tmp_path / name)
        for record in records:
            for key in [key for key in record if "time" in key]:
                del record[key]
        timeless.append((app.state["answer"], records, waits))
    assert timeless[0] == timeless[1]


def test_demo_takes_a_second_or_so(tmp_path, quiet_burr):
    """What it waits for in all is long enough to be seen and short enough to be liked."""
    _, _, waits = _run(tmp_path)
    assert 0.5 < sum(waits) < 2.0


def test_demo_runs_have_ids_of_their_own(tmp_path, quiet_burr):
    """A second demo must not continue the first."""
    first, _, _ = _run(tmp_path)
    second, _, _ = _run(tmp_path)
    assert first.uid != second.uid
