"""The tables: how they are made and upgraded, and what a process checks before it uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import psycopg

from burr_otel.errors import StoreError

if TYPE_CHECKING:  # it imports us
    from burr_otel.store.postgres.database import Database

LAST: Final = """LATERAL (
    SELECT record.number + octet_length(record.body) AS size_bytes,
      (extract(epoch FROM written_at) * 1000000)::bigint AS changed_us
    FROM burr_otel.record WHERE run_id = run.id ORDER BY record.number DESC LIMIT 1
  ) AS last"""

_FIRST: Final = """\
CREATE SCHEMA IF NOT EXISTS burr_otel;

CREATE TABLE burr_otel.graph (
  digest text PRIMARY KEY,
  body bytea NOT NULL
);

-- One application: partition_key '' stands for none. graphs has the digests of all its graphs, the
-- current one last; claim is the session that has it for itself, as long as its writer lives.
CREATE TABLE burr_otel.run (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  project text NOT NULL,
  partition_key text NOT NULL,
  app_id text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  metadata bytea NOT NULL,
  graphs text[] NOT NULL,
  claim text,
  claimed_by text,
  UNIQUE (project, app_id, partition_key)
);
CREATE INDEX run_by_partition ON burr_otel.run (project, partition_key, id);

-- What happened in a run, as lines of JSON. Rows are added and never changed. number is where the
-- line begins, in bytes, as if all lines of the run were one file.
CREATE TABLE burr_otel.record (
  run_id bigint NOT NULL REFERENCES burr_otel.run ON DELETE CASCADE,
  number bigint NOT NULL,
  kind smallint NOT NULL,
  sequence_id bigint NOT NULL,
  session text NOT NULL,
  written_at timestamptz NOT NULL DEFAULT now(),
  body bytea NOT NULL,
  PRIMARY KEY (run_id, number)
);
CREATE INDEX record_by_kind ON burr_otel.record (run_id, kind, number) WHERE kind > 0;
CREATE INDEX record_by_step ON burr_otel.record (run_id, sequence_id, kind, number)
  WHERE kind > 0 AND sequence_id >= 0;
DO $$ BEGIN
  ALTER TABLE burr_otel.record ALTER COLUMN body SET COMPRESSION lz4;
EXCEPTION WHEN OTHERS THEN
  NULL; -- an older server, or one that was built without lz4
END $$;

CREATE TABLE burr_otel.child (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run_id bigint NOT NULL REFERENCES burr_otel.run ON DELETE CASCADE,
  body bytea NOT NULL
);
CREATE INDEX child_by_run ON burr_otel.child (run_id, number);

-- Processes that have sessions open. They live until lease_until, by the clock of this server.
CREATE TABLE burr_otel.writer (
  id text PRIMARY KEY,
  host text NOT NULL,
  pid bigint NOT NULL,
  process_start text NOT NULL,
  lease_until timestamptz NOT NULL
);

-- Sessions that are open; held_by is the writer that completes one for its dead owner.
CREATE TABLE burr_otel.session (
  run_id bigint NOT NULL REFERENCES burr_otel.run ON DELETE CASCADE,
  session text NOT NULL,
  marker bytea NOT NULL,
  held_by text,
  PRIMARY KEY (run_id, session)
);

CREATE TABLE burr_otel.version (version integer NOT NULL);
INSERT INTO burr_otel.version VALUES (1);
"""

# A server plans the statements of these functions once for each connection, and those that
# applications send each time, which takes longer than to carry them out.
_PLANNED_ONCE: Final = "LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan"
_LINES: Final = """\
SELECT found.number, found.body FROM unnest(kinds) AS wanted (kind), LATERAL (
      SELECT record.number, record.body FROM burr_otel.record
      WHERE run_id = of_run AND record.kind = wanted.kind AND record.kind > 0{step}
        AND record.number < before
      ORDER BY record.number DESC LIMIT most
    ) AS found ORDER BY found.number DESC LIMIT most"""
_SECOND: Final = f"""\
-- Records of some kinds, or of one step too, newest first.
CREATE FUNCTION burr_otel.newest(
  of_run bigint, kinds smallint[], step bigint, before bigint, most bigint
) RETURNS TABLE (number bigint, body bytea) {_PLANNED_ONCE} AS $$ BEGIN
  IF step IS NULL THEN
    RETURN QUERY {_LINES.format(step="")};
  ELSE
    RETURN QUERY {_LINES.format(step=" AND sequence_id >= 0 AND sequence_id = step")};
  END IF;
END $$;

-- A run, where it ends, when it was written to, and its newest record of some kinds.
CREATE FUNCTION burr_otel.find(
  of_project text, of_app text, of_partition text, kinds smallint[], step bigint
) RETURNS TABLE (
  id bigint, partition_key text, app_id text, graphs text[], size_bytes bigint, changed_us bigint,
  number bigint, body bytea
) {_PLANNED_ONCE} AS $$ BEGIN
  RETURN QUERY SELECT run.id, run.partition_key, run.app_id, run.graphs,
    last.size_bytes, last.changed_us, line.number, line.body
  FROM (
    SELECT * FROM burr_otel.run AS one WHERE one.project = of_project AND one.app_id = of_app
      AND (of_partition IS NULL OR one.partition_key = of_partition) ORDER BY one.id LIMIT 1
  ) AS run
  LEFT JOIN {LAST} ON true
  LEFT JOIN LATERAL burr_otel.newest(run.id, kinds, step, {2**62}, 1) AS line ON true;
END $$;

UPDATE burr_otel.version SET version = 2;
"""

# Each brings a schema to the next version.
_STEPS: Final[Sequence[str]] = (_FIRST, _SECOND)
VERSION: Final = len(_STEPS)
VERSION_QUERY: Final = "SELECT version FROM burr_otel.version"

_ROLES: Final = """\
-- What the role of an application needs:
-- GRANT USAGE ON SCHEMA burr_otel TO app;
-- GRANT SELECT ON ALL TABLES IN SCHEMA burr_otel TO app;
-- GRANT INSERT ON burr_otel.graph, burr_otel.run, burr_otel.record, burr_otel.child TO app;
-- GRANT UPDATE ON burr_otel.run TO app;
-- GRANT INSERT, UPDATE, DELETE ON burr_otel.writer, burr_otel.session TO app;
-- and, only to delete runs:
-- GRANT DELETE ON burr_otel.run, burr_otel.record TO app;
"""


def statements(version: int) -> str:
    """The SQL that brings a schema of that version (0: none) to the newest one."""
    return "\n".join(_STEPS[version:])


def prepare(database: Database, *, dry_run: bool) -> list[str]:
    """Make the tables, or upgrade them; what was done, or the SQL that does it."""
    try:
        with database.connect() as connection:  # one transaction
            found = _version(connection, database.place)
            if dry_run:
                return [statements(found), _ROLES]
            if found < VERSION:
                connection.execute(statements(found).encode())
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreError(
            f"{database.place}: {error.diag.message_primary}: tables are made by a role that may "
            "create a schema there, as the owner of the database."
        ) from error
    except psycopg.Error as error:
        problem = database.problem(error)
        if dry_run:
            return [f"-- All of it, because nobody can be asked: {problem}", statements(0), _ROLES]
        raise problem from error
    if found == VERSION:
        return [f"{database.place} has the tables already, in version {VERSION}."]
    how = f"upgraded from version {found}" if found else "made"
    roles = "`--print` lists what the role of an application needs."
    return [f"{database.place}: the tables are {how}, version {VERSION}. {roles}"]


def _version(connection: psycopg.Connection[Any], place: str) -> int:
    """The version of the tables, 0 for none; others who prepare wait for the transaction's end."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('burr_otel'))")
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreError(
            f"the database has encoding {encoding}, in which not every name can be kept: make one "
            "with `createdb --encoding UTF8 --template template0`."
        )
    row = connection.execute("SELECT to_regclass('burr_otel.version') IS NOT NULL").fetchone()
    if not row or not row[0]:
        return 0
    row = connection.execute(VERSION_QUERY).fetchone()
    return checked(row[0] if row else 0, place)


def checked(version: int, place: str) -> int:
    """A version that this burr-otel knows."""
    if version > VERSION:
        raise StoreError(
            f"the tables in {place} are of version {version} and this burr-otel knows version "
            f"{VERSION}: install a newer burr-otel."
        )
    return version
