"""A run in its folder: reading its log, and the small files beside it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from burr_otel.printable import logger_of_lines
from burr_otel.records import BEGIN_ENTRY, END_ENTRY, kind_of_line
from burr_otel.records import ROOT as ROOT_RECORD
from burr_otel.store import graphs
from burr_otel.store.files import names
from burr_otel.store.files.claims import FolderClaim, hold
from burr_otel.store.files.folder import replace_file, write_file
from burr_otel.store.files.index import Entry, Index
from burr_otel.store.files.log_file import LogFile
from burr_otel.store.files.open_file import pool
from burr_otel.store.files.repair import mend_tail
from burr_otel.store.files.safe import open_regular, read_small
from burr_otel.store.files.scan import lines_backward, lines_forward
from burr_otel.store.lines import entry_of, sound_parts
from burr_otel.store.owner import owner_is_alive
from burr_otel.store.port import BEGIN, END, Line
from burr_otel.store.query import Query

logger = logger_of_lines(__name__)

_TAIL_BYTES: Final = 16 * 1024  # looked at before the index is asked
_MAX_SCAN_BYTES: Final = 1024 * 1024  # read without an index; more is indexed first
_BATCH_ENTRIES: Final = 4096
_METADATA_BYTES: Final = 1024 * 1024
_LOOKED_AT_BYTES: Final = 1024 * 1024  # of each end of a log without metadata
_GRAPH_BYTES: Final = 64 * 1024 * 1024
_EARLIER_GRAPH: Final = re.compile(r"graph-([0-9a-f]{16})\.json")
_TYPES: Final = {BEGIN: BEGIN_ENTRY, END: END_ENTRY}
_ROOTS: Final = Query((ROOT_RECORD,))

_runs_lock = threading.RLock()
_runs: weakref.WeakValueDictionary[str, FileRun] = weakref.WeakValueDictionary()


class _StaleIndexError(Exception):
    """The index names a record that reads differently."""


def open_run(project: str, app_id: str, folder: str) -> FileRun:
    """The process's one handle of the run in a folder."""
    with _runs_lock:
        run = _runs.get(folder)
        if run is None:
            run = _runs[folder] = FileRun(project, app_id, folder)
        return run


class FileRun(LogFile):
    """A run in a folder; see `RunLog`."""

    __slots__ = ("app_id", "project")

    def __init__(self, project: str, app_id: str, folder: str) -> None:
        super().__init__(folder)
        self.project, self.app_id = project, app_id

    @property
    def place(self) -> str:
        """The folder."""
        return self.folder

    @property
    def size_bytes(self) -> int:
        """Length of the log."""
        return os.lstat(self.path).st_size

    @property
    def changed_ns(self) -> int:
        """When the log was written to last."""
        return os.lstat(self.path).st_mtime_ns

    @property
    def partition_key(self) -> str | None:
        """Of the run, as far as anything tells."""
        told = self.identity()[1]
        return None if told is None else told[0]

    def identity(self) -> tuple[str | None, tuple[str | None] | None]:
        """The app id that the folder's metadata names, and the partition key in a tuple.

        None: nothing tells.
        """
        found = self.metadata_object()
        otel = (found or {}).get("otel")
        app_id = otel.get("app_id") if isinstance(otel, dict) else None
        if found is None:
            found = next((r for line in self._ends() if (r := _ROOTS.match(line.data))), None)
        if found is None:
            return None, None
        key = found.get("partition_key")
        return (
            app_id if isinstance(app_id, str) else None,
            (key if isinstance(key, str) and key else None,),
        )

    def metadata(self) -> bytes | None:
        """What ``metadata.json`` holds."""
        return read_small(f"{self.folder}/{names.METADATA}", _METADATA_BYTES)

    def metadata_object(self) -> dict[str, Any] | None:
        """What ``metadata.json`` holds, if it is sound."""
        try:
            found = json.loads(self.metadata() or b"")
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def _ends(self) -> Iterator[Line]:
        """The first lines of the log, and the last, of a log of any length."""
        with contextlib.suppress(OSError):
            fd = open_regular(self.path)
            try:
                size = os.fstat(fd).st_size
                yield from lines_forward(fd, 0, min(size, _LOOKED_AT_BYTES))
                yield from lines_backward(fd, size, max(0, size - _LOOKED_AT_BYTES))
            finally:
                os.close(fd)

    # --- reading the log ---------------------------------------------------------------------

    def newest(
        self, kinds: Sequence[int], sequence_id: int | None = None, before: int | None = None
    ) -> Iterator[Line]:
        """Lines of such kinds and that step, newest first; others may be among them.

        The newest of all is mostly near the tail; everything else is found through the index. What
        the index does not cover yet is read, and indexed when it is much.
        """
        fd = open_regular(self.path)
        try:
            size = os.fstat(fd).st_size
            end = size if before is None else min(before, size)
            unread = end
            if sequence_id is None:
                for line in lines_backward(fd, end):
                    yield line
                    unread = line.position
                    if unread < end - _TAIL_BYTES:
                        break
            for rebuild in (False, True):
                if not unread:
                    return
                with self._index(fd, size, rebuild=rebuild) as index:
                    try:
                        for line in _indexed(fd, index, kinds, sequence_id, unread):
                            unread = line.position
                            yield line
                        return
                    except _StaleIndexError:
                        continue
        finally:
            os.close(fd)

    def forward(self) -> Iterator[Line]:
        """All lines."""
        fd = open_regular(self.path)
        try:
            yield from lines_forward(fd, 0, os.fstat(fd).st_size)
        finally:
            os.close(fd)

    def backward(self) -> Iterator[Line]:
        """All lines, newest first."""
        fd = open_regular(self.path)
        try:
            yield from lines_backward(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)

    def _index(self, fd: int, size: int, *, rebuild: bool) -> Index:
        if not rebuild:
            with contextlib.suppress(OSError):
                index = Index.open(self.folder, fd, writable=False)
                if size - index.covered <= _MAX_SCAN_BYTES:
                    return index
                index.close()
            if size <= _MAX_SCAN_BYTES:
                return Index.temporary(fd)
        try:
            index = Index.open(self.folder, fd, writable=True)
        except OSError:  # a store that we may only read
            index = Index.temporary(fd)
        with _locked(fd):
            if rebuild or not index.covered:
                index.clear()
        while index.covered < size and _extend(fd, size, index):
            pass
        return index

    # --- small files -------------------------------------------------------------------------

    def complete(self, metadata: bytes, graph: bytes, *, sync: bool) -> bool:
        """Add what is missing of a run's files and bring its graph up to date."""
        # Perhaps another process makes the log at this moment, so it is never replaced.
        os.close(open_regular(self.path, os.O_WRONLY | os.O_CREAT))
        with contextlib.suppress(FileNotFoundError), self._locked_children(0) as (fd, path):
            mend_tail(fd, path)
        if self.metadata_object() is None:
            replace_file(Path(self.folder, names.METADATA), metadata, sync=sync)
        earlier = self.graph()
        if earlier == graph:
            return False
        if earlier is not None:
            # Kept for the records that name it.
            kept = Path(self.folder, f"graph-{graphs.digest(earlier)}.json")
            replace_file(kept, earlier, sync=sync)
        replace_file(Path(self.folder, names.GRAPH), graph, sync=sync)
        return earlier is not None and not graphs.same(earlier, graph)

    def graph(self, digest: str | None = None) -> bytes | None:
        """The current graph, or an earlier one."""
        if digest is not None and not _EARLIER_GRAPH.fullmatch(f"graph-{digest}.json"):
            return None
        name = names.GRAPH if digest is None else f"graph-{digest}.json"
        return read_small(f"{self.folder}/{name}", _GRAPH_BYTES)

    def earlier_graphs(self) -> list[str]:
        """Digests of the graphs that the run had before."""
        found = map(_EARLIER_GRAPH.fullmatch, os.listdir(self.folder))  # noqa: PTH208 - names alone
        return [match[1] for match in found if match]

    def children(self) -> Iterator[bytes]:
        """The lines of ``children.jsonl``."""
        try:
            fd = open_regular(f"{self.folder}/{names.CHILDREN}")
        except OSError:
            return
        try:
            for line in lines_forward(fd, 0, os.fstat(fd).st_size):
                yield line.data
        finally:
            os.close(fd)

    def add_child(self, line: bytes, *, sync: bool) -> None:
        """Add a line to ``children.jsonl``."""
        with self._locked_children(os.O_CREAT) as (fd, path):
            mend_tail(fd, path)
            os.write(fd, line + b"\n")
            if sync:
                os.fdatasync(fd)

    @contextlib.contextmanager
    def _locked_children(self, flags: int) -> Iterator[tuple[int, str]]:
        path = f"{self.folder}/{names.CHILDREN}"
        fd = open_regular(path, os.O_RDWR | os.O_APPEND | flags)
        try:
            with _locked(fd):
                yield fd, path
        finally:
            os.close(fd)

    # --- open sessions -----------------------------------------------------------------------

    def mark_open(self, session_id: str, marker: bytes) -> None:
        """Make the marker of a session."""
        write_file(f"{self.folder}/{names.OPEN_PREFIX}{session_id}", marker, sync=False)

    def unmark(self, session_id: str) -> None:
        """Take the marker of a session away."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.folder}/{names.OPEN_PREFIX}{session_id}")  # noqa: PTH108

    def open_markers(self) -> Iterator[tuple[str, bytes]]:
        """Markers of sessions, in the order of their ids."""
        try:
            found = sorted(os.listdir(self.folder))  # noqa: PTH208 - names alone are needed
        except OSError:
            return
        for name in found:
            if name.startswith(names.OPEN_PREFIX):
                data = read_small(f"{self.folder}/{name}", _METADATA_BYTES)
                if data is not None:
                    yield name[len(names.OPEN_PREFIX) :], data

    def hold(self, session_id: str) -> AbstractContextManager[bool]:
        """Hold a session that is to be completed."""
        return hold(f"{self.folder}/{names.OPEN_PREFIX}{session_id}")

    def owner_lives(self, owner: Mapping[str, Any]) -> bool | None:
        """Whether the process lives, where this host can tell."""
        return owner_is_alive(owner)

    def claim(self, session_id: str) -> FolderClaim:
        """Claim the run."""
        return FolderClaim(self.folder, f"{self.project}/{self.app_id}", session_id)


def _indexed(
    fd: int, index: Index, kinds: Sequence[int], sequence_id: int | None, unread: int
) -> Iterator[Line]:
    """Lines before an offset: those that the index lacks, and those that it names."""
    covered = min(index.covered, unread)
    yield from lines_backward(fd, unread, covered)
    for entry in index.find(kinds, sequence_id, covered):
        data = os.pread(fd, entry.length, entry.offset)
        if len(data) != entry.length or data.find(b"\n") != entry.length - 1:
            raise _StaleIndexError
        kind = kind_of_line(data)
        if kind != (_TYPES.get(entry.kind, ROOT_RECORD), kind and kind[1]) or (
            entry.kind in _TYPES and kind[1] != entry.sequence_id
        ):
            raise _StaleIndexError
        yield Line(entry.offset, entry.offset + entry.length, data, complete=True)


def _extend(fd: int, size: int, index: Index) -> bool:
    """Index the next part of the log; whether there may be more.

    Reading goes on outside the lock, so that no writer waits for it.
    """
    start, damaged_at = index.covered, None
    entries: list[Entry] = []
    end = start
    for part in sound_parts(lines_forward(fd, start, size)):
        if part.record is None and damaged_at is None:
            damaged_at = part.position
        if not part.complete and part.end == size:
            break  # perhaps being written at this moment
        end = part.end
        entry = None if part.record is None else entry_of(part.data, part.record)
        if entry is not None and part.complete:
            entries.append(Entry(*entry, part.position, part.end - part.position))
        if len(entries) >= _BATCH_ENTRIES:
            break
    with _locked(fd):
        index.reload()
        if index.covered == start:  # else somebody else was quicker
            sound = damaged_at if index.sound == start and damaged_at is not None else None
            index.extend(entries, end, sound=sound)
    return end > start


@contextlib.contextmanager
def _locked(fd: int) -> Iterator[None]:
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        # Closing would not do: a process that was forked meanwhile has the lock too.
        fcntl.flock(fd, fcntl.LOCK_UN)


def _after_fork_in_child() -> None:
    global _runs_lock
    _runs_lock = threading.RLock()
    pool.after_fork()
    for run in list(_runs.values()):
        run.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
