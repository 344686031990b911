"""A run in its folder: reading its log, and the small files beside it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from burr_otel import forks
from burr_otel.records import ROOT
from burr_otel.records.read import kind_of_line
from burr_otel.store import graphs
from burr_otel.store.files import disk
from burr_otel.store.files.index import Index, Noted
from burr_otel.store.files.log_file import LogFile
from burr_otel.store.files.scan import BATCH_ENTRIES, lines_backward, lines_forward, mend_tail
from burr_otel.store.port import Extent, Line
from burr_otel.store.process import owner_is_alive
from burr_otel.store.reading import entry_of, kinds_of, metadata_of, otel_of, sound_parts

_TAIL_BYTES: Final = 16 * 1024  # looked at before the index is asked
_MAX_SCAN_BYTES: Final = 1024 * 1024  # read without an index; more is indexed first
_SMALL_BYTES: Final = 1024 * 1024
_LOOKED_AT_BYTES: Final = 1024 * 1024  # of each end of a log without metadata
_GRAPH_BYTES: Final = 64 * 1024 * 1024
_EARLIER_GRAPH: Final = re.compile(r"graph-([0-9a-f]{16})\.json")

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


def open_runs() -> list[FileRun]:
    """The runs that this process has handles of."""
    with _runs_lock:
        return list(_runs.values())


class FileRun(LogFile):
    """A run in a folder; see `RunLog`."""

    __slots__ = ("app_id", "place", "project")

    def __init__(self, project: str, app_id: str, folder: str) -> None:
        super().__init__(folder)
        self.project, self.app_id, self.place = project, app_id, folder

    def extent(self) -> Extent:
        """Length and time of the log; zeros: the run is deleted. Its readers find nothing, then."""
        try:
            info = os.lstat(self.path)
        except FileNotFoundError:
            return Extent()
        return Extent(info.st_size, info.st_mtime_ns)

    @property
    def partition_key(self) -> str | None:
        """Of the run, as far as anything tells."""
        told = self.identity()[1]
        return None if told is None else told[0]

    def identity(self) -> tuple[str | None, tuple[str | None] | None]:
        """App id and, in a tuple, partition key of the folder's metadata; None: nothing tells."""
        found = metadata_of(self.metadata())
        app_id = (otel_of(found) or {}).get("app_id")
        if found is None:
            parts = sound_parts(self._ends())
            roots = (p.record for p in parts if p.record is not None and p.record["type"] == ROOT)
            found = next(roots, None)
        if found is None:
            return None, None
        key = found.get("partition_key")
        return (
            app_id if isinstance(app_id, str) else None,
            (key if isinstance(key, str) and key else None,),
        )

    def metadata(self) -> bytes | None:
        """What ``metadata.json`` holds."""
        return disk.read_small(f"{self.folder}/{disk.METADATA}", _SMALL_BYTES)

    def _ends(self) -> Iterator[Line]:
        """The first lines of the log, and the last, of a log of any length."""
        with contextlib.suppress(OSError), disk.opened(self.path) as fd:
            size = os.fstat(fd).st_size
            yield from lines_forward(fd, 0, min(size, _LOOKED_AT_BYTES))
            yield from lines_backward(fd, size, max(0, size - _LOOKED_AT_BYTES))

    # --- reading the log ---------------------------------------------------------------------

    def newest(
        self, kinds: Sequence[int], sequence_id: int | None = None, before: int | None = None
    ) -> Iterator[Line]:
        """Lines of such kinds and that step, newest first; others may be among them."""
        # The newest of all is mostly near the tail; the index has everything else.
        with contextlib.suppress(FileNotFoundError), disk.opened(self.path) as fd:
            size = os.fstat(fd).st_size
            end = unread = size if before is None else min(before, size)
            if sequence_id is None:
                for line in lines_backward(fd, end):
                    yield line
                    unread = line.position
                    if unread < end - _TAIL_BYTES:
                        break
            for rebuild in (False, True):
                if not unread:
                    return
                with contextlib.closing(self._index(fd, size, rebuild=rebuild)) as index:
                    try:
                        for line in _indexed(fd, index, kinds, sequence_id, unread):
                            unread = line.position
                            yield line
                        return
                    except _StaleIndexError:
                        continue

    def forward(self) -> Iterator[Line]:
        """All lines."""
        with contextlib.suppress(FileNotFoundError), disk.opened(self.path) as fd:
            yield from lines_forward(fd, 0, os.fstat(fd).st_size)

    def backward(self) -> Iterator[Line]:
        """All lines, newest first."""
        with contextlib.suppress(FileNotFoundError), disk.opened(self.path) as fd:
            yield from lines_backward(fd, os.fstat(fd).st_size)

    def _index(self, fd: int, size: int, *, rebuild: bool) -> Index:
        """The index, extended first where much of the log is not in it."""
        if not rebuild:
            index = Index(self.folder, fd, writable=False)
            if size - index.covered <= _MAX_SCAN_BYTES:
                return index
            index.close()
        index = Index(self.folder, fd, writable=True)
        try:
            if rebuild and index.is_kept:
                with self.locked():
                    index.clear()
            while index.is_kept and index.covered < size and self._extend(fd, size, index):
                pass
        except OSError:  # no room for it, or a file system without locks
            index.close()
        return index

    def _extend(self, fd: int, size: int, index: Index) -> bool:
        """Index the next part of the log; whether there may be more."""
        # Read outside the lock, so that no writer waits, as far as damage, which the next writer
        # mends, or a line that is perhaps being written at this moment.
        start = end = index.covered
        noted: list[Noted] = []
        for part in sound_parts(lines_forward(fd, start, size)):
            if part.record is None or not part.complete or len(noted) >= BATCH_ENTRIES:
                break
            end = part.end
            entry = entry_of(part.data, part.record)
            if entry is not None:
                noted.append((*entry, part.position, end - part.position))
        with self.locked():
            index.reload()
            if index.covered == start:  # else somebody else was quicker
                index.extend(noted, end)
        return end > start

    # --- small files -------------------------------------------------------------------------

    def complete(self, metadata: bytes, graph: bytes, *, sync: bool) -> bool:
        """Add what is missing of a run's files and bring its graph up to date."""
        # Perhaps another process makes the log at this moment, so it is never replaced.
        os.close(disk.open_regular(self.path, os.O_WRONLY | os.O_CREAT))
        with contextlib.suppress(FileNotFoundError), self._locked_children(0):
            pass
        if metadata_of(self.metadata()) is None:
            disk.replace_file(Path(self.folder, disk.METADATA), metadata, sync=sync)
        earlier = self.graph()
        if earlier == graph:
            return False
        if earlier is not None:
            # Kept for the records that name it.
            kept = Path(self.folder, f"graph-{graphs.digest(earlier)}.json")
            disk.replace_file(kept, earlier, sync=sync)
        disk.replace_file(Path(self.folder, disk.GRAPH), graph, sync=sync)
        return earlier is not None

    def graph(self, digest: str | None = None) -> bytes | None:
        """The current graph, or the one of a digest."""
        current = disk.read_small(f"{self.folder}/{disk.GRAPH}", _GRAPH_BYTES)
        if digest is None or (current is not None and graphs.digest(current) == digest):
            return current
        name = f"graph-{digest}.json"
        is_one = _EARLIER_GRAPH.fullmatch(name)
        return disk.read_small(f"{self.folder}/{name}", _GRAPH_BYTES) if is_one else None

    def earlier_graphs(self) -> list[str]:
        """Digests of the graphs that the run had before."""
        found = map(_EARLIER_GRAPH.fullmatch, os.listdir(self.folder))  # noqa: PTH208 - names alone
        return [match[1] for match in found if match]

    def children(self) -> Iterator[bytes]:
        """The lines of ``children.jsonl``."""
        with contextlib.ExitStack() as stack:
            try:
                fd = stack.enter_context(disk.opened(f"{self.folder}/{disk.CHILDREN}"))
            except OSError:
                return
            for line in lines_forward(fd, 0, os.fstat(fd).st_size):
                yield line.data

    def add_child(self, line: bytes, *, sync: bool) -> None:
        """Add a line to ``children.jsonl``."""
        with self._locked_children(os.O_CREAT) as fd:
            os.write(fd, line + b"\n")
            if sync:
                os.fdatasync(fd)

    @contextlib.contextmanager
    def _locked_children(self, flags: int) -> Iterator[int]:
        """``children.jsonl``, locked and mended."""
        path = f"{self.folder}/{disk.CHILDREN}"
        with disk.opened(path, os.O_RDWR | os.O_APPEND | flags) as fd, disk.locked(fd):
            mend_tail(fd, path)
            yield fd

    # --- open sessions -----------------------------------------------------------------------

    def _marker(self, session_id: str) -> str:
        return f"{self.folder}/{disk.OPEN_PREFIX}{session_id}"

    def mark_open(self, session_id: str, marker: bytes) -> None:
        """Make the marker of a session, whole: nobody would complete one that has an empty one."""
        path = Path(self._marker(session_id))
        if not path.exists():
            with self.locked():  # else perhaps in a folder that was made anew since our record
                disk.replace_file(path, marker, sync=False)

    def unmark(self, session_id: str) -> None:
        """Take the marker of a session away."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._marker(session_id))  # noqa: PTH108 - a path costs more

    def open_markers(self) -> Iterator[tuple[str, bytes]]:
        """Markers of sessions, in the order of their ids."""
        names: list[str] = []
        with contextlib.suppress(OSError):
            names = sorted(os.listdir(self.folder))  # noqa: PTH208 - names alone are needed
        for name in names:
            if name.startswith(disk.OPEN_PREFIX):
                data = disk.read_small(f"{self.folder}/{name}", _SMALL_BYTES)
                if data is not None:
                    yield name.removeprefix(disk.OPEN_PREFIX), data

    @contextlib.contextmanager
    def hold(self, session_id: str) -> Iterator[bool]:
        """Hold a session that is to be completed."""
        path = self._marker(session_id)
        try:
            # For writing: locks of network file systems ask for it.
            fd = disk.open_regular(path, os.O_RDWR)
        except FileNotFoundError:
            yield False
            return
        held = False
        try:
            # Unless others hold it, or took it away since it was opened.
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = os.path.samestat(os.fstat(fd), os.lstat(path))
            yield held
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # a child forked meanwhile has the same lock
            os.close(fd)

    undisturbed = LogFile.locked

    def owner_lives(self, owner: Mapping[str, Any]) -> bool | None:
        """Whether the process lives, where this host can tell."""
        return owner_is_alive(owner)

    def claim(self, session_id: str) -> disk.FolderClaim:
        """Claim the run."""
        return disk.FolderClaim(self.folder, f"{self.project}/{self.app_id}", session_id)


def _indexed(
    fd: int, index: Index, kinds: Sequence[int], sequence_id: int | None, unread: int
) -> Iterator[Line]:
    """Lines before an offset: those that the index lacks, and those that it names."""
    covered = min(index.covered, unread)
    yield from lines_backward(fd, unread, covered)
    for kind, number, offset, length in index.find(kinds, sequence_id, covered):
        data = os.pread(fd, length, offset)
        if len(data) != length or data.find(b"\n") != length - 1:
            raise _StaleIndexError
        found, found_id = kind_of_line(data) or (None, None)
        if found is None or kind not in kinds_of([found]) or found_id not in (None, number):
            raise _StaleIndexError
        yield Line(offset, offset + length, data, complete=True)


def _after_fork_in_child() -> None:
    global _runs_lock
    _runs_lock = threading.RLock()
    for run in list(_runs.values()):
        run.after_fork()


forks.in_child(_after_fork_in_child)
