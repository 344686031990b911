"""Copies of runs: in another engine, record by record, or in a folder as Burr itself writes it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from burr_otel.errors import InvalidIdentifierError, StoreError
from burr_otel.records import END_ENTRY, encode_json
from burr_otel.store.files import disk
from burr_otel.store.graphs import digest
from burr_otel.store.names import check_app_id
from burr_otel.store.port import Engine, Line, NewRun, RunLog
from burr_otel.store.reading import entry_of, sound_parts
from burr_otel.store.stored_run import StoredRun, check_unused

_NO_GRAPH: Final = b"null"


class RunCopy:
    """A run and the same run in another engine.

    `records` and `size_bytes` count what the copy has, `added` the records that were not there yet,
    `left_out_bytes` what a killed writer left of records.
    """

    def __init__(self, source: RunLog, target: Engine) -> None:
        self._source, self._target = source, target
        self.records = self.size_bytes = self.added = self.left_out_bytes = 0
        self._digest = hashlib.sha256()  # of what the copy has

    def make(self, dead_before_ns: int) -> Iterator[int]:
        """Copy what is missing and compare everything; gives how far it came, twice the log.

        A run whose owner lives is refused, and so is the place of another run of the same id.
        """
        source = self._source
        check_unused(source, dead_before_ns)
        # Before anything is made there: it may not be readable, or be deleted by now.
        if next(source.forward(), None) is None and source.metadata() is None:
            raise StoreError(f"{source.place} has nothing that could be copied.")
        digests = source.earlier_graphs()
        graphs = [graph for each in digests if (graph := source.graph(each)) is not None]
        graphs.append(source.graph() or _NO_GRAPH)
        fields = {"partition_key": source.partition_key, "otel": {"app_id": source.app_id}}
        metadata = source.metadata() or orjson.dumps(fields)
        names = source.project, source.app_id, source.partition_key
        log, _ = self._target.create(NewRun(*names, metadata, graphs[0]), durability="fsync")
        if log.place == source.place:
            raise StoreError(f"{source.place} is the run itself; copy it to another place.")
        claim = log.claim(f"copy of {source.place}")
        try:
            if log.metadata() != metadata:
                raise self._is_another(log, "its metadata differs")
            newest = next(log.backward(), None)
            if newest is not None and not newest.complete:
                log.repair()  # what an interrupted copy left of a record
            yield from self._copy_records(log)  # first: it finds out whether it is another run
            self._copy_graphs(log, graphs)
            self._copy_children(log)
            log.close()
            yield from self._compare(log)
            for session_id, marker in source.open_markers():
                # Whoever can write to the source may have called it as they liked.
                with contextlib.suppress(InvalidIdentifierError):
                    log.mark_open(check_app_id(session_id), marker)
        finally:
            claim.release()

    def _copy_graphs(self, log: RunLog, graphs: list[bytes]) -> None:
        there = {log.graph(), *map(log.graph, log.earlier_graphs())}
        *earlier, current = graphs
        for graph in [*(each for each in earlier if each not in there), current]:
            if log.graph() != graph:
                log.complete(log.metadata() or b"", graph, sync=True)
        if log.graph() != current or any(log.graph(digest(each)) != each for each in earlier):
            raise StoreError(f"{log.place} is no true copy: its graphs read differently.")

    def _copy_records(self, log: RunLog) -> Iterator[int]:
        missing = self._lines()
        for there in log.forward():
            line = next(missing, None)
            if line is None or line.data != there.data:
                raise self._is_another(log, f"its record {self.records + 1:,} differs")
            yield self._counted(line)
        line = next(missing, None)
        while line is not None:
            following = next(missing, None)
            # The last one reaches the disk, and with it all before it.
            log.append(line.data, _entry(line), durability="none" if following else "fsync")
            self.added += 1
            yield self._counted(line)
            line = following

    def _counted(self, line: Line) -> int:
        self.records, self.size_bytes = self.records + 1, self.size_bytes + len(line.data)
        self._digest.update(line.data)
        return line.end

    def _copy_children(self, log: RunLog) -> None:
        there = {line.rstrip(b"\n") for line in log.children()}
        for child in dict.fromkeys(line.rstrip(b"\n") for line in self._source.children()):
            if child not in there:
                log.add_child(child, sync=True)

    def _compare(self, log: RunLog) -> Iterator[int]:
        """Read the copy again; what the run has got since is no difference."""
        digest, done = hashlib.sha256(), self._source.extent().size_bytes
        for line in log.forward():
            digest.update(line.data)
            done += len(line.data)
            yield done
        if digest.digest() != self._digest.digest():
            raise StoreError(
                f"{log.place} is no true copy: it reads differently from what was copied, or was "
                "written to meanwhile. Delete it and copy again."
            )

    def _lines(self) -> Iterator[Line]:
        """The records as they are, also damaged ones; not what is torn or was never written."""
        for line in self._source.forward():
            if line.complete and line.data:
                yield line
            else:
                self.left_out_bytes += line.end - line.position

    def _is_another(self, log: RunLog, why: str) -> StoreError:
        return StoreError(
            f"{log.place} is another run of that id ({why}), and is left as it is. Delete it there "
            "first, or copy to another place."
        )


def _entry(line: Line) -> tuple[int, int] | None:
    """What a record is looked for by, also behind bytes that are none."""
    for part in sound_parts([line]):
        if part.record is not None:
            return entry_of(part.data, part.record)
    return None


class Copied(NamedTuple):
    """What became of a run: its finished steps, and how long the log is that was written.

    `lost` has the sequence ids of finished steps that were left out, because a record that their
    state builds on is lost.
    """

    steps: int
    lost: tuple[int, ...]
    log_bytes: int


def write_plain(run: StoredRun, target: Path, *, replace: bool = False) -> Copied:
    """Write a run in Burr's layout, with whole states; the target is there whole or not at all."""
    if os.path.realpath(target) == os.path.realpath(run.place):  # a URL is no such path
        raise StoreError(f"{target} is the run itself; write the copy to another place.")
    if os.path.lexists(target) and not replace:
        raise StoreError(f"{target} exists already. Pass --replace, or write to another place.")
    disk.make_folders(target.parent, sync=False)
    temporary, old = disk.temporary_name(target), disk.temporary_name(target)
    temporary.mkdir(0o700)
    try:
        copied = _write_log(run, temporary / disk.LOG)
        graphs = {f"graph-{each}.json": run.log.graph(each) for each in run.log.earlier_graphs()}
        graphs[disk.GRAPH] = run.log.graph()
        children = b"".join(line.rstrip(b"\n") + b"\n" for line in run.log.children())
        small = {**graphs, disk.METADATA: run.log.metadata(), disk.CHILDREN: children or None}
        for name, data in small.items():
            if data is not None:
                disk.write_file(temporary / name, data, sync=False)
        if replace:
            with contextlib.suppress(FileNotFoundError):
                target.rename(old)
                shutil.rmtree(old)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return copied


def _write_log(run: StoredRun, path: Path) -> Copied:
    steps, lost, length = 0, [], 0
    with os.fdopen(disk.open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as log:
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
    return Copied(steps, tuple(lost), length)
