"""What goes to the server in one statement, and how it is asked what has arrived."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:  # it imports us
    from burr_otel.store.postgres.run import PostgresRun

NOTHING, ANSWER, DISK = range(3)
"""What the server waits for before it answers: nothing, what it is set to, its disk."""

_COMMIT: Final = {
    NOTHING: "WITH commit AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))",
    ANSWER: "WITH commit AS MATERIALIZED (SELECT 1)",
    DISK: "WITH commit AS MATERIALIZED (SELECT set_config('synchronous_commit', 'on', true))",
}
_INSERT: Final = """
INSERT INTO burr_otel.record (run_id, number, kind, sequence_id, session, body)
SELECT new.* FROM commit, unnest(
  %b::bigint[], %b::bigint[], %b::smallint[], %b::bigint[], %b::text[], %b::bytea[]
) AS new (run_id, number, kind, sequence_id, session, body)"""
_CLAIMED: Final = """
WHERE new.run_id <> ALL (%b::bigint[]) OR EXISTS (
  SELECT FROM unnest(%b::bigint[], %b::text[]) AS own (run_id, claim)
  JOIN burr_otel.run ON run.id = own.run_id AND run.claim = own.claim
  WHERE own.run_id = new.run_id
)"""
_LOOK: Final = """\
SELECT own.run_id, sha256(record.body) = own.digest, tail.number, run.claim, writer.host, writer.pid
FROM unnest(%b::bigint[], %b::bigint[], %b::bytea[]) AS own (run_id, number, digest)
LEFT JOIN burr_otel.run ON run.id = own.run_id
LEFT JOIN burr_otel.writer ON writer.id = run.claimed_by
LEFT JOIN burr_otel.record ON record.run_id = own.run_id AND record.number = own.number
LEFT JOIN LATERAL (
  SELECT last.number + octet_length(last.body) AS number FROM burr_otel.record AS last
  WHERE last.run_id = own.run_id ORDER BY last.number DESC LIMIT 1
) AS tail ON true"""
_SESSION: Final = b'"otel":{"session":"'


class Record:
    """A record on its way."""

    __slots__ = (
        "after",
        "body",
        "commit",
        "future",
        "is_awaited",
        "kind",
        "mark",
        "number",
        "result",
        "run",
        "sequence_id",
        "size",
    )

    def __init__(
        self,
        run: PostgresRun,
        body: bytes,
        entry: tuple[int, int],
        commit: int,
        after: object | None,
        mark: object | None,
    ) -> None:
        self.run, self.body, self.size = run, body, len(body)
        self.kind, self.sequence_id = entry
        self.commit, self.after, self.mark = commit, after, mark
        self.number = -1  # not given yet
        self.result = (-1, -1)
        self.is_awaited = True
        self.future: Future[tuple[int, int]] = Future()


class Statement:
    """A statement that may be run twice, to follow what was queued before it."""

    __slots__ = ("future", "is_awaited", "parameters", "sql")
    size = 0
    result = None

    def __init__(self, sql: str, parameters: Sequence[Any]) -> None:
        self.sql, self.parameters = sql, parameters
        self.is_awaited = True
        self.future: Future[None] = Future()


Item = Record | Statement


def insertion(records: Sequence[Record]) -> tuple[str, tuple[Any, ...]]:
    """The statement that writes records, which have their numbers."""
    sql = _COMMIT[max(record.commit for record in records)] + _INSERT
    columns = (
        [record.run.run_id for record in records],
        [record.number for record in records],
        [record.kind for record in records],
        [record.sequence_id for record in records],
        [_session(record.body) for record in records],
        [record.body for record in records],
    )
    claims = {r.run.run_id: r.run.claimant for r in records if r.run.claimant is not None}
    if not claims:
        return sql, columns
    return sql + _CLAIMED, (*columns, list(claims), list(claims), list(claims.values()))


def question(runs: Mapping[PostgresRun, Sequence[Record]]) -> tuple[str, tuple[Any, ...]]:
    """Asks of each run whether the first of these is in it, where it ends, and who has it."""
    firsts = [records[0] for records in runs.values()]
    return _LOOK, (
        [record.run.run_id for record in firsts],
        [record.number for record in firsts],
        [hashlib.sha256(record.body).digest() for record in firsts],
    )


def _session(body: bytes) -> str:
    """The session that a record names, for those who look with SQL."""
    start = body.rfind(_SESSION) + len(_SESSION)
    end = body.find(b'"', start)
    return body[start:end].decode(errors="replace") if len(_SESSION) <= start < end else ""
