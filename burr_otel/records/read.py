"""Lines of a log -> records."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from burr_otel.records.types import (
    ATTRIBUTE,
    BEGIN_ENTRY,
    BEGIN_SPAN,
    END_ENTRY,
    END_SPAN,
    ROOT,
    ROOT_END,
    STEP_END,
    STREAM_TIMES,
    BeginInner,
    BeginRoot,
    BeginStep,
    Document,
    EndInner,
    EndRoot,
    EndStep,
    Fragments,
    LinkIds,
    Logged,
    Origin,
    Raised,
    Record,
    SpanIds,
    StreamMark,
    StreamTimes,
    Usage,
)

_NOTHING: Mapping[str, Any] = {}


class DamageError(ValueError):
    """A line is no sound record; the text says why."""


_CRC_TAIL: Final = re.compile(rb',"crc":"([0-9a-f]{8})"\}\}\s*\Z')
_CRC_TAIL_BYTES: Final = 64
_INT64: Final = b'"int64":true'
_LONG_NUMBER: Final = re.compile(rb"\d{20}")  # may be beyond 64 bits
_SHORT_BYTES: Final = 4096
_HEAD: Final = re.compile(rb'\s*\{"type":\s*"(\w+)"(?:,\s*"sequence_id":\s*(-?\d{1,18})\s*[,}])?')
# Burr's client writes the sequence id last. A brace or comma after the number would be another
# object's, so this only matches the outermost one.
_TAIL_ID: Final = re.compile(rb',\s*"sequence_id":\s*(-?\d{1,18})\s*\}\s*$')
_MOST_SALVAGE_TRIES: Final = 16

_TEXT, _NUMBER, _OBJECT = (str,), (int,), (dict,)
_OPTIONAL_TEXT, _OPTIONAL_OBJECT = (str, type(None)), (dict, type(None))
# What the Burr UI needs in each record; without it the whole run cannot be shown.
_REQUIRED: Final[dict[str, dict[str, tuple[type, ...]]]] = {
    BEGIN_ENTRY: {"start_time": _TEXT, "action": _TEXT, "inputs": _OBJECT, "sequence_id": _NUMBER},
    END_ENTRY: {
        "end_time": _TEXT,
        "action": _TEXT,
        "result": _OPTIONAL_OBJECT,
        "exception": _OPTIONAL_TEXT,
        "state": _OBJECT,
        "sequence_id": _NUMBER,
    },
    BEGIN_SPAN: {
        "start_time": _TEXT,
        "action_sequence_id": _NUMBER,
        "span_id": _TEXT,
        "span_name": _TEXT,
        "parent_span_id": _OPTIONAL_TEXT,
        "span_dependencies": (list,),
    },
    END_SPAN: {"end_time": _TEXT, "action_sequence_id": _NUMBER, "span_id": _TEXT},
    ATTRIBUTE: {"key": _TEXT, "action_sequence_id": _NUMBER, "tags": _OBJECT, "value": (object,)},
    "begin_stream": {"action_sequence_id": _NUMBER, "stream_init_time": _TEXT},
    "first_item_stream": {"action_sequence_id": _NUMBER, "first_item_time": _TEXT},
    "end_stream": {"action_sequence_id": _NUMBER, "end_time": _TEXT, "items_streamed": _NUMBER},
}


def parse(line: bytes) -> dict[str, Any]:
    """The JSON of a sound record, exact to the last integer."""
    if not line or line.isspace():
        raise DamageError("blank line")
    tail = _CRC_TAIL.search(line, max(0, len(line) - _CRC_TAIL_BYTES))
    if tail is not None and zlib.crc32(memoryview(line)[: tail.start()]) != int(tail[1], 16):
        raise DamageError("its checksum is not that of its bytes")
    try:
        record = _loads(line)
    except RecursionError:
        raise DamageError("nested too deeply to be read") from None
    except ValueError as error:
        raise DamageError(f"not JSON: {str(error)[:200]}") from None
    if not isinstance(record, dict) or not isinstance(record.get("type"), str):
        raise DamageError("not a record: no type")
    for name, kinds in _REQUIRED.get(record["type"], {}).items():
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
    if number is None and kind in (BEGIN_ENTRY, END_ENTRY):
        tail = _TAIL_ID.search(line, max(0, len(line) - 64))
        number = tail and tail[1]
    return kind, None if number is None else int(number)


def salvage(line: bytes) -> tuple[int, dict[str, Any]] | None:
    """A sound record at the end of a damaged line, and where it begins there."""
    # A writer that takes no locks appends to a torn line, and a file system that lost power leaves
    # NULs before the next record. No text in a record looks like the beginning of one, since JSON
    # escapes its quotes.
    at = 0
    for _ in range(_MOST_SALVAGE_TRIES):
        at = line.find(b'{"type":', at + 1)
        if at < 0:
            return None
        try:
            return at, parse(line[at:])
        except DamageError:
            continue
    return None


def read(record: Mapping[str, Any]) -> Record | None:
    """The record that a parsed line holds; None for a type of other or later writers."""
    if record["type"] not in _READERS:
        return None
    reader, names = _READERS[record["type"]]
    try:
        otel = _mapping(record.get("otel"))
        told = {name: value for name in names if (value := otel.get(name)) is not None}
        told |= {name: _VALUES[name](value) for name, value in told.items() if name in _VALUES}
        return reader(record, otel)._replace(session=otel.get("session"), otel=otel, **told)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamageError(f"not a sound {record['type']} record: {error!r}") from error


def _mapping(value: Any) -> Mapping[str, Any]:
    # Asking whether it is a Mapping takes ten times as long.
    return value if type(value) is dict or isinstance(value, Mapping) else _NOTHING


def moment_of(text: Any) -> dt.datetime | None:
    """The moment that an ISO text stands for; None when it is not one."""
    if not isinstance(text, str):
        return None
    try:
        # Python 3.10 does not read the Z that pydantic writes.
        return dt.datetime.fromisoformat(text[:-1] + "+00:00" if text[-1:] == "Z" else text)
    except ValueError:
        return None


def unix_ns(moment: dt.datetime) -> int:
    """Unix time in nanoseconds, to the microsecond; 0 for an impossible one."""
    try:
        return round(moment.timestamp() * 1e6) * 1000
    except (OverflowError, OSError, ValueError):
        return 0


def _time(otel: Mapping[str, Any], text: Any) -> int:
    """Unix time in nanoseconds; that of Burr's client is local, to the microsecond."""
    found = otel.get("time_unix_nano")
    if isinstance(found, int) and found > 0:
        return found
    moment = moment_of(text)
    return 0 if moment is None else unix_ns(moment)


def read_ids(
    otel: Mapping[str, Any], span_id: str = "span_id", *, is_remote: bool = False
) -> SpanIds | None:
    """The span ids in an `otel` object; None without any, and for ids that are not valid."""
    state = otel.get("trace_state")
    try:
        ids = SpanIds(
            int(otel["trace_id"], 16),
            int(otel[span_id], 16),
            int(otel.get("flags", 1)),
            state if isinstance(state, str) else "",
            is_remote,
        )
    except (KeyError, TypeError, ValueError):
        return None
    return ids if 0 < ids.trace_id < 1 << 128 and 0 < ids.span_id < 1 << 64 else None


def _read_origin(otel: Mapping[str, Any]) -> Origin | None:
    ids = read_ids(otel)
    if ids is None:
        return None
    parent = None
    if otel.get("parent_span_id"):
        trace_id = otel.get("parent_trace_id", otel["trace_id"])
        remote = otel.get("parent_is_remote") is True
        parent = read_ids({**otel, "trace_id": trace_id}, "parent_span_id", is_remote=remote)
    return Origin(ids, parent, read_links(otel.get("links")))


def read_links(links: Any) -> tuple[LinkIds, ...]:
    """The links of a record."""
    found = []
    for each in links or ():
        target = read_ids(each, is_remote=each.get("is_remote") is True)
        if target is not None:
            kind = each.get("type")
            found.append(
                LinkIds(target, None if kind is None else str(kind), each.get("attributes"))
            )
    return tuple(found)


def _read_raised(record: Mapping[str, Any], otel: Mapping[str, Any]) -> Raised | None:
    text, error = record.get("exception"), otel.get("error")
    if error is not None:
        return Raised(str(error[0]), str(error[1]), str(text or ""))
    return Raised("", "", text) if text else None


def _read_begin_step(record: Mapping[str, Any], otel: Mapping[str, Any]) -> BeginStep:
    return BeginStep(
        record["sequence_id"],
        record["action"],
        Document(None, record["inputs"]),
        _time(otel, record["start_time"]),
        _read_origin(otel),
    )


def _read_end_step(record: Mapping[str, Any], otel: Mapping[str, Any]) -> EndStep:
    raised, result, state = _read_raised(record, otel), record.get("result"), record.get("state")
    return EndStep(
        record.get("sequence_id", record.get("action_sequence_id")),
        record["action"],
        None if result is None else Document(None, result),
        raised,
        None if state is None else Fragments(state),
        _time(otel, record["end_time"]),
        str(otel.get("outcome") or ("ok" if raised is None else "error")),
        read_ids(otel),
    )


def _read_begin_inner(record: Mapping[str, Any], otel: Mapping[str, Any]) -> BeginInner:
    return BeginInner(
        record["action_sequence_id"],
        record["span_id"],
        record["span_name"],
        record["parent_span_id"],
        tuple(map(str, record["span_dependencies"])),
        _time(otel, record["start_time"]),
        _read_origin(otel),
    )


def _read_end_inner(record: Mapping[str, Any], otel: Mapping[str, Any]) -> EndInner:
    error = otel.get("error")
    return EndInner(
        record["action_sequence_id"],
        record["span_id"],
        _time(otel, record["end_time"]),
        str(otel.get("outcome") or "ok"),
        read_ids(otel),
        Raised(*map(str, error)) if error else None,
    )


def _read_logged(record: Mapping[str, Any], otel: Mapping[str, Any]) -> Logged:
    return Logged(
        record["key"],
        Document(None, record["value"]) if record["value"] is not None else Document(b"null"),
        record["tags"],
        record["action_sequence_id"],
        record.get("span_id"),
        _time(otel, record.get("time_logged")),
    )


def _read_stream_mark(record: Mapping[str, Any], otel: Mapping[str, Any]) -> StreamMark:
    kind = record["type"]
    time_ns = _time(otel, record[STREAM_TIMES[kind]])
    return StreamMark(kind, record["action_sequence_id"], time_ns, record.get("items_streamed"))


_ROOT_OWN: Final = frozenset({"type", "start_time", "state", "otel"})


def _read_begin_root(record: Mapping[str, Any], otel: Mapping[str, Any]) -> BeginRoot:
    state = record.get("state")
    return BeginRoot(
        {key: value for key, value in record.items() if key not in _ROOT_OWN},
        _time(otel, record.get("start_time")),
        _read_origin(otel),
        Fragments(state) if isinstance(state, dict) else None,
        about=otel,
    )


def _read_end_root(record: Mapping[str, Any], otel: Mapping[str, Any]) -> EndRoot:
    return EndRoot(
        _time(otel, record.get("end_time")),
        str(otel.get("outcome") or "ok"),
        read_ids(otel),
        failed=otel.get("steps_failed", 0),
    )


_STEP_END_MEMBERS: Final = (
    *("failed", "stream", "swallowed", "grown", "usage", "snapshot_error", "shown", "user"),
)
_Reader = Callable[[Mapping[str, Any], Mapping[str, Any]], Record]
# Of each type its reader, and the members of `otel` that are fields of the same name.
_READERS: Final[dict[str, tuple[_Reader, tuple[str, ...]]]] = {
    BEGIN_ENTRY: (_read_begin_step, ("root_span_id", "method", "prior", "shown")),
    END_ENTRY: (_read_end_step, _STEP_END_MEMBERS),
    STEP_END: (_read_end_step, _STEP_END_MEMBERS),
    BEGIN_SPAN: (_read_begin_inner, ("kind", "scope")),
    END_SPAN: (_read_end_inner, ("user",)),
    ATTRIBUTE: (_read_logged, ("shown",)),
    **dict.fromkeys(STREAM_TIMES, (_read_stream_mark, ())),
    ROOT: (_read_begin_root, ("kind",)),
    ROOT_END: (_read_end_root, ("steps", "error", "error_type", "usage", "shown", "user")),
}
# How a member is read that is not taken as it is.
_VALUES: Final[dict[str, Callable[[Any], Any]]] = {
    "root_span_id": lambda value: int(value, 16),
    "stream": lambda value: StreamTimes(*value),
    "swallowed": lambda value: (Raised(*value[:3]), value[3]),
    "grown": lambda value: {key: (at[0], at[1]) for key, at in value.items()},
    "usage": lambda value: Usage(*value),
}
