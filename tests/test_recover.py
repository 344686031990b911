"""Crash completion: what a killed process left open is sent once, by whoever comes next."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apps
import pytest
from opentelemetry.trace import NoOpTracerProvider
from replay_support import by_id

from burr_otel import OtelTracker
from burr_otel.store import Store
from burr_otel.store.files.run import FileRun

KILLED = """
import os, signal, sys
import apps
from burr_otel import OtelTracker
from burr_otel.testing import SpanCapture

@apps.action(reads=["count"], writes=["count"])
def step(state):
    if state["count"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return state.update(count=state["count"] + 1)

tracker = OtelTracker("proj", sys.argv[1], tracer_provider=SpanCapture().provider)
apps.counter(tracker, step=step, partition_key=None).run(halt_after=["finish"])
"""


PARTITIONS_KILLED = """
import os, signal, sys
import apps
from burr_otel import OtelTracker
from burr_otel.testing import SpanCapture

tracker = OtelTracker("proj", sys.argv[1], tracer_provider=SpanCapture().provider)
built = [apps.counter(tracker, "a1", partition_key=key) for key in ("u1", "u2")]
for app in built:
    app.step()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory):
    return kill(KILLED, tmp_path_factory.mktemp("killed"))


def kill(program, folder):
    """Run a program that kills itself, with the folder of its store."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return folder


@pytest.fixture
def killed(killed_once, tmp_path):
    """A store with a run whose process was killed inside its third step."""
    shutil.copytree(killed_once, tmp_path, dirs_exist_ok=True)
    return tmp_path


def log(folder):
    lines = (folder / "proj" / "a1" / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_next_builder_completes_the_crashed_trace_and_retries_its_step(killed, spans):
    """Root and open step appear under their reserved ids, below the steps that may not have been sent."""
    reserved = {r["otel"]["span_id"] for r in log(killed) if r["type"] == "otel_root"}
    tracker = OtelTracker("proj", killed, tracer_provider=spans.provider)
    app = apps.resumed(tracker)
    assert (
        spans.tree()
        == """
invoke_workflow proj [crashed] (the process ended before this did)
  count
  count
  count [crashed] (the process ended before this did)
"""
    )
    assert {f"{s.context.span_id:016x}" for s in spans.spans if s.parent is None} == reserved
    [crashed] = [s for s in spans.spans if s.attributes.get("burr.sequence_id") == 2]
    begin = [r for r in log(killed) if r["type"] == "begin_entry"][-1]
    assert crashed.attributes["burr.sequence_id"] == begin["sequence_id"] == 2
    assert crashed.start_time == begin["otel"]["time_unix_nano"]
    assert f"{crashed.context.span_id:016x}" == begin["otel"]["span_id"]
    _, _, state = app.run(halt_after=["finish"])
    assert state["answer"] == 30


def test_recovery_happens_once(killed, spans):
    """A second builder finds nothing left to complete."""
    tracker = OtelTracker("proj", killed, tracer_provider=spans.provider)
    apps.resumed(tracker)
    apps.resumed(tracker)
    names = [s.name for s in spans.spans]
    assert names.count("invoke_workflow proj") == 1
    end = next(r for r in log(killed) if r["type"] == "otel_root_end")
    assert end["otel"]["outcome"] == "crashed"


def test_recoverers_at_once_send_one_set(killed, spans, tracker):
    """Of eight recoverers one holds the marker; the others send nothing."""
    tracker = OtelTracker("proj", killed, tracer_provider=spans.provider)
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(tracker.recover, "a1") for _ in range(8)]
        found = [len(job.result()) for job in jobs]
    assert sorted(found) == [0] * 7 + [1]
    assert len(spans.spans) == 4


def test_one_app_id_under_two_partitions_is_recovered_by_partition(spans, tmp_path):
    """`recover` takes the run of the partition that it is given, and leaves the other one."""
    kill(PARTITIONS_KILLED, tmp_path)
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider)
    for key in ("u2", "u1"):
        spans.clear()
        assert len(tracker.recover("a1", partition_key=key)) == 1
        assert {span.attributes["burr.partition_key"] for span in spans.spans} == {key}
        assert tracker.recover("a1", partition_key=key) == []


def recover(folder, provider, send=None):
    tracker = OtelTracker("proj", folder, tracer_provider=provider)
    return tracker.recover("a1", send)


def test_what_nobody_took_stays_for_the_next_one(killed, spans):
    """A marker goes only when the spans have been taken; then they are the same spans."""
    refused = []
    [session] = recover(killed, spans.provider, lambda found: refused.extend(found) or False)
    assert (session.spans, session.sent) == (("count", "invoke_workflow proj"), False)
    [session] = recover(killed, spans.provider)
    assert session.sent
    assert by_id(spans.spans) == by_id(refused)
    assert recover(killed, spans.provider) == []


def test_a_provider_that_makes_no_spans_takes_none(killed, spans):
    """With OTEL_SDK_DISABLED, what a killed process left waits for a process without."""
    [session] = recover(killed, NoOpTracerProvider())
    assert not session.sent
    [session] = recover(killed, spans.provider)
    assert session.sent
    assert len(spans.spans) == 4


def test_one_that_dies_while_it_sends_leaves_it_to_the_next(killed, spans):
    """Its claim dies with it, before and after the endpoint has the spans."""

    def die(found):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recover(killed, spans.provider, die)
    [session] = recover(killed, spans.provider)
    assert session.sent
    assert len(spans.spans) == 4


def test_one_that_dies_after_all_was_noted_leaves_nothing_to_send(killed, spans, monkeypatch):
    """The log says that the session is over, so only the marker is left to take away."""

    def die(*_):
        raise OSError("gone")

    with monkeypatch.context() as broken:
        broken.setattr(FileRun, "unmark", die)
        with pytest.raises(OSError, match="gone"):
            recover(killed, spans.provider)
    assert len(spans.spans) == 4
    assert recover(killed, spans.provider) == []
    assert len(spans.spans) == 4
    assert list((killed / "proj" / "a1").glob("open-*")) == []
    assert [r["type"] for r in log(killed)].count("otel_root_end") == 1


def test_while_one_sends_the_others_pass_on(killed, spans):
    """A claim that is held is not waited for, not even by a builder of the run."""
    seen = []

    def meanwhile(found):
        seen.append(recover(killed, spans.provider))
        return True

    [session] = recover(killed, spans.provider, meanwhile)
    assert session.sent
    assert seen == [[]]
    assert spans.spans == []


def test_a_marker_that_may_not_be_touched_is_an_error(killed, spans, monkeypatch):
    """Not nothing to do (faked: tests may run as root)."""

    def denied(path, flags, *more, opened=os.open):
        if "/open-" in str(path) and flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *more)

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(PermissionError, match="open-"):
        recover(killed, spans.provider)


def test_a_live_session_is_left_alone(tracker, spans):
    """This process lives, so nothing of its own is recovered, however idle."""
    app = apps.counter(tracker)
    app.step()
    apps.counter(tracker)
    assert [s.name for s in spans.spans] == ["count"]
    assert app is not None


def test_an_ended_session_leaves_no_marker(tracker, tmp_path):
    """The marker goes with the root."""
    app = apps.counter(tracker)
    folder = tmp_path / "proj" / "a1"
    assert len(list(folder.glob("open-*"))) == 1
    app.run(halt_after=["finish"])
    tracker.close()
    assert list(folder.glob("open-*")) == []


@pytest.mark.parametrize(("silent", "dead"), [(3599, False), (3601, True)])
def test_an_owner_on_another_host_is_dead_after_a_time_without_records(
    tracker, tmp_path, silent, dead
):
    """Another host cannot be asked; its session counts as dead after `recover_after`."""
    app = apps.counter(tracker)
    app.step()
    folder = tmp_path / "proj" / "a1"
    (marker,) = folder.glob("open-*")
    content = json.loads(marker.read_text())
    content["owner"]["host"] = "elsewhere"
    marker.write_text(json.dumps(content))
    last = log(tmp_path)[-1]["otel"]["time_unix_nano"]
    now_ns = last + silent * 10**9
    found = list(Store("proj", tmp_path).read("a1").left_open(now_ns - 3600 * 10**9))
    assert bool(found) is dead
    assert app is not None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"owner": 1}', '{"owner": {}, "otel": 1}'])
def test_a_damaged_marker_stops_nobody(tracker, tmp_path, content):
    """A marker that cannot be read is passed over."""
    folder = tmp_path / "proj" / "a1"
    folder.mkdir(parents=True)
    (folder / "open-x").write_text(content)
    _, _, state = apps.counter(tracker).run(halt_after=["finish"])
    assert state["answer"] == 30
