"""A run in the database; see `RunLog`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

from burr_otel.store import graphs
from burr_otel.store.owner import this_owner
from burr_otel.store.port import BEGIN, END, Durability, Line
from burr_otel.store.postgres.batch import ANSWER, DISK, NOTHING, Record, Statement
from burr_otel.store.postgres.claim import LIVES, RunClaim
from burr_otel.store.postgres.measure import Page
from burr_otel.store.postgres.writer import Writer

_PAGE_BYTES: Final = 4 * 1024 * 1024
_MOST_LINES: Final = 1000  # of a page

_NEWEST: Final = """\
(SELECT number, body FROM burr_otel.record
WHERE run_id = %(run_id)s AND kind = {kind}{step} AND number < %(end)s
ORDER BY number DESC LIMIT %(limit)s)"""
_STEP: Final = " AND sequence_id >= 0 AND sequence_id = %(step)s"
_FORWARD: Final = """\
SELECT number, body FROM burr_otel.record WHERE run_id = %s AND number >= %s AND number < %s
ORDER BY number LIMIT %s"""
_BACKWARD: Final = """\
SELECT number, body FROM burr_otel.record WHERE run_id = %s AND number < %s AND number >= %s
ORDER BY number DESC LIMIT %s"""
_COMPLETE: Final = """\
WITH made AS (INSERT INTO burr_otel.graph VALUES (%s, %s) ON CONFLICT DO NOTHING)
UPDATE burr_otel.run SET graphs = array_append(array_remove(graphs, %s), %s) WHERE id = %s"""
_ADD_CHILD: Final = """\
INSERT INTO burr_otel.child (run_id, body) SELECT %s, %b WHERE NOT EXISTS (
  SELECT FROM burr_otel.child WHERE run_id = %s AND body = %b)"""
_MARK: Final = """\
INSERT INTO burr_otel.session (run_id, session, marker)
VALUES (%s, %s, %b) ON CONFLICT DO NOTHING"""
_UNMARK: Final = "DELETE FROM burr_otel.session WHERE run_id = %s AND session = %s"
_HOLD: Final = f"""\
UPDATE burr_otel.session SET held_by = %s WHERE (run_id, session) IN (
  SELECT run_id, session FROM burr_otel.session AS open
  WHERE run_id = %s AND session = %s AND NOT EXISTS ({LIVES.format(by="open.held_by")})
  FOR UPDATE SKIP LOCKED
) RETURNING 1"""
_LET_GO: Final = """\
UPDATE burr_otel.session SET held_by = NULL WHERE run_id = %s AND session = %s AND held_by = %s"""
_OWNER_LIVES: Final = """\
SELECT 1 FROM burr_otel.writer
WHERE host = %s AND pid = %s AND process_start = %s AND lease_until > now() LIMIT 1"""


class PostgresRun:
    """A run, as one process sees it. What the writer keeps of it belongs to the writer.

    `tail` is where the run ends, -1: not known; `claimant` the session that has it for itself.
    """

    __slots__ = (
        "__weakref__",
        "_digests",
        "_loose",
        "_newest",
        "_page",
        "_writer",
        "app_id",
        "claimant",
        "partition_key",
        "project",
        "run_id",
        "tail",
    )

    def __init__(
        self,
        writer: Writer,
        project: str,
        run_id: int,
        partition_key: str,
        app_id: str,
        page: Page | None = None,
    ) -> None:
        self._writer, self.project, self.run_id = writer, project, run_id
        self.app_id, self.partition_key = app_id, _unescaped(partition_key) or None
        self._digests: list[str] | None = None  # of its graphs, the current one last
        self.tail = -1
        self.claimant: str | None = None
        self._newest: object | None = None  # mark of the newest END; None: not known
        self._loose = -1, -1  # our newest records that are not looked for: where they begin and end
        self._page = page

    @property
    def place(self) -> str:
        """The database, and the run in it."""
        return f"{self._writer.database.place} {self.project}/{self.app_id}"

    @property
    def size_bytes(self) -> int:
        """Of all records."""
        return self._measured()[0]

    @property
    def changed_ns(self) -> int:
        """By the server's clock."""
        return self._measured()[1] * 1000

    def _measured(self) -> tuple[int, int]:
        self.flush()
        page = self._page or Page(self._writer, [self.run_id])
        return page.measured(self.run_id)

    def found(self, digests: list[str], size_bytes: int | None, changed_us: int | None) -> None:
        """Note what a search has just found of the run."""
        self._digests = digests
        self._page = Page(self._writer, (), {self.run_id: (size_bytes or 0, changed_us or 0)})

    def _query(self, sql: str, parameters: Any = ()) -> list[Any]:
        self._writer.flush()  # what this process has queued is there for it
        return self._writer.database.query(sql, parameters)

    # --- writing ------------------------------------------------------------------------------

    def append(
        self,
        line: bytes | Sequence[bytes],
        entry: tuple[int, int] | None = None,
        *,
        durability: Durability,
        after: object | None = None,
        mark: object | None = None,
    ) -> tuple[int, int]:
        """Append a record; one that is not looked for is not waited for."""
        record = self._record(line, entry, durability, after, mark)
        if not _waits(entry, durability, after):
            self._writer.put(record, soon=False)
            return -1, -1
        found: tuple[int, int] = self._writer.wait_for(record)
        return found

    def hand_over(
        self,
        line: bytes | Sequence[bytes],
        entry: tuple[int, int] | None = None,
        *,
        durability: Durability,
        after: object | None = None,
        mark: object | None = None,
    ) -> Future[tuple[int, int]]:
        """Like `append`, for an event loop: it is in the database when the future is done."""
        record = self._record(line, entry, durability, after, mark)
        waits = _waits(entry, durability, after)
        self._writer.put(record, soon=waits, awaited=waits)
        if waits:
            return record.future
        done: Future[tuple[int, int]] = Future()
        done.set_result((-1, -1))
        return done

    def _record(
        self,
        line: bytes | Sequence[bytes],
        entry: tuple[int, int] | None,
        durability: Durability,
        after: object | None,
        mark: object | None,
    ) -> Record:
        if entry is None or entry[0] == BEGIN:
            # An end that is on the server's disk has everything before it there, too.
            commit = NOTHING
        else:
            commit = DISK if durability == "fsync" else ANSWER
        body = line if isinstance(line, bytes) else b"".join(line)
        return Record(self, body, entry or (0, -1), commit, after, mark)

    def number(self, records: Sequence[Record]) -> None:
        """Give records their numbers; one that was displaced has none."""
        position, newest = self.tail, self._newest
        for record in records:
            if record.after is not None and record.after is not newest:
                record.number = -1
                continue
            record.number, position = position, position + record.size
            if record.kind == END:
                newest = record.mark

    def has_written(self, records: Sequence[Record]) -> None:
        """Note that records with such numbers are in the database."""
        self._page = None
        for record in records:
            start, end = record.number, record.number + record.size
            # What is not looked for tells nobody where it lies; it belongs to the record after it.
            start = self._loose[0] if self._loose[1] == start else start
            if record.kind:
                record.result, self._loose = (start, end), (-1, -1)
            else:
                self._loose = start, end
            if record.kind == END:
                self._newest = record.mark
            self.tail = end

    def moved(self, tail: int) -> None:
        """Others may have written: the run ends there, -1: somewhere."""
        self.tail, self._newest = tail, None

    def repair(self) -> list[str]:
        """Nothing: a record is there, whole, or it is not."""
        return []

    def flush(self) -> None:
        """Have everything written that is queued."""
        self._writer.flush()

    def close(self) -> None:
        """Flush."""
        self._writer.flush()

    def after_fork(self) -> None:
        """In a forked child: the run's end as it is known is the parent's, and so is its claim."""
        self.moved(-1)
        self.claimant = None

    # --- reading ------------------------------------------------------------------------------

    def newest(
        self, kinds: Sequence[int], sequence_id: int | None = None, before: int | None = None
    ) -> Iterator[Line]:
        """Lines of such kinds and that step, newest first."""
        step = "" if sequence_id is None else _STEP
        # Of each kind by itself, in the order of an index.
        each = [_NEWEST.format(kind=int(kind), step=step) for kind in kinds]
        together = " ORDER BY number DESC LIMIT %(limit)s" if len(each) > 1 else ""
        sql = " UNION ALL ".join(each) + together
        end, limit = 2**62 if before is None else before, 1
        while True:
            values = {"run_id": self.run_id, "step": sequence_id, "end": end, "limit": limit}
            rows = self._query(sql, values)
            yield from _lines(rows)
            if len(rows) < limit:
                return
            end = rows[-1][0]
            size = max(1, sum(len(body) for _, body in rows))
            limit = max(1, min(8 * limit, _PAGE_BYTES * len(rows) // size, _MOST_LINES))

    def forward(self) -> Iterator[Line]:
        """All lines."""
        position = 0
        while True:
            rows = self._query(
                _FORWARD, (self.run_id, position, position + _PAGE_BYTES, _MOST_LINES)
            )
            if not rows:
                return
            yield from _lines(rows)
            number, body = rows[-1]
            position = number + len(body)

    def backward(self) -> Iterator[Line]:
        """All lines, newest first."""
        end = 2**62
        rows = self._query(_BACKWARD, (self.run_id, end, 0, 1))
        while rows:
            yield from _lines(rows)
            end = rows[-1][0]
            page = (self.run_id, end, end - _PAGE_BYTES, _MOST_LINES)
            # A line that is longer than a page begins before it.
            rows = self._query(_BACKWARD, page) or self._query(_BACKWARD, (self.run_id, end, 0, 1))

    # --- what is beside the records -----------------------------------------------------------

    def metadata(self) -> bytes | None:
        """Partition, parents and app id as JSON."""
        rows = self._query("SELECT metadata FROM burr_otel.run WHERE id = %s", (self.run_id,))
        return rows[0][0] if rows else None

    def _graphs(self) -> list[str]:
        if self._digests is None:
            rows = self._query("SELECT graphs FROM burr_otel.run WHERE id = %s", (self.run_id,))
            self._digests = rows[0][0] if rows else []
        return self._digests

    def complete(self, metadata: bytes, graph: bytes, *, sync: bool) -> bool:  # noqa: ARG002
        """Make `graph` the current one; the rest is whole."""
        digest, known = graphs.digest(graph), self._graphs()
        if known[-1:] == [digest]:
            return False
        before = self.graph()
        self._query(_COMPLETE, (digest, graph, digest, digest, self.run_id))
        self._digests = [*(each for each in known if each != digest), digest]
        return before is not None and not graphs.same(before, graph)

    def graph(self, digest: str | None = None) -> bytes | None:
        """The current graph, or an earlier one."""
        known = self._graphs()
        wanted = known[-1] if digest is None and known else digest
        if wanted not in known:
            return None
        rows = self._query("SELECT body FROM burr_otel.graph WHERE digest = %s", (wanted,))
        return rows[0][0] if rows else None

    def earlier_graphs(self) -> list[str]:
        """Digests of the graphs that the run had before."""
        return self._graphs()[:-1]

    def children(self) -> Iterator[bytes]:
        """One line of JSON for each child."""
        sql = "SELECT body FROM burr_otel.child WHERE run_id = %s ORDER BY number"
        for (body,) in self._query(sql, (self.run_id,)):
            yield body

    def add_child(self, line: bytes, *, sync: bool) -> None:  # noqa: ARG002 - always kept
        """Add a line about a child, unless it is there."""
        self._query(_ADD_CHILD, (self.run_id, line, self.run_id, line))

    # --- open sessions ------------------------------------------------------------------------

    def mark_open(self, session_id: str, marker: bytes) -> None:
        """Note that a session is open; soon, and not waited for."""
        if self._writer.is_leased(self.run_id, session_id):
            raise FileExistsError(f"session {session_id} is marked as open already")
        self._writer.lease(self.run_id, session_id)
        self._writer.put(Statement(_MARK, (self.run_id, session_id, marker)), soon=True)

    def unmark(self, session_id: str) -> None:
        """The session is open no more; soon, and not waited for."""
        self._writer.end_lease(self.run_id, session_id)
        self._writer.put(Statement(_UNMARK, (self.run_id, session_id)), soon=True)

    def open_markers(self) -> Iterator[tuple[str, bytes]]:
        """Markers of sessions, in the order of their ids."""
        sql = "SELECT session, marker FROM burr_otel.session WHERE run_id = %s ORDER BY session"
        yield from self._query(sql, (self.run_id,))

    @contextlib.contextmanager
    def hold(self, session_id: str) -> Iterator[bool]:
        """Hold a session that is to be completed."""
        key, by = f"hold {session_id}", self._writer.database.writer_id
        if self._writer.is_leased(self.run_id, key):
            yield False  # another thread of this process completes it
            return
        self._writer.lease(self.run_id, key)
        try:
            yield bool(self._query(_HOLD, (by, self.run_id, session_id)))
        finally:
            self._writer.end_lease(self.run_id, key)
            self._query(_LET_GO, (self.run_id, session_id, by))

    def owner_lives(self, owner: Mapping[str, Any]) -> bool | None:
        """Whether the lease of the process has not run out, by the server's clock."""
        if owner == this_owner():
            return True
        host, pid, start = (owner.get(name) for name in ("host", "pid", "process_start"))
        if type(host) is not str or type(pid) is not int or pid.bit_length() >= 64:  # noqa: PLR2004 - of a bigint
            return None
        return bool(self._query(_OWNER_LIVES, (host, pid, start or "")))

    def claim(self, session_id: str) -> RunClaim:
        """Claim the run."""
        return RunClaim(self, self._writer, session_id)


def _waits(entry: tuple[int, int] | None, durability: Durability, after: object | None) -> bool:
    """Whether a record is waited for; a difference always, or nobody would write it anew, whole."""
    return entry is not None and (durability != "none" or after is not None)


def _unescaped(partition_key: str) -> str:
    """A partition key as it was given."""
    if "\\" not in partition_key:
        return partition_key
    return re.sub(r"\\(.)", lambda found: "\0" if found[1] == "0" else found[1], partition_key)


def _lines(rows: Sequence[tuple[int, bytes]]) -> Iterator[Line]:
    for number, body in rows:
        yield Line(number, number + len(body), body, complete=True)
