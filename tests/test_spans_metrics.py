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
    assert (point.explicit_bounds[0], point.explicit_bounds[-1]) == (256, 64 * 1024**2)


def test_no_series_names_an_application(measured):
    """Cardinality is bounded: a hundred applications make the series of one."""
    tracker, read = measured
    for number in range(100):
        apps.counter(tracker, f"app-{number}", upto=1).run(halt_after=["finish"])
    for metric in read().values():
        assert len(metric.data.data_points) <= 6  # two actions, three outcomes
        for point in metric.data.data_points:
            assert not any("app-" in str(value) for value in point.attributes.values())


def test_the_first_error_of_an_action_is_a_rise_from_zero(measured):
    """Else a rate over a counter that begins at 1 shows nothing, and no alert fires."""
    tracker, read = measured
    seen = []

    @apps.action(reads=["count"], writes=["count"])
    def fail(state):
        seen.append(points(read()["burr.step.ended"]))
        raise ValueError("kaputt")

    with pytest.raises(ValueError):
        apps.single(tracker, fail).step()
    error = ("name", "step"), ("outcome", "error"), ("project", "proj")
    ok = ("name", "step"), ("outcome", "ok"), ("project", "proj")
    failed = ("name", "step"), ("outcome", "failed"), ("project", "proj")
    before = {ok: 0, error: 0, failed: 0}
    assert {key: point.value for key, point in seen[0].items()} == before
    after = read()["burr.step.ended"]
    assert {key: point.value for key, point in points(after).items()} == {**before, error: 1}
    assert after.data.is_monotonic
    assert [p.count for p in read()["burr.step.duration"].data.data_points] == [1]


def test_tokens_are_counted_by_direction(measured):
    """By project and action too, as the steps are."""
    tracker, read = measured
    metrics = tracker._shared().metrics
    labels = metrics.step_began("ask")
    metrics.usage(labels, 7, 3)
    metrics.usage(labels, 1, 0)
    found = points(read()["burr.usage.tokens"])
    assert {key: point.value for key, point in found.items()} == {
        (("name", "ask"), ("project", "proj"), ("type", "input")): 8,
        (("name", "ask"), ("project", "proj"), ("type", "output")): 3,
    }


@pytest.mark.parametrize("error_type", [None, "ValueError"])
def test_applications_are_timed_as_the_genai_conventions_ask(measured, error_type):
    """With the operation, the agent, and the error's class on failures."""
    tracker, read = measured
    outcome = "ok" if error_type is None else "error"
    tracker._shared().metrics.application_ended(outcome, error_type, 2.5)
    metric = read()["gen_ai.invoke_agent.duration"]
    (point,) = metric.data.data_points
    assert (metric.unit, point.count, point.sum) == ("s", 1, 2.5)
    expected = {
        "burr.project": "proj",
        "burr.outcome": outcome,
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.agent.name": "proj",
    }
    assert dict(point.attributes) == expected | ({"error.type": error_type} if error_type else {})
