"""Which runs a list has."""

import apps
import pytest

from burr_otel import OtelTracker
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
