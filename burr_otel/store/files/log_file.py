"""Appending to a run's log: whole lines, one writer at a time, a bounded number of open files.

Every append takes the log's file lock for just that append, so that writers in any number of
processes never mix lines. What is found at the end of the file decides what happens first: bytes
of another writer are taken note of, a torn line of a killed one is saved and cut off.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from burr_otel.printable import logger
from burr_otel.store.files import disk
from burr_otel.store.files.index import Index
from burr_otel.store.files.scan import mend, settle
from burr_otel.store.port import BEGIN, END, DisplacedError, Durability

# At most a quarter of what the process may have (-1: any number): the rest is the user's.
_FILE_LIMIT: Final = os.sysconf("SC_OPEN_MAX")
_MOST_OPEN: Final = 64 if _FILE_LIMIT < 0 else min(64, _FILE_LIMIT // 4)
# A reader goes through so much without an index, or through so many records of a length.
_INDEX_BATCH_BYTES: Final = 512 * 1024
_INDEX_BATCH_LONG: Final = 8
_BUFFER_BYTES: Final = 64 * 1024  # durability "none"
_NOTED: Final = struct.Struct("<BqQQ")  # a record as the index notes it
_INDEX_BATCH_NOTED_BYTES: Final = 128 * _NOTED.size

# Opened longest ago first. No lock, since finalisers close files, too: each use is one operation.
_open_files: dict[LogFile, None] = {}


class _Late(NamedTuple):
    """A record that is put off, as `append` was given it; `sync`: until it is on the disk."""

    line: bytes
    entry: tuple[int, int] | None
    mark: object | None
    sync: bool


class LogFile:
    """One run's log in this process, shared by all its sessions there.

    Its file is opened when it is needed, and closed while others need the room.
    """

    __slots__ = (
        "__weakref__", "_busy", "_end", "_fd", "_identity", "_index_from", "_lock", "_newest",
        "_pending", "_waiting", "_waiting_bytes", "folder", "path",
    )  # fmt: skip

    _end: int  # length of the log after our last append; -1: we lost track
    _pending: bytes  # index entries, packed, because a process may have very many logs
    _index_from: int  # where they begin; -1: we lost track
    _newest: object | None  # mark of the newest end_entry; None: we lost track

    def __init__(self, folder: str) -> None:
        self.folder, self.path = folder, f"{folder}/{disk.LOG}"
        # Also of the folder: one that was moved and linked to from here has the same file in it.
        self._identity = (0, 0, 0)
        self._fd = -1
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: begin anew."""
        # Finalisers run inside any allocation, so a dropped stream's last record may be appended
        # by the very thread that is in the middle of an append: hence re-entrant, and put off.
        self._lock = threading.RLock()
        self._busy = False
        self._waiting: list[_Late] = []
        self._waiting_bytes = 0
        self._lose_track()
        # The descriptor shares its lock with the parent's: close it, and never unlock it.
        self._release()

    def append(  # noqa: C901, PLR0912 - flat, as calls cost; see below
        self,
        line: bytes | Sequence[bytes],
        entry: tuple[int, int] | None = None,
        *,
        durability: Durability,
        after: object | None = None,
        mark: object | None = None,
    ) -> tuple[int, int]:
        """Append one line; see `RunLog.append`. Where one lies that is put off is not known."""
        # One flat method and few system calls: between the user's own code, where caches are cold,
        # each call of a function costs as much as the work in it.
        with self._lock:
            if after is not None and (self._busy or after is not self._newest):
                raise DisplacedError
            if self._busy or durability == "none":
                return self._put_off(line, entry, mark, sync=durability == "fsync")
            if self._waiting:
                self.flush()
            self._busy = True
            try:
                fd = self._fd if self._fd >= 0 else self._open()
                fcntl.flock(fd, fcntl.LOCK_EX)
                # Where the file is, is looked up once a step; whether it still is, each time.
                begins = entry is not None and entry[0] == BEGIN
                info = self._in_place() if begins else os.fstat(fd)
                if info is None or not info.st_nlink:
                    raise self._gone()
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
                        unread = end - self._index_from
                        if len(self._pending) >= _INDEX_BATCH_NOTED_BYTES or (
                            unread >= _INDEX_BATCH_BYTES and unread >= _INDEX_BATCH_LONG * length
                        ):
                            self._write_index(fd)
            finally:
                self._busy = False
                if self._fd >= 0:  # else it was closed, and with it the lock is gone
                    fcntl.flock(self._fd, fcntl.LOCK_UN)
            if self._waiting:
                self._flush_late()
            return start, end

    def _put_off(
        self,
        line: bytes | Sequence[bytes],
        entry: tuple[int, int] | None,
        mark: object | None,
        *,
        sync: bool,
    ) -> tuple[int, int]:
        """Keep a line until the next flush, or until the end of the append that is going on."""
        line = line if isinstance(line, bytes) else b"".join(line)
        if self._busy:
            mark = None
        elif entry is not None and entry[0] == END:
            self._newest = mark
        self._waiting.append(_Late(line, entry, mark, sync))
        self._waiting_bytes += len(line)
        if self._waiting_bytes >= _BUFFER_BYTES:
            self.flush()
        return -1, -1

    def _flush_late(self) -> None:
        """Write what finalisers have appended meanwhile."""
        try:
            self.flush()
        except OSError as error:
            logger.error("%s: a record could not be kept: %s", self.path, error)

    def flush(self) -> None:
        """Write what was put off."""
        with self._lock:
            if self._busy or not self._waiting:
                return
            lines, self._waiting, self._waiting_bytes = self._waiting, [], 0
            try:
                with self.locked() as fd:
                    start = self._catch_up(fd)
                    data = b"".join([late.line for late in lines])
                    try:
                        _complete(fd, data, 0, sync=any(late.sync for late in lines))
                    except OSError:
                        self._undo(fd, start)
                        raise
                    self._end = start + len(data)
                    for line, entry, mark, _ in lines:
                        if entry is not None:
                            if entry[0] == END and mark is None:
                                self._newest = None  # `_put_off` has set it to any other
                            if self._index_from >= 0:
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
            known = self._end
            damage = self._repair(fd)
            if self._end != known:
                self._newest = None
            self._pending = b""
            return damage

    # --- the file ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """The file descriptor, under the file's lock against other processes and threads."""
        with self._lock:
            if self._busy:  # a finaliser inside an append of this thread: it holds the lock
                yield self._fd
                return
            self._busy = True
            try:
                fd = self._fd if self._fd >= 0 else self._open()
                try:
                    disk.lock(fd, self.path)
                except OSError:
                    self._release()  # else it would be unlocked, which fails as well
                    raise
                if self._in_place() is None:
                    raise self._gone()
                yield fd
            finally:
                self._busy = False
                if self._fd >= 0:  # else it was closed, and with it the lock is gone
                    fcntl.flock(self._fd, fcntl.LOCK_UN)
            if self._waiting:
                self._flush_late()

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND
        try:
            folder = os.lstat(self.folder)
            if not stat.S_ISDIR(folder.st_mode):  # a link would lead elsewhere
                raise self._gone()
            fd = disk.open_regular(self.path, flags)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._gone() from error
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            _make_room(0)
            fd = disk.open_regular(self.path, flags)
        info = os.fstat(fd)
        self._fd, identity = fd, (folder.st_ino, info.st_dev, info.st_ino)
        if identity != self._identity:  # not the one we knew
            self._identity = identity
            self._lose_track()
        _open_files[self] = None
        _make_room(_MOST_OPEN, keep=self)
        return fd

    def _lose_track(self) -> None:
        """Forget what is known of the file's contents: it is another one."""
        self._end = self._index_from = -1
        self._pending, self._newest = b"", None

    def _in_place(self) -> os.stat_result | None:
        """What its path leads to, if that is still this file."""
        try:
            folder, info = os.lstat(self.folder), os.lstat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return info if (folder.st_ino, info.st_dev, info.st_ino) == self._identity else None

    def _gone(self) -> FileNotFoundError:
        self._release()
        return FileNotFoundError(
            f"{self.path} was deleted or replaced while the run was live; restore the folder or "
            "build the application again"
        )

    def try_close(self) -> None:
        """Release the file descriptor unless it is in use."""
        # Never waits: the user may be the very thread that needs room.
        if self._lock.acquire(blocking=False):
            try:
                if not self._busy:
                    self._release()
            except OSError as error:  # a network file system's; who needs room is another run
                logger.error("%s: its last records may be lost: %s", self.path, error)
            finally:
                self._lock.release()

    def _release(self) -> None:
        _open_files.pop(self, None)
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    # --- what others wrote, and what was torn ------------------------------------------------

    def _catch_up(self, fd: int) -> int:
        """Take note of what others wrote since; the length of the log, which ends a line."""
        size = os.fstat(fd).st_size
        if size == self._end:
            return size
        self._lose_track()
        if size and os.pread(fd, 1, size - 1) != b"\n":
            for damage in self._repair(fd):
                logger.warning("%s: %s", self.path, damage)
            return self._end
        self._end = size
        return size

    def _repair(self, fd: int) -> list[str]:
        """Mend and index the unchecked part; afterwards `_end` is the log's length."""
        settle(fd)
        damage: list[str] = []
        sound = 0
        if os.fstat(fd).st_size:
            with contextlib.closing(Index(self.folder, fd, writable=True)) as index:
                damage, sound = mend(fd, self.path, index.covered, index.extend)
        self._end = os.fstat(fd).st_size
        self._index_from = sound if sound == self._end else -1
        return damage

    def _undo(self, fd: int, start: int) -> None:
        """A write failed: half a line would be in the way of the next one."""
        self._newest = None
        # If this fails too, the next writer finds the torn tail and cuts it off.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, start)

    def _write_index(self, fd: int) -> None:
        if self._index_from < 0:
            return
        noted, self._pending = self._pending, b""
        index_from, self._index_from = self._index_from, -1
        if os.fstat(fd).st_size != self._end:  # a writer without locks came between
            return
        try:
            with contextlib.closing(Index(self.folder, fd, writable=True)) as index:
                # A reader may have indexed some of it already.
                covered = index.covered
                if index_from <= covered <= self._end:
                    entries = _NOTED.iter_unpack(noted)
                    index.extend([each for each in entries if each[2] >= covered], self._end)
                    self._index_from = self._end
        except OSError as error:
            logger.warning("%s: its index could not be extended: %s", self.path, error)


def _make_room(limit: int, *, keep: LogFile | None = None) -> None:
    """Close files until at most so many are open, or all others are in use."""
    surplus: list[LogFile] = []
    # Another thread or a finaliser that changes the table while it is read: there is room soon.
    with contextlib.suppress(RuntimeError):
        surplus = list(_open_files)[: max(0, len(_open_files) - limit)]
    for file in surplus:
        if file is not keep:
            file.try_close()


def _complete(fd: int, data: bytes | Sequence[bytes], written: int, *, sync: bool) -> None:
    """Write the rest of the data."""
    data = data if isinstance(data, bytes) else b"".join(data)
    disk.write_all(fd, data[written:] if written else data)
    if sync:
        os.fdatasync(fd)
