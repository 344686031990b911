"""A real Celery worker with a real Redis: its prefork children end by `os._exit`."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from installed import absent
from otlp_receiver import Receiver, receiving
from processes import free_ports, wait_for
from test_neighbours import need

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "processes.md"
(SNIPPET,) = re.findall(r"```python\n(from celery.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
TASKS = f"""
import os
from apps import answering as build_application
{SNIPPET.replace("redis://localhost:6379/0", "{os.environ['TEST_REDIS']}").replace('broker="', 'broker=f"')}
celery.conf.result_backend = os.environ["TEST_REDIS"]
tracker = OtelTracker("proj", "runs")

@celery.task
def run(customer_id):
    return report(customer_id), os.getpid()
"""


@pytest.fixture
def redis_url(tmp_path: pathlib.Path) -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        absent("redis", "redis-server")
    (port,) = free_ports(1)
    # No files, and no one but this machine.
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen([program, *options], cwd=tmp_path, stdout=subprocess.DEVNULL)

    def answers() -> bool | None:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n" or None
        except OSError:
            return None

    try:
        wait_for("redis", answers)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.mark.parametrize("recycled", [False, True], ids=["shut down", "recycled"])
def test_a_worker_of_celery_loses_nothing(
    recycled: bool, redis_url: str, receiver: Receiver, tmp_path: pathlib.Path
) -> None:
    """At its warm shutdown, and when its children are replaced; the runs are told finished."""
    need("celery")
    (tmp_path / "tasks.py").write_text(TASKS)
    environ = {
        **os.environ,
        **receiver.environ,
        "PYTHONPATH": os.pathsep.join([str(pathlib.Path(__file__).parents[1]), *sys.path]),
        "TEST_REDIS": redis_url,
        "C_FORCE_ROOT": "1",
        # Neither may be what ends and sends.
        "BURR_OTEL_ROOT_LINGER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "600000",
    }
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-c", "2", "-l", "ERROR"]
    command += ["--max-tasks-per-child", "1"] if recycled else []
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            command, cwd=tmp_path, env=environ, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        ask = (
            "import tasks; results = [r.get(timeout=60) for r in map(tasks.run.delay, '12345')]; "
            "print({answer for answer, _ in results}, len({pid for _, pid in results}))"
        )
        done = subprocess.run(
            [sys.executable, "-c", ask],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=True,
            timeout=90,
        )
        answers, processes = done.stdout.split()
        assert answers == "{'42'}"
        assert int(processes) == 5 if recycled else int(processes) <= 2
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()
    said = (tmp_path / "worker.log").read_text()
    assert len(receiver.spans) == 10, said
    for number in "12345":
        log = tmp_path / "runs" / "proj" / f"report-{number}" / "log.jsonl"
        assert '"otel_root_end"' in log.read_text().splitlines()[-1]
