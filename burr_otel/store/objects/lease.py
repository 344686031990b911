"""A sign of life of this process in a bucket, and claims that last as long as it is given.

The sign is an object that is written again while the process may have open sessions or claims: its
age, by the server's own clock, tells other machines whether the process lives. A claim on a run or
a session is an object that names its holder. Another takes it over when the holder is dead; each
change replaces the version that was seen, so of two who want it one gets it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from burr_otel.errors import RunLockedError
from burr_otel.printable import logger
from burr_otel.store.objects.bucket import Bucket, Fetched
from burr_otel.store.objects.keys import escaped
from burr_otel.store.port import DELETION
from burr_otel.store.process import background, begin_anew_after_fork, owner_is_alive, this_owner
from burr_otel.store.reading import object_of

LEASE_S = 15.0
_SETTLED_S: Final = 0.2  # after which a store has replaced an object, bytes and version
_GOES_ON_S: Final = 300.0  # after the last session, so that the next one need not wait for a beat


class Heartbeat:
    """The sign of life of this process in one bucket.

    `gaps` counts how often it came so late that others may have taken the process for dead.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self.after_fork()
        begin_anew_after_fork(self)

    def after_fork(self) -> None:
        """In a forked child: nothing is its own yet."""
        self._lock = threading.Lock()
        self._open: set[str | bytes] = set()  # markers by path, claims by what they hold
        self._beaten_s = self._used_s = float("-inf")
        self.gaps = 0

    def begins(self, what: str | bytes) -> None:
        """Something is about to be there that depends on this process being known to live."""
        self._open.add(what)
        self._used_s = time.monotonic()
        self.beat()
        background.add(self.tick)

    def ends(self, what: str | bytes) -> None:
        """It is there no more."""
        self._open.discard(what)
        self._used_s = time.monotonic()

    def tick(self) -> bool:
        """Beat in time; whether to go on."""
        if not self._open and time.monotonic() - self._used_s > _GOES_ON_S:
            return False
        with contextlib.suppress(OSError):  # another try comes
            self.beat()
        return True

    def beat(self, share: float = 1 / 3) -> None:
        """Beat if that share of a lease has gone by."""
        with self._lock:
            now_s = time.monotonic()
            late_s = now_s - self._beaten_s
            if late_s > LEASE_S * share:
                self._bucket.put(_path(this_owner()), b"")
                self._beaten_s = now_s
                self.gaps += late_s > LEASE_S / 2

    def owner_lives(self, owner: Mapping[str, Any]) -> bool | None:
        """Whether a process lives: on this machine it is seen, on another its heart beats."""
        alive = owner_is_alive(owner)
        if alive is not None:
            return alive
        found = self._bucket.fetch(_path(owner))
        return None if found is None else self._is_fresh(found)

    def claim(self, path: str, run: str, session_id: str) -> Lease:
        """Claim what that object stands for; `RunLockedError`: another has it."""
        told = {"holder": session_id, **this_owner(), "lease": secrets.token_hex(8)}
        data = json.dumps(told).encode()
        self.beat()  # before others see the claim
        version = self._bucket.replace(path, data, None)
        if version is None:
            found = self._bucket.fetch(path)
            # Looked at twice: the Versity gateway, for one, may give old bytes with a new version
            # while somebody else replaces it.
            if found is None or (self._is_over(found) and self._still(path) == found):
                version = self._bucket.replace(path, data, None if found is None else found.version)
            if version is None:
                raise _locked(run, found or self._bucket.fetch(path))
        lease = Lease(self, self._bucket, path, data)  # given free if the heart cannot beat now
        self.begins(data)
        return lease

    def deletion(self, path: str, run: str) -> RunLockedError | None:
        """Who has claimed it to delete it, and lives."""
        found = self._bucket.fetch(path)
        error = _locked(run, found)
        is_one = error.holder.startswith(DELETION)
        return error if found is not None and is_one and not self._is_over(found) else None

    def _still(self, path: str) -> Fetched | None:
        time.sleep(_SETTLED_S)
        return self._bucket.fetch(path)

    def _is_over(self, found: Fetched) -> bool:
        """Whether the holder of a claim is dead, or its heart has stopped."""
        holder = _holder(found)
        if owner_is_alive(holder) is False:
            return True
        return not self._is_fresh(self._bucket.fetch(_path(holder)) or found)

    def _is_fresh(self, found: Fetched) -> bool:
        return self._bucket.now_ns() - found.changed_ns < LEASE_S * 1e9


class Lease:
    """A claim that this process holds."""

    def __init__(self, heart: Heartbeat, bucket: Bucket, path: str, data: bytes) -> None:
        self._heart, self._bucket, self._path, self._data = heart, bucket, path, data
        self._pid, self._gaps, self._is_held = os.getpid(), heart.gaps, True

    def __del__(self) -> None:
        self.release(patience_s=0.0)

    def check(self, run: str) -> None:
        """See that no other has taken it over; `RunLockedError`: another has."""
        if not self._is_ours():
            raise _locked(run, self._bucket.fetch(self._path))

    def release(self, patience_s: float | None = None) -> None:
        """Give it free; idempotent."""
        is_held, self._is_held = self._is_held, False
        if is_held and self._pid == os.getpid():  # else it is the parent's
            self._heart.ends(self._data)
            if self._delete(patience_s):
                background.add(self._delete)

    def _is_ours(self) -> bool:
        """Whether no other has taken it over; asks the store if the heart did not beat in time."""
        self._heart.beat(1 / 2)
        gaps = self._heart.gaps
        if self._gaps != gaps and self._bucket.get(self._path) != self._data:
            return False
        self._gaps = gaps
        return True

    def _delete(self, patience_s: float | None = 0.0) -> bool:
        """Delete the object if it is still ours; whether another try is needed."""
        try:
            if self._is_ours():
                self._bucket.delete([self._path], patience_s=patience_s)
        except OSError as error:
            logger.warning("a claim is given free once the store answers again: %s", error)
            return True
        return False


def _path(owner: Mapping[str, Any]) -> str:
    parts = [str(owner.get(name)) for name in ("host", "pid", "process_start")]
    return f"writer/{escaped(' '.join(parts))}"


def _holder(found: Fetched | None) -> dict[str, Any]:
    return object_of(None if found is None else found.data) or {}


def _locked(run: str, found: Fetched | None) -> RunLockedError:
    holder = _holder(found)
    pid = holder.get("pid")
    return RunLockedError(
        run,
        holder=str(holder.get("holder", "unknown")),
        host=str(holder.get("host", "an unknown host")),
        pid=pid if isinstance(pid, int) else 0,
    )
