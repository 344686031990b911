"""`burr-otel recover`, through the real executable."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from otlp_receiver import receiving

KILLED = """
import os, signal, sys
import apps
from burr_otel import OtelTracker
from burr_otel.testing import SpanCapture

@apps.action(reads=["count"], writes=["count"])
def step(state):
    os.kill(os.getpid(), signal.SIGKILL)

tracker = OtelTracker("proj", sys.argv[1], tracer_provider=SpanCapture().provider)
apps.counter(tracker, sys.argv[2], step=step).run(halt_after=["finish"])
"""
ENVIRON = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}


def kill_a_run(folder, app_id):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), app_id], env=ENVIRON, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL


def command(folder, *arguments, **environ):
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "burr_otel.cli",
            "recover",
            "--storage-dir",
            str(folder),
            *arguments,
        ],
        env={**ENVIRON, "OTEL_TRACES_EXPORTER": "none", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def recovered(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return json.loads(out)


def test_recover_completes_every_killed_run_once(tmp_path):
    """Runs of killed processes are found without their ids; a second call finds nothing."""
    for app_id in ("a1", "a2"):
        kill_a_run(tmp_path, app_id)
    found = recovered(command(tmp_path, "--json"))
    assert sorted((each["app_id"], each["spans"]) for each in found) == [
        ("a1", ["count", "invoke_workflow proj"]),
        ("a2", ["count", "invoke_workflow proj"]),
    ]
    assert recovered(command(tmp_path, "--json")) == []


def test_two_recoverers_at_once_send_one_set(tmp_path):
    """Whoever takes the marker sends; the other reports nothing."""
    kill_a_run(tmp_path, "a1")
    both = [command(tmp_path, "a1", "--json") for _ in range(2)]
    assert sorted(len(recovered(process)) for process in both) == [0, 1]


def test_what_it_says_without_json(tmp_path):
    """A line a session with its spans and trace; then that there is nothing left."""
    kill_a_run(tmp_path, "a1")
    out, _ = command(tmp_path).communicate(timeout=60)
    assert out.startswith("proj/a1: count, invoke_workflow proj (trace ")
    out, _ = command(tmp_path).communicate(timeout=60)
    assert out == "Nothing to recover.\n"


def test_the_spans_arrive(tmp_path):
    """They are sent to the endpoint of the environment, under their reserved ids."""
    kill_a_run(tmp_path, "a1")
    with receiving() as receiver:
        (session,) = recovered(command(tmp_path, "--json", **receiver.environ))
    assert {f"{s.context.trace_id:032x}" for s in receiver.spans} == {session["trace_id"]}
    assert sorted(s.name for s in receiver.spans) == ["count", "invoke_workflow proj"]


@pytest.mark.parametrize("arguments", [["nobody"], ["--project", "nobody"]])
def test_an_unknown_run_or_project_is_named(tmp_path, arguments):
    """Bad input: the message names it."""
    kill_a_run(tmp_path, "a1")
    process = command(tmp_path, *arguments)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (1, 3)
    assert "nobody" in err
