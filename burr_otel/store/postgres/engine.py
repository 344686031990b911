"""PostgreSQL as an engine; see `Engine`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from burr_otel.errors import StoreError
from burr_otel.store import graphs
from burr_otel.store.port import ALL, Durability, Partition, RunLog
from burr_otel.store.postgres import schema
from burr_otel.store.postgres.measure import LAST, Page
from burr_otel.store.postgres.run import PostgresRun
from burr_otel.store.postgres.writer import Writer, writer_of

_PAGE_RUNS: Final = 5000
_DELETED_AT_ONCE: Final = 1000

_PROJECTS: Final = """\
WITH RECURSIVE found (project) AS (
  (SELECT project FROM burr_otel.run ORDER BY project LIMIT 1)
  UNION ALL
  SELECT (SELECT project FROM burr_otel.run WHERE project > found.project ORDER BY project LIMIT 1)
  FROM found WHERE project IS NOT NULL
) SELECT project FROM found WHERE project IS NOT NULL"""
_RUNS: Final = """\
SELECT id, partition_key, app_id FROM burr_otel.run
WHERE project = %s AND id > %s{partition} ORDER BY id LIMIT %s"""
_FIND: Final = f"""\
SELECT id, partition_key, app_id, graphs, size_bytes, changed_us
FROM burr_otel.run LEFT JOIN {LAST} ON true
WHERE project = %s AND app_id = %s AND coalesce(partition_key = %s, true) ORDER BY id LIMIT 1"""
_CREATE: Final = """\
WITH made AS (INSERT INTO burr_otel.graph VALUES (%s, %b) ON CONFLICT DO NOTHING)
INSERT INTO burr_otel.run (project, partition_key, app_id, metadata, graphs)
VALUES (%s, %s, %s, %b, ARRAY[%s]) ON CONFLICT DO NOTHING
RETURNING id, partition_key, app_id, graphs, NULL, NULL"""
_DELETE_RECORDS: Final = """\
WITH gone AS (
  DELETE FROM burr_otel.record WHERE run_id = %s AND number IN (
    SELECT number FROM burr_otel.record WHERE run_id = %s ORDER BY number LIMIT %s)
  RETURNING 1
) SELECT count(*) FROM gone"""


class PostgresEngine:
    """The runs in a database. Pickles as its URL; connects when it is first asked something."""

    answers_late = True

    def __init__(self, url: str) -> None:
        self._url = url
        self.place = self._writer.database.place

    def __repr__(self) -> str:
        return f"PostgresEngine({self.place!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._url,)

    @property
    def _writer(self) -> Writer:
        return writer_of(self._url)

    def prepare(self, *, dry_run: bool) -> list[str]:
        """Make the tables, or upgrade them."""
        return schema.prepare(self._writer.database, dry_run=dry_run)

    def projects(self) -> list[str]:
        """Names of projects, sorted."""
        return sorted(name for (name,) in self._writer.database.query(_PROJECTS))

    def runs(self, project: str, partition_key: Partition = ALL) -> Iterator[PostgresRun]:
        """All runs of a project that have a record, or of one partition of it."""
        writer, last = self._writer, 0
        wanted = () if partition_key is ALL else (_key(partition_key),)
        sql = _RUNS.format(partition=" AND partition_key = %s" if wanted else "")
        while True:
            rows = writer.database.query(sql, (project, last, *wanted, _PAGE_RUNS))
            page = Page(writer, [row[0] for row in rows])
            for run_id, key, app_id in rows:
                yield PostgresRun(writer, project, run_id, key, app_id, page)
            if len(rows) < _PAGE_RUNS:
                return
            last = rows[-1][0]

    def find(self, project: str, app_id: str, partition_key: Partition) -> PostgresRun | None:
        """A run; with `ALL` the one that was made first."""
        key = None if partition_key is ALL else _key(partition_key)
        rows = self._writer.database.query(_FIND, (project, app_id, key))
        return self._handle(project, rows[0]) if rows else None

    def create(
        self,
        project: str,
        app_id: str,
        partition_key: str | None,
        *,
        metadata: bytes,
        graph: bytes,
        durability: Durability,  # noqa: ARG002 - a run is always kept
    ) -> tuple[RunLog, bool]:
        """Make a run unless it is there."""
        key, digest = _key(partition_key), graphs.digest(graph)
        parameters = (digest, graph, project, key, app_id, metadata, digest)
        for _ in range(2):
            found = self.find(project, app_id, partition_key)
            if found is not None:
                return found, False
            rows = self._writer.database.query(_CREATE, parameters)
            if rows:
                return self._handle(project, rows[0]), True
        raise StoreError(f"{self.place}: {project}/{app_id} is being deleted.")

    def delete(self, run: RunLog) -> None:
        """Delete a run, its oldest records first and a few at a time, so that nobody waits long."""
        assert isinstance(run, PostgresRun)
        run.close()
        database, run_id, left = self._writer.database, run.run_id, _DELETED_AT_ONCE
        while left == _DELETED_AT_ONCE:
            ids = (run_id, run_id, _DELETED_AT_ONCE)
            ((left,),) = database.query(_DELETE_RECORDS, ids, answer_s=None)
        database.query("DELETE FROM burr_otel.run WHERE id = %s", (run_id,), answer_s=None)

    def flush(self) -> None:
        """Have everything written that is queued."""
        self._writer.flush()

    def close(self) -> None:
        """Flush, and close the connection; it is made anew when it is needed."""
        self._writer.flush()
        self._writer.database.close()

    def _handle(self, project: str, row: tuple[Any, ...]) -> PostgresRun:
        """The process's one handle of a run."""
        run_id, partition_key, app_id, digests, size_bytes, changed_us = row
        writer = self._writer
        run = writer.runs.get(run_id)
        if run is None:
            made = PostgresRun(writer, project, run_id, partition_key, app_id)
            run = writer.runs.setdefault(run_id, made)
        run.found(digests, size_bytes, changed_us)
        return run


def _key(partition_key: str | None) -> str:
    """A partition key as it is kept: a text cannot hold NUL."""
    return (partition_key or "").replace("\\", "\\\\").replace("\0", "\\0")
