"""Running the real executable, with and without a terminal."""

import fcntl
import os
import pathlib
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

import burr

RECORDED = pathlib.Path(burr.__file__).parent / "tracking" / "server" / "demo_data"
"""Runs of plain Burr that ship with it."""

LONGEST_S = 60.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def environment(**changes):
    """This process's variables without those that steer the command, plus `changes`."""
    steering = ("OTEL_", "BURR_OTEL_", "COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM", "LC_", "LANG")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(steering)}
    return {**kept, "LC_ALL": "C.UTF-8", "TERM": "xterm-256color", **changes}


def command(*arguments):
    """The executable with its arguments."""
    return [sys.executable, "-m", "burr_otel.cli", *map(str, arguments)]


def run(*arguments, **variables):
    """Run without a terminal; standard output and error apart."""
    return subprocess.run(
        command(*arguments),
        env=environment(**variables),
        capture_output=True,
        text=True,
        encoding=variables.pop("encoding", "utf-8"),
        timeout=LONGEST_S,
        check=False,
    )


def run_in_terminal(*arguments, columns=80, **variables):
    """Run in a pseudo-terminal of so many columns.

    Returns:
        Exit code and everything that was drawn, errors included.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    process = subprocess.Popen(
        command(*arguments),
        env=environment(**variables),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        close_fds=True,
    )
    os.close(slave)
    drawn, deadline = b"", time.monotonic() + LONGEST_S
    try:
        while time.monotonic() < deadline:
            if not select.select([master], [], [], 1.0)[0]:
                continue
            try:
                part = os.read(master, 65536)
            except OSError:  # Linux reports the closed end so
                break
            if not part:
                break
            drawn += part
        return process.wait(timeout=LONGEST_S), drawn.decode().replace("\r\n", "\n")
    finally:
        process.kill()
        process.wait()
        os.close(master)


def without_colour(drawn):
    """What was drawn without its colours."""
    return _COLOUR.sub("", drawn)
