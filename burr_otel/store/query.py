"""Which record of a run is looked for, and whether a line is it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from burr_otel.printable import logger_of_lines
from burr_otel.records import (
    BEGIN_ENTRY,
    END_ENTRY,
    ROOT,
    DamageError,
    kind_of_line,
    parse,
    salvage,
)
from burr_otel.store import port

logger = logger_of_lines(__name__)

_NUMBERS: Final = {
    BEGIN_ENTRY: (port.BEGIN,),
    END_ENTRY: (port.END,),
    ROOT: (port.ROOT, port.INHERITED),
}
_STATE_NUMBERS: Final = {BEGIN_ENTRY: (), END_ENTRY: (port.END,), ROOT: (port.INHERITED,)}


class Query:
    """A question to a run: types of records, of one step or any, perhaps only with a state.

    `accept` looks at each record that fits otherwise. `numbers` are the kinds as engines know them.
    """

    __slots__ = ("_accept", "_kinds", "_starts", "numbers", "sequence_id", "with_state")

    def __init__(
        self,
        kinds: Sequence[str],
        sequence_id: int | None = None,
        *,
        with_state: bool = False,
        accept: Callable[[dict[str, Any]], bool] | None = None,
    ) -> None:
        numbers = _STATE_NUMBERS if with_state else _NUMBERS
        self.numbers = tuple(number for kind in kinds for number in numbers[kind])
        self.sequence_id = sequence_id
        self.with_state = with_state
        self._kinds, self._accept = kinds, accept
        self._starts = [b'{"type":"%b"' % kind.encode() for kind in kinds]

    def match(self, line: bytes) -> dict[str, Any] | None:
        """The record on a line if it is such a one."""
        kind, number = kind_of_line(line) or (None, None)
        if kind not in self._kinds or not self._fits(kind, number, line):
            return self._behind(line)
        try:
            record = parse(line)
        except DamageError as error:
            if line.endswith(b"\n"):  # else it is being written, or its writer was killed
                logger.warning("a damaged %s record is passed over: %s", kind, error)
            return self._behind(line)
        if kind == ROOT and self.sequence_id not in (None, inherited_id(record)):
            return None
        if self.with_state and not isinstance(record.get("state"), dict):
            return None
        return record if self._accept is None or self._accept(record) else None

    def _fits(self, kind: str | None, number: int | None, line: bytes) -> bool:
        """Whether a line is worth a full parse."""
        if kind != ROOT:
            return self.sequence_id in (None, number)
        return not self.with_state or b'"state":{' in line

    def _behind(self, line: bytes) -> dict[str, Any] | None:
        """A record on the same line, behind a torn one."""
        if line.find(b'{"type":"', 1) < 0 or not any(start in line for start in self._starts):
            return None
        salvaged = salvage(line)
        return None if salvaged is None else self.match(line[salvaged[0] :])


def inherited_id(record: Mapping[str, Any]) -> int | None:
    """The sequence id of the state that an otel_root record carries."""
    number = record.get("inherited_sequence_id")
    return number if isinstance(number, int) else None


def otel_of(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The `otel` object of a record, if it has one."""
    otel = None if record is None else record.get("otel")
    return otel if isinstance(otel, dict) else None
