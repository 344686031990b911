"""Real servers as child processes: started on free loopback ports, waited for, stopped by pid."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 20.0


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nothing listens on, all different.

    Below those that the system gives to clients: a server that a test starts again still finds its
    own free, and tests that run beside each other hardly ever meet.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


def wait_for(what: str, probe: Callable[[], T | None], timeout_s: float = 120.0) -> T:
    """The first answer of `probe` that is not None.

    Raises:
        TimeoutError: None came within `timeout_s` seconds; the message says what was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        answer = probe()
        if answer is not None:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.05)


def http_ok(url: str) -> bool | None:
    """True when the address answers with a success status, else None."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status < 300 or None
    except (urllib.error.URLError, OSError):
        return None


class Server:
    """One server process. Its output goes to a file, for the message of a failed test."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | os.PathLike[str]],
        *,
        health_url: str,
        folder: pathlib.Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log_path = folder / f"{name}.log"
        self._command = [os.fspath(part) for part in command]
        self._health_url = health_url
        self._folder = folder
        # Not the caller's OTEL_* or proxy settings: a server under test gets only what the test says.
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        self._env = {**kept, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    def start(self) -> Server:
        """Start, and return when the health address answers."""
        assert self._process is None, f"{self.name} runs already"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=self._env,
                start_new_session=True,  # Ctrl-C in pytest reaches us, and we stop it in order
            )
        try:
            wait_for(f"{self.name} to be healthy", self._healthy, START_TIMEOUT_S)
        except BaseException:
            self.kill()
            raise
        return self

    def _healthy(self) -> bool | None:
        assert self._process is not None
        code = self._process.poll()
        if code is not None:
            raise RuntimeError(f"{self.name} exited with {code} at start:\n{self.log_tail()}")
        return http_ok(self._health_url)

    def stop(self) -> None:
        """Ask it to end, as a service manager does; kill it when it does not."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a chance to save anything."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)

    def log(self) -> str:
        """Everything it has printed."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = 30) -> str:
        """The end of what it has printed."""
        return "\n".join(self.log().splitlines()[-lines:])


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """The server, started; stopped at the end."""
    server.start()
    try:
        yield server
    finally:
        server.stop()
