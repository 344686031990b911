"""An exclusive claim on a run, in the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from burr_otel.errors import RunLockedError
from burr_otel.store.postgres.batch import Statement

if TYPE_CHECKING:  # they import us
    from burr_otel.store.postgres.run import PostgresRun
    from burr_otel.store.postgres.writer import Writer

LIVES: Final = "SELECT FROM burr_otel.writer WHERE id = {by} AND lease_until > now()"
_CLAIM: Final = f"""\
UPDATE burr_otel.run SET claim = %s, claimed_by = %s WHERE id IN (
  SELECT id FROM burr_otel.run WHERE id = %s AND (
    claim IS NULL OR claim = %s OR NOT EXISTS ({LIVES.format(by="run.claimed_by")}))
  FOR NO KEY UPDATE SKIP LOCKED
) RETURNING 1"""
_HOLDER: Final = """\
SELECT run.claim, writer.host, writer.pid FROM burr_otel.run
LEFT JOIN burr_otel.writer ON writer.id = run.claimed_by WHERE run.id = %s"""
_RELEASE: Final = "UPDATE burr_otel.run SET claim = NULL WHERE id = %s AND claim = %s"


class RunClaim:
    """An exclusive claim of a session on a run, for as long as this process lives."""

    def __init__(self, run: PostgresRun, writer: Writer, session_id: str) -> None:
        self._run, self._writer, self._session_id = run, writer, session_id
        self._key = f"claim {session_id}"
        writer.lease(run.run_id, self._key)
        writer.flush()
        by = writer.database.writer_id
        ids = (session_id, by, run.run_id, session_id)
        if not writer.database.query(_CLAIM, ids):
            writer.end_lease(run.run_id, self._key)
            rows = writer.database.query(_HOLDER, (run.run_id,))
            holder, host, pid = rows[0] if rows else (None, None, None)
            raise RunLockedError(
                f"{run.project}/{run.app_id}",
                holder=holder or "unknown",
                host=host or "unknown",
                pid=pid or 0,
            )
        run.claimant = session_id

    def __del__(self) -> None:
        self.release()

    def release(self) -> None:
        """Give the run free; idempotent."""
        if self._run.claimant != self._session_id:
            return
        self._run.claimant = None
        self._writer.end_lease(self._run.run_id, self._key)
        self._writer.put(Statement(_RELEASE, (self._run.run_id, self._session_id)), soon=True)
