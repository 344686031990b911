"""Lines of a log -> records."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import orjson

from burr_otel import records
from burr_otel.records.write import LAYOUTS, TIMES, Layout

_CRC_TAIL: Final = re.compile(rb',"crc":"([0-9a-f]{8})"\}\}\s*\Z')
_CRC_TAIL_BYTES: Final = 64
_INT64: Final = b'"int64":true'
_LONG_NUMBER: Final = re.compile(rb"\d{20}|-\d{19}")  # may be beyond 64 bits
_SHORT_BYTES: Final = 4096
_HEAD: Final = re.compile(rb'\s*\{"type":\s*"(\w+)"(?:,\s*"sequence_id":\s*(-?\d{1,18})\s*[,}])?')
# Burr's client writes the sequence id last. A brace or comma after the number would be another
# object's, so this only matches the outermost one.
_TAIL_ID: Final = re.compile(rb',\s*"sequence_id":\s*(-?\d{1,18})\s*\}\s*$')
_START: Final = re.compile(rb'\{"type":')
_MOST_SALVAGE_TRIES: Final = 16
_QUARTER_HOUR: Final = dt.timedelta(minutes=15)
_LARGEST_OFFSET: Final = dt.timedelta(hours=15)
_MOST_LEARNT_FROM: Final = 2_000  # records
_ROOT_OWN: Final = frozenset({"type", "start_time", "state", "otel"})

Zone = Callable[[], dt.tzinfo | None]
"""Gives the time zone of a log's writer; None: that of the reader."""


class DamageError(ValueError):
    """A line is no sound record; the text says why."""


def parse(line: bytes) -> dict[str, Any]:
    """The JSON of a sound record, exact to the last integer."""
    if not line or line.isspace():
        raise DamageError("blank line")
    tail = _CRC_TAIL.search(line, max(0, len(line) - _CRC_TAIL_BYTES))
    if tail is not None and records.checksum(memoryview(line)[: tail.start()]) != int(tail[1], 16):
        raise DamageError("its checksum is not that of its bytes")
    try:
        record = _loads(line)
    except RecursionError:
        raise DamageError("nested too deeply to be read") from None
    except ValueError as error:
        raise DamageError(f"not JSON: {str(error)[:200]}") from None
    if not isinstance(record, dict) or not isinstance(record.get("type"), str):
        raise DamageError("not a record: no type")
    layout = LAYOUTS.get(record["type"])
    for name, kinds in layout.needed.items() if layout is not None else ():
        if name not in record or not isinstance(record[name], kinds):
            raise DamageError(f"not a sound {record['type']} record: bad or missing {name}")
    return record


def _loads(line: bytes) -> Any:
    """JSON of a line by the quick parser, where that is exact."""
    if line.find(_INT64, max(0, len(line) - _CRC_TAIL_BYTES)) >= 0:
        return orjson.loads(line)
    if len(line) < _SHORT_BYTES and not _LONG_NUMBER.search(line):
        with contextlib.suppress(ValueError):  # perhaps NaN, which only `json` reads
            return orjson.loads(line)
    return json.loads(line)


def kind_of_line(line: bytes) -> tuple[str, int | None] | None:
    """Type and sequence id of a line, without a full parse where possible; None: neither."""
    head = _HEAD.match(line)
    if head is None:
        try:
            record = parse(line)
        except DamageError:
            return None
        sequence_id = record.get("sequence_id")
        return record["type"], sequence_id if type(sequence_id) is int else None
    kind, number = head[1].decode(), head[2]
    if number is None and kind in (records.BEGIN_ENTRY, records.END_ENTRY):
        tail = _TAIL_ID.search(line, max(0, len(line) - 64))
        number = tail and tail[1]
    return kind, None if number is None else int(number)


def salvage(line: bytes) -> tuple[int, dict[str, Any]] | None:
    """A sound record at the end of a damaged line, and where it begins there."""
    # A writer that takes no locks appends to a torn line, and a file system that lost power leaves
    # NULs before the next record. No text in a record looks like the beginning of one, since JSON
    # escapes its quotes.
    for start in itertools.islice(_START.finditer(line, 1), _MOST_SALVAGE_TRIES):
        with contextlib.suppress(DamageError):
            return start.start(), parse(line[start.start() :])
    return None


def read(record: Mapping[str, Any], zone: Zone | None = None) -> records.Record | None:
    """The record that a parsed line holds; None for a type of other or later writers."""
    layout = LAYOUTS.get(record["type"])
    try:
        return None if layout is None else _read(record, layout, zone)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamageError(f"not a sound {record['type']} record: {error!r}") from error


def _read(record: Mapping[str, Any], layout: Layout, zone: Zone | None) -> Any:
    otel = record.get("otel")
    otel = otel if isinstance(otel, dict) else {}
    found = {"otel": otel, "time_ns": time_of(record, zone)}
    for key, field, _, _, read_value in layout.top:
        value = record.get(key)
        found[field] = value if read_value is None else read_value(value)
    if layout.has_raised:
        found["raised"] = raised = _read_raised(record, otel)
        found["outcome"] = "ok" if raised is None else "error"
    if layout.has_ids:
        found["ids"] = read_ids(otel)
    elif layout.has_origin:
        found["origin"] = _read_origin(otel)
    for key, field, _, _, read_value in layout.otel:
        value = otel.get(key)
        if value is not None:
            found[field] = value if read_value is None else read_value(value)
    if layout.kind is records.StreamMark:
        found["kind"] = record["type"]
    elif layout.kind is records.BeginRoot:
        found["about"] = otel
        found["fields"] = {key: each for key, each in record.items() if key not in _ROOT_OWN}
    return layout.kind(**found)


def time_of(record: Mapping[str, Any], zone: Zone | None = None) -> int:
    """Unix time of a record in nanoseconds; 0 for one that tells none."""
    otel = record.get("otel")
    if isinstance(otel, dict):
        exact_ns = otel.get("time_unix_nano")
        if isinstance(exact_ns, int) and exact_ns > 0:
            return exact_ns
        if "session" in otel:  # what our records tell besides is less exact, and would mix with it
            return 0
    moment = moment_of(record)
    if moment is None:
        return 0
    if moment.tzinfo is None and zone is not None:
        moment = moment.replace(tzinfo=zone())
    try:
        return round(moment.timestamp() * 1e6) * 1000
    except (OverflowError, OSError, ValueError):
        return 0


def moment_of(record: Mapping[str, Any]) -> dt.datetime | None:
    """The moment that a record tells as ISO text."""
    for key in TIMES:
        text = record.get(key)
        if isinstance(text, str):
            with contextlib.suppress(ValueError):
                # Python 3.10 does not read the Z that pydantic writes.
                text = text[:-1] + "+00:00" if text[-1:] == "Z" else text
                return dt.datetime.fromisoformat(text)
    return None


def writer_zone(log: Iterable[Mapping[str, Any]]) -> dt.tzinfo | None:
    """The zone of a log's writer, if it has two times of nearly one moment, one of them local.

    Burr's client writes the times of steps and spans without a time zone, those of attributes and
    streams in UTC. Read in another zone, a log would be shifted by hours against itself.
    """
    local = None
    for record in itertools.islice(log, _MOST_LEARNT_FROM):
        moment, otel = moment_of(record), record.get("otel")
        if moment is None:
            continue
        if moment.tzinfo is None:
            local = moment
        is_exact = isinstance(otel, dict) and "time_unix_nano" in otel
        if local is not None and (is_exact or moment.tzinfo is not None):
            utc = dt.datetime.fromtimestamp(time_of(record) / 1e9, dt.timezone.utc)
            offset = local - utc.replace(tzinfo=None)
            if abs(offset) <= _LARGEST_OFFSET:
                return dt.timezone(round(offset / _QUARTER_HOUR) * _QUARTER_HOUR)
    return None


def _read_raised(record: Mapping[str, Any], otel: Mapping[str, Any]) -> records.Raised | None:
    text, error = record.get("exception"), otel.get("error")
    if error:
        return records.Raised(*map(str, [*error, text or ""][:3]))
    return records.Raised("", "", text) if text else None


def read_ids(
    otel: Mapping[str, Any], span_id: str = "span_id", *, is_remote: bool = False
) -> records.SpanIds | None:
    """The span ids in an `otel` object; None without any, and for ids that are not valid."""
    state = otel.get("trace_state")
    try:
        ids = records.SpanIds(
            int(otel["trace_id"], 16),
            int(otel[span_id], 16),
            int(otel.get("flags", 1)),
            state if isinstance(state, str) else "",
            is_remote,
        )
    except (KeyError, TypeError, ValueError):
        return None
    return ids if 0 < ids.trace_id < 1 << 128 and 0 < ids.span_id < 1 << 64 else None


def _read_origin(otel: Mapping[str, Any]) -> records.Origin | None:
    ids = read_ids(otel)
    if ids is None:
        return None
    parent = None
    if otel.get("parent_span_id"):
        trace_id = otel.get("parent_trace_id", otel["trace_id"])
        remote = otel.get("parent_is_remote") is True
        parent = read_ids({**otel, "trace_id": trace_id}, "parent_span_id", is_remote=remote)
    return records.Origin(ids, parent, read_links(otel.get("links")))


def read_links(links: Any) -> tuple[records.LinkIds, ...]:
    """The links of a record."""
    found = []
    for each in links or ():
        target = read_ids(each, is_remote=each.get("is_remote") is True)
        if target is not None:
            kind = each.get("type")
            kind = None if kind is None else str(kind)
            found.append(records.LinkIds(target, kind, each.get("attributes")))
    return tuple(found)
