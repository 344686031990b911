"""Who writes a run: the process of a session, whether it still lives, and exclusive claims."""

from __future__ import annotations

import functools
import json
import os
import socket
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burr_otel.errors import RunLockedError
from burr_otel.store import names

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Claim", "owner_is_alive", "this_owner"]


def this_owner() -> dict[str, Any]:
    """Host, pid and start time of this process, as an otel_root record holds them."""
    pid = os.getpid()
    return {"host": _host(), "pid": pid, "process_start": _process_start(pid)}


def owner_is_alive(owner: Mapping[str, Any]) -> bool | None:
    """Whether the process that a session belongs to still lives.

    Args:
        owner: The `owner` object of an otel_root record.

    Returns:
        None when it cannot be told from here: another host, or an incomplete record.
    """
    pid, start = owner.get("pid"), owner.get("process_start")
    if owner.get("host") != _host() or not isinstance(pid, int) or pid <= 0:
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


def _host() -> str:
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


_claims: weakref.WeakSet[Claim] = weakref.WeakSet()


class Claim:
    """An exclusive claim on a run, held by a lock that dies with its holder.

    Args:
        folder: Of the run.
        run: ``project/app_id``, for the error.
        session: Id of the claiming session.

    Raises:
        RunLockedError: Another session holds the run.
        OSError: The lock file cannot be made.
    """

    def __init__(self, folder: str, run: str, session: str) -> None:
        self._fd = -1
        import portalocker  # noqa: PLC0415  # takes 10 ms, and few runs are exclusive

        self._unlock = portalocker.unlock
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(f"{folder}/{names.LOCK}", flags, 0o600)
        _claims.add(self)
        try:
            portalocker.lock(self._fd, portalocker.LOCK_EX | portalocker.LOCK_NB)
        except portalocker.LockException:
            holder = self._holder()
            self.forget()
            raise RunLockedError(run, **holder) from None
        os.ftruncate(self._fd, 0)
        text = json.dumps({"holder": session, **this_owner()})
        os.pwrite(self._fd, text.encode(), 0)

    def release(self) -> None:
        """Give the run free; idempotent."""
        if self._fd >= 0:
            self._unlock(self._fd)
        self.forget()

    def forget(self) -> None:
        """In a forked child: close the descriptor without touching the lock that it shares."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.release()

    def _holder(self) -> dict[str, Any]:
        try:
            found = json.loads(os.pread(self._fd, 4096, 0))
            return {
                "holder": str(found["holder"]),
                "host": str(found["host"]),
                "pid": int(found["pid"]),
            }
        except (ValueError, KeyError, TypeError):  # it is being written this moment
            return {"holder": "unknown", "host": _host(), "pid": 0}


def _after_fork_in_child() -> None:
    # A child that keeps the descriptor would keep the claim alive after its holder's death.
    for claim in list(_claims):
        claim.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
