"""A run in the database; see `RunLog`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import psycopg

from burr_otel.errors import RunInUseError
from burr_otel.store import graphs
from burr_otel.store.port import BEGIN, Durability, Extent, Line, StoreAnswer, Wanted
from burr_otel.store.postgres.batch import ANSWER, DISK, NOTHING, Record, Statement, Tail
from burr_otel.store.postgres.schema import LAST
from burr_otel.store.postgres.writer import Writer, locked
from burr_otel.store.process import this_owner

_PAGE_BYTES: Final = 4 * 1024 * 1024
_MOST_LINES: Final = 1000  # of a page
_END: Final = 2**62  # behind every record
_NOT_LOOKED_FOR: Final = 0, -1

_EXTENT: Final = f"SELECT size_bytes, changed_us FROM (SELECT $1::bigint AS id) AS run, {LAST}"
_NEWEST: Final = "SELECT number, body FROM burr_otel.newest($1, '{{{kinds}}}', $2, $3, $4)"
_FORWARD: Final = """\
SELECT number, body FROM burr_otel.record WHERE run_id = $1 AND number >= $2 AND number < $3
ORDER BY number LIMIT $4"""
_BACKWARD: Final = """\
SELECT number, body FROM burr_otel.record WHERE run_id = $1 AND number < $2
ORDER BY number DESC LIMIT $3"""
_COMPLETE: Final = """\
WITH made AS (INSERT INTO burr_otel.graph VALUES ($1, $2) ON CONFLICT DO NOTHING)
UPDATE burr_otel.run SET graphs = array_append(array_remove(graphs, $1), $1) WHERE id = $3"""
_ADD_CHILD: Final = """\
INSERT INTO burr_otel.child (run_id, body) SELECT $1, $2 WHERE NOT EXISTS (
  SELECT FROM burr_otel.child WHERE run_id = $1 AND body = $2)"""
_MARK: Final = """\
INSERT INTO burr_otel.session (run_id, session, marker)
VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"""
_OPEN: Final = "SELECT session, marker FROM burr_otel.session WHERE run_id = $1 ORDER BY session"
# A session's first record is waited for, and its marker is not.
_BEGINNING: Final = """\
SELECT session FROM burr_otel.record AS root
WHERE run_id = $1 AND kind IN (3, 4) AND written_at > now() - interval '15 seconds'
  AND NOT EXISTS (
    SELECT FROM burr_otel.session AS open WHERE run_id = $1 AND open.session = root.session)
  AND NOT EXISTS (
    SELECT FROM burr_otel.record AS later
    WHERE run_id = $1 AND later.number > root.number AND later.session = root.session
      AND position('{"type":"otel_root_end"'::bytea IN body) = 1)
LIMIT 1"""
_LOCK: Final = "SELECT FROM burr_otel.run WHERE id = $1 FOR UPDATE"
_UNMARK: Final = "DELETE FROM burr_otel.session WHERE run_id = $1 AND session = $2"
_LIVES: Final = "SELECT FROM burr_otel.writer WHERE id = {by} AND lease_until > now()"
_HOLD: Final = f"""\
UPDATE burr_otel.session SET held_by = $3 WHERE (run_id, session) IN (
  SELECT run_id, session FROM burr_otel.session AS open
  WHERE run_id = $1 AND session = $2 AND NOT EXISTS ({_LIVES.format(by="open.held_by")})
  FOR UPDATE SKIP LOCKED
) RETURNING 1"""
_LET_GO: Final = """\
UPDATE burr_otel.session SET held_by = NULL WHERE run_id = $1 AND session = $2 AND held_by = $3"""
_OWNER_LIVES: Final = """\
SELECT 1 FROM burr_otel.writer
WHERE host = $1 AND pid = $2 AND process_start = $3 AND lease_until > now() LIMIT 1"""
_CLAIM: Final = f"""\
UPDATE burr_otel.run SET claim = $2, claimed_by = $3 WHERE id IN (
  SELECT id FROM burr_otel.run WHERE id = $1 AND (
    claim IS NULL OR claim = $2 OR NOT EXISTS ({_LIVES.format(by="run.claimed_by")}))
  FOR NO KEY UPDATE SKIP LOCKED
) RETURNING 1"""
_HOLDER: Final = """\
SELECT run.claim, writer.host, writer.pid FROM burr_otel.run
LEFT JOIN burr_otel.writer ON writer.id = run.claimed_by WHERE run.id = $1"""
_RELEASE: Final = "UPDATE burr_otel.run SET claim = NULL WHERE id = $1 AND claim = $2"

Row = tuple[int, bytes]


class Found(NamedTuple):
    """A run as a statement finds it; None: it did not look, or there is nothing."""

    run_id: int
    partition_key: str
    app_id: str
    digests: list[str] | None  # of its graphs, the current one last
    size_bytes: int | None
    changed_us: int | None
    number: int | None  # of a record
    body: bytes | None


class PostgresRun:
    """A run in the database, as it was found. What all handles of a run share is its `Tail`.

    With `ahead`, the record that was found is the newest of those, or there is none.
    """

    def __init__(
        self, writer: Writer, project: str, found: Found, ahead: Wanted | None = None
    ) -> None:
        self._writer, self.project = writer, project
        self.run_id, self.app_id = found.run_id, found.app_id
        self.partition_key = _unescaped(found.partition_key) or None
        self._digests = found.digests
        extent = Extent(found.size_bytes or 0, (found.changed_us or 0) * 1000)
        self._extent: Extent | None = extent
        line = [(found.number or 0, found.body)] if found.body is not None else []
        self._ahead = None if ahead is None else (ahead, line)
        self._tail = writer.tail(self.run_id, f"{project}/{self.app_id}")
        self._alone: psycopg.RawCursor[Any] | None = None  # of the transaction of `undisturbed`

    @property
    def place(self) -> str:
        """The database, and the run in it."""
        return f"{self._writer.database.place} {self.project}/{self.app_id}"

    def extent(self) -> Extent:
        """How many bytes the records take, and when the newest came, by the server's clock."""
        if self._extent is None:
            ((size_bytes, changed_us),) = self._query(_EXTENT, self.run_id) or [(0, 0)]
            self._extent = Extent(size_bytes, changed_us * 1000)
        return self._extent

    def _query(self, sql: str, *values: Any) -> list[Any]:
        if self._alone is not None:
            return self._alone.execute(sql.encode(), values).fetchall()
        self._writer.flush()  # what this process has queued is there for it
        return self._writer.database.query(sql, *values)

    # --- writing ------------------------------------------------------------------------------

    def append(self, *told: Any, **more: Any) -> tuple[int, int]:
        """Append a record; one that is not looked for is not waited for."""
        record = self._record(*told, **more)
        if not record.is_awaited:
            self._writer.put(record, soon=False)
            return record.result
        found: tuple[int, int] = self._writer.wait_for(record)
        return found

    def put(self, *told: Any, soon: bool, **more: Any) -> StoreAnswer:
        """Like `append`, without waiting: written `soon`, or with the next that is waited for."""
        record = self._record(*told, **more)
        self._writer.put(record, soon=soon and record.is_awaited)
        return _answer(record)

    def send(self, *told: Any, **more: Any) -> StoreAnswer:
        """Like `append`, but waits only until it is sent: it arrives even if we are killed then."""
        record = self._record(*told, **more)
        if record.is_awaited:
            self._writer.send(record)
        else:
            self._writer.put(record, soon=False)
        return _answer(record)

    def _record(
        self,
        line: bytes | Sequence[bytes],
        entry: tuple[int, int] | None = None,
        *,
        durability: Durability,
        after: object | None = None,
        mark: object | None = None,
    ) -> Record:
        self._extent = None
        body = line if isinstance(line, bytes) else b"".join(line)
        kind, sequence_id = entry or _NOT_LOOKED_FOR
        # An end that is on the server's disk has everything before it there, too.
        commit = DISK if durability == "fsync" else ANSWER
        commit = NOTHING if kind in (0, BEGIN) else commit
        record = Record(self._tail, body, kind, sequence_id, commit, after, mark, len(body))
        # A difference is waited for always, or nobody would write it anew, whole.
        record.is_awaited = kind > 0 and (durability != "none" or after is not None)
        return record

    def repair(self) -> list[str]:
        """Nothing: a record is there, whole, or it is not."""
        return []

    def flush(self) -> None:
        """Have everything written that is queued."""
        self._writer.flush()

    close = flush

    # --- reading ------------------------------------------------------------------------------

    def newest(
        self, kinds: Sequence[int], sequence_id: int | None = None, before: int | None = None
    ) -> Iterator[Line]:
        """Lines of such kinds and that step, newest first."""
        ahead, self._ahead = self._ahead, None
        is_read = ahead is not None and before is None and ahead[0] == (kinds, sequence_id)
        end, first = _END if before is None else before, ahead[1] if ahead and is_read else None
        sql = _NEWEST.format(kinds=",".join(str(int(kind)) for kind in kinds))
        return self._pages(
            lambda end, limit: self._query(sql, self.run_id, sequence_id, end, limit), end, first
        )

    def backward(self) -> Iterator[Line]:
        """All lines, newest first."""
        return self._pages(lambda end, limit: self._query(_BACKWARD, self.run_id, end, limit), _END)

    def _pages(
        self, page: Callable[[int, int], list[Row]], end: int, rows: list[Row] | None = None
    ) -> Iterator[Line]:
        """Lines newest first: one, then as many at once as fit a page; `rows` has the first."""
        limit = 1
        while True:
            rows = page(end, limit) if rows is None else rows
            yield from _lines(rows)
            if len(rows) < limit:
                return
            end = rows[-1][0]
            size = max(1, sum(len(body) for _, body in rows))
            limit = max(1, min(8 * limit, _PAGE_BYTES * len(rows) // size, _MOST_LINES))
            rows = None

    def forward(self) -> Iterator[Line]:
        """All lines."""
        position = 0
        while rows := self._query(
            _FORWARD, self.run_id, position, position + _PAGE_BYTES, _MOST_LINES
        ):
            yield from _lines(rows)
            number, body = rows[-1]
            position = number + len(body)

    # --- what is beside the records -----------------------------------------------------------

    def metadata(self) -> bytes | None:
        """Partition, parents and app id as JSON."""
        rows = self._query("SELECT metadata FROM burr_otel.run WHERE id = $1", self.run_id)
        return rows[0][0] if rows else None

    def _graphs(self) -> list[str]:
        if self._digests is None:
            rows = self._query("SELECT graphs FROM burr_otel.run WHERE id = $1", self.run_id)
            self._digests = rows[0][0] if rows else []
        return self._digests

    def complete(self, metadata: bytes, graph: bytes, *, sync: bool) -> bool:  # noqa: ARG002
        """Make `graph` the current one; the rest is whole."""
        digest, known = graphs.digest(graph), self._graphs()
        if known[-1:] == [digest]:
            return False
        self._query(_COMPLETE, digest, graph, self.run_id)
        self._digests = [*(each for each in known if each != digest), digest]
        return bool(known)

    def graph(self, digest: str | None = None) -> bytes | None:
        """The current graph, or the one of a digest."""
        known = self._graphs()
        wanted = known[-1] if digest is None and known else digest
        if wanted not in known:
            return None
        rows = self._query("SELECT body FROM burr_otel.graph WHERE digest = $1", wanted)
        return rows[0][0] if rows else None

    def earlier_graphs(self) -> list[str]:
        """Digests of the graphs that the run had before."""
        return self._graphs()[:-1]

    def children(self) -> Iterator[bytes]:
        """One line of JSON for each child."""
        sql = "SELECT body FROM burr_otel.child WHERE run_id = $1 ORDER BY number"
        for (body,) in self._query(sql, self.run_id):
            yield body

    def add_child(self, line: bytes, *, sync: bool) -> None:  # noqa: ARG002 - always kept
        """Add a line about a child, unless it is there."""
        self._query(_ADD_CHILD, self.run_id, line)

    # --- open sessions ------------------------------------------------------------------------

    def mark_open(self, session_id: str, marker: bytes) -> None:
        """Note that a session is open; soon, and not waited for."""
        if not self._writer.is_leased(self.run_id, session_id):
            self._writer.lease(self.run_id, session_id)
            self._writer.put(Statement(_MARK, (self.run_id, session_id, marker)), soon=True)

    def unmark(self, session_id: str) -> None:
        """The session is open no more; soon, and not waited for."""
        self._writer.end_lease(self.run_id, session_id)
        self._writer.put(Statement(_UNMARK, (self.run_id, session_id)), soon=True)

    def open_markers(self) -> Iterator[tuple[str, bytes]]:
        """Markers of sessions, in the order of their ids."""
        yield from self._query(_OPEN, self.run_id)

    @contextlib.contextmanager
    def hold(self, session_id: str) -> Iterator[bool]:
        """Hold a session that is to be completed."""
        key, by = f"hold {session_id}", self._writer.database.writer_id
        if self._writer.is_leased(self.run_id, key):
            yield False  # another thread of this process completes it
            return
        self._writer.lease(self.run_id, key)
        try:
            yield bool(self._query(_HOLD, self.run_id, session_id, by))
        finally:
            self._writer.end_lease(self.run_id, key)
            self._query(_LET_GO, self.run_id, session_id, by)

    @contextlib.contextmanager
    def undisturbed(self) -> Iterator[None]:
        """A transaction in which nobody writes to the run; this handle reads and deletes in it."""
        self._writer.flush()
        database = self._writer.database
        try:
            # A connection of its own: a deletion may take longer than the lease of this process.
            with database.connect() as connection:
                # Whatever the server's default: behind the lock must be seen what came before it.
                connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
                self._alone = psycopg.RawCursor(connection)
                self._query(_LOCK, self.run_id)
                for (session_id,) in self._query(_BEGINNING, self.run_id):
                    raise RunInUseError(f"{self.project}/{self.app_id}", session_id, {})
                yield
        except psycopg.Error as error:
            raise database.problem(error) from error
        finally:
            self._alone = None

    def delete(self) -> None:
        """Delete it, with all that refers to it."""
        self._query("DELETE FROM burr_otel.run WHERE id = $1 RETURNING 1", self.run_id)

    def owner_lives(self, owner: Mapping[str, Any]) -> bool | None:
        """Whether the lease of the process has not run out, by the server's clock."""
        if owner == this_owner():
            return True
        host, pid, start = (owner.get(name) for name in ("host", "pid", "process_start"))
        if type(host) is not str or type(pid) is not int or pid.bit_length() >= 64:  # noqa: PLR2004 - of a bigint
            return None
        return bool(self._query(_OWNER_LIVES, host, pid, start or ""))

    def claim(self, session_id: str) -> RunClaim:
        """Claim the run."""
        return RunClaim(self._tail, self._writer, session_id)


def _answer(record: Record) -> StoreAnswer:
    """A record's answer; of what nobody waits for, that it lies somewhere."""
    if record.is_awaited:
        return record.answer
    done = StoreAnswer()
    done.give(record.result)
    return done


class RunClaim:
    """An exclusive claim of a session on a run, for as long as this process lives."""

    def __init__(self, tail: Tail, writer: Writer, session_id: str) -> None:
        self._tail, self._writer, self._session_id = tail, writer, session_id
        self._key, by = f"claim {session_id}", writer.database.writer_id
        writer.lease(tail.run_id, self._key)
        writer.flush()
        if not writer.database.query(_CLAIM, tail.run_id, session_id, by):
            writer.end_lease(tail.run_id, self._key)
            rows = writer.database.query(_HOLDER, tail.run_id)
            if not rows:
                raise FileNotFoundError(f"{tail.run} was deleted meanwhile")
            raise locked(tail.run, *rows[0])
        tail.claimant = session_id

    def __del__(self) -> None:
        self.release()

    def release(self) -> None:
        """Give the run free; idempotent."""
        if self._tail.claimant != self._session_id:
            return
        self._tail.claimant = None
        self._writer.end_lease(self._tail.run_id, self._key)
        self._writer.put(Statement(_RELEASE, (self._tail.run_id, self._session_id)), soon=True)


def _unescaped(partition_key: str) -> str:
    """A partition key as it was given."""
    if "\\" not in partition_key:
        return partition_key
    return re.sub(r"\\(.)", lambda found: "\0" if found[1] == "0" else found[1], partition_key)


def _lines(rows: Sequence[Row]) -> Iterator[Line]:
    for number, body in rows:
        yield Line(number, number + len(body), body, complete=True)
