"""Which sessions of a run are open: a small file for each, removed when the session ends.

A killed process leaves its marker behind. Removing a marker is the atomic claim to whatever has to
be done for its session, because of two processes that remove it only one succeeds.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from burr_otel.store import names, records
from burr_otel.store.loading import LogReader
from burr_otel.store.log import open_log
from burr_otel.store.owner import owner_is_alive, this_owner
from burr_otel.store.query import otel_of
from burr_otel.store.repair import lines_backward

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["OpenSession", "claim", "end_crashed", "left_open", "place", "remove", "time_of"]

PREFIX = "open-"
_MAX_SCAN_BYTES = 1024 * 1024


class OpenSession(NamedTuple):
    """A session that has begun and not ended.

    Attributes:
        session_id: Its id.
        partition_key: Of the run.
        root: The `otel` object of its root.
        step: The begin record of the step that it was in, if any.
        last_ns: Unix time of its last record, as far as the log's tail tells.
    """

    session_id: str
    partition_key: str | None
    root: dict[str, Any]
    step: dict[str, Any] | None
    last_ns: int


def place(
    run_folder: Path, session_id: str, root: Mapping[str, Any], partition_key: str | None
) -> None:
    """Mark a session as open.

    Args:
        run_folder: Of the run.
        session_id: Of the session.
        root: The `otel` object of its root.
        partition_key: Of the run.

    Raises:
        OSError: The marker cannot be written.
    """
    path = run_folder / f"{PREFIX}{session_id}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(path, flags, 0o600)
    try:
        marker = {"owner": this_owner(), "otel": dict(root), "partition_key": partition_key}
        os.write(fd, orjson.dumps(marker))
    finally:
        os.close(fd)


def remove(run_folder: Path, session_id: str) -> bool:
    """Take a marker away; whether it was there."""
    try:
        (run_folder / f"{PREFIX}{session_id}").unlink()
    except FileNotFoundError:
        return False
    return True


claim = remove


def left_open(run_folder: Path, *, now_ns: int, recover_after_s: float) -> Iterator[OpenSession]:
    """Sessions whose owner is dead.

    Args:
        run_folder: Of the run.
        now_ns: Unix time.
        recover_after_s: Seconds without a record after which the owner of a session is taken for
            dead when this host cannot tell.
    """
    try:
        found = sorted(run_folder.glob(f"{PREFIX}*"))
    except OSError:
        return
    for path in found:
        # A marker that was half written, or is not ours, tells nothing.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            marker = orjson.loads(path.read_bytes())
            alive = owner_is_alive(marker["owner"])
            if alive:
                continue
            session = _session(run_folder, path.name[len(PREFIX) :], marker)
            if alive is False or now_ns - session.last_ns > recover_after_s * 1e9:
                yield session


def end_crashed(run_folder: Path, session: OpenSession) -> None:
    """Record that a crashed session is over, at the time of its last record.

    Raises:
        OSError: The record cannot be written.
    """
    tag = b'"session":%b' % orjson.dumps(session.session_id)
    otel = {
        key: value for key, value in session.root.items() if key in ("trace_id", "span_id", "flags")
    }
    line = records.root_end(
        session.last_ns, records.otel_object(tag, {**otel, "outcome": "crashed"})
    )
    open_log(str(run_folder)).append(line, durability="flush")


def _session(run_folder: Path, session_id: str, marker: dict[str, Any]) -> OpenSession:
    root = marker["otel"]

    def is_own(record: Mapping[str, Any]) -> bool:
        return (otel_of(record) or {}).get("session") == session_id

    last_ns = int(root.get("time_unix_nano", 0))
    with LogReader(str(run_folder)) as log:
        step = log.newest((records.BEGIN_ENTRY, records.END_ENTRY), accept=is_own)
    for record in _tail(run_folder):
        if is_own(record) and time_of(record):
            last_ns = max(last_ns, time_of(record))
            break
    if step is not None:
        last_ns = max(last_ns, time_of(step))
        if step["type"] != records.BEGIN_ENTRY:
            step = None
    return OpenSession(session_id, marker["partition_key"], root, step, last_ns)


def _tail(run_folder: Path) -> Iterator[dict[str, Any]]:
    """Sound records from the end of a log backwards, as far as is worth looking."""
    fd = os.open(run_folder / names.LOG, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(fd).st_size
        for line in lines_backward(fd, size, max(0, size - _MAX_SCAN_BYTES)):
            record, _ = records.check(line.data)
            if record is not None:
                yield record
    finally:
        os.close(fd)


def time_of(record: Mapping[str, Any]) -> int:
    """Unix time of a record in nanoseconds; 0 for one that has none of ours."""
    found = (otel_of(record) or {}).get("time_unix_nano")
    return found if isinstance(found, int) else 0
