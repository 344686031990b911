"""Making a run's folder, and writing its small files: whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from burr_otel.errors import InvalidIdentifierError
from burr_otel.store.names import TEMPORARY_PREFIX
from burr_otel.store.port import Durability


def check_folder(path: str) -> os.stat_result | None:
    """What the system tells of a folder; None when there is none."""
    try:
        info = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(info.st_mode):
        raise InvalidIdentifierError(
            f"{path} is a symbolic link; a run's folder must be a real one inside its project. "
            "Move the folder here, or link the storage directory as a whole."
        )
    return info if stat.S_ISDIR(info.st_mode) else None


def temporary_name(folder: Path) -> Path:
    """A path beside a run's folder that nobody else uses or lists.

    The run's name is left out, since a suffix may be too long beside a name of 255 bytes.
    """
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
    """Make a run's folder with its files, all at once; False: another process made it first.

    The files are synced unless `durability` is ``"none"``, the folders for ``"fsync"``.
    """
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


def write_file(path: Path | str, data: bytes, *, sync: bool) -> None:
    """Write a new file that only its owner may read."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(path, flags, 0o600)
    try:
        while data:
            data = data[os.write(fd, data) :]
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, data: bytes, *, sync: bool) -> None:
    """Replace a file so that a reader sees the old one or the new one, whole."""
    temporary = path.with_name(f"{path.name}.new-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        write_file(temporary, data, sync=sync)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if sync:
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Make the names in a folder survive power loss."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
