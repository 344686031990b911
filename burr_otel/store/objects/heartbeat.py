"""A sign of life of this process: an object that is written again while it may have open sessions.

By it another machine knows, by the server's own clock, whether the owner of a session lives.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import threading
import time
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from burr_otel.store.objects import lease
from burr_otel.store.objects.background import background
from burr_otel.store.objects.keys import escaped
from burr_otel.store.owner import owner_is_alive, this_owner

if TYPE_CHECKING:
    from burr_otel.store.objects.bucket import Bucket

_GOES_ON_S: Final = 300.0  # after the last session, so that the next one need not wait for a beat


class Heartbeat:
    """Of this process, in one bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._begin_anew()
        _hearts.add(self)

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._open: set[str] = set()
        self._beaten_s = self._used_s = float("-inf")

    def opens(self, marker: str) -> None:
        """A session is about to be marked as open."""
        self._open.add(marker)
        self._used_s = time.monotonic()
        with self._lock:
            if self._is_due():
                self._beat()
        background.add(self.tick)

    def closes(self, marker: str) -> None:
        """A session is open no more."""
        self._open.discard(marker)
        self._used_s = time.monotonic()

    def tick(self) -> bool:
        """Beat in time; whether to go on."""
        if not self._open and time.monotonic() - self._used_s > _GOES_ON_S:
            return False
        if self._is_due():
            with contextlib.suppress(OSError):  # another try comes
                self._beat()
        return True

    def owner_lives(self, owner: Mapping[str, Any]) -> bool | None:
        """Whether a process lives: on this machine it is seen, on another its heart beats."""
        alive = owner_is_alive(owner)
        if alive is not None:
            return alive
        found = self._bucket.fetch(_path(owner))
        if found is None:
            return None
        return self._bucket.now() - found.changed < dt.timedelta(seconds=lease.LEASE_S)

    def after_fork(self) -> None:
        """In a forked child: no session is its own yet."""
        self._begin_anew()

    def _is_due(self) -> bool:
        return time.monotonic() - self._beaten_s > lease.LEASE_S / 3

    def _beat(self) -> None:
        now_s = time.monotonic()
        self._bucket.put(_path(this_owner()), b"")
        self._beaten_s = now_s


def _path(owner: Mapping[str, Any]) -> str:
    parts = [str(owner.get(name)) for name in ("host", "pid", "process_start")]
    return f"writer/{escaped(' '.join(parts))}"


_hearts: weakref.WeakSet[Heartbeat] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for heart in list(_hearts):
        heart.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
