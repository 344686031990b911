"""Views of runs that real trackers wrote."""

import contextlib
import gc
import json
import subprocess
import sys
import textwrap

import apps
import parallel_apps
import pytest
from burr.core import State, action
from burr.tracking import LocalTrackingClient
from opentelemetry import trace
from trees import run_tree

from burr_otel import OtelTracker
from burr_otel.content import ContentPolicy
from burr_otel.history.read import ChildRun, nest_spawned, read_run
from burr_otel.history.tree import LeftOut, SpanNode, writer_lives
from burr_otel.store import Store
from burr_otel.view.content import ShownContent
from burr_otel.view.diff import MISSING, Change
from burr_otel.view.find import summarise
from burr_otel.view.rows import began_text, rows, run_facts, session_axis


def view_run(run, *, details=True):
    return read_run(run, writer_lives()(run), ShownContent(run, ContentPolicy(), details=details))


def view_of(folder, app_id="a1", **options):
    store = Store("proj", folder)
    view = view_run(store.read(app_id), **options)
    nest_spawned(view, lambda child: view_run(store.read(child)))
    return view


def summary_of(folder, app_id="a1"):
    run = Store("proj", folder).read(app_id)
    found = summarise(run, writer_lives()(run))
    shown = {"error": "failed"}.get(outcome := view_run(run).outcome, outcome)
    assert found.status == shown  # `list` and `show` say the same
    return found


def tree(view):
    return [f"{'  ' * depth}{span.name} {span.outcome}" for span, depth in view.walk()]


def hexadecimal(context):
    return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)


def test_a_tracked_run_reads_as_it_was_traced(tracker, spans, tmp_path):
    """The view has the spans, ids, parents and times that were exported."""
    with tracker:
        apps.single(tracker, apps.traced).step()
    view = view_of(tmp_path)
    assert tree(view) == [
        "invoke_workflow proj ok",
        "  step ok",
        "    outer ok",
        "      inner ok",
        "        helper ok",
    ]
    exported = {hexadecimal(span.context): span for span in spans.spans}
    for span, _ in view.walk():
        live = exported.pop((span.trace_id, span.span_id))
        assert (live.name, live.start_time, live.end_time) == (
            span.name,
            span.start_ns,
            span.end_ns,
        )
    assert not exported
    step = view.steps[0]
    assert step.attributes == {"on_step": True}
    assert step.children[0].attributes == {"colour": "red", "parts": [1, 2], "nested": {"a": 1}}


def test_spawned_runs_are_drawn_in_their_step(tracker, tmp_path):
    """Sub-applications, at any depth, hang off the steps that ran them."""
    app = apps.builder(tracker, "a1", step=parallel_apps.recurse).with_state(count=2)
    app = app.with_entrypoint("step").with_transitions(("step", "step")).build()
    with tracker:
        app.step()
    view = view_of(tmp_path)
    assert tree(view) == [
        "invoke_workflow proj ok",
        "  step ok",
        "    invoke_workflow proj ok",
        "      step ok",
        "        invoke_workflow proj ok",
        "          step ok",
    ]
    assert [step.app_id for step in view.steps] == ["a1"]
    child = view_of(tmp_path, "a1-2")
    assert (
        child.run.spawning_parent_pointer.app_id,
        child.run.spawning_parent_pointer.sequence_id,
    ) == ("a1", 0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Burr's open files
def test_spawned_runs_of_plain_burr_are_drawn_too(tmp_path):
    """Logs without ids and sessions give the same picture."""
    tracker = LocalTrackingClient("proj", storage_dir=str(tmp_path))
    parallel_apps.parallel(tracker, parallel_apps.Doubles()).step()
    gc.collect()
    child = ["    invoke_workflow proj ok", "      double ok"]
    assert tree(view_of(tmp_path)) == ["invoke_workflow proj ok", "  map ok", *child, *child]


def test_of_very_many_spawned_runs_some_are_only_counted(tracker, tmp_path, monkeypatch):
    """Drawing them all would take as long as reading them; none is missing in silence."""
    monkeypatch.setattr("burr_otel.history.read._MOST_NESTED_RUNS", 1)
    app = apps.builder(tracker, "a1", step=parallel_apps.recurse).with_state(count=2)
    app = app.with_entrypoint("step").with_transitions(("step", "step")).build()
    with tracker:
        app.step()
    view = view_of(tmp_path)
    assert len(tree(view)) == 4
    assert view.skipped == ["spawned runs, 1 of them; show draws each by its own app id"]


def test_a_child_that_is_gone_is_left_out(tracker, tmp_path):
    """A deleted sub-application does not stop its parent from being shown."""
    with tracker:
        parallel_apps.parallel(tracker, parallel_apps.Doubles()).step()
    store = Store("proj", tmp_path)
    view = view_run(store.read("a1"))
    assert len(view.children) == 2
    nest_spawned(view, lambda child: None)
    assert tree(view) == ["invoke_workflow proj ok", "  map ok"]


def test_runs_that_spawn_each_other_end(tracker, tmp_path):
    """Pointers in a damaged store may form a circle."""
    with tracker:
        parallel_apps.parallel(tracker, parallel_apps.Doubles()).step()
    store = Store("proj", tmp_path)
    view = view_run(store.read("a1"))
    nest_spawned(view, lambda child: view_run(store.read("a1")))
    assert len(tree(view)) == 2 + 2 * 2


def test_forks_and_resumes_are_told(tracker, tmp_path):
    """A resumed run has two sessions; a fork names its parent, and the parent its fork."""
    with tracker:
        apps.counter(tracker, upto=9).run(halt_after=["count"])
        apps.resumed(tracker).run(halt_after=["finish"])
    fork = apps.resumed(tracker, "b1", fork_from_app_id="a1", fork_from_sequence_id=1)
    fork.run(halt_after=["finish"])
    tracker.close()
    view = view_of(tmp_path)
    assert [len(session.children) for session in view.sessions] == [1, 3]
    assert view.sessions[0].trace_id != view.sessions[1].trace_id
    assert [(child.app_id, child.kind, child.sequence_id) for child in view.children] == [
        ("b1", "fork", 1)
    ]
    forked = view_of(tmp_path, "b1")
    assert (forked.run.parent_pointer.app_id, forked.run.parent_pointer.sequence_id) == ("a1", 1)
    assert [step.sequence_id for step in forked.steps] == [2, 3]
    summary = summary_of(tmp_path, "b1")
    assert (summary.steps, summary.last_action, summary.status) == (2, "finish", "ok")
    assert summary.trace_id == forked.sessions[-1].trace_id


def test_details_of_a_step(tracker, tmp_path):
    """Inputs, result and what the action wrote, not the rest of the state."""

    @action(reads=[], writes=["sum"])
    def add(state: State, x: int) -> tuple[dict, State]:
        return {"sum": x + 1}, state.update(sum=x + 1)

    with tracker:
        apps.single(tracker, add, state={"other": 1}).step(inputs={"x": 4})
    assert view_of(tmp_path, details=True).steps[0].details == {
        "inputs": {"x": 4},
        "result": {"sum": 5},
        "state": {"sum": 5},
        "changes": [Change(("sum",), MISSING, 5)],
    }


def test_a_failed_run(tracker, tmp_path):
    """The exception's type and message stand apart from its traceback."""
    with tracker, pytest.raises(ValueError, match="kaputt"):
        apps.single(tracker, apps.boom).step()
    view = view_of(tmp_path)
    assert tree(view) == ["invoke_workflow proj error", "  step error"]
    failure = view.steps[0].failure
    assert (failure.type, failure.message) == ("ValueError", "kaputt")
    assert failure.traceback.startswith("Traceback")
    assert summary_of(tmp_path).status == "failed"


def test_an_open_session_of_this_process_is_running(tracker, tmp_path):
    """An application that lives and waits is neither done nor crashed."""
    app = apps.single(tracker, apps.count)
    app.step()
    assert tree(view_of(tmp_path)) == ["invoke_workflow proj running", "  step ok"]
    assert summary_of(tmp_path).status == "running"
    tracker.close()
    assert summary_of(tmp_path).status == "ok"


KILLED = """
    import os, sys
    from burr.core import ApplicationBuilder, State, action
    from burr_otel import OtelTracker

    @action(reads=[], writes=["n"])
    def step(state: State, __tracer) -> State:
        if state.get("n") == 3:
            with __tracer("deadly"):
                os._exit(9)
        return state.update(n=state.get("n", 0) + 1)

    app = (
        ApplicationBuilder().with_actions(step).with_transitions(("step", "step"))
        .with_entrypoint("step").with_identifiers(app_id="a1")
        .with_tracker(OtelTracker("proj", sys.argv[1])).build()
    )
    while True:
        app.step()
"""


def test_a_killed_process_leaves_a_crashed_run(tmp_path):
    """What it had begun and never ended is shown as crashed, in the list and in the waterfall."""
    program = textwrap.dedent(KILLED)
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=60, check=False)
    assert done.returncode == 9
    assert tree(view_of(tmp_path)) == [
        "invoke_workflow proj crashed",
        "  step ok",
        "  step ok",
        "  step ok",
        "  step crashed",
        "    deadly crashed",
    ]
    summary = summary_of(tmp_path)
    assert (summary.status, summary.steps, summary.last_action) == ("crashed", 4, "step")


def test_a_summary_of_a_last_step_larger_than_its_block(tracker, tmp_path):
    """A state of a megabyte in the last record does not hide it."""

    @action(reads=[], writes=["text"])
    def large(state: State) -> State:
        return state.update(text="x" * 1_000_000)

    with tracker:
        apps.single(tracker, large).step()
    summary = summary_of(tmp_path)
    assert (summary.status, summary.steps, summary.last_action) == ("ok", 1, "step")


def test_a_long_silent_session_finds_its_root(tracker, tmp_path):
    """The record that names the writer may be far from both ends of the log."""

    @action(reads=[], writes=["text"])
    def large(state: State) -> State:
        return state.update(text="x" * 100_000)

    app = apps.single(tracker, large)
    for _ in range(40):
        app.step()
    summary = summary_of(tmp_path)
    assert (summary.status, summary.steps) == ("running", 40)


def test_steps_after_the_session_has_ended_by_idling(tracker, tmp_path):
    """An application span that ended while its application goes on does not make steps crashed."""
    app = apps.single(tracker, apps.count)
    app.step()
    tracker.close()
    app.step()
    assert tree(view_of(tmp_path)) == ["invoke_workflow proj ok", "  step ok", "  step ok"]
    assert view_of(tmp_path).outcome == "ok"
    summary = summary_of(tmp_path)
    assert (summary.status, summary.steps) == ("ok", 2)


def test_a_step_that_fails_after_its_session_has_ended(tracker, tmp_path):
    """The last step speaks for the run then."""

    @action(reads=["count"], writes=["count"])
    def second_fails(state: State) -> State:
        if state["count"]:
            raise ValueError("late")
        return state.update(count=1)

    app = apps.single(tracker, second_fails)
    app.step()
    tracker.close()
    with pytest.raises(ValueError, match="late"):
        app.step()
    assert view_of(tmp_path).outcome == "error"
    assert summary_of(tmp_path).status == "failed"


def test_a_damaged_line_of_burrs_own_log_is_named_once(tmp_path):
    """Although such a log is looked through for its time zone too."""
    step = {"action": "x", "sequence_id": 0}
    begin = {"type": "begin_entry", "start_time": "2024-01-01T00:00:00", "inputs": {}, **step}
    end = {"type": "end_entry", "end_time": "2024-01-01T00:00:01", "state": {}, **step}
    end |= {"result": {}, "exception": None}
    (tmp_path / "proj" / "a1").mkdir(parents=True)
    text = f"{json.dumps(begin)}\ngarbage\n{json.dumps(end)}\n"
    (tmp_path / "proj" / "a1" / "log.jsonl").write_text(text)
    [skipped] = view_of(tmp_path).skipped
    assert skipped.startswith("8 bytes")


# --- both ends of a long log ----------------------------------------------------------------------


def counted(tracker, steps, failing=()):
    """A run of so many steps, some of which fail."""

    @action(reads=["count"], writes=["count"])
    def step(state: State) -> State:
        if state["count"] in failing:
            raise ValueError(f"step {state['count']}")
        return state.update(count=state["count"] + 1)

    app = apps.single(tracker, step, state={"count": 0})
    for _ in range(steps):
        before = app.state["count"]
        with contextlib.suppress(ValueError):
            app.step()
        if app.state["count"] == before:
            app.update_state(app.state.update(count=app.state["count"] + 1))


def ends_of(folder, *ends):
    run = Store("proj", folder).read("a1")
    shown = ShownContent(run, ContentPolicy(), details=False)
    return read_run(run, writer_lives()(run), shown, ends)


@pytest.mark.parametrize("snapshots", ["full", "delta"])
def test_only_both_ends_of_a_long_log_are_read(tmp_path, snapshots):
    """What is between is counted, its failures too; nothing counts as lost."""
    with OtelTracker("proj", tmp_path, snapshots=snapshots) as tracker:
        counted(tracker, 20, failing={1, 8, 9, 18})
    view = ends_of(tmp_path, 3, 4)
    assert [step.sequence_id for step in view.steps] == [0, 1, 2, 16, 17, 18, 19]
    (session,) = view.sessions
    assert session.left_out == LeftOut(3, 13, 2)
    assert session.outcome == view_of(tmp_path).outcome
    assert view.skipped == []
    assert session_axis(session).pauses == []
    assert "20 steps, 4 failed" in began_text(view)
    assert (session.start_ns, session.last_ns) == (
        (whole := view_of(tmp_path).sessions[0]).start_ns,
        whole.last_ns,
    )


def test_sessions_in_the_part_left_out_are_there(tmp_path):
    """Whatever resumed a run, and how that ended; whose steps failed is not known then."""
    for _ in range(4):
        with OtelTracker("proj", tmp_path) as tracker:
            counted(tracker, 3)
    view = ends_of(tmp_path, 2, 2)
    assert [len(session.children) for session in view.sessions] == [2, 0, 0, 2]
    assert [session.left_out for session in view.sessions] == [
        LeftOut(2, 8, None),
        None,
        None,
        None,
    ]
    assert {session.outcome for session in view.sessions} == {"ok"}


def drawn(view):
    """The rows of a drawing: names of spans, and notes as far as they tell no time."""
    return [
        row.note.partition(",")[0].partition(";")[0] or row.span.name for row in rows(view.sessions)
    ]


def test_sessions_without_a_step_that_is_drawn_are_counted(tmp_path):
    """A conversation may have thousands; one that comes after all steps is drawn."""
    for _ in range(5):
        with OtelTracker("proj", tmp_path) as tracker:
            counted(tracker, 2)
    with OtelTracker("proj", tmp_path) as tracker:
        counted(tracker, 0)
    assert drawn(ends_of(tmp_path, 2, 1)) == [
        *("session 1", "invoke_workflow proj", "step", "step"),
        "7 steps and 3 sessions left out",
        *("session 5", "invoke_workflow proj", "step"),
        *("session 6", "invoke_workflow proj"),
    ]
    assert drawn(ends_of(tmp_path, 1, 3))[:5] == [
        *("session 1", "invoke_workflow proj", "step"),
        "6 steps and 2 sessions left out",
        "session 4",
    ]


def test_of_many_traces_the_newest_are_named(tmp_path):
    """Each session has its own."""
    for _ in range(8):
        with OtelTracker("proj", tmp_path) as tracker:
            counted(tracker, 1)
    view = view_of(tmp_path)
    texts = [text for label, text, _ in run_facts(view) if label == "trace"]
    assert texts == ["3 earlier ones", *(each.trace_id for each in view.sessions[3:])]


def test_a_log_that_is_short_enough_is_read_whole(tmp_path):
    """Then nothing is left out."""
    with OtelTracker("proj", tmp_path) as tracker:
        counted(tracker, 7)
    view = ends_of(tmp_path, 3, 4)
    assert len(view.steps) == 7
    assert view.sessions[0].left_out is None


def test_a_parallel_application_that_ran_twice_is_below_both_steps():
    """Burr gives it the same id each time: the times of its sessions tell which step it was."""

    def span(kind, name, start_s, end_s, *children, **fields):
        made = SpanNode(kind, name, start_s * 10**9, end_s * 10**9, **fields)
        made.children = list(children)
        return made

    steps = [
        span("step", "fan", 10 * n, 10 * n + 5, app_id="app", sequence_id=n) for n in range(1, 3)
    ]
    parent = run_tree("proj", "app", "/x", sessions=[span("application", "app", 0, 30, *steps)])
    parent.children = [ChildRun("kid", "spawn", 1), ChildRun("kid", "spawn", 2)]
    sessions = [span("application", f"kid {n}", 10 * n + 1, 10 * n + 2) for n in range(1, 3)]
    nest_spawned(parent, lambda _: run_tree("proj", "kid", "/y", sessions=sessions))
    assert [[child.name for child in step.children] for step in steps] == [["kid 1"], ["kid 2"]]
