"""Filters that pass over runs without reading them."""

import json
import shutil

import apps
import pytest
from cli_support import RECORDED

from burr_otel import OtelTracker
from burr_otel.view import listing
from burr_otel.view.find import Found
from burr_otel.view.listing import Filters, newest
from burr_otel.view.liveness import writer_lives
from burr_otel.view.summary import status_at_end, summarise


def listed(folder, **filters):
    found = newest(str(folder), None, 0, writer_lives(), Filters(**filters))
    return sorted(summary.app_id for summary in found)


@pytest.fixture
def store(spans, tmp_path):
    """Runs that are over, well and badly, and one that goes on."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider)
    apps.counter(tracker, app_id="good", partition_key="ann").run(halt_after=["finish"])
    with pytest.raises(ValueError, match="kaputt"):
        apps.single(tracker, apps.boom, app_id="bad", partition_key="ben").step()
    tracker.close()
    kept = apps.counter(tracker, app_id="goes-on", partition_key="ann")
    kept.step()
    yield tmp_path
    del kept


def test_filters_find_what_the_whole_list_would_show(store):
    """The short cuts give the same answer as reading each run."""
    assert listed(store) == ["bad", "goes-on", "good"]
    assert listed(store, status="ok") == ["good"]
    assert listed(store, status="failed") == ["bad"]
    assert listed(store, status="running") == ["goes-on"]
    assert listed(store, status="crashed") == []
    assert listed(store, partition_key="ann") == ["goes-on", "good"]
    assert listed(store, partition_key="ann", status="ok") == ["good"]
    assert listed(store, partition_key="nobody") == []


def test_of_a_run_that_is_over_and_does_not_fit_only_the_last_line_is_read(store, monkeypatch):
    """So a filter that matches nothing is answered quickly on 100,000 runs."""
    read = []

    def noted(run, alive):
        read.append(run.app_id)
        return summarise(run, alive)

    monkeypatch.setattr(listing, "summarise", noted)
    listed(store, status="crashed")
    assert read == ["goes-on"]


def test_the_last_line_tells_the_status_of_plain_burrs_runs_too():
    """Of those whose last step used no spans; where it did, the log ends with one of these."""
    told = []
    for log in RECORDED.glob("*/*/log.jsonl"):
        found = summarise(Found(log.parts[-3], log.parts[-2], log.parent), writer_lives())
        told.append(status_at_end(str(log.parent)))
        assert told[-1] in (None, found.status)
    assert told.count("ok") == 9
    assert told.count(None) == 12


def test_a_failed_last_step_of_plain_burr_is_told_by_its_line(tmp_path):
    """As its log writes it."""
    record = {
        "type": "end_entry",
        "end_time": "2024-01-01T00:00:00.500000",
        "action": "act",
        "result": None,
        "exception": "Traceback",
        "state": {},
        "sequence_id": 0,
    }
    (tmp_path / "log.jsonl").write_text(f"{json.dumps(record)}\n")
    assert status_at_end(str(tmp_path)) == "failed"


@pytest.mark.parametrize(
    "end",
    [
        "",
        "\n",
        '{"type":"otel_root_end","otel":{"outcome":"ok"}}',  # torn: no newline
        '{"type":"otel_root_end"\n',
        '{"type":"end_entry","otel":{"outcome":"ok"}}\n',  # of ours: its process may have died
        '{"type":"otel_root_end","otel":{"outcome":"ok"},"x":"' + "x" * 20_000 + '"}\n',
        '{"type":"begin_entry"}\n',
        '{"type":"end_entry","exception":null}\n',  # not a sound one
    ],
)
def test_what_the_last_line_does_not_settle_is_read_as_ever(tmp_path, end):
    """No guess."""
    (tmp_path / "log.jsonl").write_text(end)
    assert status_at_end(str(tmp_path)) is None
    shutil.rmtree(tmp_path)
    assert status_at_end(str(tmp_path)) is None
