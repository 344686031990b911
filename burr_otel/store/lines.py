"""Lines of a log: which are sound records, and what the others are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

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
from burr_otel.store.port import Line


class Part(NamedTuple):
    """A sound line (with its `record`) or a damaged stretch (with the `reason`)."""

    position: int
    end: int
    data: bytes
    complete: bool
    record: dict[str, Any] | None
    reason: str


def sound_parts(lines: Iterable[Line]) -> Iterator[Part]:
    """What is sound of the lines of a log, and what is not."""
    for position, end, data, complete in lines:
        if not data:
            yield Part(position, end, data, False, None, "NULs")
            continue
        try:
            yield Part(position, end, data, complete, parse(data), "")
        except DamageError as error:
            salvaged = salvage(data)
            if salvaged is not None:
                at, record = salvaged
                begin = position + at
                yield Part(position, begin, data[:at], False, None, "bytes before a record")
                yield Part(begin, end, data[at:], complete, record, "")
                continue
            reason = str(error) if complete else f"torn line, {error}"
            yield Part(position, end, data, complete, None, reason)


def entry_of(line: bytes, record: Mapping[str, Any]) -> tuple[int, int] | None:
    """Kind and sequence id of a sound record that is looked for; None: it never is."""
    kind, sequence_id = kind_of_line(line) or ("", None)
    if kind == ROOT:
        if not isinstance(record.get("state"), dict):
            return port.ROOT, -1
        number = record.get("inherited_sequence_id")
        return port.INHERITED, number if type(number) is int and _fits(number) else -1
    if sequence_id is None or not _fits(sequence_id) or kind not in (BEGIN_ENTRY, END_ENTRY):
        return None
    return (port.BEGIN if kind == BEGIN_ENTRY else port.END), sequence_id


def _fits(number: int) -> bool:
    return number.bit_length() < 64  # noqa: PLR2004 - what an index keeps
