"""A file that is appended to under a lock, and closed while others need the room."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator

from burr_otel.store.files.pool import Pool
from burr_otel.store.files.safe import open_regular

pool = Pool()


class OpenFile(ABC):
    """A file in a folder, of which both stay where they are, or it says so."""

    __slots__ = (
        "__weakref__", "_busy", "_device", "_fd", "_folder_inode", "_inode", "_lock", "folder",
        "path",
    )  # fmt: skip

    def __init__(self, folder: str, name: str) -> None:
        self.folder, self.path = folder, f"{folder}/{name}"
        self._fd = -1
        self._device = self._inode = self._folder_inode = 0
        # Finalisers run inside any allocation, so a dropped stream's last record may be appended
        # by the very thread that is in the middle of an append: hence re-entrant, and deferred.
        self._lock = threading.RLock()
        self._busy = False

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
                fcntl.flock(fd, fcntl.LOCK_EX)
                if self._in_place() is None:
                    raise self._displaced()
                yield fd
            finally:
                self._busy = False
                if self._fd >= 0:  # else it was closed, and with it the lock is gone
                    fcntl.flock(self._fd, fcntl.LOCK_UN)

    def try_close(self) -> None:
        """Release the file descriptor unless an append is going on."""
        if self._lock.acquire(blocking=False):
            try:
                if not self._busy:
                    self._release()
            finally:
                self._lock.release()

    def _release(self) -> None:
        pool.discard(self)
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND
        try:
            folder = os.lstat(self.folder)
            if not stat.S_ISDIR(folder.st_mode):  # a link would lead elsewhere
                raise self._gone()
            fd = open_regular(self.path, flags)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._gone() from error
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            pool.make_room(0)
            fd = open_regular(self.path, flags)
        self._fd, self._folder_inode = fd, folder.st_ino
        info = os.fstat(fd)
        if info.st_ino != self._inode or info.st_dev != self._device:  # not the one we knew
            self._device, self._inode = info.st_dev, info.st_ino
            self._lose_track()
        pool.add(self)
        return fd

    @abstractmethod
    def _lose_track(self) -> None:
        """Forget what is known of the file's contents: it is another one."""

    def _displaced(self) -> FileNotFoundError:
        self._release()
        return self._gone()

    def _gone(self) -> FileNotFoundError:
        return FileNotFoundError(
            f"{self.path} was deleted or replaced while the run was live; restore the folder or "
            "build the application again"
        )

    def _in_place(self) -> os.stat_result | None:
        """What its path leads to, if that is still this file."""
        try:
            folder, info = os.lstat(self.folder), os.lstat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        # A folder that was moved and linked to from here would have the same file in it.
        if folder.st_ino != self._folder_inode or info.st_ino != self._inode:
            return None
        return info if info.st_dev == self._device else None
