"""Appending to a run's log: whole lines, one writer at a time, a bounded number of open files.

Every append takes the log's file lock for just that append, so that writers in any number of
processes never mix lines. What is found at the end of the file decides what happens first: bytes
of another writer are taken note of, a torn line of a killed one is saved and cut off.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import time
from collections.abc import Sequence
from typing import Final

from burr_otel.printable import logger_of_lines
from burr_otel.store.files import names
from burr_otel.store.files.index import Entry, Index
from burr_otel.store.files.open_file import OpenFile, pool
from burr_otel.store.files.pool import ORDERED
from burr_otel.store.files.repair import Damage, mend
from burr_otel.store.port import BEGIN, END, DisplacedError, Durability

logger = logger_of_lines(__name__)

_INDEX_BATCH_BYTES: Final = 1024 * 1024  # as much as a reader goes through without an index
_BUFFER_BYTES: Final = 64 * 1024  # durability "none"
_SETTLE_S = 0.002
_SETTLE_TRIES: Final = 25
_NOTED: Final = struct.Struct("<BqQQ")  # an `Entry`
_INDEX_BATCH_NOTED_BYTES: Final = 32 * _NOTED.size


class LogFile(OpenFile):
    """One run's log in this process, shared by all its sessions there."""

    __slots__ = (
        "_buffer",
        "_buffered",
        "_deferred",
        "_end",
        "_index_from",
        "_newest",
        "_pending",
    )

    def __init__(self, folder: str) -> None:
        super().__init__(folder, names.LOG)
        self._end = -1  # length of the log after our last append
        self._deferred: list[tuple[bytes, tuple[int, int] | None, Durability]] | None = None
        self._pending = b""  # `Entry`s, packed, because a process may have very many logs
        self._index_from = -1  # where our unwritten index entries begin; -1: we lost track
        self._newest: object | None = None  # mark of the newest end_entry; None: we lost track
        self._buffer: list[tuple[bytes, tuple[int, int] | None]] | None = None
        self._buffered = 0

    def append(  # noqa: C901, PLR0912 - flat, because calls cost; see below
        self,
        line: bytes | Sequence[bytes],
        entry: tuple[int, int] | None = None,
        *,
        durability: Durability,
        after: object | None = None,
        mark: object | None = None,
    ) -> tuple[int, int]:
        """Append one line; see `RunLog.append`.

        Where it lies is not known when it was buffered, or put off to the end of an append that
        this thread is in the middle of.
        """
        # One flat method and few system calls: between the user's own code, where caches are cold,
        # each call of a function costs as much as the work in it.
        with self._lock:
            if after is not None and (self._busy or after is not self._newest):
                raise DisplacedError
            if self._busy or durability == "none":
                return self._put_off(line, entry, durability, mark)
            if self._buffer:
                self.flush()
            self._busy = True
            try:
                fd = self._fd if self._fd >= 0 else self._open()
                fcntl.flock(fd, fcntl.LOCK_EX)
                # Where the file is, is looked up once a step; whether it still is, each time.
                begins = entry is not None and entry[0] == BEGIN
                info = self._in_place() if begins else os.fstat(fd)
                if info is None or not info.st_nlink:
                    raise self._displaced()
                start = info.st_size
                if start != self._end:
                    start = self._catch_up(fd)
                if after is not None and after is not self._newest:
                    raise DisplacedError
                try:
                    if isinstance(line, bytes):
                        length = len(line)
                        written = os.write(fd, line)
                    else:
                        length = sum(map(len, line))
                        written = os.writev(fd, line)
                    if written < length or durability == "fsync":
                        _complete(fd, line, written, sync=durability == "fsync")
                except OSError:
                    self._undo(fd, start)
                    raise
                self._end = end = start + length
                if entry is not None:
                    if entry[0] == END:
                        self._newest = mark
                    if self._index_from >= 0:
                        self._pending += _NOTED.pack(*entry, start, length)
                        if (
                            len(self._pending) >= _INDEX_BATCH_NOTED_BYTES
                            or end - self._index_from >= _INDEX_BATCH_BYTES
                        ):
                            self._write_index(fd)
                if len(pool.files) > ORDERED:
                    pool.touch(self)
            finally:
                self._busy = False
                if self._fd >= 0:  # else it was closed, and with it the lock is gone
                    fcntl.flock(self._fd, fcntl.LOCK_UN)
            if self._deferred:
                self._flush_deferred()
            return start, end

    def flush(self) -> None:
        """Write what ``durability="none"`` has buffered."""
        with self._lock:
            if self._busy or not self._buffer:
                return
            lines, self._buffer, self._buffered = self._buffer, None, 0
            try:
                with self.locked() as fd:
                    start = self._catch_up(fd)
                    data = b"".join([line for line, _ in lines])
                    try:
                        _complete(fd, data, 0, sync=False)
                    except OSError:
                        self._undo(fd, start)
                        raise
                    self._end = start + len(data)
                    for line, entry in lines:
                        if entry is not None and self._index_from >= 0:
                            self._pending += _NOTED.pack(*entry, start, len(line))
                        start += len(line)
                    self._write_index(fd)
            except OSError:
                self._newest = None
                raise

    def close(self) -> None:
        """Flush, complete the index and release the file descriptor; later appends open again."""
        with self._lock:
            if self._busy:
                return
            try:
                self.flush()
                self._flush_deferred()
                if 0 <= self._index_from < self._end:
                    # The index is a cache: what it lacks is found by the next reader.
                    with contextlib.suppress(OSError), self.locked() as fd:
                        self._write_index(fd)
            finally:
                self._release()

    def repair(self) -> list[str]:
        """Check the part of the log that nobody has checked yet, mend it and index it."""
        with self._lock:
            if not self._busy and self._fd >= 0 and self._in_place() is None:
                self._release()  # the folder was made anew: a new session writes there
        with self.locked() as fd:
            if os.fstat(fd).st_size:
                known = self._end
                damage = self._repair(fd)
                if self._end != known:
                    self._newest = None
            else:
                damage, self._end, self._index_from, self._newest = [], 0, 0, None
            self._pending = b""
            return [str(each) for each in damage]

    def _repair(self, fd: int) -> list[Damage]:
        """Mend and index the unchecked part; afterwards `_end` is the log's length."""
        _settle(fd)
        damage, sound = self._mend(fd)
        self._end = os.fstat(fd).st_size
        self._index_from = sound if sound == self._end else -1
        return damage

    def _mend(self, fd: int) -> tuple[list[Damage], int]:
        try:
            index = Index.open(self.folder, fd, writable=True)
        except OSError as error:
            # Without an index the log is merely slower to search.
            logger.warning("%s has no index: %s", self.path, error)
            return mend(fd, self.path, 0)
        with index:
            checked = index.sound
            if not index.covered or (checked and os.pread(fd, 1, checked - 1) != b"\n"):
                index.clear()
            known = index.covered

            def add(entries: list[Entry], end: int) -> None:
                index.extend([e for e in entries if e.offset >= known], end, sound=end)

            return mend(fd, self.path, index.sound, add)

    def _catch_up(self, fd: int) -> int:
        """Take note of what others wrote since; the length of the log, which ends a line."""
        size = os.fstat(fd).st_size
        if size == self._end:
            return size
        self._newest = None
        if self._end >= 0:
            self._pending = b""
            self._index_from = -1
        if size and os.pread(fd, 1, size - 1) != b"\n":
            for damage in self._repair(fd):
                logger.warning("%s: %s", self.path, damage)
            return self._end
        self._end = size
        return size

    def _put_off(
        self,
        line: bytes | Sequence[bytes],
        entry: tuple[int, int] | None,
        durability: Durability,
        mark: object | None,
    ) -> tuple[int, int]:
        line = line if isinstance(line, bytes) else b"".join(line)
        if self._busy:
            self._deferred = [*(self._deferred or ()), (line, entry, durability)]
            return -1, -1
        if self._buffer is None:
            self._buffer = []
        self._buffer.append((line, entry))
        self._buffered += len(line)
        if entry is not None and entry[0] == END:
            self._newest = mark
        if self._buffered >= _BUFFER_BYTES:
            self.flush()
        return -1, -1

    def _undo(self, fd: int, start: int) -> None:
        """A write failed: half a line would be in the way of the next one."""
        self._newest = None
        # If this fails too, the next writer finds the torn tail and cuts it off.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, start)

    def _write_index(self, fd: int) -> None:
        if self._index_from < 0:
            return
        if os.fstat(fd).st_size != self._end:  # a writer without locks came between
            self._index_from = -1
            self._pending = b""
            return
        try:
            with Index.open(self.folder, fd, writable=True) as index:
                # A reader may have indexed some of it already.
                covered = index.covered
                if self._index_from <= covered <= self._end:
                    noted = _NOTED.iter_unpack(self._pending)
                    index.extend([each for each in noted if each[2] >= covered], self._end)
                    self._index_from = self._end
                else:
                    self._index_from = -1
        except OSError as error:
            logger.warning("%s: its index could not be extended: %s", self.path, error)
            self._index_from = -1
        self._pending = b""

    def _flush_deferred(self) -> None:
        while self._deferred:
            (line, entry, durability), *rest = self._deferred
            self._deferred = rest or None
            try:
                self.append(line, entry, durability=durability)
            except OSError as error:
                logger.error("%s: a record could not be kept: %s", self.path, error)  # noqa: TRY400

    def after_fork(self) -> None:
        """In a forked child: begin anew."""
        # The descriptor shares its lock with the parent's: close it, and never unlock it.
        self._lock = threading.RLock()
        self._busy = False
        self._deferred, self._buffer, self._buffered = None, None, 0
        self._lose_track()
        self._release()

    def _lose_track(self) -> None:
        self._end = self._index_from = -1
        self._newest = None
        self._pending = b""


def _complete(fd: int, data: bytes | Sequence[bytes], written: int, *, sync: bool) -> None:
    """Write the rest of the data."""
    data = data if isinstance(data, bytes) else b"".join(data)
    while written < len(data):
        written += os.write(fd, data[written:] if written else data)
    if sync:
        os.fdatasync(fd)


def _settle(fd: int) -> None:
    """Wait while a program that takes no lock is writing a line, as Burr's client does in pieces.

    A line that nobody adds to for a moment is torn.
    """
    for _ in range(_SETTLE_TRIES):
        size = os.fstat(fd).st_size
        if not size or os.pread(fd, 1, size - 1) == b"\n":
            return
        time.sleep(_SETTLE_S)
        if os.fstat(fd).st_size == size:
            return
