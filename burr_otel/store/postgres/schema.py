"""The tables: how they are made and upgraded, and what a process checks before it uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

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

_STEPS: Final[Sequence[str]] = (_FIRST,)  # each brings a schema of that version to the next one
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


def statements(version: int, *, roles: bool = False) -> str:
    """The SQL that brings a schema of that version (0: none) to the newest one."""
    body = "\n".join(_STEPS[version:])
    return f"{body}\n{_ROLES}" if roles else body
