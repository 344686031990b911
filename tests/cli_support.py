"""Running the real executable, with and without a terminal."""

import atexit
import fcntl
import functools
import json
import os
import pathlib
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time

import burr
from programs import WITHOUT_PANDAS

RECORDED = pathlib.Path(burr.__file__).parent / "tracking" / "server" / "demo_data"
"""Runs of plain Burr that ship with it."""

LONGEST_S = 180.0
_READ_LATE = ("COLUMNS", "NO_COLOR", "BURR_OTEL_", "OTEL_EXPORTER_OTLP_")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def environment(**changes):
    """This process's variables without those that steer the command, plus `changes`."""
    steering = ("OTEL_", "BURR_OTEL_", "COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM", "LC_", "LANG")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(steering)}
    path = os.pathsep.join(filter(None, [WITHOUT_PANDAS, os.environ.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, "LC_ALL": "C.UTF-8", "TERM": "xterm-256color", **changes}


def command(*arguments):
    """The executable with its arguments."""
    return [sys.executable, "-m", "burr_otel.cli", *map(str, arguments)]


def run(*arguments, **variables):
    """Run without a terminal; standard output and error apart.

    A variable that an import or the interpreter may read takes the executable from its start.
    """
    if all(key.startswith(_READ_LATE) for key in variables):
        return _run_warm(list(map(str, arguments)), environment(**variables))
    return subprocess.run(
        command(*arguments),
        env=environment(**variables),
        capture_output=True,
        text=True,
        encoding=variables.pop("encoding", "utf-8"),
        timeout=LONGEST_S,
        check=False,
    )


@functools.cache
def _warm():
    """The process that forks commands, see `warm_cli`."""
    process = subprocess.Popen(
        [sys.executable, str(pathlib.Path(__file__).with_name("warm_cli.py"))],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    atexit.register(process.stdout.close)
    atexit.register(process.wait)
    atexit.register(process.stdin.close)
    return process


def _run_warm(arguments, variables):
    process = _warm()
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
        request = {
            "arguments": arguments,
            "env": variables,
            "cwd": str(pathlib.Path.cwd()),
            "out": out.name,
            "err": err.name,
            "longest_s": LONGEST_S,
        }
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        code = int(process.stdout.readline())
        said = [pathlib.Path(file.name).read_text("utf-8") for file in (out, err)]
    return subprocess.CompletedProcess(command(*arguments), code, *said)


class Terminal:
    """The executable in a pseudo-terminal of so many columns and 50 lines."""

    def __init__(self, *arguments, columns=80, **variables):
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        self._process = subprocess.Popen(
            command(*arguments),
            env=environment(**variables),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            # Ctrl-C only reaches it when the terminal is its own.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads
        )
        os.close(slave)
        self._drawn = b""
        self._open = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    @property
    def drawn(self):
        """Everything drawn so far, errors included."""
        return self._drawn.decode(errors="replace").replace("\r\n", "\n")

    def read_until(self, text):
        """Read until something is drawn; the test fails when the program ends before."""
        deadline = time.monotonic() + LONGEST_S
        while text not in self.drawn:
            assert self._open, f"ended without {text!r}: {self.drawn}"
            assert time.monotonic() < deadline, f"never drew {text!r}: {self.drawn}"
            self._read()

    def press(self, keys):
        """Type."""
        os.write(self._master, keys.encode())

    def finish(self):
        """Wait for the end; the exit code."""
        deadline = time.monotonic() + LONGEST_S
        while self._open and time.monotonic() < deadline:
            self._read()
        return self._process.wait(timeout=LONGEST_S)

    def _read(self):
        if not select.select([self._master], [], [], 1.0)[0]:
            return
        try:
            part = os.read(self._master, 65536)
        except OSError:  # Linux reports the closed end so
            part = b""
        self._open = bool(part)
        self._drawn += part


def run_in_terminal(*arguments, columns=80, **variables):
    """Run in a pseudo-terminal to the end.

    Returns:
        Exit code and everything that was drawn, errors included.
    """
    with Terminal(*arguments, columns=columns, **variables) as terminal:
        return terminal.finish(), terminal.drawn


def without_colour(drawn):
    """What was drawn without its colours."""
    return _COLOUR.sub("", drawn)
