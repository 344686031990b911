"""Which runs a list has."""

import json

import apps
import pytest

from burr_otel import OtelTracker
from burr_otel.content import ContentPolicy
from burr_otel.store import Store
from burr_otel.view.content import load
from burr_otel.view.find import Where


def listed(folder, partition_key=None, **filters):
    found = Where(str(folder), None, partition_key).newest(0, **filters)
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


@pytest.mark.parametrize("late", [False, True])
def test_an_earlier_session_that_ends_late_does_not_count(late, spans, tmp_path):
    """Its application span may end after that of the session that went on where it failed."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider)
    failed = apps.single(tracker, apps.boom)
    with pytest.raises(ValueError, match="kaputt"):
        failed.step()
    apps.counter(tracker).step()
    tracker.close()
    log = tmp_path / "proj" / "a1" / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    first = json.loads(lines[0])["otel"]["session"]
    lines[-2:] = sorted(lines[-2:], key=lambda line: (first.encode() in line) == late)
    log.write_bytes(b"".join(lines))
    [summary] = Where(str(tmp_path)).newest(0)
    store = Store("proj", tmp_path)
    tree = load(store.read("a1"), store, ContentPolicy())
    assert summary.status == tree.outcome == "ok"
    assert summary.trace_id == tree.sessions[-1].trace_id


def test_filters_find_what_the_whole_list_would_show(store):
    """By status, by partition, by both."""
    assert listed(store) == ["bad", "goes-on", "good"]
    assert listed(store, status="ok") == ["good"]
    assert listed(store, status="failed") == ["bad"]
    assert listed(store, status="running") == ["goes-on"]
    assert listed(store, status="crashed") == []
    assert listed(store, partition_key="ann") == ["goes-on", "good"]
    assert listed(store, partition_key="ann", status="ok") == ["good"]
    assert listed(store, partition_key="nobody") == []
