"""Runs by what a person has at hand: an app id, the beginning of one, a trace or a span."""

import json

import apps
import parallel_apps
import pytest
from cli_support import run
from opentelemetry import trace

from burr_otel import OtelTracker, UnknownRunError
from burr_otel.view.find import NoSingleRunError, Where


@pytest.fixture
def make(spans, clock, tmp_path):
    def tracker(**settings):
        made = {"tracer_provider": spans.provider, "clock": clock, **settings}
        return OtelTracker("proj", tmp_path, **made)

    return tracker


def ids(span):
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def found(tmp_path, name):
    run, _, sequence_id = Where(str(tmp_path)).find(name)
    return run.app_id, sequence_id


def test_a_trace_or_any_span_of_ours_leads_to_the_run(make, spans, tmp_path):
    """Upper case too; a step's span, and one inside it, to the step."""
    with make() as tracker:
        apps.single(tracker, apps.traced, "other").step()
        app = apps.single(tracker, apps.traced, "a1")
        app.step()
        app.step()
    for span in spans.spans:
        app_id, number = span.attributes["burr.app_id"], span.attributes.get("burr.sequence_id")
        trace_id, span_id = ids(span)
        assert found(tmp_path, trace_id) == (app_id, None)
        assert found(tmp_path, span_id.upper()) == (app_id, number)


def test_an_older_session_is_found_by_its_trace(make, spans, tmp_path):
    """And `open` gives that trace's address, not the newest one's."""
    for _ in range(2):
        with make() as tracker:
            apps.resumed(tracker, upto=9).step()
    first, second = (ids(span)[0] for span in spans.spans if span.name.startswith("invoke"))
    for trace_id in (first, second):
        assert found(tmp_path, trace_id) == ("a1", None)
        assert trace_id in run("open", trace_id, "--storage-dir", tmp_path).stdout
    assert second in run("open", "a1", "--storage-dir", tmp_path).stdout


def test_of_a_trace_of_branches_the_outermost_run_is_meant(make, spans, tmp_path):
    """A branch is found by its own spans."""
    with make() as tracker:
        parallel_apps.parallel(tracker, parallel_apps.Doubles()).run(halt_after=["map"])
    branch = next(span for span in spans.spans if span.name == "double")
    trace_id, span_id = ids(branch)
    assert found(tmp_path, trace_id) == ("a1", None)
    assert found(tmp_path, span_id) == (branch.attributes["burr.app_id"], 0)


def test_a_trace_of_two_runs_is_ambiguous(make, spans, tmp_path):
    """A request that ran two applications: the message names both."""
    tracer = trace.get_tracer("test", tracer_provider=spans.provider)
    with tracer.start_as_current_span("request"), make() as tracker:
        apps.counter(tracker, "a1").step()
        apps.counter(tracker, "a2").step()
    trace_id = ids(spans.named("request"))[0]
    with pytest.raises(NoSingleRunError, match="proj/a1, proj/a2"):
        Where(str(tmp_path)).find(trace_id)


def test_steps_in_a_requests_trace_are_found_by_it(make, spans, tmp_path):
    """Although the application span is in another one."""
    tracer = trace.get_tracer("test", tracer_provider=spans.provider)
    with make(step_parent="ambient") as tracker:
        app = apps.counter(tracker)
        with tracer.start_as_current_span("request"):
            app.step()
    assert found(tmp_path, ids(spans.named("request"))[0]) == ("a1", 0)


def test_an_app_id_that_looks_like_a_trace_is_an_app_id(make, spans, tmp_path):
    """As those of `uuid4().hex` do."""
    with make() as tracker:
        apps.counter(tracker, "f" * 32).step()
        apps.counter(tracker, ids(spans.spans[0])[1]).step()
    assert found(tmp_path, "f" * 32) == ("f" * 32, None)
    assert found(tmp_path, ids(spans.spans[0])[1])[1] is None


def test_an_unknown_trace_or_span_is_an_unknown_run(make, tmp_path):
    """With the exit code of one."""
    with make() as tracker:
        apps.counter(tracker).step()
    for name in ("0" * 32, "0" * 16, "a" * 32, "b" * 16):
        with pytest.raises(UnknownRunError):
            Where(str(tmp_path)).find(name)
    assert run("show", "a" * 32, "--storage-dir", tmp_path).returncode == 3


def test_show_and_diff_take_them(make, spans, tmp_path):
    """A trace draws the run, a step's span shows the step, and `diff` compares."""
    with make() as tracker:
        apps.counter(tracker, "a1").run(halt_after=["finish"])
        apps.counter(tracker, "a2").run(halt_after=["finish"])
    step = next(span for span in spans.spans if span.name == "finish")
    trace_id, span_id = ids(step)
    drawn = run("show", trace_id, "--storage-dir", tmp_path).stdout
    assert "proj/a1" in drawn
    assert "invoke_workflow" in drawn
    assert run("show", span_id, "--storage-dir", tmp_path).stdout.startswith("step 3 finish")
    as_json = run("show", span_id, "--json", "--storage-dir", tmp_path).stdout
    assert json.loads(as_json)["step"]["span_id"] == span_id
    other = ids(spans.spans[-1])[0]
    assert run("diff", trace_id, other, "--storage-dir", tmp_path).returncode == 0


def test_of_many_ids_the_runs_are_listed_once(make, tmp_path, monkeypatch):
    """Listing 10,000 runs for each of 200 ids took a minute."""
    with make() as tracker:
        for app_id in ("a1", "b1", "b2"):
            apps.single(tracker, apps.traced, app_id).step()
    listings = []
    inner = Where.runs
    monkeypatch.setattr(Where, "runs", lambda where: listings.append(where) or inner(where))
    chosen = Where(str(tmp_path)).chosen(["a", "b2", "b1"])
    assert sorted(each.app_id for each in chosen) == ["a1", "b1", "b2"]
    assert len(listings) == 1
