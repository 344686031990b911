"""Finding the newest records of a run, or of one step, with their whole state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from burr_otel.printable import logger_of_lines
from burr_otel.records import END_ENTRY, ROOT, kind_of_line
from burr_otel.store.chain import resolve
from burr_otel.store.lines import inherited_id, kinds_of, sound_parts
from burr_otel.store.port import RunLog

logger = logger_of_lines(__name__)


def newest_record(
    run: RunLog,
    kinds: Sequence[str],
    *,
    sequence_id: int | None = None,
    with_state: bool = False,
    accept: Callable[[dict[str, Any]], bool] | None = None,
) -> dict[str, Any] | None:
    """The newest sound record of such types: of one step, or of any; `accept` may pass it over.

    With `with_state` only records will do from which a run can be resumed; the state is whole.
    """
    for position, record in newest_records(run, kinds, sequence_id, with_state=with_state):
        if accept is not None and not accept(record):
            continue
        if not with_state:
            return record
        ends = newest_records(run, (END_ENTRY,), before=position)
        whole = resolve(record, (end for _, end in ends))
        if whole is not None:
            return whole
        logger.warning(
            "%s: step %s is passed over, because a record that its state builds on is lost",
            run.place,
            record.get("sequence_id"),
        )
    return None


def newest_records(
    run: RunLog,
    kinds: Sequence[str],
    sequence_id: int | None = None,
    *,
    with_state: bool = False,
    before: int | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Position and record of all such sound records, newest first."""
    numbers = kinds_of(kinds, with_state=with_state)
    starts = [b'{"type":"%b"' % kind.encode() for kind in kinds]
    for line in run.newest(numbers, sequence_id, before):
        kind, number = kind_of_line(line.data) or (None, None)
        is_one = kind in kinds and (kind == ROOT or sequence_id in (None, number))
        # There may be one behind a torn record on the same line.
        if not is_one and not any(line.data.find(start, 1) > 0 for start in starts):
            continue
        for position, _, _, complete, record, reason in sound_parts([line]):
            if record is None and complete:  # else it is being written, or its writer was killed
                logger.warning("a damaged %s record is passed over: %s", kind, reason)
            if record is None or record["type"] not in kinds:
                continue
            own = inherited_id(record) if record["type"] == ROOT else record["sequence_id"]
            if sequence_id in (None, own) and (
                not with_state or isinstance(record.get("state"), dict)
            ):
                yield position, record
