"""Who writes a run: the process of a session, and whether it still lives."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def this_owner() -> dict[str, Any]:
    """Host, pid and start time of this process, as an otel_root record holds them."""
    pid = os.getpid()
    return {"host": host(), "pid": pid, "process_start": _process_start(pid)}


def owner_is_alive(owner: Mapping[str, Any]) -> bool | None:
    """Whether the process that a session belongs to still lives, by its `owner` object.

    None when it cannot be told from here: another host, or an incomplete record.
    """
    pid, start = owner.get("pid"), owner.get("process_start")
    if owner.get("host") != host() or type(pid) is not int or pid <= 0:
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # it exists and is another user's, so compare start times
    if start is None:
        return True
    now = _process_start(pid)
    return now is None or now == start


def host() -> str:
    """The name of this machine."""
    return socket.gethostname()


@functools.lru_cache(maxsize=1)
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _process_start(pid: int) -> str | None:
    """What tells a process from an earlier one of the same id; None where /proc is missing."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    state, ticks = fields[0], fields[19].decode()
    return None if state == b"Z" else f"{_boot_id()}/{ticks}"
