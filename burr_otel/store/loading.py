"""Reading a bounded part of a run's log: the newest record, or one step's, however long it is."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import logging
import os
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from burr.core import State
from burr.core.persistence import PersistedStateData

from burr_otel.store import exact, names, records
from burr_otel.store.index import (
    BEGIN,
    END,
    INHERITED,
    ROOT,
    Entry,
    Index,
    fingerprint,
    kind_of,
)
from burr_otel.store.repair import lines_backward, parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from typing_extensions import Self

__all__ = [
    "PRIOR_STEP",
    "SEQUENCE_ID",
    "LogReader",
    "holds_state",
    "otel_of",
    "persisted_state",
    "plain_state",
]

logger = logging.getLogger(__name__)

# Burr's own keys in a state; all others are the user's.
SEQUENCE_ID, PRIOR_STEP = "__SEQUENCE_ID", "__PRIOR_STEP"

_MAX_SCAN_BYTES = 1024 * 1024  # from the tail, before the index is asked
_BATCH_ENTRIES = 4096
_KINDS = {records.BEGIN_ENTRY: (BEGIN,), records.END_ENTRY: (END,), records.ROOT: (ROOT, INHERITED)}


class LogReader:
    """A run's log, opened for a moment.

    Args:
        folder: Of the run.

    Raises:
        FileNotFoundError: There is no log.
        OSError: It cannot be read.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._path = f"{folder}/{names.LOG}"
        self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._size = os.fstat(self._fd).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    @property
    def size(self) -> int:
        """Length of the log in bytes when it was opened."""
        return self._size

    def newest(
        self,
        kinds: Sequence[str],
        *,
        sequence_id: int | None = None,
        accept: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> dict[str, Any] | None:
        """The newest sound record of such types: of one step, or of any.

        The newest of all is near the tail; one step's, and the newest root, are found through the
        index. What the index does not cover yet is read, and indexed when it is much.
        """
        query = _Query(kinds, sequence_id, accept)
        if sequence_id is None and kinds != (records.ROOT,):
            stop = max(0, self._size - _MAX_SCAN_BYTES)
            for line in lines_backward(self._fd, self._size):
                record = query.match(line.data)
                if record is not None:
                    return record
                if line.offset < stop:
                    break
            if not stop:
                return None
        for rebuild in (False, True):
            with self._index(rebuild=rebuild) as index:
                record, sound = self._search(index, query)
            if sound:
                return record
        return None

    def _search(self, index: Index, query: _Query) -> tuple[dict[str, Any] | None, bool]:
        """The record, and whether the index was right about every line that it was asked for."""
        for line in lines_backward(self._fd, self._size, index.covered):
            record = query.match(line.data)
            if record is not None:
                return record, True
        for entry in index.find(query.numbers, query.sequence_id):
            line_ = os.pread(self._fd, entry.length, entry.offset)
            if fingerprint(line_) != entry.print:
                return None, False
            record = query.match(line_)
            if record is not None:
                return record, True
        return None, True

    def _index(self, *, rebuild: bool) -> Index:
        if not rebuild:
            with contextlib.suppress(OSError):
                index = Index.open(self._folder, self._fd, writable=False)
                if self._size - index.covered <= _MAX_SCAN_BYTES:
                    return index
                index.close()
            if self._size <= _MAX_SCAN_BYTES:
                return Index.temporary(self._fd)
        try:
            index = Index.open(self._folder, self._fd, writable=True)
        except OSError:  # a store that we may only read
            index = Index.temporary(self._fd)
        with self._locked():
            if rebuild or not index.covered:
                index.clear()
        while index.covered < self._size and self._extend(index):
            pass
        return index

    def _extend(self, index: Index) -> bool:
        """Index the next part of the log; whether there may be more.

        Reading goes on outside the lock, so that no writer waits for it.
        """
        start, damaged_at = index.covered, None
        entries: list[Entry] = []
        end = start
        for part in parts(self._fd, start, self._size):
            if part.record is None and damaged_at is None:
                damaged_at = part.offset
            if not part.complete and part.offset + len(part.data) == self._size:
                break  # perhaps being written at this moment
            end = part.offset + len(part.data)
            described = None if part.record is None else kind_of(part.data, part.record)
            if described is not None:
                entries.append(
                    Entry(*described, part.offset, len(part.data), fingerprint(part.data))
                )
            if len(entries) >= _BATCH_ENTRIES:
                break
        with self._locked():
            index.reload()
            if index.covered == start:  # else somebody else was quicker
                sound = damaged_at if index.sound == start and damaged_at is not None else None
                index.extend(entries, end, sound=sound)
        return end > start

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)


class _Query:
    """Which records are looked for."""

    def __init__(
        self,
        kinds: Sequence[str],
        sequence_id: int | None,
        accept: Callable[[dict[str, Any]], bool],
    ) -> None:
        self.numbers = tuple(number for kind in kinds for number in _KINDS[kind])
        self.sequence_id = sequence_id
        self._kinds, self._accept = kinds, accept
        self._starts = [b'{"type":"%b"' % kind.encode() for kind in kinds]

    def match(self, line: bytes) -> dict[str, Any] | None:
        kind, number = records.describe(line) or (None, None)
        wanted = kind in self._kinds and self.sequence_id in (None, number)
        if not wanted and kind != records.ROOT:
            return self._behind(line)
        if kind not in self._kinds:
            return None
        record, problem = records.check(line)
        if record is None:
            if line.endswith(b"\n"):  # else it is being written, or its writer was killed
                logger.warning("a damaged %s record is passed over: %s", kind, problem)
            return self._behind(line)
        if kind == records.ROOT and self.sequence_id not in (None, inherited_id(record)):
            return None
        return record if self._accept(record) else None

    def _behind(self, line: bytes) -> dict[str, Any] | None:
        """A record on the same line, behind a torn one."""
        if not any(line.find(start, 1) > 0 for start in self._starts):
            return None
        salvaged = records.salvage(line)
        return None if salvaged is None else self.match(line[salvaged[0] :])


def inherited_id(record: Mapping[str, Any]) -> int | None:
    """The sequence id of the state that an otel_root record carries."""
    number = record.get("inherited_sequence_id")
    return number if isinstance(number, int) else None


def holds_state(record: Mapping[str, Any]) -> bool:
    """Whether a record is one that a run can be resumed from."""
    return isinstance(record.get("state"), dict)


def otel_of(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The `otel` object of a record, if it has one."""
    otel = None if record is None else record.get("otel")
    return otel if isinstance(otel, dict) else None


def plain_state(record: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The state of a record as plain data, with its sequence id, and the position."""
    document, after = _document(record)
    exact.restore(document, after)
    place = _place(record)
    if place.sequence_id is not None:
        document[SEQUENCE_ID] = place.sequence_id
    return document, place.position


def persisted_state(
    record: Mapping[str, Any],
    *,
    partition_key: str | None,
    app_id: str,
    created_ns: int,
    serde_kwargs: Mapping[str, Any],
) -> PersistedStateData:
    """What Burr's `load` returns, from a record that holds a state.

    Raises:
        ValueError: Burr's serde cannot read a value.
    """
    document, after = _document(record)
    values = State.deserialize(document, **serde_kwargs).get_all()
    exact.restore(values, after)
    place = _place(record)
    if place.sequence_id is not None:
        values[SEQUENCE_ID] = place.sequence_id
    created = dt.datetime.fromtimestamp(created_ns / 1e9)  # noqa: DTZ006 - as Burr's client
    return PersistedStateData(
        partition_key=cast("str", partition_key),  # Burr's own annotations forget None
        app_id=app_id,
        sequence_id=cast("int", place.sequence_id),
        position=place.position,
        state=State(values),
        created_at=created.isoformat(),
        status=place.status,
    )


class _Place(NamedTuple):
    """Where in its graph a run was."""

    sequence_id: int | None
    position: str
    status: str


def _place(record: Mapping[str, Any]) -> _Place:
    if record["type"] == records.ROOT:
        return _Place(inherited_id(record), record["position"], record["status"])
    status = "completed" if record["exception"] is None else "failed"
    return _Place(record["sequence_id"], record["action"], status)


def _document(record: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """A record's state without Burr's internal keys, and the patches that must wait."""
    document = dict(record["state"])
    patches = (otel_of(record) or {}).get("exact")
    patches = patches if isinstance(patches, list) else []
    exact.restore(document, [patch for patch in patches if not exact.is_after(patch)])
    for key in (SEQUENCE_ID, PRIOR_STEP):
        document.pop(key, None)
    return document, [patch for patch in patches if exact.is_after(patch)]
