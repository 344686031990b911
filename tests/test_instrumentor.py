"""`BurrInstrumentor`: applications of an unchanged program are traced, once each."""

import inspect
import logging
import sys
from importlib.metadata import entry_points
from pathlib import Path

import apps
import pytest
from burr.core.application import Application
from burr.lifecycle import PostRunStepHook
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from otlp_receiver import receiving
from parallel_apps import Doubles, parallel
from programs import run_program
from trees import in_name_order

from burr_otel import ConfigError, OtelConfig, OtelTracker
from burr_otel.instrumentor import BurrInstrumentor

COUNTER = """
invoke_workflow shop
  count
  count
  count
  finish
"""


@pytest.fixture
def instrument(spans, monkeypatch, tmp_path):
    """Instruments this process for one test; runs, if any, are kept below the test's folder."""
    monkeypatch.setenv("HOME", str(tmp_path))

    def start(**arguments):
        given = {"project": "shop", "tracer_provider": spans.provider, **arguments}
        BurrInstrumentor().instrument(**given)

    yield start
    if BurrInstrumentor().is_instrumented_by_opentelemetry:
        BurrInstrumentor().uninstrument()


def test_every_application_is_traced_and_nothing_stored(instrument, spans, tmp_path):
    """No tracker in the program, a trace all the same; no file unless asked for."""
    instrument()
    _, _, state = apps.counter(None).run(halt_after=["finish"])
    BurrInstrumentor().uninstrument()
    assert state["answer"] == 30
    assert spans.tree() == COUNTER
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("asked", ["argument", "variable", "config"])
def test_a_store_on_request(instrument, monkeypatch, tmp_path, asked):
    """`snapshots="full"` as an argument, a variable or in a config keeps the runs."""
    arguments = {"argument": {"snapshots": "full"}, "config": {"config": OtelConfig()}}
    if asked == "variable":
        monkeypatch.setenv("BURR_OTEL_SNAPSHOTS", "full")
    instrument(**arguments.get(asked, {}))
    apps.counter(None).run(halt_after=["finish"])
    BurrInstrumentor().uninstrument()
    assert OtelTracker("shop", tmp_path / ".burr").load(None, "a1")["state"]["answer"] == 30


def test_an_application_with_a_tracker_of_its_own_is_traced_once(instrument, tracker, spans):
    """Its own `OtelTracker` does it, under its own project."""
    instrument()
    apps.counter(tracker).run(halt_after=["finish"])
    tracker.close()
    BurrInstrumentor().uninstrument()
    assert spans.tree() == COUNTER.replace("shop", "proj")


def test_other_hooks_of_the_application_stay(instrument, spans):
    """The program's own adapters are called as before."""
    called = []

    class Hook(PostRunStepHook):
        def post_run_step(self, **arguments):
            called.append(arguments["action"].name)

    instrument()
    app = (
        apps.builder(None, "a1", step=apps.count)
        .with_hooks(Hook())
        .with_state(count=0)
        .with_entrypoint("step")
        .build()
    )
    app.step()
    BurrInstrumentor().uninstrument()
    assert called == ["step"]
    assert [span.name for span in spans.spans] == ["invoke_workflow shop", "step"]


def test_sub_applications_are_in_the_trace(instrument, spans):
    """Burr cascades no tracker where there is none: each child gets ours, under its step."""
    instrument()
    parallel(None, Doubles()).run(halt_after=["map"])
    BurrInstrumentor().uninstrument()
    assert (
        in_name_order(spans.tree())
        == """
invoke_workflow shop
  map
    invoke_workflow shop
      double
    invoke_workflow shop
      double
"""
    )


def test_uninstrument_puts_everything_back(instrument, spans):
    """Afterwards Burr is what it was, and what was open has ended."""
    before = Application.__init__
    instrument()
    assert Application.__init__ is not before
    assert inspect.signature(Application.__init__) == inspect.signature(before)
    apps.counter(None).step()
    BurrInstrumentor().uninstrument()
    assert Application.__init__ is before
    assert [span.name for span in spans.spans] == ["invoke_workflow shop", "count"]
    spans.clear()
    apps.counter(None).run(halt_after=["finish"])
    assert spans.spans == []


def test_it_can_be_switched_on_again(instrument, spans):
    """On, off, on: one trace an application, not two."""
    instrument()
    BurrInstrumentor().uninstrument()
    instrument()
    apps.counter(None).run(halt_after=["finish"])
    BurrInstrumentor().uninstrument()
    assert spans.tree() == COUNTER


def test_wrapped_by_another_it_leaves_the_others_wrapper_alone(instrument, spans, monkeypatch):
    """Somebody who wrapped Burr later keeps their wrapper; ours below it does nothing."""
    instrument()
    ours, theirs = Application.__init__, []

    def wrapper(self, *args, **kwargs):
        theirs.append(1)
        ours(self, *args, **kwargs)

    monkeypatch.setattr(Application, "__init__", wrapper)
    BurrInstrumentor().uninstrument()
    apps.counter(None).run(halt_after=["finish"])
    assert theirs == [1]
    assert spans.spans == []
    instrument()
    apps.counter(None).run(halt_after=["finish"])
    monkeypatch.undo()
    BurrInstrumentor().uninstrument()
    assert len(spans.spans) == 5


def test_an_app_id_that_no_folder_can_have_is_traced_without_a_store(instrument, spans):
    """Where nothing is stored, any app id will do: an unchanged program must not fail."""
    instrument()
    apps.counter(None, app_id="tenant/42").step()
    BurrInstrumentor().uninstrument()
    assert {span.attributes["burr.app_id"] for span in spans.spans} == {"tenant/42"}


@pytest.mark.parametrize(
    ("service", "project"),
    [
        ("shop", "shop"),
        ("shop.checkout/eu west", "shop-checkout-eu-west"),
        ("unknown_service:python", "burr"),
        ("…", "burr"),
        ("x" * 300, "x" * 255),
    ],
)
def test_the_project_is_the_services_name(instrument, spans, service, project):
    """The provider knows the service's name; what a project may not hold is replaced."""
    provider = TracerProvider(resource=Resource({"service.name": service}))
    provider._active_span_processor = spans.provider._active_span_processor
    instrument(project=None, tracer_provider=provider)
    apps.counter(None).step()
    BurrInstrumentor().uninstrument()
    assert spans.spans[0].name == f"invoke_workflow {project}"


def test_a_wrong_setting_is_refused_at_once(instrument):
    """An argument that `OtelTracker` does not know raises when instrumenting."""
    with pytest.raises(ConfigError, match="step_parent"):
        instrument(step_parents="ambient")
    assert "burr_otel" not in vars(Application.__init__)


def test_instrumenting_twice_warns(instrument, spans, caplog):
    """OpenTelemetry's own guard; one trace an application."""
    instrument()
    with caplog.at_level(logging.WARNING):
        instrument()
    assert "already instrumented" in caplog.text
    apps.counter(None).run(halt_after=["finish"])
    BurrInstrumentor().uninstrument()
    assert spans.tree() == COUNTER


def test_the_entry_point_is_installed():
    """`opentelemetry-instrument` looks for instrumentors by entry point."""
    (found,) = entry_points(group="opentelemetry_instrumentor", name="burr")
    assert found.load() is BurrInstrumentor


UNCHANGED = """
import apps
_, _, state = apps.counter(None, app_id="unchanged").run(halt_after=["finish"])
print("answer", state["answer"])
"""


def test_opentelemetry_instrument_traces_an_unchanged_program(tmp_path):
    """The real command line, with everything in variables; the program ends at once."""
    command = Path(sys.executable).with_name("opentelemetry-instrument")
    with receiving() as receiver:
        done = run_program(
            UNCHANGED,
            tmp_path,
            command=[command],
            **receiver.environ,
            OTEL_SERVICE_NAME="shop.eu",
            # That of logging starts a thread at exit, which Python 3.12 refuses with a traceback.
            OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="logging",
        )
        assert "answer 30" in done.stdout
        assert done.stderr == ""
        assert receiver.tree() == COUNTER.replace("shop", "shop-eu")
        assert {s.resource.attributes["service.name"] for s in receiver.spans} == {"shop.eu"}
    assert [path.name for path in tmp_path.iterdir()] == ["program.py"]
