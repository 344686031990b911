"""Everything that is stored of one run, read whatever its condition, and which sessions are open.

An open session has a marker, which a killed process leaves behind. Whoever completes the session
holds the marker meanwhile and takes it away when all is done. The hold dies with its holder, so a
session that was begun to be completed is found again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import orjson

from burr_otel.cached import CachedProperty
from burr_otel.errors import RunInUseError
from burr_otel.records import BEGIN_ENTRY, ROOT, ROOT_END, EndRoot
from burr_otel.records.read import DamageError, kind_of_line, parse
from burr_otel.records.write import encode
from burr_otel.store.port import Line, RunLog
from burr_otel.store.reading import Unfolding, metadata_of, object_of, otel_of, sound_parts

_CRASHED: Final = "crashed"
_MAX_SCAN_BYTES: Final = 1024 * 1024


class Pointer(NamedTuple):
    """Another run, and the step of it where the two meet."""

    app_id: str
    sequence_id: int | None = None
    partition_key: str | None = None

    @classmethod
    def read(cls, found: Any) -> Pointer | None:
        """One of Burr's that names a run: a merely resumed application has one that does not."""
        if not isinstance(found, Mapping) or not isinstance(found.get("app_id"), str):
            return None
        sequence_id, partition_key = found.get("sequence_id"), found.get("partition_key")
        return cls(
            found["app_id"],
            sequence_id if type(sequence_id) is int else None,
            partition_key if isinstance(partition_key, str) else None,
        )


class StoredRun:
    """A run, read tolerantly, and only what is asked for.

    `place`, `forward`, `backward` and `owner_lives` are those of its `log`, damaged lines included.
    `skipped` has position, length and reason of each damaged part that `records` passed over,
    `read_bytes` how much of the log it has read, `left_out` how many steps it was not to read.
    """

    def __init__(self, log: RunLog) -> None:
        self.log, self.place = log, log.place
        self.project, self.app_id = log.project, log.app_id
        self.forward, self.backward, self.owner_lives = log.forward, log.backward, log.owner_lives
        self.skipped: list[tuple[int, int, str]] = []
        self.read_bytes = self.left_out = 0

    @property
    def partition_key(self) -> str | None:
        """Of the run."""
        return self.log.partition_key

    @property
    def size_bytes(self) -> int:
        """Of the log."""
        return self.log.extent().size_bytes

    @property
    def changed_ns(self) -> int:
        """Unix time of the newest record."""
        return self.log.extent().changed_ns

    @property
    def parent_pointer(self) -> Pointer | None:
        """Where the run was forked from."""
        return Pointer.read(self._metadata.get("parent_pointer"))

    @property
    def spawning_parent_pointer(self) -> Pointer | None:
        """The step that the run is a part of."""
        return Pointer.read(self._metadata.get("spawning_parent_pointer"))

    @CachedProperty
    def graph(self) -> dict[str, Any] | None:
        """The current graph in Burr's layout; None when it is lost."""
        return object_of(self.log.graph())

    def graph_of(self, digest: str) -> dict[str, Any] | None:
        """The graph that an otel_root record names."""
        return object_of(self.log.graph(digest))

    @CachedProperty
    def children(self) -> list[dict[str, Any]]:
        """Forks and spawned applications, in Burr's layout."""
        found = [object_of(line) for line in self.log.children()]
        return [each for each in found if each is not None]

    def left_open(self, dead_before_ns: int) -> Iterator[OpenSession]:
        """Sessions whose owner is dead, or may be and is silent since then; held one by one."""
        log = self.log
        for session_id, data in log.open_markers():
            marker = _read_marker(data)
            if marker is None or log.owner_lives(marker["owner"]):
                continue
            with log.hold(session_id) as ours:
                if not ours:
                    continue
                session = _session(log, session_id, marker)
                known_dead = log.owner_lives(marker["owner"]) is False
                if known_dead or session.last_ns < dead_before_ns:
                    yield session

    def records(self, ends: tuple[int, int] | None = None) -> Iterator[dict[str, Any]]:
        """The sound records in file order, with whole states; damaged parts go to `skipped`.

        The state of a record whose base is lost is None, and `skipped` tells it too. With `ends`,
        only so many steps at the beginning and at the end of a long log are read; the others are
        counted in `left_out`, and their states are not missed.
        """
        self.skipped.clear()
        self.left_out, unfolding = 0, Unfolding()
        for part in sound_parts(self.log.forward() if ends is None else self._at_ends(*ends)):
            self.read_bytes = part.end
            if part.record is None:
                self.skipped.append((part.position, part.end - part.position, part.reason))
                continue
            record = unfolding.whole(part.record, part.data)
            if record is None:
                record = {**part.record, "state": None}
                if not self.left_out:
                    reason = "the record that its state builds on is lost"
                    self.skipped.append((part.position, part.end - part.position, reason))
            yield record

    def _at_ends(self, first: int, last: int) -> Iterator[Line]:
        """The lines of the first and the last steps, and all of how sessions began or ended."""
        begun = sum(_kind(line) == BEGIN_ENTRY for line in self.log.forward())
        self.left_out, number = max(0, begun - first - last), 0
        for line in self.log.forward():
            kind = _kind(line)
            number += kind == BEGIN_ENTRY
            if not first < number <= begun - last or kind in (ROOT, ROOT_END):
                yield line

    @CachedProperty
    def _metadata(self) -> dict[str, Any]:
        return metadata_of(self.log.metadata()) or {}


def _kind(line: Line) -> str | None:
    found = kind_of_line(line.data)
    return None if found is None else found[0]


def runs_beyond(
    runs: Iterable[StoredRun],
    since_ns: int | None = None,
    most_runs: int | None = None,
    most_bytes: int | None = None,
) -> list[tuple[int, StoredRun]]:
    """The runs that are out of any of these bounds, oldest first, and when each was written to."""
    found = [(*run.log.extent(), run) for run in runs]
    found.sort(key=lambda each: (each[1], each[0]), reverse=True)
    within, all_bytes = 0, 0
    for size_bytes, changed_ns, _ in found:
        all_bytes += size_bytes
        if (
            (since_ns is not None and changed_ns < since_ns)
            or (most_runs is not None and within >= most_runs)
            or (most_bytes is not None and all_bytes > most_bytes)
        ):
            break
        within += 1
    return [(changed_ns, run) for _, changed_ns, run in reversed(found[within:])]


# --- open sessions --------------------------------------------------------------------------------


class OpenSession(NamedTuple):
    """A session whose owner died; its records are those of the run that name it.

    `root` is the ``otel`` object of its root, in short: `ended` in it tells that it had ended, by
    idling, before the step that is open. `last_ns` is the time of the session's newest record, and
    `completed` whether it has been completed by one that died before it took the marker away.
    """

    log: RunLog
    session_id: str
    root: dict[str, Any]
    last_ns: int
    completed: bool

    def end(self, record: EndRoot | None = None) -> None:
        """Record how the session ended, if nothing tells that, and take its marker away."""
        if record is not None:
            tag = b'"session":%b' % orjson.dumps(self.session_id)
            self.log.append(encode(record, tag), durability="flush")
        self.log.unmark(self.session_id)


def _read_marker(marker: bytes) -> dict[str, Any] | None:
    """What a marker tells; None: it was half written, or is none of ours."""
    found = object_of(marker) or {}
    is_one = isinstance(found.get("owner"), dict) and isinstance(found.get("otel"), dict)
    return found if is_one else None


def check_unused(log: RunLog, dead_before_ns: int) -> None:
    """Refuse a run with an open session whose owner lives, or may and is not silent since then."""
    for session_id, data in log.open_markers():
        owner = (_read_marker(data) or {}).get("owner", {})
        alive = log.owner_lives(owner)
        if alive is None:
            alive = log.extent().changed_ns > dead_before_ns
        if alive:
            raise RunInUseError(f"{log.project}/{log.app_id}", session_id, owner)


def _session(log: RunLog, session_id: str, marker: dict[str, Any]) -> OpenSession:
    root, completed = marker["otel"], False
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
    return OpenSession(log, session_id, root, last_ns, completed)


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
