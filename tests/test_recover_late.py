"""Steps that a killed process left open after its application span had ended by idling."""

import re
import shutil

import apps
import pytest
from replay_support import by_id, ours, stored_spans

from burr_otel import OtelTracker
from burr_otel.history.read import read_run
from burr_otel.history.tree import writer_lives
from burr_otel.live.registry import registry
from burr_otel.spans import keeper
from burr_otel.store import Store
from burr_otel.store.files.run import FileRun
from burr_otel.store.process import this_owner
from burr_otel.view.find import summarise


@pytest.fixture
def killed(spans, clock, tmp_path):
    """A copy of the store as it is within the second step: what is left when the process dies.

    Given whether the application span ends by idling before that step, or within it.
    """

    def make(ends):
        left = tmp_path / "left"

        @apps.action(reads=["count"], writes=["count"])
        def step(state):
            if state["count"] == 1:
                if ends == "within":
                    clock.advance(301)
                    keeper.keeper.sweep()
                shutil.copytree(tmp_path / "runs", left)
            return state.update(count=state["count"] + 1)

        tracker = OtelTracker(
            "proj", tmp_path / "runs", tracer_provider=spans.provider, clock=clock
        )
        app = apps.counter(tracker, step=step)
        app.step()
        if ends == "before":
            clock.advance(3)
            keeper.keeper.sweep()
        app.step()
        assert list((tmp_path / "runs" / "proj" / "a1").glob("open-*")) == []
        [marker] = (left / "proj" / "a1").glob("open-*")
        start = this_owner()["process_start"]
        for file in (marker, marker.parent / "log.jsonl"):
            lines = file.read_text().splitlines()
            # A checksum would not fit any more; records of earlier versions have none.
            edited = [
                re.sub(',"crc":"[0-9a-f]{8}"', "", line).replace(start, "x" * len(start))
                if start in line
                else line
                for line in lines
            ]
            file.write_text("\n".join(edited) + "\n")
        return left

    return make


@pytest.mark.parametrize("ends", ["before", "within"])
def test_the_open_step_is_sent_below_the_root_as_it_was(killed, spans, ends):
    """What had ended may never have been sent, so it is sent again, and a replay makes it the same."""
    left = killed(ends)
    root = spans.named("invoke_workflow proj")
    [live] = [s for s in spans.spans if s.attributes.get("burr.sequence_id") == 0]
    spans.clear()
    tracker = OtelTracker("proj", left, tracer_provider=spans.provider)
    [session] = tracker.recover("a1")
    assert (session.spans, session.sent) == (("count",), True)
    [step] = [s for s in spans.spans if s.attributes.get("burr.outcome") == "crashed"]
    assert step.parent.span_id == root.context.span_id
    assert by_id(spans.spans) == by_id([live, root, step])
    assert by_id(ours(stored_spans(left))) == by_id([live, root, step])
    assert tracker.recover("a1") == []
    assert list((left / "proj" / "a1").glob("open-*")) == []


def test_a_replay_without_a_recovery_says_the_same(killed, spans):
    """Whoever comes first."""
    left = killed("before")
    replayed = by_id(stored_spans(left))
    spans.clear()
    OtelTracker("proj", left, tracer_provider=spans.provider).recover("a1")
    assert by_id(spans.spans) == replayed


def test_the_run_is_shown_as_crashed_and_its_root_as_it_was(killed, spans):
    """Before and after the recovery."""
    left = killed("before")
    for _ in range(2):
        run = Store("proj", left).read("a1")
        view = read_run(run, writer_lives()(run))
        [session] = view.sessions
        assert session.outcome == "ok"
        assert [step.outcome for step in view.steps] == ["ok", "crashed"]
        assert summarise(run, writer_lives()(run)).status == view.outcome == "crashed"
        OtelTracker("proj", left, tracer_provider=spans.provider).recover("a1")


def test_a_step_that_ends_leaves_no_marker(spans, clock, tmp_path):
    """Well or badly."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider, clock=clock)
    folder, seen = tmp_path / "proj" / "a1", []

    @apps.action(reads=["count"], writes=["count"])
    def step(state):
        seen.append(len(list(folder.glob("open-*"))))
        if len(seen) == 3:
            raise ValueError("no")
        return state.update(count=state["count"] + 1)

    app = apps.counter(tracker, step=step)
    app.step()
    clock.advance(3)
    keeper.keeper.sweep()
    app.step()
    assert list(folder.glob("open-*")) == []
    with pytest.raises(ValueError, match="no"):
        app.step()
    assert seen == [1, 1, 1]
    assert list(folder.glob("open-*")) == []


def test_a_step_that_ends_while_its_root_is_marked_leaves_no_marker(spans, tmp_path, monkeypatch):
    """In another thread, between the look at what is in progress and the marker."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider)
    app = apps.single(tracker, apps.stream)
    app.stream_result(halt_after=["step"])
    run = next(registry.runs("a1"))
    original = FileRun.mark_open

    def mark_open(log, *arguments):
        run.settle(run.step(0))
        original(log, *arguments)

    monkeypatch.setattr(FileRun, "mark_open", mark_open)
    run.root.finish()
    assert run.step(0) is None
    assert list((tmp_path / "proj" / "a1").glob("open-*")) == []
