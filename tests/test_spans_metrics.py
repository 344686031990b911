"""The instruments, read with the SDK's in-memory reader."""

import apps
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from burr_otel import OtelTracker


@pytest.fixture
def measured(spans, clock, tmp_path):
    """A tracker that measures, and a function that reads what it measured."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    tracker = OtelTracker(
        "proj",
        tmp_path,
        tracer_provider=spans.provider,
        meter_provider=provider,
        clock=clock,
    )

    def read():
        data = reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    yield tracker, read
    provider.shutdown()


def points(metric):
    return {
        tuple(sorted((k.rpartition(".")[2], v) for k, v in point.attributes.items())): point
        for point in metric.data.data_points
    }


def test_steps_are_timed_by_project_action_and_outcome(measured, clock):
    """`burr.step.duration` in seconds, one series an action and outcome."""
    tracker, read = measured

    @apps.action(reads=["count"], writes=["count"])
    def slow(state):
        clock.advance(2)
        return state.update(count=1)

    apps.single(tracker, slow).step()
    with pytest.raises(ValueError):
        apps.single(tracker, apps.boom, app_id="a2").step()
    duration = read()["burr.step.duration"]
    assert duration.unit == "s"
    found = points(duration)
    ok = found[("name", "step"), ("outcome", "ok"), ("project", "proj")]
    assert ok.count == 1
    assert 2 <= ok.sum < 2.001
    assert found[("name", "step"), ("outcome", "error"), ("project", "proj")].count == 1


def test_active_steps_go_up_and_down(measured):
    """`burr.step.active` is 1 inside a step and 0 after it, whatever its end."""
    tracker, read = measured
    seen = []

    @apps.action(reads=["count"], writes=["count"])
    def look(state):
        seen.extend(p.value for p in read()["burr.step.active"].data.data_points)
        raise ValueError("after a look")

    with pytest.raises(ValueError):
        apps.single(tracker, look).step()
    assert seen == [1]
    assert [p.value for p in read()["burr.step.active"].data.data_points] == [0]


def test_streams_measure_their_time_to_first_item(measured):
    """One measurement a stream."""
    tracker, read = measured
    _, container = apps.single(tracker, apps.stream).stream_result(halt_after=["step"])
    list(container)
    (point,) = read()["burr.stream.time_to_first_item"].data.data_points
    assert (point.count, dict(point.attributes)) == (
        1,
        {"burr.project": "proj", "burr.action.name": "step"},
    )


def test_snapshots_measure_their_size(measured, tmp_path):
    """`burr.snapshot.bytes` adds up to the end records of the log."""
    tracker, read = measured
    apps.counter(tracker).run(halt_after=["finish"])
    lines = (tmp_path / "proj" / "a1" / "log.jsonl").read_bytes().splitlines(keepends=True)
    ends = [len(line) for line in lines if line.startswith(b'{"type":"end_entry"')]
    (point,) = read()["burr.snapshot.bytes"].data.data_points
    assert (point.count, point.sum) == (4, sum(ends))
    assert read()["burr.snapshot.bytes"].unit == "By"


def test_no_series_names_an_application(measured):
    """Cardinality is bounded: a hundred applications make the series of one."""
    tracker, read = measured
    for number in range(100):
        apps.counter(tracker, f"app-{number}", upto=1).run(halt_after=["finish"])
    for metric in read().values():
        assert len(metric.data.data_points) <= 2
        for point in metric.data.data_points:
            assert not any("app-" in str(value) for value in point.attributes.values())
