"""Burr's own client and ours read and continue each other's runs."""

import importlib.resources
import json
import shutil
from pathlib import Path

import apps
import pytest
from burr.core import State
from burr.tracking import LocalTrackingClient
from store_support import folder_of, log_records, read_by_burr

from burr_otel import OtelTracker
from burr_otel.store import Store

# Burr's client leaves its files open.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
DEMO_DATA = Path(str(importlib.resources.files("burr.tracking.server") / "demo_data"))
RECORDED = sorted(
    (log.parent.parent.name, log.parent.name) for log in DEMO_DATA.glob("*/*/log.jsonl")
)


@pytest.fixture
def client(tmp_path):
    return LocalTrackingClient("proj", str(tmp_path))


def comparable(loaded):
    """What two loaders must agree on; the file's time differs by the run's own writes."""
    return {**loaded, "created_at": None, "state": loaded["state"].get_all()}


def test_the_wheel_has_recorded_runs():
    """Else the next test would test nothing."""
    assert len(RECORDED) > 15


@pytest.mark.parametrize(("project", "app_id"), RECORDED, ids=map("/".join, RECORDED))
def test_recorded_runs_load_as_with_burrs_client(tmp_path, project, app_id):
    """Every step of every run that ships with Burr, and the latest; nothing is changed by it."""
    shutil.copytree(DEMO_DATA / project / app_id, tmp_path / project / app_id)
    burr = LocalTrackingClient(project, str(tmp_path))
    ours = OtelTracker(project, tmp_path)
    log = tmp_path / project / app_id / "log.jsonl"
    before = log.read_bytes()
    partition_key = Store(project, tmp_path).read(app_id).partition_key
    steps = [r["sequence_id"] for r in log_records(log) if r["type"] == "end_entry"]
    for sequence_id in [None, *steps]:
        assert comparable(ours.load(partition_key, app_id, sequence_id)) == comparable(
            burr.load(partition_key, app_id, sequence_id)
        )
    expected = LocalTrackingClient.load_state(project, app_id, storage_dir=str(tmp_path))
    assert OtelTracker.load_state(project, app_id, storage_dir=tmp_path) == expected
    assert OtelTracker.app_log_exists(project, app_id, tmp_path)
    assert ours.list_app_ids(partition_key) == [app_id]
    assert log.read_bytes() == before


def test_a_run_of_burrs_client_is_continued_by_ours_and_the_other_way_round(
    tracker, client, tmp_path
):
    """Resumed from one log by both in turn, to the same result as in one go."""
    apps.counter(client, upto=6).step()
    apps.resumed(tracker, upto=6).step()
    assert apps.resumed(client, upto=6).step()[2]["count"] == 3
    assert apps.resumed(tracker, upto=6).step()[2]["count"] == 4
    final = apps.resumed(client, upto=6).run(halt_after=["finish"])[2]
    assert final["answer"] == 60
    assert tracker.load(None, "a1")["state"]["answer"] == 60
    ends = [
        r for r in log_records(tmp_path / "proj" / "a1" / "log.jsonl") if r["type"] == "end_entry"
    ]
    assert [record["sequence_id"] for record in ends] == list(range(7))
    assert comparable(tracker.load(None, "a1", 2)) == comparable(client.load(None, "a1", 2))
    read_by_burr(Store("proj", tmp_path), "a1")


def test_a_fork_of_burrs_run_is_ours_and_the_other_way_round(tracker, client):
    """Each takes the other's as its source."""
    apps.counter(client, "theirs", upto=6).run(halt_after=["finish"])
    apps.counter(tracker, "ours", upto=6).run(halt_after=["finish"])
    ours = apps.resumed(
        tracker, "fork1", upto=6, fork_from_app_id="theirs", fork_from_sequence_id=2
    )
    assert ours.state["count"] == 3
    assert ours.run(halt_after=["finish"])[2]["answer"] == 60
    theirs = apps.resumed(client, "fork2", upto=6, fork_from_app_id="ours", fork_from_sequence_id=2)
    assert theirs.state["count"] == 3
    assert theirs.run(halt_after=["finish"])[2]["answer"] == 60


def test_the_two_write_the_same_small_files(tracker, client, tmp_path):
    """Byte for byte in meaning: graph, metadata and children."""
    apps.counter(client, "theirs").run(halt_after=["finish"])
    apps.counter(tracker, "ours").run(halt_after=["finish"])
    apps.resumed(client, "f1", fork_from_app_id="theirs", fork_from_sequence_id=1)
    apps.resumed(tracker, "f2", fork_from_app_id="ours", fork_from_sequence_id=1)
    store = Store("proj", tmp_path)
    theirs, ours = store.read("theirs"), store.read("ours")
    own = ours.graph.pop("otel")  # which the Burr UI ignores
    assert set(own["actions"]) == {"count", "finish"}
    assert _sorted_inputs(theirs.graph) == _sorted_inputs(ours.graph)
    [child_of_theirs], [child_of_ours] = theirs.children, ours.children
    assert child_of_theirs.keys() == child_of_ours.keys()
    assert child_of_theirs["child"].keys() == child_of_ours["child"].keys()
    assert child_of_theirs["event_type"] == child_of_ours["event_type"] == "fork"
    metadata = {
        name: json.loads((folder_of(store, name) / "metadata.json").read_text())
        for name in ("theirs", "ours")
    }
    own = metadata["ours"].pop("otel")
    assert own.keys() == {"app_id", "crc"}
    assert own["app_id"] == "ours"
    assert metadata["theirs"] == metadata["ours"]
    fields = {
        name: {r["type"]: set(r) - {"otel"} for r in store.read(name).records()}
        for name in ("theirs", "ours")
    }
    for kind, keys in fields["theirs"].items():
        assert fields["ours"][kind] == keys


def _sorted_inputs(graph):
    for each in graph["actions"]:
        each["inputs"].sort()
    return graph


def test_burrs_client_leaves_out_what_only_ours_can_carry(tracker, client):
    """It reads a stand-in where we read the value."""
    app = apps.single(tracker, apps.count, state={"count": 0, "x": float("inf"), "__mine": 1})
    app.step()
    ours, theirs = tracker.load(None, "a1")["state"], client.load(None, "a1")["state"]
    assert ours == State({"count": 1, "x": float("inf"), "__mine": 1, "__SEQUENCE_ID": 0})
    assert theirs == State({"count": 1, "x": None, "__SEQUENCE_ID": 0})
