"""Reading a bounded part of a run's log: the newest record, or one step's, however long it is."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from typing import TYPE_CHECKING, Any

from burr_otel.store import names, records
from burr_otel.store.chain import resolve
from burr_otel.store.index import Entry, Index, fingerprint, kind_of
from burr_otel.store.query import Query
from burr_otel.store.repair import lines_backward, parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Self

__all__ = ["LogReader"]

logger = logging.getLogger(__name__)

_TAIL_BYTES = 16 * 1024  # looked at before the index is asked
_MAX_SCAN_BYTES = 1024 * 1024  # read without an index; more is indexed first
_BATCH_ENTRIES = 4096
_END_QUERY = Query((records.END_ENTRY,), None, with_state=False, accept=None)


class _StaleIndexError(Exception):
    """The index names a record that reads differently."""


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
        with_state: bool = False,
        accept: Callable[[dict[str, Any]], bool] | None = None,
    ) -> dict[str, Any] | None:
        """The newest sound record of such types: of one step, or of any.

        The newest of all is mostly near the tail; everything else is found through the index. What
        the index does not cover yet is read, and indexed when it is much.

        Args:
            kinds: Types of records.
            sequence_id: Of one step; None: of any.
            with_state: Whether only records will do from which a run can be resumed.
            accept: Looks at each record that fits otherwise.

        Raises:
            OSError: The log cannot be read.
        """
        query = Query(kinds, sequence_id, with_state=with_state, accept=accept)
        unread = self._size
        if sequence_id is None:
            for line in lines_backward(self._fd, self._size):
                record = self._match(query, line.data, line.offset)
                if record is not None:
                    return record
                unread = line.offset
                if unread < self._size - _TAIL_BYTES:
                    break
            if not unread:
                return None
        for rebuild in (False, True):
            with self._index(rebuild=rebuild) as index:
                record, sound = self._search(index, query, unread)
            if sound:
                return record
        return None

    def _search(
        self, index: Index, query: Query, unread: int
    ) -> tuple[dict[str, Any] | None, bool]:
        """The record, and whether the index was right about every line that it was asked for."""
        for line in lines_backward(self._fd, unread, index.covered):
            record = self._match(query, line.data, line.offset)
            if record is not None:
                return record, True
        for entry in index.find(query.numbers, query.sequence_id):
            found = os.pread(self._fd, entry.length, entry.offset)
            if fingerprint(found) != entry.print:
                return None, False
            record = self._match(query, found, entry.offset)
            if record is not None:
                return record, True
        return None, True

    def _match(self, query: Query, line: bytes, offset: int) -> dict[str, Any] | None:
        """The record on a line if it is such a one; with its whole state, where that is asked."""
        record = query.match(line)
        if record is None or not query.with_state:
            return record
        for rebuild in (False, True):
            with contextlib.suppress(_StaleIndexError):
                whole = resolve(record, self._ends_before(offset, rebuild=rebuild))
                if whole is not None:
                    return whole
                break
        logger.warning(
            "%s: step %s is passed over, because a record that its state builds on is lost",
            self._path,
            record.get("sequence_id"),
        )
        return None

    def _ends_before(self, offset: int, *, rebuild: bool) -> Iterator[dict[str, Any]]:
        """The end_entry records before an offset, newest first.

        Raises:
            _StaleIndexError: The index does not fit the log.
        """
        with self._index(rebuild=rebuild) as index:
            unread = max(0, offset)
            for line in lines_backward(self._fd, unread, min(unread, index.covered)):
                record = _END_QUERY.match(line.data)
                if record is not None:
                    yield record
            for entry in index.before(_END_QUERY.numbers, min(unread, index.covered)):
                found = os.pread(self._fd, entry.length, entry.offset)
                if fingerprint(found) != entry.print:
                    raise _StaleIndexError
                record = _END_QUERY.match(found)
                if record is not None:
                    yield record

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
