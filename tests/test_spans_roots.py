"""The application span's life, with an injected clock."""

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import apps
import pytest

from burr_otel import OtelTracker
from burr_otel.live.registry import registry
from burr_otel.spans import keeper


def root(spans):
    return spans.named("invoke_workflow proj")


def test_a_root_ends_after_its_linger_at_its_last_activity(tracker, spans, clock):
    """Two idle seconds end the root; its end time is that of the last step."""
    apps.counter(tracker).run(halt_after=["finish"])
    last = max(s.end_time for s in spans.spans)
    clock.advance(1.9)
    keeper.keeper.sweep()
    assert len(spans.spans) == 4
    clock.advance(0.2)
    keeper.keeper.sweep()
    assert last <= root(spans).end_time < last + 10_000


def test_activity_puts_the_end_off(tracker, spans, clock):
    """The linger counts from the last step, not from the first."""
    app = apps.counter(tracker)
    for _ in range(3):
        app.step()
        clock.advance(1.5)
        keeper.keeper.sweep()
    assert all(span.parent for span in spans.spans)
    clock.advance(1.0)
    keeper.keeper.sweep()
    assert root(spans).attributes["burr.steps"] == 3


def test_a_step_in_progress_keeps_the_root_open_up_to_the_maximum(tracker, spans, clock):
    """A long step is activity; the maximum ends the root all the same, and the step still hangs off it."""

    @apps.action(reads=["count"], writes=["count"])
    def long(state):
        clock.advance(100)
        keeper.keeper.sweep()
        assert not spans.spans
        clock.advance(250)
        keeper.keeper.sweep()
        assert [s.name for s in spans.spans] == ["invoke_workflow proj"]
        return state.update(count=1)

    apps.single(tracker, long).step()
    assert (
        spans.tree()
        == """
invoke_workflow proj
  step
"""
    )


def test_steps_after_the_end_still_hang_off_the_root(tracker, spans, clock):
    """A parent that ended before its child is legal, and better than a second trace."""
    app = apps.counter(tracker)
    app.step()
    clock.advance(3)
    keeper.keeper.sweep()
    app.run(halt_after=["finish"])
    assert (
        spans.tree()
        == """
invoke_workflow proj
  count
  count
  count
  finish
"""
    )


@pytest.mark.parametrize(("linger", "longest"), [(None, 300.0), (None, None)])
def test_limits_can_be_turned_off(spans, clock, tmp_path, linger, longest):
    """`None` turns a limit off."""
    tracker = OtelTracker(
        "proj",
        tmp_path,
        tracer_provider=spans.provider,
        clock=clock,
        root_linger=linger,
        root_max_open=longest,
    )
    app = apps.counter(tracker)
    app.step()
    clock.advance(299)
    keeper.keeper.sweep()
    assert len(spans.spans) == 1
    clock.advance(10_000)
    keeper.keeper.sweep()
    assert len(spans.spans) == (1 if longest is None else 2)
    tracker.close()
    assert len(spans.spans) == 2


def test_a_collected_application_ends_its_root_and_leaves_the_registry(tracker, spans):
    """The garbage collector frees an application; nothing of ours holds it."""
    gc.collect()
    keeper.keeper.sweep()
    before = len(registry)
    app = apps.counter(tracker)
    app.step()
    assert len(registry) == before + 1
    del app
    gc.collect()
    keeper.keeper.sweep()
    assert len(registry) == before
    assert root(spans).attributes["burr.outcome"] == "ok"


def test_closing_ends_though_others_leave_work_as_fast_as_it_is_done(tracker):
    """Threads that drop applications all the time do not hold whoever closes the tracker."""
    left = []

    def leave_more():
        left.append(1)
        if len(left) < 1000:
            keeper.keeper.defer(leave_more)

    keeper.keeper.defer(leave_more)
    tracker.close()
    assert len(left) == 1


class Ending:
    """An application span that is due at a time."""

    clock = staticmethod(time.monotonic_ns)

    def __init__(self, due_ns):
        self.finished, self.due_ns = threading.Event(), lambda _: due_ns

    def finish(self):
        self.finished.set()


def test_who_closes_a_tracker_leaves_the_thread_awake_for_other_roots():
    """What it does in the thread's place may have been there to wake it."""
    kept, done, now_ns = keeper.Keeper(), threading.Event(), time.monotonic_ns()
    kept.start()
    kept.defer(done.set)
    assert done.wait(60)
    closed, other = Ending(now_ns + 10**8), Ending(now_ns + 2 * 10**8)
    kept.watch(closed)
    kept.sweep()
    kept.unwatch(closed)
    kept.watch(other)
    assert other.finished.wait(10)


def test_who_starts_applications_helps_to_end_those_that_are_gone(tmp_path, spans):
    """Among many busy threads the one that ends them gets no turn, and they would pile up."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider, snapshots="off")
    before, open_roots = len(registry), []
    for number in range(1200):
        apps.counter(tracker)
        if number % 100 == 99:
            gc.collect()
            open_roots.append(len(registry) - before)
    assert max(open_roots) < 500


def test_leaving_the_context_manager_ends_the_roots_of_this_tracker_only(
    tracker, spans, clock, tmp_path
):
    """`with tracker:` closes its own applications."""
    other = OtelTracker("other", tmp_path, tracer_provider=spans.provider, clock=clock)
    app = apps.counter(other)
    app.step()
    with tracker:
        apps.counter(tracker).run(halt_after=["finish"])
    assert "invoke_workflow proj" in {s.name for s in spans.spans}
    assert "invoke_workflow other" not in {s.name for s in spans.spans}


def test_the_root_shows_the_outcome_of_the_last_step(tracker, spans):
    """A failed step that was retried leaves an ok root that counts the failure."""
    attempts = []

    @apps.action(reads=["count"], writes=["count"])
    def flaky(state):
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("once")
        return state.update(count=1)

    app = apps.single(tracker, flaky)
    with pytest.raises(ValueError):
        app.step()
    app.step()
    tracker.close()
    found = root(spans)
    assert found.attributes["burr.outcome"] == "ok"
    assert (found.attributes["burr.steps"], found.attributes["burr.steps.failed"]) == (2, 1)
    assert found.status.is_unset


def python(code, tmp_path, **env):
    """Run a program with our tests' applications on its path."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
            "HOME": str(tmp_path),
            **env,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


EXIT = """
import apps, sys
from burr_otel import OtelTracker
tracker = OtelTracker("proj", sys.argv[1] if len(sys.argv) > 1 else ".burr")
apps.counter(tracker).run(halt_after=["finish"])
"""


def test_interpreter_exit_ends_roots_before_the_provider_shuts_down(tmp_path):
    """A program that just ends has its root exported, by the provider that we made."""
    done = python(EXIT, tmp_path, OTEL_TRACES_EXPORTER="console")
    assert '"name": "invoke_workflow proj"' in done.stdout
    assert done.stderr.strip() == ""


def test_interpreter_exit_with_a_global_provider(tmp_path):
    """The same with the user's own provider, which shuts itself down at exit."""
    code = """
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
    trace.set_tracer_provider(TracerProvider())
    trace.get_tracer_provider().add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
    """
    done = python(textwrap.dedent(code) + EXIT, tmp_path)
    assert '"name": "invoke_workflow proj"' in done.stdout
    assert "shutdown" not in done.stderr.lower()


def test_a_forked_child_ends_none_of_the_parents_spans(tmp_path):
    """Root and steps of the parent are exported once, by the parent."""
    code = """
    import os, sys
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, ConsoleSpanExporter
    import apps
    from burr_otel import OtelTracker
    provider = TracerProvider()
    line = lambda span: f"{os.getpid()} {span.name}\\n"
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=line)))
    tracker = OtelTracker("proj", ".burr", tracer_provider=provider, root_linger=None)
    app = apps.counter(tracker)
    app.step()
    child = os.fork()
    if child == 0:
        app.step()
        sys.exit(0)
    os.waitpid(child, 0)
    app.run(halt_after=["finish"])
    print("parent", os.getpid(), "child", child)
    """
    done = python("import os; os.chdir(os.environ['HOME'])\n" + textwrap.dedent(code), tmp_path)
    lines = done.stdout.split("\n")
    ids = next(line for line in lines if line.startswith("parent")).split()
    by_parent = [line.split(" ", 1)[1] for line in lines if line.startswith(ids[1])]
    by_child = [line.split(" ", 1)[1] for line in lines if line.startswith(ids[3])]
    assert by_parent == ["count", "count", "count", "finish", "invoke_workflow proj"]
    assert by_child == ["count"]
