"""Lines of a log: which are sound records, and what is looked for in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

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

# Kinds by which engines find records of a type.
_KINDS: Final = {
    BEGIN_ENTRY: (port.BEGIN,),
    END_ENTRY: (port.END,),
    ROOT: (port.ROOT, port.INHERITED),
}
_WITH_STATE: Final = (port.END, port.INHERITED)
_INT64_BITS: Final = 64  # what an index keeps


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


def kinds_of(types: Iterable[str], *, with_state: bool = False) -> tuple[int, ...]:
    """The kinds by which engines find records of such types, or those of them that have a state."""
    kinds = [kind for each in types for kind in _KINDS.get(each, ())]
    return tuple(kind for kind in kinds if not with_state or kind in _WITH_STATE)


def entry_of(line: bytes, record: Mapping[str, Any]) -> tuple[int, int] | None:
    """Kind and sequence id of a sound record that is looked for; None: it never is."""
    kind, sequence_id = kind_of_line(line) or ("", None)
    if kind == ROOT:
        if not isinstance(record.get("state"), dict):
            return port.ROOT, -1
        number = inherited_id(record)
        fits = number is not None and number.bit_length() < _INT64_BITS
        return port.INHERITED, number if fits and number is not None else -1
    if kind not in _KINDS or sequence_id is None or sequence_id.bit_length() >= _INT64_BITS:
        return None
    return _KINDS[kind][0], sequence_id


def object_of(data: bytes | None) -> dict[str, Any] | None:
    """A JSON object; None when it is missing or damaged."""
    try:
        found = json.loads(data or b"")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def inherited_id(record: Mapping[str, Any]) -> int | None:
    """The sequence id of the state that an otel_root record carries."""
    number = record.get("inherited_sequence_id")
    return number if type(number) is int else None


def otel_of(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The `otel` object of a record, if it has one."""
    otel = None if record is None else record.get("otel")
    return otel if isinstance(otel, dict) else None
