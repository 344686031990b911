"""examples/fastapi_service on two machines: workers with homes of their own, and one database."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import pathlib
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator

import pytest
from postgres_server import Postgres
from processes import Server, free_ports, running

from burr_otel.store import Store

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "fastapi_service"


class Facts(http.server.ThreadingHTTPServer):
    """A facts service that answers all but one topic, ``wait``, until the test is over."""

    daemon_threads = True

    def __init__(self) -> None:
        self.waiting, self.over = threading.Event(), threading.Event()
        super().__init__(("127.0.0.1", 0), _Answer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Facts

    def do_GET(self) -> None:
        topic = self.path.rpartition("/")[2]
        if topic == "wait":
            self.server.waiting.set()
            self.server.over.wait(60)
        body = json.dumps({"fact": f"{topic} is known"}).encode()
        with contextlib.suppress(OSError):
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def facts() -> Iterator[Facts]:
    server = Facts()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def machine(name: str, folder: pathlib.Path, database: str, facts: Facts) -> tuple[Server, str]:
    """A worker with a home in which nothing is, and its address."""
    home = folder / name
    home.mkdir()
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    server = Server(
        name,
        [sys.executable, "-m", "uvicorn", "--factory", "chat:main", "--app-dir", EXAMPLE,
         "--host", "127.0.0.1", "--port", str(port)],
        health_url=f"{address}/openapi.json",
        folder=folder,
        env={
            "HOME": str(home),
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "BURR_OTEL_STORAGE_DIR": database,
            "FACTS_URL": facts.url,
        },
    )  # fmt: skip
    return server, address


def say(address: str, message: str) -> str:
    """Send a message of Ann's and read the whole answer."""
    request = urllib.request.Request(
        f"{address}/chat/ann",
        json.dumps({"message": message}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.read().decode().strip()


def say_in_vain(address: str, message: str) -> None:
    """Send a message to a worker that will not live to answer it."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        say(address, message)


def test_a_conversation_goes_on_when_the_worker_that_had_it_is_killed(
    postgres: Postgres, facts: Facts, tmp_path: pathlib.Path
) -> None:
    """SIGKILL in the middle of a step: another machine answers the next message.

    It has the whole conversation but for the turn that never ended. No machine keeps a file. One
    command has made the tables.
    """
    database = postgres.make_database("two_machines", tables=False)
    command = [sys.executable, "-m", "burr_otel.cli", "store", "init", database]
    subprocess.run(command, check=True, timeout=60)
    first, first_address = machine("first", tmp_path, database, facts)
    second, second_address = machine("second", tmp_path, database, facts)
    with running(first), running(second):
        assert say(first_address, "What of burr?") == "burr is known"
        assert say(second_address, "And jaeger?") == "jaeger is known"
        lost = threading.Thread(target=say_in_vain, args=(first_address, "Now wait"))
        lost.start()
        assert facts.waiting.wait(60)
        first.kill()
        lost.join(60)
        assert say(second_address, "What of spans?") == "spans is known"
        loaded = Store("chat", database).load(None, "ann")
        assert loaded is not None
        assert loaded["state"]["history"] == ["burr is known", "jaeger is known", "spans is known"]
    for home in ("first", "second"):
        assert not (tmp_path / home / ".burr").exists()
    types = [record["type"] for record in Store("chat", database).read("ann").records()]
    assert types.count("begin_entry") == types.count("end_entry") + 1, "the step that was killed"
