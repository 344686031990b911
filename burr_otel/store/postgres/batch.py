"""What goes to the server in one statement, and how it is asked what has arrived."""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:  # it imports us
    from burr_otel.store.postgres.run import PostgresRun

NOTHING, ANSWER, DISK = range(3)
"""What the server waits for before it answers: nothing, what it is set to, its disk."""

_COLUMNS: Final = "run_id, number, kind, sequence_id, session, body"
_TYPES: Final = (
    20,
    20,
    21,
    20,
    25,
    17,
    25,
)  # of those columns and a claim: int8, int2, text, bytea
_SETTING: Final = {NOTHING: "off", DISK: "on"}
_INT8: Final = struct.Struct(">q").pack
_INT2: Final = struct.Struct(">h").pack
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


def insertion(records: Sequence[Record]) -> tuple[bytes, list[bytes | None], tuple[int, ...]]:
    """The statement that writes records, which have their numbers; its values and their types."""
    values: list[bytes | None] = []
    commit, claimed = NOTHING, False
    for record in records:
        run, body = record.run, record.body
        claim = run.claimant
        values += (
            _INT8(run.run_id),
            _INT8(record.number),
            _INT2(record.kind),
            _INT8(record.sequence_id),
            _session(body),
            body,
            None if claim is None else claim.encode(),
        )
        commit, claimed = max(commit, record.commit), claimed or claim is not None
    count = len(records)
    return _insert(count, commit, claimed=claimed), values, _TYPES * count


@functools.lru_cache(256)
def _insert(count: int, commit: int, *, claimed: bool) -> bytes:
    """Rows are values and no arrays: the server plans that in half the time."""
    width = len(_TYPES)
    used = width if claimed else width - 1
    numbers = (range(width * row + 1, width * row + used + 1) for row in range(count))
    rows = ", ".join(f"({', '.join(f'${number}' for number in each)})" for each in numbers)
    where = []
    if commit in _SETTING:
        setting = _SETTING[commit]
        where.append(f"set_config('synchronous_commit', '{setting}', true) = '{setting}'")
    if claimed:
        where.append(
            "(new.claim IS NULL OR EXISTS (SELECT FROM burr_otel.run "
            "WHERE run.id = new.run_id AND run.claim = new.claim))"
        )
    into = f"INSERT INTO burr_otel.record ({_COLUMNS})"
    if not where:
        return f"{into} VALUES {rows}".encode()
    columns = f"{_COLUMNS}, claim" if claimed else _COLUMNS
    new = f"(VALUES {rows}) AS new ({columns})"
    return f"{into} SELECT {_COLUMNS} FROM {new} WHERE {' AND '.join(where)}".encode()


def question(runs: Mapping[PostgresRun, Sequence[Record]]) -> tuple[str, tuple[Any, ...]]:
    """Asks of each run whether the first of these is in it, where it ends, and who has it."""
    firsts = [records[0] for records in runs.values()]
    return _LOOK, (
        [record.run.run_id for record in firsts],
        [record.number for record in firsts],
        [hashlib.sha256(record.body).digest() for record in firsts],
    )


def _session(body: bytes) -> bytes:
    """The session that a record names, for those who look with SQL."""
    start = body.rfind(_SESSION) + len(_SESSION)
    end = body.find(b'"', start)
    return body[start:end] if len(_SESSION) <= start < end else b""
