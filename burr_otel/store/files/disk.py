"""The names in a run's folder, and its files: opened with care, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from burr_otel.errors import InvalidIdentifierError, RunLockedError
from burr_otel.store.names import MAX_NAME_BYTES, TEMPORARY_PREFIX
from burr_otel.store.port import Durability
from burr_otel.store.process import begin_anew_after_fork, host, this_owner

LOG: Final = "log.jsonl"
GRAPH: Final = "graph.json"
METADATA: Final = "metadata.json"
CHILDREN: Final = "children.jsonl"
INDEX: Final = "log.index"
LOCK: Final = "run.lock"
OPEN_PREFIX: Final = "open-"

PARTITION_SUFFIX: Final = re.compile(r"~p-[0-9a-f]{12}\Z")
MAX_BLOCK_BYTES: Final = 4 * 1024 * 1024


def partition_name(app_id: str, partition_key: str | None) -> str:
    """Name of the folder of a run whose app id another partition has used for a folder already."""
    digest = hashlib.sha256(json.dumps([app_id, partition_key]).encode()).hexdigest()
    suffix = f"~p-{digest[:12]}"
    start = app_id.encode()[: MAX_NAME_BYTES - len(suffix)]
    return start.decode(errors="ignore") + suffix


def share_folder(one: str, other: str) -> bool:
    """Whether two app ids are one folder where the file system ignores case or normalizes."""
    return one != other and _folded(one) == _folded(other)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def check_folder(path: str) -> bool:
    """Whether there is such a folder; a link in its place is refused."""
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if stat.S_ISLNK(mode):
        raise InvalidIdentifierError(
            f"{path} is a symbolic link; a run's folder must be a real one inside its project. "
            "Move the folder here, or link the storage directory as a whole."
        )
    return stat.S_ISDIR(mode)


def has_log(folder: str) -> bool:
    """Whether a folder is a run's: the parents of untracked runs have no log."""
    try:
        return stat.S_ISREG(os.lstat(f"{folder}/{LOG}").st_mode)
    except FileNotFoundError:
        return False


def open_regular(path: str | Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file; symbolic links are not followed, and no pipe is waited for."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "is not a regular file", path)
    return fd


@contextlib.contextmanager
def opened(path: str | Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open a regular file for a moment."""
    fd = open_regular(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def lock(fd: int, path: str, how: int = fcntl.LOCK_EX) -> None:
    """Take a file's lock."""
    try:
        fcntl.flock(fd, how)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        why = "its file system has no file locks: mount it with them, or keep runs elsewhere"
        raise OSError(error.errno, why, path) from error


@contextlib.contextmanager
def locked(fd: int) -> Iterator[None]:
    """Hold a file's lock."""
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        # Closing would not do: a process that was forked meanwhile has the lock too.
        fcntl.flock(fd, fcntl.LOCK_UN)


def read_small(path: str, limit_bytes: int) -> bytes | None:
    """The bytes of a file; None when it is missing, longer than that, or cannot be read."""
    found = b""
    with contextlib.suppress(OSError), opened(path) as fd:
        while len(found) <= limit_bytes:
            block = os.read(fd, min(MAX_BLOCK_BYTES, limit_bytes + 1 - len(found)))
            if not block:
                return found
            found += block
    return None


def write_all(fd: int, data: bytes) -> None:
    """Write all of the data, in as many calls as the system wants."""
    while data:
        data = data[os.write(fd, data) :]


def write_file(path: Path | str, data: bytes, *, sync: bool) -> None:
    """Write a new file that only its owner may read."""
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as fd:
        write_all(fd, data)
        if sync:
            os.fsync(fd)


def replace_file(path: Path, data: bytes, *, sync: bool) -> None:
    """Replace a file so that a reader sees the old one or the new one, whole."""
    temporary = path.with_name(f"new-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        write_file(temporary, data, sync=sync)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if sync:
        _sync_folder(path.parent)


def temporary_name(folder: Path) -> Path:
    """A path beside a run's folder that nobody else uses or lists, and of a length that goes."""
    return folder.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(6)}")


def make_folders(path: Path, *, sync: bool) -> None:
    """Make a folder and those above it, for its owner only."""
    if path.is_dir():
        return
    make_folders(path.parent, sync=sync)
    path.mkdir(mode=0o700, exist_ok=True)
    if sync:
        _sync_folder(path.parent)


def make_run(path: str, files: Mapping[str, bytes], *, durability: Durability) -> bool:
    """Make a run's folder with its files, all at once; False: another process made it first."""
    target = Path(path)
    temporary = temporary_name(target)
    temporary.mkdir(0o700)
    try:
        for name, data in files.items():
            write_file(temporary / name, data, sync=bool(data) and durability != "none")
        if durability == "fsync":
            _sync_folder(temporary)
        temporary.rename(target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    if durability == "fsync":
        _sync_folder(target.parent)
    return True


def _sync_folder(path: Path) -> None:
    """Make the names in a folder survive power loss."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# --- locks that die with their holder -------------------------------------------------------------


class FolderClaim:
    """An exclusive claim of a session on a run."""

    def __init__(self, folder: str, run: str, session_id: str) -> None:
        self._fd = -1
        path = f"{folder}/{LOCK}"
        self._fd = open_regular(path, os.O_RDWR | os.O_CREAT)
        begin_anew_after_fork(self)
        try:
            lock(self._fd, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(self._fd), os.lstat(path)):
                raise FileNotFoundError(errno.ENOENT, "was deleted and made anew meanwhile", path)
        except BlockingIOError:
            holder = self._holder()
            self.after_fork()
            raise RunLockedError(run, **holder) from None
        except OSError:
            self.after_fork()
            raise
        text = json.dumps({"holder": session_id, **this_owner()})
        with contextlib.suppress(OSError):  # on a full disk, others are told less
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, text.encode(), 0)

    def release(self) -> None:
        """Give the run free; idempotent."""
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: close the descriptor without touching the lock that it shares."""
        # A child that keeps it would keep the claim alive after its holder's death.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.release()

    def _holder(self) -> dict[str, Any]:
        try:
            found = json.loads(os.pread(self._fd, 4096, 0))
            kinds = {"holder": str, "host": str, "pid": int}
            return {name: kind(found[name]) for name, kind in kinds.items()}
        except (ValueError, KeyError, TypeError):  # it is being written this moment
            return {"holder": "unknown", "host": host(), "pid": 0}
