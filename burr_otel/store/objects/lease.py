"""Leases on a run or an open session: an object that its holder renews.

Each change replaces the version that was seen, so of two who want a lease one gets it. A lease ends
when its holder is known to be dead, or has not renewed it for a while by the server's own clock.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

from burr_otel.errors import RunLockedError
from burr_otel.printable import logger_of_lines
from burr_otel.store.objects.background import background
from burr_otel.store.owner import owner_is_alive, this_owner

if TYPE_CHECKING:
    from burr_otel.store.objects.bucket import Bucket

logger = logger_of_lines(__name__)

LEASE_S = 15.0
_FREE: Final = b"{}"


class Lease:
    """A lease that this process holds."""

    def __init__(self, bucket: Bucket, path: str, data: bytes, version: dict[str, str]) -> None:
        self._bucket, self._path, self._data = bucket, path, data
        self._version: dict[str, str] | None = version
        self._pid, self._renewed_s, self._lost = os.getpid(), time.monotonic(), False
        background.add(self)

    def check(self, run: str) -> None:
        """Ask the server where renewals have not come through: another may have taken it over.

        Raises:
            RunLockedError: Another has.
        """
        if time.monotonic() - self._renewed_s > LEASE_S / 2:
            self._renew()
        if self._lost:
            raise _locked(run, _holder(self._bucket, self._path)[0])

    def release(self) -> None:
        """Give it free; idempotent."""
        version, self._version = self._version, None
        if version is not None and self._pid == os.getpid():  # else it is the parent's
            try:
                self._bucket.replace(self._path, _FREE, version)
            except OSError as error:
                logger.warning("a lease is left to end by itself in %.0f s: %s", LEASE_S, error)

    def tick(self) -> bool:
        """Renew it in time."""
        if time.monotonic() - self._renewed_s > LEASE_S / 3:
            with contextlib.suppress(OSError):  # another try comes
                self._renew()
        return self._version is not None

    def _renew(self) -> None:
        version, now_s = self._version, time.monotonic()
        if version is not None:
            renewed = self._bucket.replace(self._path, self._data, version)
            if self._version is version:  # else it was released meanwhile
                self._version, self._renewed_s, self._lost = renewed, now_s, renewed is None


def acquire(bucket: Bucket, path: str, run: str, session_id: str) -> Lease:
    """Take a lease.

    Raises:
        RunLockedError: Another has it.
    """
    told = {"holder": session_id, **this_owner(), "lease": secrets.token_hex(8)}
    data = json.dumps(told).encode()
    version = bucket.replace(path, data, None)
    if version is None:
        holder, seen = _holder(bucket, path)
        if not holder or _is_over(bucket, holder):
            version = bucket.replace(path, data, seen)
        if version is None:
            raise _locked(run, holder or _holder(bucket, path)[0])
    return Lease(bucket, path, data, version)


def _holder(bucket: Bucket, path: str) -> tuple[dict[str, Any], dict[str, str] | None]:
    """Who holds a lease since when, and which version says so; an empty one: nobody."""
    found = bucket.fetch(path)
    if found is None:
        return {}, None
    try:
        holder = json.loads(found.data)
    except (ValueError, RecursionError):
        holder = {}
    if not isinstance(holder, dict) or not holder:
        return {}, found.version
    return holder | {"renewed": found.changed}, found.version


def _is_over(bucket: Bucket, holder: dict[str, Any]) -> bool:
    if owner_is_alive(holder) is False:
        return True
    renewed: dt.datetime = holder["renewed"]
    return bucket.now() - renewed > dt.timedelta(seconds=LEASE_S)


def _locked(run: str, holder: dict[str, Any]) -> RunLockedError:
    host, pid = holder.get("host", "an unknown host"), holder.get("pid")
    return RunLockedError(
        run,
        holder=str(holder.get("holder", "unknown")),
        host=str(host),
        pid=pid if isinstance(pid, int) else 0,
    )
