"""What people's own programs do with a tracker: other adapters, failures of all kinds, names."""

import json
import random

import apps
import pytest
from burr.core import expr
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context

from burr_otel import OtelTracker, RunInUseError, UnknownRunError, mark_failed


@pytest.mark.parametrize("how", ["use_otel_tracing", "bridge"])
def test_another_opentelemetry_adapter_of_burr_is_told_of(tracker, spans, caplog, how):
    """Every step would be there twice: the wrapper is left out, a bridge is named in a warning."""
    from burr.integrations.opentelemetry import OpenTelemetryBridge

    from burr_otel.live import burr_patches

    burr_patches._warn_once.cache_clear()
    builder = apps.builder(None, "a1", step=apps.count).with_state(count=0).with_entrypoint("step")
    if how == "bridge":
        bridge = OpenTelemetryBridge(tracer=spans.provider.get_tracer("bridge"))
        app = builder.with_hooks(bridge).with_tracker(tracker).build()
    else:
        app = builder.with_tracker(tracker, use_otel_tracing=True).build()
    app.step()
    tracker.close()
    ours = [s.name for s in spans.spans if s.instrumentation_scope.name == "burr_otel"]
    assert ours == ["invoke_workflow proj", "step"]
    [said] = [r.getMessage() for r in caplog.records if "twice" in r.getMessage()]
    assert said.startswith("use_otel_tracing=True" if how != "bridge" else "OpenTelemetryBridge()")
    assert not trace.get_current_span().get_span_context().is_valid


def test_a_tracker_passes_for_burrs_own_client(tracker):
    """Programs that ask for `LocalTrackingClient` and its constants take ours."""
    from burr.tracking import LocalTrackingClient

    assert isinstance(tracker, LocalTrackingClient)
    assert issubclass(OtelTracker, LocalTrackingClient)
    names = [name for name in vars(LocalTrackingClient) if name.isupper()]
    assert "LOG_FILENAME" in names
    assert {n: getattr(OtelTracker, n) for n in names} == {
        n: getattr(LocalTrackingClient, n) for n in names
    }


def test_partition_keys_are_listed_and_runs_deleted(tracker):
    """One app id under two partition keys is two runs; a deleted one is gone, the other stays."""
    for key in ("u1", "u2", None):
        apps.counter(tracker, "a1", partition_key=key, upto=1).step()
    tracker.close()
    assert sorted(tracker.list_partition_keys(), key=str) == [None, "u1", "u2"]
    tracker.delete("a1", "u2")
    assert tracker.load("u2", "a1") is None
    assert tracker.load("u1", "a1")["sequence_id"] == tracker.load("", "a1")["sequence_id"] == 0
    with pytest.raises(UnknownRunError):
        tracker.delete("a1", "u2")


def test_a_live_run_is_not_deleted(tracker):
    """Its process would go on writing into nothing."""
    apps.counter(tracker).step()
    with pytest.raises(RunInUseError, match="is in use"):
        tracker.delete("a1")


def test_what_fails_between_steps_fails_the_application(tracker, spans):
    """A condition that raises belongs to no step; the application ended with it."""
    app = (
        apps.builder(tracker, "a1", count=apps.count)
        .with_transitions(("count", "count", expr("missing > 1")))
        .with_state(count=0)
        .with_entrypoint("count")
        .build()
    )
    with pytest.raises(Exception, match="missing"):
        app.run(halt_after=[], halt_before=["count"])
        app.run(halt_after=["nothing"])
    tracker.close()
    root = spans.named("invoke_workflow proj")
    assert root.attributes["burr.outcome"] == "error"
    assert "missing" in root.status.description
    assert root.attributes["error.type"]


def test_bound_arguments_stand_beside_the_callers(tracker, spans):
    """Two actions of one function differ only there."""

    @apps.action(reads=["count"], writes=["count"])
    def add(state, by, times=1):
        return state.update(count=state["count"] + by * times)

    apps.single(tracker, add.bind(by=2)).step(inputs={"times": 3})
    assert json.loads(spans.named("step").attributes["burr.inputs"]) == {"by": 2, "times": 3}


class WaitForHumanError(Exception):
    """Raised to pause a run."""


@pytest.mark.parametrize(
    "expected", [WaitForHumanError, "WaitForHumanError", f"{__name__}.WaitForHumanError"]
)
def test_an_expected_exception_is_no_error(spans, clock, tmp_path, expected):
    """It steers the run: the event stays, nothing is red, and a resume runs the step again."""

    @apps.action(reads=["count"], writes=["count"])
    def ask(state):
        raise WaitForHumanError("please approve")

    with (
        OtelTracker(
            "proj",
            tmp_path,
            tracer_provider=spans.provider,
            clock=clock,
            expected_exceptions=(expected,),
        ) as tracker,
        pytest.raises(WaitForHumanError),
    ):
        apps.single(tracker, ask).step()
    span = spans.named("step")
    assert span.attributes["burr.outcome"] == "ok"
    assert span.status.is_unset
    assert [e.attributes["exception.message"] for e in span.events] == ["please approve"]
    assert spans.named("invoke_workflow proj").attributes["burr.outcome"] == "ok"
    assert tracker.load(None, "a1")["status"] == "failed"


@pytest.mark.parametrize("how", ["setting", "mark"])
def test_a_failure_that_raises_nothing_is_a_failure(spans, clock, tmp_path, how):
    """`failed=` and `mark_failed` give the outcome, the status and the reason, on step and root."""

    @apps.action(reads=["count"], writes=["status"])
    def act(state):
        if how == "mark":
            mark_failed("the model refused")
        return state.update(status="failed")

    def failed(action, result, state):
        return "the model refused" if state["status"] == "failed" else None

    settings = {"failed": failed} if how == "setting" else {}
    with OtelTracker(
        "proj", tmp_path, tracer_provider=spans.provider, clock=clock, **settings
    ) as tracker:
        apps.single(tracker, act).step()
    for name in ("step", "invoke_workflow proj"):
        span = spans.named(name)
        assert span.attributes["burr.outcome"] == "failed"
        assert span.status.description == "the model refused"
    assert tracker.load(None, "a1")["state"]["status"] == "failed"


def test_what_a_failed_step_read_is_on_its_span(tracker, spans):
    """The values of the keys that its action reads, before the step."""

    @apps.action(reads=["count"], writes=["count"])
    def boom(state):
        raise ValueError("no")

    with pytest.raises(ValueError):
        apps.single(tracker, boom).step()
    assert json.loads(spans.named("step").attributes["burr.state.read"]) == {"count": 0}


def test_ids_do_not_repeat_in_a_seeded_program(spans, tmp_path):
    """`random.seed` at the top of a script gives every run ids of its own all the same."""
    for number in range(2):
        random.seed(42)
        with OtelTracker("proj", tmp_path, tracer_provider=spans.provider) as tracker:
            apps.counter(tracker, f"a{number}").step()
    ids = [s.context.span_id for s in spans.spans]
    assert len(set(ids)) == 4
    assert len({s.context.trace_id for s in spans.spans}) == 2


def test_the_storage_directory_of_the_environment_is_the_trackers_too(monkeypatch, tmp_path):
    """Tracker and commands look in the same place; an argument wins."""
    monkeypatch.setenv("BURR_OTEL_STORAGE_DIR", str(tmp_path / "env"))
    assert OtelTracker("proj").storage_dir == str(tmp_path / "env" / "proj")
    assert OtelTracker("proj", tmp_path).storage_dir == str(tmp_path / "proj")


def test_wanted_baggage_is_on_every_span(spans, clock, tmp_path):
    """On the application span as built, on steps, and on spans inside; nothing else is taken."""
    tracker = OtelTracker(
        "proj", tmp_path, tracer_provider=spans.provider, clock=clock, baggage_keys=("tenant",)
    )
    context = baggage.set_baggage("tenant", "acme", baggage.set_baggage("other", "x"))
    token = otel_context.attach(context)
    try:
        apps.single(tracker, apps.traced).step()
    finally:
        otel_context.detach(token)
    tracker.close()
    told = {span.name: span.attributes.get("tenant") for span in spans.spans}
    assert told.pop("helper") == "acme"
    assert set(told.values()) == {"acme"}
    assert not any("other" in span.attributes for span in spans.spans)


def test_to_recover_an_unknown_run_is_an_error(tracker):
    """It is named."""
    with pytest.raises(UnknownRunError, match="missing"):
        tracker.recover("missing")
