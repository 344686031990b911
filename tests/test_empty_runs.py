"""`empty_runs="drop"`: an application that is only built leaves nothing; one that runs loses nothing."""

import gc
import os

import apps
import parallel_apps
import pytest
from opentelemetry import trace
from programs import in_child

from burr_otel import OtelTracker, RunLockedError
from burr_otel.live.registry import registry
from burr_otel.spans import keeper


@pytest.fixture
def make(spans, clock, tmp_path):
    """Makes trackers that drop empty runs."""

    def tracker(**settings):
        return OtelTracker(
            "proj",
            tmp_path,
            tracer_provider=spans.provider,
            clock=clock,
            empty_runs="drop",
            **settings,
        )

    return tracker


def root(spans):
    return spans.named("invoke_workflow proj")


def records(tracker, app_id="a1"):
    return list(tracker._store.read(app_id).records())


def test_an_application_that_is_only_built_leaves_neither_span_nor_folder(make, spans, tmp_path):
    """Nor when the tracker is closed, the application collected, or Burr asked where it is."""
    tracker = make()
    gc.collect()
    keeper.keeper.sweep()
    before = len(registry)
    app = apps.counter(tracker)
    assert app.state["count"] == 0
    assert tracker.trace_url("a1") is None
    tracker.close()
    assert tracker.list_app_ids(None) == []
    assert not (tmp_path / "proj").exists()
    del app
    gc.collect()
    keeper.keeper.sweep()
    assert len(registry) == before
    assert spans.spans == []


def test_looking_at_a_run_adds_nothing_to_it(make, spans):
    """A server that builds an application to read its state makes no session of it."""
    tracker = make()
    with tracker:
        apps.counter(tracker).run(halt_after=["finish"])
    spans.clear()
    written = records(tracker)
    url = tracker.trace_url("a1")
    with tracker:
        looked = apps.resumed(tracker)
        assert looked.state["answer"] == 30
        assert tracker.trace_url("a1") == url
    assert spans.spans == []
    assert records(tracker) == written


def test_the_first_step_brings_all_that_the_build_would_have_brought(make, spans, clock):
    """Span, records and metadata are those of an application whose run is kept from the start."""
    app = apps.counter(make())
    clock.advance(60)
    app.run(halt_after=["finish"])
    kept = OtelTracker("proj", make().raw_storage_dir, tracer_provider=spans.provider, clock=clock)
    apps.counter(kept, "a2").run(halt_after=["finish"])
    make().close()
    dropped, whole = records(kept, "a1"), records(kept, "a2")
    assert [r["type"] for r in dropped] == [r["type"] for r in whole]
    assert dropped[0]["graph"] == whole[0]["graph"]
    keeper.keeper.finish_all()
    first, second = (s for s in spans.spans if s.name.startswith("invoke"))
    assert set(first.attributes) == set(second.attributes)
    assert first.attributes["burr.steps"] == 4
    # The minute before its first call is not the run's.
    assert first.end_time - first.start_time < 60e9


def test_the_application_span_is_the_child_of_where_it_was_built(make, spans):
    """What is current at the first step is linked to, as ever."""
    tracer = trace.get_tracer("test", tracer_provider=spans.provider)
    with tracer.start_as_current_span("request"):
        app = apps.counter(make())
    with tracer.start_as_current_span("later"):
        app.step()
        assert trace.get_current_span().name == "later"
    keeper.keeper.finish_all()
    assert root(spans).parent.span_id == spans.named("request").context.span_id
    (link,) = spans.named("count").links
    assert link.context.span_id == spans.named("later").context.span_id


def test_a_resume_links_to_what_it_was_built_from_and_a_fork_keeps_its_state(make, spans, tmp_path):
    """Also when they are restarted after their first step failed."""
    tracker = make()
    with tracker:
        apps.counter(tracker).step()
    first = root(spans)
    spans.clear()
    resumed = apps.resumed(tracker)
    forked = (
        apps.builder(tracker, "f1", count=apps.boom)
        .initialize_from(
            tracker,
            resume_at_next_action=False,
            default_state={},
            default_entrypoint="count",
            fork_from_app_id="a1",
        )
        .build()
    )
    assert not (tmp_path / "proj" / "f1").exists()
    resumed.step()
    with pytest.raises(ValueError, match="kaputt"):
        forked.step()
    tracker.close()
    roots = {s.attributes["burr.app_id"]: s for s in spans.spans if s.name.startswith("invoke")}
    assert roots["a1"].links[0].context.trace_id == first.context.trace_id
    assert roots["f1"].links[0].attributes["burr.link.type"] == "fork"
    assert tracker.load(None, "f1")["state"]["count"] == 1
    assert (tmp_path / "proj" / "a1" / "children.jsonl").read_text().count("f1") == 1


def test_a_call_that_fails_before_its_first_step_is_a_run(make, spans):
    """A failure is worth its trace."""
    tracker = make()
    app = apps.counter(tracker)
    with pytest.raises(ValueError, match="nowhere"):
        app.run(halt_after=["nowhere"])
    tracker.close()
    assert root(spans).attributes["burr.outcome"] == "error"


def test_an_exclusive_run_is_claimed_by_its_first_call(make, spans):
    """Looking at it claims nothing; whoever runs it second is refused, and may try again."""
    tracker = make(exclusive=True)
    first, second = apps.counter(tracker), apps.counter(tracker)
    first.step()
    with pytest.raises(RunLockedError, match="a1"):
        second.step()
    tracker.close()
    second.step()
    tracker.close()
    ends = [r for r in records(tracker) if r["type"] == "end_entry"]
    assert len(ends) == 2


def test_a_folder_that_cannot_be_made_is_told_at_the_first_call(make, tmp_path):
    """And nothing has been run by then."""
    tracker = make()
    app = apps.counter(tracker)
    (tmp_path / "proj").write_text("in the way")
    with pytest.raises(Exception, match="a1") as raised:
        app.step()
    assert type(raised.value).__name__ == "SnapshotError"
    assert app.state["count"] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_may_run_what_its_parent_has_only_built(make):
    """Its run is its own."""
    app = apps.counter(make())
    assert in_child(app.step) == 0
    assert make().load(None, "a1")["state"]["count"] == 1


def test_parallel_children_run_at_once(make, spans):
    """Sub-applications are as ever: they are built by the step that runs them."""
    with make() as tracker:
        parallel_apps.parallel(tracker, parallel_apps.Doubles()).run(halt_after=["map"])
    assert len([s for s in spans.spans if s.name.startswith("invoke")]) > 1


def test_the_setting_has_a_variable(monkeypatch, spans, clock, tmp_path):
    """A deployment can set it."""
    monkeypatch.setenv("BURR_OTEL_EMPTY_RUNS", "drop")
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider, clock=clock)
    assert tracker.config.empty_runs == "drop"
