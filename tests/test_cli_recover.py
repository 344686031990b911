"""`burr-otel recover`, through the real executable."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import LONGEST_S
from click.testing import CliRunner
from otlp_receiver import receiving

from burr_otel import OtelTracker
from burr_otel.cli import cli

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


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    for app_id in ("a1", "a2"):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, folder, app_id],
            env=ENVIRON,
            timeout=LONGEST_S,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL
    return folder


@pytest.fixture
def killed(killed_once, tmp_path):
    """A store with two runs whose processes were killed in their first steps."""
    shutil.copytree(killed_once, tmp_path, dirs_exist_ok=True)
    return tmp_path


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
    out, err = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 0, err
    return json.loads(out)


def test_recover_completes_every_killed_run_once(killed):
    """Runs of killed processes are found without their ids; a second call finds nothing."""
    found = recovered(command(killed, "--json"))
    assert sorted((each["app_id"], each["spans"], each["sent"]) for each in found) == [
        ("a1", ["count", "invoke_workflow proj"], True),
        ("a2", ["count", "invoke_workflow proj"], True),
    ]
    assert recovered(command(killed, "--json")) == []


def test_two_recoverers_at_once_send_one_set(killed):
    """Whoever holds the marker sends; the other reports nothing."""
    both = [command(killed, "a1", "--json") for _ in range(2)]
    assert sorted(len(recovered(process)) for process in both) == [0, 1]


def test_what_it_says_without_json(killed):
    """A line a session with its spans and trace; then that there is nothing left."""
    out, _ = command(killed, "a1").communicate(timeout=LONGEST_S)
    assert out.startswith("proj/a1: count, invoke_workflow proj (trace ")
    out, _ = command(killed, "a1").communicate(timeout=LONGEST_S)
    assert out == "Nothing to recover.\n"


def test_what_no_endpoint_took_is_sent_by_a_later_call(killed):
    """Neither an endpoint that is away nor the death of a recoverer loses or doubles a span."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environ = {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        }
        process = command(killed, **environ)
        silent.settimeout(LONGEST_S)
        while True:  # until it sends: it first asks only whether somebody listens
            connection, _ = silent.accept()
            with connection:
                if connection.recv(1):
                    process.kill()
                    process.communicate(timeout=LONGEST_S)
                    break
    away = command(killed, **environ)
    out, err = away.communicate(timeout=LONGEST_S)
    assert away.returncode == 1
    assert out.count("  not sent\n") == 2
    assert f"2 sessions could not be sent: No OTLP endpoint answers at {url}" in err
    with receiving() as receiver:
        sessions = recovered(command(killed, "--json", **receiver.environ))
    assert {f"{s.context.trace_id:032x}" for s in receiver.spans} == {
        session["trace_id"] for session in sessions
    }
    assert sorted(s.name for s in receiver.spans) == ["count"] * 2 + ["invoke_workflow proj"] * 2


@pytest.mark.parametrize("arguments", [["nobody"], ["--project", "nobody"]])
def test_an_unknown_run_or_project_is_named(killed, arguments):
    """Bad input: the message names it."""
    process = command(killed, *arguments)
    _, err = process.communicate(timeout=LONGEST_S)
    assert process.returncode in (1, 3)
    assert "nobody" in err


def test_a_run_that_cannot_be_recovered_keeps_back_no_other(killed, monkeypatch):
    """One that another user may write alone is named; one that is deleted meanwhile is none."""
    inner = OtelTracker.recover

    def recover(tracker, app_id, *told, **more):
        if app_id == "a1":
            raise PermissionError(13, "Permission denied", f"{killed}/proj/a1/log.jsonl")
        if app_id == "a0":
            raise FileNotFoundError(f"{killed}/proj/a0/log.jsonl was deleted")
        return inner(tracker, app_id, *told, **more)

    shutil.copytree(killed / "proj/a1", killed / "proj/a0")
    monkeypatch.setattr(OtelTracker, "recover", recover)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    arguments = ["recover", "--storage-dir", str(killed), "--json"]
    done = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert done.return_value == 1
    assert [each["app_id"] for each in json.loads(done.stdout)] == ["a2"]
    denied = "proj/a1 is not recovered: [Errno 13] Permission denied"
    assert done.stderr.startswith(f"Error: {denied}")
    assert done.stderr.count("Error: ") == 1
