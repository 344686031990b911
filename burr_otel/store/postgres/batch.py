"""What goes to the server in one statement, and how it is asked what has arrived."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from burr_otel.store.port import END, StoreAnswer

NOTHING, ANSWER, DISK = range(3)
"""What the server waits for before it answers: nothing, what it is set to, its disk."""

_SESSION: Final = b'"otel":{"session":"'
# Of each run: whether the first of our records is in it, where it ends, and who has it.
LOOK: Final = """\
SELECT own.run_id, sha256(record.body) = own.digest, tail.number, run.claim, writer.host, writer.pid
FROM unnest($1::bigint[], $2::bigint[], $3::bytea[]) AS own (run_id, number, digest)
LEFT JOIN burr_otel.run ON run.id = own.run_id
LEFT JOIN burr_otel.writer ON writer.id = run.claimed_by
LEFT JOIN burr_otel.record ON record.run_id = own.run_id AND record.number = own.number
LEFT JOIN LATERAL (
  SELECT last.number + octet_length(last.body) AS number FROM burr_otel.record AS last
  WHERE last.run_id = own.run_id ORDER BY last.number DESC LIMIT 1
) AS tail ON true"""


@dataclass(eq=False)
class Tail:
    """The end of a run as this process knows it, shared by all handles of the run.

    `number` is where the run ends, -1: not known; `newest` the mark of the newest END, None: not
    known; `claimant` the session that has the run for itself; `loose` where our newest records
    that nobody looks for begin and end.
    """

    run_id: int
    run: str
    number: int = -1
    newest: object | None = None
    claimant: str | None = None
    loose: tuple[int, int] = (-1, -1)

    def moved(self, number: int) -> None:
        """Others may have written: the run ends there, -1: somewhere."""
        self.number, self.newest = number, None

    def give_numbers(self, records: Sequence[Record]) -> None:
        """Number records by where they begin; one that was displaced has none."""
        position, newest = self.number, self.newest
        for record in records:
            if record.after is not None and record.after is not newest:
                record.number = -1
                continue
            record.number, position = position, position + record.size
            if record.kind == END:
                newest = record.mark

    def has_written(self, records: Sequence[Record]) -> None:
        """Note that records with such numbers are in the database."""
        for record in records:
            start, end = record.number, record.number + record.size
            # What is not looked for tells nobody where it lies; it belongs to the record after it.
            start = self.loose[0] if self.loose[1] == start else start
            if record.kind:
                record.result, self.loose = (start, end), (-1, -1)
            else:
                self.loose = start, end
            if record.kind == END:
                self.newest = record.mark
            self.number = end


@dataclass(slots=True, eq=False)
class Record:
    """A record on its way."""

    tail: Tail
    body: bytes
    kind: int
    sequence_id: int
    commit: int
    after: object | None
    mark: object | None
    size: int
    number: int = -1  # not given yet
    result: tuple[int, int] = (-1, -1)
    is_awaited: bool = True
    answer: StoreAnswer = field(default_factory=StoreAnswer)


@dataclass(slots=True, eq=False)
class Statement:
    """A statement that may be run twice, to follow what was queued before it."""

    sql: str
    values: Sequence[Any] = ()
    size: int = 0
    result: None = None
    is_awaited: bool = False
    answer: StoreAnswer = field(default_factory=StoreAnswer)


Item = Record | Statement


def insertion(records: Sequence[Record]) -> tuple[str, list[Any]]:
    """The statement that writes records, which have their numbers, and its values."""
    commit = max(record.commit for record in records)
    is_claimed = any(record.tail.claimant is not None for record in records)
    values: list[Any] = []
    for record in records:
        start = record.body.rfind(_SESSION) + len(_SESSION)
        session = (
            record.body[start : record.body.find(b'"', start)] if start >= len(_SESSION) else b""
        )
        values += (
            record.tail.run_id,
            record.number,
            record.kind,
            record.sequence_id,
            session.decode(errors="replace"),
            record.body,
        )
        if is_claimed:
            values.append(record.tail.claimant)
    return _insert(len(records), commit, is_claimed=is_claimed), values


@functools.lru_cache(256)
def _insert(count: int, commit: int, *, is_claimed: bool) -> str:
    """Rows are values and no arrays, and the setting is made inside one: planned most quickly."""
    width = 7 if is_claimed else 6
    rows = [[f"${width * row + each}" for each in range(1, width + 1)] for row in range(count)]
    if commit != ANSWER:
        setting = f"set_config('synchronous_commit', '{'on' if commit == DISK else 'off'}', true)"
        rows[0][4] = f"concat({rows[0][4]}::text, left({setting}, 0))"
    values = ", ".join(f"({', '.join(row)})" for row in rows)
    columns = "run_id, number, kind, sequence_id, session, body"
    if not is_claimed:
        return f"INSERT INTO burr_otel.record ({columns}) VALUES {values}"
    return f"""\
INSERT INTO burr_otel.record ({columns})
SELECT {columns} FROM (VALUES {values}) AS new ({columns}, claim)
WHERE new.claim IS NULL OR EXISTS (
  SELECT FROM burr_otel.run WHERE run.id = new.run_id AND run.claim = new.claim)"""
