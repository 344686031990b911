"""How large runs are, and when they were written to: measured many at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # it imports us
    from burr_otel.store.postgres.writer import Writer

LAST: Final = """LATERAL (
  SELECT number + octet_length(body) AS size_bytes,
    (extract(epoch FROM written_at) * 1000000)::bigint AS changed_us
  FROM burr_otel.record WHERE run_id = run.id ORDER BY number DESC LIMIT 1
) AS last"""
_MEASURE: Final = f"""\
SELECT run.id, size_bytes, changed_us
FROM unnest(%b::bigint[]) AS run (id) CROSS JOIN {LAST}"""


class Page:
    """Runs that were listed together, and are measured together when one is asked for."""

    def __init__(
        self,
        writer: Writer,
        run_ids: Sequence[int],
        found: dict[int, tuple[int, int]] | None = None,
    ) -> None:
        self._writer, self._run_ids, self._found = writer, run_ids, found

    def measured(self, run_id: int) -> tuple[int, int]:
        """Size in bytes, and the time of the newest record in microseconds."""
        if self._found is None:
            rows = self._writer.database.query(_MEASURE, (self._run_ids,))
            self._found = {found: (size, changed_us) for found, size, changed_us in rows}
        return self._found.get(run_id, (0, 0))
