"""Exclusive claims on a run's folder, and holds on markers: locks that die with their holder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import weakref
from collections.abc import Iterator
from typing import Any

from burr_otel.errors import RunLockedError
from burr_otel.store.files import disk
from burr_otel.store.owner import host, this_owner

_claims: weakref.WeakSet[FolderClaim] = weakref.WeakSet()


class FolderClaim:
    """An exclusive claim of a session on a run."""

    def __init__(self, folder: str, run: str, session_id: str) -> None:
        self._fd = -1
        self._fd = disk.open_regular(f"{folder}/{disk.LOCK}", os.O_RDWR | os.O_CREAT)
        _claims.add(self)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._holder()
            self.forget()
            raise RunLockedError(run, **holder) from None
        os.ftruncate(self._fd, 0)
        text = json.dumps({"holder": session_id, **this_owner()})
        os.pwrite(self._fd, text.encode(), 0)

    def release(self) -> None:
        """Give the run free; idempotent."""
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
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
            kinds = {"holder": str, "host": str, "pid": int}
            return {name: kind(found[name]) for name, kind in kinds.items()}
        except (ValueError, KeyError, TypeError):  # it is being written this moment
            return {"holder": "unknown", "host": host(), "pid": 0}


@contextlib.contextmanager
def hold(path: str) -> Iterator[bool]:
    """Hold the marker of a session that is to be completed; gives whether it could be had."""
    try:
        # For writing: locks of network file systems ask for it.
        fd = disk.open_regular(path, os.O_RDWR)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _lock(fd, path)
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # a child forked meanwhile has the same lock
        os.close(fd)


def _lock(fd: int, path: str) -> bool:
    """Lock a marker, unless others have, or took it away since it was opened."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except (BlockingIOError, FileNotFoundError):
        return False


def _after_fork_in_child() -> None:
    # A child that keeps the descriptor would keep the claim alive after its holder's death.
    for claim in list(_claims):
        claim.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
