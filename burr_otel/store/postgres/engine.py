"""PostgreSQL as an engine; see `Engine`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from burr_otel.errors import StoreError
from burr_otel.store import graphs
from burr_otel.store.port import ALL, Durability, Engine, NewRun, Partition, RunLog, Wanted
from burr_otel.store.postgres import schema
from burr_otel.store.postgres.run import Found, PostgresRun
from burr_otel.store.postgres.writer import writer_of

_PAGE_RUNS: Final = 5000

_PROJECTS: Final = """\
WITH RECURSIVE found (project) AS (
  (SELECT project FROM burr_otel.run ORDER BY project LIMIT 1)
  UNION ALL
  SELECT (SELECT project FROM burr_otel.run WHERE project > found.project ORDER BY project LIMIT 1)
  FROM found WHERE project IS NOT NULL
) SELECT project FROM found WHERE project IS NOT NULL"""
_APP_IDS: Final = "SELECT app_id FROM burr_otel.run WHERE project = $1"
_RUNS: Final = f"""\
SELECT id, partition_key, app_id, NULL, size_bytes, changed_us, NULL, NULL
FROM burr_otel.run LEFT JOIN {schema.LAST} ON true
WHERE project = $1 AND id > $2{{partition}} ORDER BY id LIMIT $3"""
_FIND: Final = "SELECT * FROM burr_otel.find($1, $2, $3, '{{{kinds}}}', $4)"
_CREATE: Final = """\
WITH made AS (INSERT INTO burr_otel.graph VALUES ($1, $2) ON CONFLICT DO NOTHING)
INSERT INTO burr_otel.run (project, partition_key, app_id, metadata, graphs)
VALUES ($3, $4, $5, $6, ARRAY[$1]) ON CONFLICT DO NOTHING
RETURNING id, partition_key, app_id, graphs, NULL, NULL, NULL, NULL"""


class PostgresEngine(Engine):
    """The runs in a database; connects when it is first asked something."""

    answers_late = True

    def __init__(self, url: str) -> None:
        self._writer = writer_of(url)
        self.place = self._writer.database.place

    def prepare(self, *, dry_run: bool) -> list[str]:
        """Make the tables, or upgrade them."""
        return schema.prepare(self._writer.database, dry_run=dry_run)

    def projects(self) -> list[str]:
        """Names of projects, sorted."""
        return sorted(name for (name,) in self._writer.database.query(_PROJECTS))

    def app_ids(self, project: str, partition_key: Partition) -> Iterable[str]:
        """Of the runs of a project, or of one partition of it."""
        wanted = () if partition_key is ALL else (_key(partition_key),)
        sql = f"{_APP_IDS} AND partition_key = $2" if wanted else _APP_IDS
        return [app_id for (app_id,) in self._writer.database.query(sql, project, *wanted)]

    def runs(self, project: str, partition_key: Partition = ALL) -> Iterator[PostgresRun]:
        """All runs of a project, or of one partition of it."""
        last, wanted = 0, () if partition_key is ALL else (_key(partition_key),)
        sql = _RUNS.format(partition=" AND partition_key = $4" if wanted else "")
        while True:
            page = self._found(project, sql, project, last, _PAGE_RUNS, *wanted)
            yield from page
            if len(page) < _PAGE_RUNS:
                return
            last = page[-1].run_id

    def find(
        self, project: str, app_id: str, partition_key: Partition, ahead: Wanted | None = None
    ) -> PostgresRun | None:
        """A run; with `ALL` the one that was made first."""
        kinds, step = ahead or ((), None)
        sql = _FIND.format(kinds=",".join(str(int(kind)) for kind in kinds))
        key = None if partition_key is ALL else _key(partition_key)
        found = self._found(project, sql, project, app_id, key, step, ahead=ahead)
        return found[0] if found else None

    def create(self, new: NewRun, *, durability: Durability) -> tuple[RunLog, bool]:  # noqa: ARG002
        """Make a run unless it is there; it is always kept."""
        project, app_id, partition_key, metadata, graph = new
        key, digest = _key(partition_key), graphs.digest(graph)
        values = (digest, graph, project, key, app_id, metadata)
        for _ in range(2):
            found = self.find(project, app_id, partition_key)
            if found is not None:
                return found, False
            made = self._found(project, _CREATE, *values)
            if made:
                return made[0], True
        raise StoreError(f"{self.place}: {project}/{app_id} is being deleted.")

    def delete(self, run: RunLog) -> None:
        """Delete a run, with all that refers to it."""
        assert isinstance(run, PostgresRun)
        run.delete()

    def close(self) -> None:
        """Flush, and close the connection; it is made anew when it is needed."""
        self._writer.flush()
        self._writer.database.close()

    def _found(
        self, project: str, sql: str, *values: Any, ahead: Wanted | None = None
    ) -> list[PostgresRun]:
        """The runs that a statement finds; what this process has queued is there for it."""
        self._writer.flush()
        rows = self._writer.database.query(sql, *values)
        return [PostgresRun(self._writer, project, Found(*row), ahead) for row in rows]


def _key(partition_key: str | None) -> str:
    """A partition key as it is kept: a text cannot hold NUL."""
    return (partition_key or "").replace("\\", "\\\\").replace("\0", "\\0")
