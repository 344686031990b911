"""A run in a bucket: reading its batches, and the small objects beside them."""

from __future__ import annotations

import contextlib
import secrets
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from burr_otel.errors import RunLockedError
from burr_otel.store import graphs
from burr_otel.store.objects import keys
from burr_otel.store.objects.bucket import Bucket
from burr_otel.store.objects.lease import Heartbeat, Lease
from burr_otel.store.objects.writer import BatchWriter
from burr_otel.store.port import Extent, Line
from burr_otel.store.process import background
from burr_otel.store.reading import object_of, otel_of

_MOST_AT_ONCE: Final = 16
_MOST_AT_ONCE_BYTES: Final = 8 * 1024 * 1024
_MOST_BATCH_BYTES: Final = 1024 * 1024 * 1024  # we write none that large
_KEPT_BYTES: Final = 256 * 1024


class ObjectRun(BatchWriter):
    """A run in a bucket; see `RunLog`."""

    def __init__(
        self,
        bucket: Bucket,
        heartbeat: Heartbeat,
        project: str,
        app_id: str,
        partition_key: str | None,
    ) -> None:
        app = keys.escaped(app_id)
        partition = keys.partition_part(partition_key)
        super().__init__(bucket, f"data/{project}/{partition}/{app}", f"{project}/{app_id}")
        self.project, self.app_id, self.partition_key = project, app_id, partition_key
        self.names = [f"run/{project}/{partition}/{app}"]
        if partition_key is not None:
            self.names.insert(0, f"app/{project}/{app}/{partition}")
        self._heartbeat = heartbeat

    @property
    def place(self) -> str:
        """The folder of its objects."""
        return f"{self.bucket.place}/{self.folder}"

    def extent(self) -> Extent:
        """Where the newest batch ends, and when it was written, by the server's clock."""
        newest = next(self._batches(), None)
        return Extent() if newest is None else Extent(newest.end, newest.listed.changed_ns)

    def exists(self) -> bool:
        """Whether it has a record, or has at least been made."""
        self._listing = None
        return next(self._batches(), None) is not None or self.metadata() is not None

    def make(self, metadata: bytes, graph: bytes) -> bool:
        """Make it unless it is there; whether it was made."""
        if len(self.names) > 1 and self.metadata() is not None:
            return False
        made = [self.bucket.create(name, metadata) for name in self.names][-1]
        if made:
            self.bucket.put(f"{self.folder}/graph", graph)
        return made

    # --- reading batches ---------------------------------------------------------------------

    def newest(
        self, kinds: Sequence[int], sequence_id: int | None = None, before: int | None = None
    ) -> Iterator[Line]:
        """Lines of batches that can have such a record, newest first, by their names alone."""
        for batch, data in self._read(self._with(kinds, sequence_id, before), most=1):
            for line in reversed(list(keys.lines(batch.start, data))):
                if before is None or line.end <= before:
                    yield line

    def forward(self) -> Iterator[Line]:
        """All lines."""
        for batch, data in self._read(reversed(list(self._batches())), most=_MOST_AT_ONCE):
            yield from keys.lines(batch.start, data)

    def backward(self) -> Iterator[Line]:
        """All lines, newest first."""
        for batch, data in self._read(self._batches(), most=1):
            yield from reversed(list(keys.lines(batch.start, data)))

    def _with(
        self, kinds: Sequence[int], sequence_id: int | None, before: int | None
    ) -> Iterator[keys.Batch]:
        """Batches that can have such a record: each name tells of the batch before it."""
        after: keys.Batch | None = None
        for batch in self._batches(before):
            known = after is not None and after.start == batch.end
            told = after.before if after is not None and known else keys.ANYTHING
            if told.may_have(kinds, sequence_id):
                yield batch
            after = batch

    def _read(
        self, batches: Iterator[keys.Batch], *, most: int
    ) -> Iterator[tuple[keys.Batch, bytes]]:
        """Batches with their bytes: first `most` at once, then twice as many, then more."""
        wanted: list[keys.Batch] = []
        size_bytes = 0
        for batch in batches:
            wanted.append(batch)
            size_bytes += batch.listed.size_bytes
            if len(wanted) >= most or size_bytes > _MOST_AT_ONCE_BYTES:
                yield from self._fetched(wanted)
                wanted, size_bytes, most = [], 0, min(2 * most, _MOST_AT_ONCE)
        yield from self._fetched(wanted)

    def _fetched(self, batches: list[keys.Batch]) -> Iterator[tuple[keys.Batch, bytes]]:
        at_once = map if len(batches) <= 1 else background.map
        for batch, data in zip(batches, at_once(self._data, batches), strict=True):
            if data is not None:
                yield batch, data

    def _data(self, batch: keys.Batch) -> bytes | None:
        """The bytes of a batch; None: it was deleted meanwhile, or is none of ours."""
        kept = self._kept
        if kept is not None and kept[0] == batch.listed:
            return kept[1]
        if batch.listed.size_bytes > _MOST_BATCH_BYTES:
            return None
        data = self.bucket.get(batch.listed.path)
        if data is not None and len(data) <= _KEPT_BYTES:
            self._kept = batch.listed, data
        return data

    # --- small objects -----------------------------------------------------------------------

    def repair(self) -> list[str]:
        """Nothing is ever half written."""
        return []

    def metadata(self) -> bytes | None:
        """What the run was made with."""
        return self.bucket.get(self.names[-1])

    def complete(self, metadata: bytes, graph: bytes, *, sync: bool) -> bool:  # noqa: ARG002
        """Bring the graph up to date; what was missing has been made by `make`."""
        earlier = self.graph()
        if earlier == graph:
            return False
        if earlier is not None:  # kept for the records that name it
            self.bucket.put(f"{self.folder}/graphs/{graphs.digest(earlier)}", earlier)
        self.bucket.put(f"{self.folder}/graph", graph)
        return earlier is not None

    def graph(self, digest: str | None = None) -> bytes | None:
        """The current graph, or the one of a digest."""
        current = self.bucket.get(f"{self.folder}/graph")
        if digest is None or (current is not None and graphs.digest(current) == digest):
            return current
        return self.bucket.get(f"{self.folder}/graphs/{keys.escaped(digest)}")

    def earlier_graphs(self) -> list[str]:
        """Digests of the graphs that the run had before."""
        return [_last_part(each.path) for each in self.bucket.names(f"{self.folder}/graphs")]

    def children(self) -> Iterator[bytes]:
        """A line for each child, in the order in which they were added."""
        for _, data in self._small("children"):
            yield data

    def add_child(self, line: bytes, *, sync: bool) -> None:  # noqa: ARG002
        """Add an object about a child."""
        name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        self.bucket.put(f"{self.folder}/children/{name}", line)

    def mark_open(self, session_id: str, marker: bytes) -> None:
        """Make the marker of a session, unless the run is being deleted."""
        path = self._marker(session_id)
        self._heartbeat.begins(path)
        self.bucket.create(path, marker)
        # A deletion looks for markers once it has its claim: it has seen ours, or we see that.
        problem: Exception | None = self._heartbeat.deletion(self._lease("run"), self._name)
        if problem is None and self.metadata() is None:
            problem = FileNotFoundError(f"{self.place} was deleted meanwhile")
        if problem is not None:
            self.unmark(session_id)
            raise problem

    def unmark(self, session_id: str) -> None:
        """Take the marker of a session away."""
        path = self._marker(session_id)
        self.bucket.delete([path])
        self._heartbeat.ends(path)
        self._tail = None  # from now on the run may be deleted

    def open_markers(self) -> Iterator[tuple[str, bytes]]:
        """Markers of sessions, in the order of their names."""
        for path, data in self._small("open"):
            session_id = keys.unescaped(_last_part(path))
            if session_id is not None:
                yield session_id, data

    @contextlib.contextmanager
    def hold(self, session_id: str) -> Iterator[bool]:
        """Hold a session that is to be completed."""
        try:
            lease = self._acquire(f"session-{keys.escaped(session_id)}", session_id)
        except RunLockedError:
            yield False
            return
        try:
            yield self.bucket.get(self._marker(session_id)) is not None
        finally:
            lease.release()

    def undisturbed(self) -> contextlib.AbstractContextManager[None]:
        """Others may write: a session that begins meanwhile sees the claim of the deletion."""
        return contextlib.nullcontext()

    def owner_lives(self, owner: Mapping[str, Any]) -> bool | None:
        """Whether the process lives; None: it has left no sign in this bucket."""
        return self._heartbeat.owner_lives(owner)

    def claim(self, session_id: str) -> Lease:
        """Claim the run."""
        lease = self._acquire("run", session_id)
        self.lease = weakref.ref(lease)
        return lease

    def _acquire(self, name: str, session_id: str) -> Lease:
        return self._heartbeat.claim(self._lease(name), self._name, session_id)

    def _lease(self, name: str) -> str:
        return f"{self.folder}/leases/{name}"

    def _marker(self, session_id: str) -> str:
        return f"{self.folder}/open/{keys.escaped(session_id)}"

    def _small(self, kind: str) -> Iterator[tuple[str, bytes]]:
        """Paths and bytes of small objects, many at once."""
        names = self.bucket.names(f"{self.folder}/{kind}")
        for batch, data in self._read(
            (keys.Batch(each, 0, keys.NOTHING) for each in names), most=_MOST_AT_ONCE
        ):
            yield batch.listed.path, data


def _last_part(path: str) -> str:
    return path.rpartition("/")[2]


def identity(metadata: bytes | None) -> tuple[str, str | None] | None:
    """App id and partition key that a run's metadata names; None: it is damaged."""
    found = object_of(metadata) or {}
    app_id, key = (otel_of(found) or {}).get("app_id"), found.get("partition_key")
    return (app_id, key) if isinstance(app_id, str) and isinstance(key, str | None) else None
