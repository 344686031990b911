"""Which sessions of a run are open: a marker for each, taken away when the session ends.

A killed process leaves its marker behind. Whoever completes the session holds the marker meanwhile
and takes it away when all is done. The hold dies with its holder, so a session that was begun to be
completed is found again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import orjson

from burr_otel.errors import RunInUseError
from burr_otel.records import ROOT_END, DamageError, EndRoot, encode, parse
from burr_otel.store.lines import otel_of
from burr_otel.store.port import RunLog

_CRASHED: Final = "crashed"
_MAX_SCAN_BYTES: Final = 1024 * 1024


class OpenSession(NamedTuple):
    """A session whose owner died; its records are those of the run that name it.

    `root` is the ``otel`` object of its root, in short, `root_ended` whether the root had ended, by
    idling, before the step that is open. `last_ns` is the time of the session's newest record, and
    `completed` whether it has been completed by one that died before it took the marker away.
    """

    log: RunLog
    session_id: str
    owner: dict[str, Any]
    root: dict[str, Any]
    partition_key: str | None
    last_ns: int
    completed: bool

    @property
    def root_ended(self) -> bool:
        """Whether the root had ended before."""
        return self.root.get("ended") is True

    def end(self, record: EndRoot) -> None:
        """Record that the session is over."""
        tag = b'"session":%b' % orjson.dumps(self.session_id)
        self.log.append(encode(record, tag), durability="flush")

    def unmark(self) -> None:
        """Take the marker away."""
        self.log.unmark(self.session_id)


def _read_marker(marker: bytes) -> dict[str, Any] | None:
    """What a marker tells; None: it was half written, or is none of ours."""
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        found = json.loads(marker)
        if isinstance(found["owner"], dict) and isinstance(found["otel"], dict):
            return dict(found)
    return None


def check_unused(log: RunLog, *, now_ns: int, recover_after_s: float) -> None:
    """Refuse a run with an open session whose owner lives.

    Where it cannot be told from here whether an owner lives, it is taken for dead after so many
    seconds without a record.
    """
    for session_id, data in log.open_markers():
        owner = (_read_marker(data) or {}).get("owner", {})
        alive = log.owner_lives(owner)
        if alive is None:
            alive = now_ns - log.changed_ns < recover_after_s * 1e9
        if alive:
            raise RunInUseError(f"{log.project}/{log.app_id}", session_id, owner)


def left_open(log: RunLog, *, now_ns: int, recover_after_s: float) -> Iterator[OpenSession]:
    """Sessions whose owner is dead, each of them held until the next one is asked for.

    Two that look at once are not given the same one. Where it cannot be told from here whether an
    owner lives, it is taken for dead after so many seconds without a record.
    """
    for session_id, data in log.open_markers():
        marker = _read_marker(data)
        if marker is None or log.owner_lives(marker["owner"]):
            continue
        with log.hold(session_id) as ours:
            if not ours:
                continue
            session = _session(log, session_id, marker)
            known_dead = log.owner_lives(marker["owner"]) is False
            if known_dead or now_ns - session.last_ns > recover_after_s * 1e9:
                yield session


def _session(log: RunLog, session_id: str, marker: dict[str, Any]) -> OpenSession:
    root, key, completed = marker["otel"], marker.get("partition_key"), False
    began = root.get("time_unix_nano")
    last_ns = began if isinstance(began, int) else 0
    for record in _tail(log):
        otel = otel_of(record) or {}
        time_ns = otel.get("time_unix_nano")
        if otel.get("session") == session_id and isinstance(time_ns, int):
            # Its root may have ended by idling before; that is not the end that `end` writes.
            completed = record["type"] == ROOT_END and otel.get("outcome") == _CRASHED
            last_ns = max(last_ns, time_ns)
            break
    key = key if isinstance(key, str) else None
    return OpenSession(log, session_id, marker["owner"], root, key, last_ns, completed)


def _tail(log: RunLog) -> Iterator[dict[str, Any]]:
    """Sound records, newest first, as far as is worth looking."""
    stop = None
    with contextlib.suppress(OSError):
        for line in log.backward():
            stop = line.end - _MAX_SCAN_BYTES if stop is None else stop
            if line.position < stop:
                return
            with contextlib.suppress(DamageError):
                yield parse(line.data)
