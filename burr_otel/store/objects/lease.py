"""Leases on a run or an open session: an object that its holder makes, renews and deletes.

Another takes it over when the holder is known to be dead, or has not renewed it for a while by the
server's own clock. Each change replaces the version that was seen: of two who want it one gets it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import secrets
import time
import weakref
from typing import TYPE_CHECKING, Any

from burr_otel.errors import RunLockedError
from burr_otel.printable import logger_of_lines
from burr_otel.store.objects.background import background
from burr_otel.store.owner import owner_is_alive, this_owner

if TYPE_CHECKING:
    from burr_otel.store.objects.bucket import Bucket, Fetched

logger = logger_of_lines(__name__)

LEASE_S = 15.0


class Lease:
    """A lease that this process holds."""

    def __init__(self, bucket: Bucket, path: str, data: bytes, version: dict[str, str]) -> None:
        self._bucket, self._path, self._data = bucket, path, data
        self._version: dict[str, str] | None = version
        self._pid, self._renewed_s, self._lost = os.getpid(), time.monotonic(), False
        tick = weakref.WeakMethod(self.tick)
        background.add(lambda: (do := tick()) is not None and do())

    def __del__(self) -> None:
        self.release(patience_s=0.0)

    def check(self, run: str) -> None:
        """Ask the server where renewals have not come through: another may have taken it over.

        Raises:
            RunLockedError: Another has.
        """
        if time.monotonic() - self._renewed_s > LEASE_S / 2:
            self._renew()
        if self._lost:
            raise _locked(run, self._bucket.fetch(self._path))

    def release(self, patience_s: float | None = None) -> None:
        """Give it free; idempotent."""
        version, self._version = self._version, None
        if version is None or self._pid != os.getpid():  # it is the parent's
            return
        # An older one may be another's by now, and ends by itself.
        if time.monotonic() - self._renewed_s < LEASE_S / 2:
            try:
                self._bucket.delete([self._path], patience_s=patience_s)
            except OSError as error:
                logger.warning("a lease is left to end by itself in %.0f s: %s", LEASE_S, error)

    def tick(self) -> bool:
        """Renew it in time; whether it is held."""
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
        found = bucket.fetch(path)
        # Looked at twice: the Versity gateway, for one, may give old bytes with a new version.
        if found is None or (_is_over(bucket, found) and bucket.fetch(path) == found):
            version = bucket.replace(path, data, None if found is None else found.version)
        if version is None:
            raise _locked(run, found or bucket.fetch(path))
    return Lease(bucket, path, data, version)


def _is_over(bucket: Bucket, found: Fetched) -> bool:
    if owner_is_alive(_holder(found)) is False:
        return True
    return bucket.now() - found.changed > dt.timedelta(seconds=LEASE_S)


def _holder(found: Fetched | None) -> dict[str, Any]:
    try:
        holder = json.loads(b"{}" if found is None else found.data)
    except (ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _locked(run: str, found: Fetched | None) -> RunLockedError:
    holder = _holder(found)
    pid = holder.get("pid")
    return RunLockedError(
        run,
        holder=str(holder.get("holder", "unknown")),
        host=str(holder.get("host", "an unknown host")),
        pid=pid if isinstance(pid, int) else 0,
    )
