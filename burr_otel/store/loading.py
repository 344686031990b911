"""Finding the newest record of a run, or of one step, with its whole state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from burr_otel.printable import logger_of_lines
from burr_otel.records import END_ENTRY
from burr_otel.store.chain import resolve
from burr_otel.store.port import RunLog
from burr_otel.store.query import Query

logger = logger_of_lines(__name__)

_ENDS: Final = Query((END_ENTRY,))


def newest_record(
    run: RunLog,
    kinds: Sequence[str],
    *,
    sequence_id: int | None = None,
    with_state: bool = False,
    accept: Callable[[dict[str, Any]], bool] | None = None,
) -> dict[str, Any] | None:
    """The newest sound record of such types: of one step, or of any.

    With `with_state` only records will do from which a run can be resumed; the state is whole.
    """
    query = Query(kinds, sequence_id, with_state=with_state, accept=accept)
    for line in run.newest(query.numbers, sequence_id):
        record = query.match(line.data)
        if record is None:
            continue
        whole = resolve(record, _ends_before(run, line.position)) if with_state else record
        if whole is not None:
            return whole
        logger.warning(
            "%s: step %s is passed over, because a record that its state builds on is lost",
            run.place,
            record.get("sequence_id"),
        )
    return None


def _ends_before(run: RunLog, position: int) -> Iterator[dict[str, Any]]:
    """The records of finished steps before a position, newest first."""
    for line in run.newest(_ENDS.numbers, None, position):
        record = _ENDS.match(line.data)
        if record is not None:
            yield record
