"""Which record of a log is looked for, and whether a line is it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from burr_otel.store import records
from burr_otel.store.index import BEGIN, END, INHERITED, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Query", "holds_state", "inherited_id", "otel_of"]

logger = logging.getLogger(__name__)

_NUMBERS = {
    records.BEGIN_ENTRY: (BEGIN,),
    records.END_ENTRY: (END,),
    records.ROOT: (ROOT, INHERITED),
}
_STATE_NUMBERS = {records.BEGIN_ENTRY: (), records.END_ENTRY: (END,), records.ROOT: (INHERITED,)}


class Query:
    """A question to a log.

    Args:
        kinds: Types of records.
        sequence_id: Of one step; None: of any.
        with_state: Whether only records will do from which a run can be resumed.
        accept: Looks at each record that fits otherwise.

    Attributes:
        numbers: The kinds as the index knows them.
        sequence_id: As given.
        with_state: As given.
    """

    def __init__(
        self,
        kinds: Sequence[str],
        sequence_id: int | None,
        *,
        with_state: bool,
        accept: Callable[[dict[str, Any]], bool] | None,
    ) -> None:
        numbers = _STATE_NUMBERS if with_state else _NUMBERS
        self.numbers = tuple(number for kind in kinds for number in numbers[kind])
        self.sequence_id = sequence_id
        self.with_state = with_state
        self._kinds, self._accept = kinds, accept
        self._starts = [b'{"type":"%b"' % kind.encode() for kind in kinds]

    def match(self, line: bytes) -> dict[str, Any] | None:
        """The record on a line if it is such a one."""
        kind, number = records.describe(line) or (None, None)
        if kind not in self._kinds or not self._fits(kind, number, line):
            return self._behind(line)
        record, problem = records.check(line)
        if record is None:
            if line.endswith(b"\n"):  # else it is being written, or its writer was killed
                logger.warning("a damaged %s record is passed over: %s", kind, problem)
            return self._behind(line)
        if kind == records.ROOT and self.sequence_id not in (None, inherited_id(record)):
            return None
        if self.with_state and not holds_state(record):
            return None
        return record if self._accept is None or self._accept(record) else None

    def _fits(self, kind: str | None, number: int | None, line: bytes) -> bool:
        """Whether a line is worth a full parse."""
        if kind != records.ROOT:
            return self.sequence_id in (None, number)
        return not self.with_state or b'"state":{' in line

    def _behind(self, line: bytes) -> dict[str, Any] | None:
        """A record on the same line, behind a torn one."""
        if line.find(b'{"type":"', 1) < 0 or not any(start in line for start in self._starts):
            return None
        salvaged = records.salvage(line)
        return None if salvaged is None else self.match(line[salvaged[0] :])


def inherited_id(record: Mapping[str, Any]) -> int | None:
    """The sequence id of the state that an otel_root record carries."""
    number = record.get("inherited_sequence_id")
    return number if isinstance(number, int) else None


def holds_state(record: Mapping[str, Any]) -> bool:
    """Whether a record is one that a run can be resumed from."""
    return isinstance(record.get("state"), dict)


def otel_of(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The `otel` object of a record, if it has one."""
    otel = None if record is None else record.get("otel")
    return otel if isinstance(otel, dict) else None
