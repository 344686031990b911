"""Writing a run with whole states, for readers that know only Burr's layout."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from burr_otel.errors import StoreError
from burr_otel.store import folder, names
from burr_otel.store.encoded import encode_tree
from burr_otel.store.records import END_ENTRY

if TYPE_CHECKING:
    from pathlib import Path

    from burr_otel.store.stored_run import StoredRun

__all__ = ["Copied", "write_plain"]


class Copied(NamedTuple):
    """What became of a run.

    Attributes:
        steps: How many finished steps were written.
        lost: Sequence ids of finished steps that were left out, because a record that their state
            builds on is lost.
        log_bytes: Length of the log that was written.
    """

    steps: int
    lost: tuple[int, ...]
    log_bytes: int


def write_plain(run: StoredRun, target: Path, *, replace: bool = False) -> Copied:
    """Write a run in Burr's layout; every record of a finished step carries its whole state.

    The target is there whole or not at all.

    Args:
        run: Which run.
        target: Folder of the copy.
        replace: Whether an earlier copy there is replaced.

    Raises:
        StoreError: There is something already, or it is the run itself.
        OSError: It cannot be read or written.
    """
    if target.exists() and target.samefile(run.path):
        raise StoreError(f"{target} is the run itself; write the copy to another place.")
    if os.path.lexists(target) and not replace:
        raise StoreError(f"{target} exists already. Pass --replace, or write to another place.")
    folder.make_folders(target.parent, sync=False)
    temporary = target.with_name(f"{names.TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(6)}")
    temporary.mkdir(0o700)
    try:
        copied = _fill(run, temporary)
        if replace:
            _move_away(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return copied


def _fill(run: StoredRun, place: Path) -> Copied:
    steps, lost, length = 0, [], 0
    with _new_file(place / names.LOG) as log:
        for record in run.records():
            if record["type"] == END_ENTRY:
                if record["state"] is None:
                    lost.append(record["sequence_id"])
                    continue
                steps += 1
            length += log.write(encode_tree(record)[0] + b"\n")
        log.flush()
        os.fsync(log.fileno())
    for path in run.path.glob("graph*.json"):
        _copy(path, place / path.name)
    for name in (names.METADATA, names.CHILDREN):
        with contextlib.suppress(FileNotFoundError):
            _copy(run.path / name, place / name)
    return Copied(steps, tuple(lost), length)


def _copy(source: Path, target: Path) -> None:
    data = source.read_bytes()
    with _new_file(target) as file:
        file.write(data)


def _move_away(target: Path) -> None:
    old = target.with_name(f"{names.TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(6)}")
    with contextlib.suppress(FileNotFoundError):
        target.rename(old)
        shutil.rmtree(old)


def _new_file(path: Path) -> BinaryIO:
    """A file that only its owner may read."""
    return os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb"
    )
