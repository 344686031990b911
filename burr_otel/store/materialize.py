"""Writing a run with whole states, for readers that know only Burr's layout."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import BinaryIO, NamedTuple

from burr_otel.errors import StoreError
from burr_otel.records import END_ENTRY, encode_json
from burr_otel.store.files import names
from burr_otel.store.files.folder import make_folders, temporary_name, write_file
from burr_otel.store.stored_run import StoredRun


class Copied(NamedTuple):
    """What became of a run: its finished steps, and how long the log is that was written.

    `lost` has the sequence ids of finished steps that were left out, because a record that their
    state builds on is lost.
    """

    steps: int
    lost: tuple[int, ...]
    log_bytes: int


def write_plain(run: StoredRun, target: Path, *, replace: bool = False) -> Copied:
    """Write a run in Burr's layout; every record of a finished step carries its whole state.

    The target folder is there whole or not at all. An earlier copy is replaced only when asked.
    """
    if os.path.realpath(target) == os.path.realpath(run.place):  # a URL is no such path
        raise StoreError(f"{target} is the run itself; write the copy to another place.")
    if os.path.lexists(target) and not replace:
        raise StoreError(f"{target} exists already. Pass --replace, or write to another place.")
    make_folders(target.parent, sync=False)
    temporary = temporary_name(target)
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
            record.get("otel", {}).pop("crc", None)  # of the record that it was
            length += log.write(encode_json(record) + b"\n")
        log.flush()
        os.fsync(log.fileno())
    graphs = {names.GRAPH: run.log.graph()}
    for digest in run.log.earlier_graphs():
        graphs[f"graph-{digest}.json"] = run.log.graph(digest)
    children = b"".join(line.rstrip(b"\n") + b"\n" for line in run.log.children())
    small = {**graphs, names.METADATA: run.log.metadata(), names.CHILDREN: children or None}
    for name, data in small.items():
        if data is not None:
            write_file(place / name, data, sync=False)
    return Copied(steps, tuple(lost), length)


def _move_away(target: Path) -> None:
    old = temporary_name(target)
    with contextlib.suppress(FileNotFoundError):
        target.rename(old)
        shutil.rmtree(old)


def _new_file(path: Path) -> BinaryIO:
    """A file that only its owner may read."""
    return os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb"
    )
