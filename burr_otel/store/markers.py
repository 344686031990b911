"""Which sessions of a run are open: a small file for each, removed when the session ends.

A killed process leaves its marker behind. Whoever completes the session holds a lock on the marker
meanwhile and takes it away when all is done. A lock dies with its holder, so a session that was
begun to be completed is found again.
"""

from __future__ import annotations

import contextlib
import fcntl
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
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = [
    "OpenSession",
    "end_crashed",
    "end_record",
    "left_open",
    "place",
    "remove",
    "time_of",
]

PREFIX = "open-"
_CRASHED = "crashed"
_MAX_SCAN_BYTES = 1024 * 1024
_IDS = ("trace_id", "span_id", "flags", "trace_state")


class OpenSession(NamedTuple):
    """A session that has begun and not ended.

    Attributes:
        session_id: Its id.
        marker: Its marker, as it was found.
        root_record: Its first record; what the marker tells of it when that is lost.
        facts: Name and description of the action that it was in, if any record describes it.
        records: Its records since the begin of the step that it was in; empty: in none.
        last_ns: Unix time of its last record, as far as the log's tail tells.
        completed: Whether it has been completed, by one that died before it took the marker away.
    """

    session_id: str
    marker: dict[str, Any]
    root_record: dict[str, Any]
    facts: tuple[str, Any] | None
    records: tuple[dict[str, Any], ...]
    last_ns: int
    completed: bool

    @property
    def root(self) -> dict[str, Any]:
        """The `otel` object of its root."""
        found: dict[str, Any] = self.marker["otel"]
        return found

    @property
    def root_ended(self) -> bool:
        """Whether the root had ended, by idling, before the step that is open."""
        return self.root.get("ended") is True

    @property
    def partition_key(self) -> str | None:
        """Of the run."""
        found: str | None = self.marker["partition_key"]
        return found


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
    marker = {"owner": this_owner(), "otel": dict(root), "partition_key": partition_key}
    path = run_folder / f"{PREFIX}{session_id}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(path, flags, 0o600)
    try:
        os.write(fd, orjson.dumps(marker))
    finally:
        os.close(fd)


def remove(run_folder: Path, session_id: str) -> None:
    """Take a marker away; it may be gone."""
    with contextlib.suppress(FileNotFoundError):
        (run_folder / f"{PREFIX}{session_id}").unlink()


@contextlib.contextmanager
def _claim(path: Path) -> Iterator[bool]:
    """Hold a session that is to be completed; gives whether it could be had."""
    try:
        # For writing: locks of network file systems ask for it.
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _lock(fd) and _is_there(fd, path)
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # a child forked meanwhile has the same lock
        os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_there(fd: int, path: Path) -> bool:
    """Whether nobody took the marker away between our opening and our locking it."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def left_open(run_folder: Path, *, now_ns: int, recover_after_s: float) -> Iterator[OpenSession]:
    """Sessions whose owner is dead, each of them held until the next one is asked for.

    Two that look at once are not given the same one.

    Args:
        run_folder: Of the run.
        now_ns: Unix time.
        recover_after_s: Seconds without a record after which the owner of a session is taken for
            dead when this host cannot tell.

    Raises:
        OSError: A marker of a dead owner cannot be opened or locked.
    """
    try:
        found = sorted(run_folder.glob(f"{PREFIX}*"))
    except OSError:
        return
    for path in found:
        marker = _read(path)
        if marker is None:
            continue
        with _claim(path) as ours:
            session = _read_session(run_folder, path, marker) if ours else None
            if session is None:
                continue
            known_dead = owner_is_alive(marker["owner"]) is False
            if known_dead or now_ns - session.last_ns > recover_after_s * 1e9:
                yield session


# A marker that was half written, or is not ours, tells nothing.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)


def _read(path: Path) -> dict[str, Any] | None:
    """A marker whose owner is not known to live."""
    with contextlib.suppress(*_UNREADABLE):
        marker: dict[str, Any] = orjson.loads(path.read_bytes())
        return None if owner_is_alive(marker["owner"]) else marker
    return None


def _read_session(run_folder: Path, path: Path, marker: dict[str, Any]) -> OpenSession | None:
    with contextlib.suppress(*_UNREADABLE):
        return _session(run_folder, path.name[len(PREFIX) :], marker)
    return None


def end_crashed(run_folder: Path, session: OpenSession) -> None:
    """Record that a crashed session is over, at the time of its last record.

    Raises:
        OSError: The record cannot be written.
    """
    line = _end_line(session, session.last_ns, _CRASHED)
    open_log(str(run_folder)).append(line, durability="flush")


def end_record(
    session: OpenSession, *, time_ns: int | None = None, outcome: str = "ok"
) -> dict[str, Any]:
    """The record of a session's end; with outcome ``crashed`` the one that `end_crashed` writes."""
    at_ns = session.last_ns if time_ns is None else time_ns
    record: dict[str, Any] = orjson.loads(_end_line(session, at_ns, outcome))
    return record


def _end_line(session: OpenSession, time_ns: int, outcome: str) -> bytes:
    tag = b'"session":%b' % orjson.dumps(session.session_id)
    ids = {key: session.root[key] for key in _IDS if key in session.root}
    otel = {**ids, "time_unix_nano": time_ns, "outcome": outcome}
    return records.root_end(time_ns, records.otel_object(tag, otel))


def _session(run_folder: Path, session_id: str, marker: dict[str, Any]) -> OpenSession:
    root = marker["otel"]

    def is_own(record: Mapping[str, Any]) -> bool:
        return (otel_of(record) or {}).get("session") == session_id

    facts = None
    with LogReader(str(run_folder)) as log:
        root_record = log.newest((records.ROOT,), accept=is_own)
        step = log.newest((records.BEGIN_ENTRY, records.END_ENTRY), accept=is_own)
        if step is not None and step["type"] == records.BEGIN_ENTRY:
            facts = _facts(log, step, is_own)
        else:
            step = None
    newest, found = _since(run_folder, step, is_own)
    if root_record is None:
        root_record = {"type": records.ROOT, "otel": {**root, "session": session_id}}
    last_ns = max(int(root.get("time_unix_nano", 0)), time_of(step or {}), time_of(newest))
    # Its root may have ended by idling before; that is not the end that `end_crashed` writes.
    end = otel_of(newest) if newest.get("type") == records.ROOT_END else None
    completed = (end or {}).get("outcome") == _CRASHED
    return OpenSession(session_id, marker, root_record, facts, found, last_ns, completed)


def _facts(
    log: LogReader, step: Mapping[str, Any], is_own: Callable[[Mapping[str, Any]], bool]
) -> tuple[str, Any] | None:
    """What an earlier record of the session says of the step's action; see `spans.recorded`."""
    action = step["action"]

    def describes(record: Mapping[str, Any]) -> bool:
        return is_own(record) and record["action"] == action and "action" in record["otel"]

    if describes(step):
        return None
    record = log.newest((records.BEGIN_ENTRY,), accept=describes)
    return None if record is None else (action, record["otel"]["action"])


def _since(
    run_folder: Path,
    step: dict[str, Any] | None,
    is_own: Callable[[Mapping[str, Any]], bool],
) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
    """A session's newest record that tells a time, and its records since the begin of a step.

    Empty when that step has ended without a state, or is none.
    """
    newest: dict[str, Any] = {}
    found: list[dict[str, Any]] = []
    for record in _tail(run_folder):
        if not is_own(record):
            continue
        if not time_of(newest):  # a record of an attribute tells none
            newest = record
        if record == step or (step is None and time_of(newest)):
            break
        ends = record["type"] == records.STEP_END
        if step is not None and ends and record["action_sequence_id"] == step["sequence_id"]:
            return newest, ()
        found.append(record)
    return newest, () if step is None else (step, *reversed(found))


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
