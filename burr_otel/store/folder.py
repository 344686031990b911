"""A run's folder and the small files in it: metadata, children, and the graph."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from burr_otel.store import graphs, names, repair
from burr_otel.store.encoded import encode_text
from burr_otel.store.records import local_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from burr_otel.store.log import Durability

__all__ = [
    "add_child",
    "complete_run",
    "make_folders",
    "make_run",
    "metadata_json",
    "pointer",
    "read_children",
    "read_json",
]


def pointer(value: Any) -> dict[str, Any] | None:
    """A parent pointer in Burr's layout; None when there is none, or it names no run.

    A resumed application has a pointer whose app id is None.
    """
    app_id = getattr(value, "app_id", None)
    if app_id is None:
        return None
    partition_key, sequence_id = value.partition_key, value.sequence_id
    return {
        "type": "pointer_data",
        "app_id": _clean(app_id),
        "sequence_id": sequence_id if isinstance(sequence_id, int) else None,
        "partition_key": None if partition_key is None else _clean(partition_key),
    }


def metadata_json(
    partition_key: str | None,
    parent: Mapping[str, Any] | None,
    spawning_parent: Mapping[str, Any] | None,
) -> bytes:
    """What ``metadata.json`` holds."""
    return orjson.dumps(
        {
            "type": "application_metadata",
            "partition_key": partition_key,
            "parent_pointer": parent,
            "spawning_parent_pointer": spawning_parent,
        }
    )


def make_folders(path: Path, *, sync: bool) -> None:
    """Make a folder and those above it, for its owner only.

    Raises:
        OSError: They cannot be made.
    """
    if path.is_dir():
        return
    make_folders(path.parent, sync=sync)
    path.mkdir(mode=0o700, exist_ok=True)
    if sync:
        _sync_folder(path.parent)


def make_run(path: str, files: Mapping[str, bytes], *, durability: Durability) -> bool:
    """Make a run's folder with its files, all at once.

    Args:
        path: Of the folder; the one above it exists.
        files: Contents by name.
        durability: The files are synced unless it is ``"none"``, the folders for ``"fsync"``.

    Returns:
        False when another process made it first.

    Raises:
        OSError: It cannot be made.
    """
    target = Path(path)
    # The run's name is left out, since a suffix may be too long beside a name of 255 bytes.
    temporary = target.with_name(f"{names.TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(6)}")
    temporary.mkdir(0o700)
    try:
        for name, data in files.items():
            _write_file(temporary / name, data, sync=bool(data) and durability != "none")
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


def _write_file(path: Path, data: bytes, *, sync: bool) -> None:
    """Write a new file that only its owner may read.

    Raises:
        OSError: It cannot be written, or exists.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        while data:
            data = data[os.write(fd, data) :]
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def _replace_file(path: Path, data: bytes, *, sync: bool) -> None:
    """Replace a file so that a reader sees the old one or the new one, whole.

    Raises:
        OSError: It cannot be written; the old file is as it was.
    """
    temporary = path.with_name(f"{path.name}.new-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        _write_file(temporary, data, sync=sync)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if sync:
        _sync_folder(path.parent)


def complete_run(folder: str, graph: bytes, metadata: bytes, *, sync: bool) -> bool:
    """Add what is missing of a run's files and bring its graph up to date.

    Returns:
        Whether the graph differs from the one before.

    Raises:
        OSError: They cannot be written.
    """
    # Perhaps another process makes the log at this moment, so it is never replaced.
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    os.close(os.open(f"{folder}/{names.LOG}", flags, 0o600))
    with (
        contextlib.suppress(FileNotFoundError),
        _locked_children(folder, create=False) as (fd, path),
    ):
        repair.mend_tail(fd, path)
    if read_json(f"{folder}/{names.METADATA}") is None:
        _replace_file(Path(folder, names.METADATA), metadata, sync=sync)
    return _replace_graph(Path(folder, names.GRAPH), graph, sync=sync)


def _replace_graph(path: Path, graph: bytes, *, sync: bool) -> bool:
    """Make `graph` the run's current one; an earlier one is kept under the name of its digest.

    Returns:
        Whether it differed from the one before.

    Raises:
        OSError: It cannot be written.
    """
    try:
        earlier = path.read_bytes()
    except FileNotFoundError:
        earlier = b""
    if earlier == graph:
        return False
    if earlier:
        if graphs.same(earlier, graph):
            return False
        _replace_file(path.with_name(f"graph-{graphs.digest(earlier)}.json"), earlier, sync=sync)
    _replace_file(path, graph, sync=sync)
    return bool(earlier)


def add_child(
    folder: str,
    child: Mapping[str, Any],
    *,
    event_type: str,
    sequence_id: int | None,
    time_ns: int,
    sync: bool,
) -> None:
    """Tell a parent run about its child; nothing happens when this store has no such parent.

    Raises:
        OSError: It cannot be written.
    """
    if not names.check_run_folder(folder):
        return
    line = orjson.dumps(
        {
            "type": "child_application_data",
            "child": {"type": "pointer_data", **child},
            "event_time": local_time(time_ns).decode(),
            "event_type": event_type,
            "sequence_id": sequence_id,
        }
    )
    with _locked_children(folder, create=True) as (fd, path):
        repair.mend_tail(fd, path)
        os.write(fd, line + b"\n")
        if sync:
            os.fdatasync(fd)


@contextlib.contextmanager
def _locked_children(folder: str, *, create: bool) -> Iterator[tuple[int, str]]:
    path = f"{folder}/{names.CHILDREN}"
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(path, flags | os.O_CREAT if create else flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd, path
    finally:
        # Closing would not do: a process that was forked meanwhile has the lock too.
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


def read_children(folder: str) -> list[dict[str, Any]]:
    """The sound lines of ``children.jsonl``."""
    found: list[dict[str, Any]] = []
    try:
        lines = Path(folder, names.CHILDREN).read_bytes().splitlines()
    except FileNotFoundError:
        return found
    for line in lines:
        with contextlib.suppress(ValueError):
            child = json.loads(line)
            if isinstance(child, dict):
                found.append(child)
    return found


def read_json(path: str) -> dict[str, Any] | None:
    """A small JSON object from a file; None when the file is missing or damaged."""
    try:
        found = json.loads(Path(path).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _clean(value: Any) -> str:
    return str(orjson.loads(encode_text(str(value))))


def _sync_folder(path: Path) -> None:
    """Make the names in a folder survive power loss."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
