"""Records of a run's log: one JSON object a line, in the layout of Burr's own client.

Pure functions from values to bytes and back. `type` and `sequence_id` come first, so that a line
can be told apart without parsing it; `otel` comes last.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import re
from typing import TYPE_CHECKING, Any

import orjson

from burr_otel.store.encoded import EncodedState, encode_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "ATTRIBUTE",
    "BEGIN_ENTRY",
    "END_ENTRY",
    "ROOT",
    "ROOT_END",
    "STEP_END",
    "attribute",
    "begin_entry",
    "begin_span",
    "chain_members",
    "check",
    "describe",
    "end_entry",
    "end_members",
    "end_span",
    "local_time",
    "otel_object",
    "parse",
    "root",
    "root_end",
    "salvage",
    "step_settled",
    "stream_mark",
]

BEGIN_ENTRY = "begin_entry"
END_ENTRY = "end_entry"
ATTRIBUTE = "attribute"
ROOT = "otel_root"
ROOT_END = "otel_root_end"
STEP_END = "otel_step_end"

# A buffer of this size is new memory to a process each time, whose pages cost more than the copy.
_LARGE_BYTES = 64 * 1024

# Ends a line of ours whose integers all fit in 64 bits; orjson would read larger ones as floats.
_INT64_TAIL = b'"int64":true}}'

_HEAD = re.compile(rb'\s*\{"type":\s*"(\w+)"(?:,\s*"sequence_id":\s*(-?\d{1,18})\s*[,}])?')
# Burr's client writes the sequence id last. A brace or comma after the number would be another
# object's, so this only matches the outermost one.
_TAIL_ID = re.compile(rb',\s*"sequence_id":\s*(-?\d{1,18})\s*\}\s*$')


_last_second = (-1, b"")  # most records of a run fall into the same second
_name = functools.lru_cache(1024)(encode_text)  # actions have few names


def local_time(time_ns: int) -> bytes:
    """Naive local ISO time in microseconds, as Burr writes it, of nanoseconds since the epoch."""
    global _last_second
    seconds = time_ns // 1_000_000_000
    known, text = _last_second
    if known != seconds:
        text = dt.datetime.fromtimestamp(seconds).isoformat().encode()  # noqa: DTZ006 - local, as Burr's
        _last_second = seconds, text
    return b"%b.%06d" % (text, time_ns % 1_000_000_000 // 1000)


def otel_object(session: bytes, otel: Mapping[str, Any] | bytes, *, more: bytes = b"") -> bytes:
    """The `otel` object of a record; `session`, `more` and bytes are ready-made JSON members."""
    members = otel if isinstance(otel, bytes) else orjson.dumps(otel)[1:-1]
    if members:
        session = b"%b,%b" % (session, members)
    return b"{%b,%b}" % (session, more) if more else b"{%b}" % session


def begin_entry(sequence_id: int, action: str, inputs: bytes, time_ns: int, otel: bytes) -> bytes:
    """A step begins."""
    return (
        b'{"type":"begin_entry","sequence_id":%d,"start_time":"%b","action":%b,"inputs":%b,'
        b'"otel":%b}\n' % (sequence_id, local_time(time_ns), _name(action), inputs, otel)
    )


def end_entry(
    sequence_id: int,
    action: str,
    result: bytes,
    exception: str | None,
    state: bytes,
    time_ns: int,
    otel: bytes,
) -> bytes | tuple[bytes, bytes, bytes]:
    """A step has ended, with the state after it; a large one comes in pieces, and uncopied."""
    head = (
        b'{"type":"end_entry","sequence_id":%d,"end_time":"%b","action":%b,"result":%b,'
        b'"exception":%b,"state":'
        % (
            sequence_id,
            local_time(time_ns),
            _name(action),
            result,
            b"null" if exception is None else encode_text(exception),
        )
    )
    tail = b',"otel":%b}\n' % otel
    return b"".join((head, state, tail)) if len(state) < _LARGE_BYTES else (head, state, tail)


def step_settled(
    sequence_id: int, action: str, exception: str | None, time_ns: int, otel: bytes
) -> bytes:
    """A step is over without a state: an abandoned stream, or a state that cannot be written.

    Not an `end_entry`, which a resume would take for the step's completion, and without a
    `sequence_id` of its own: the Burr UI would count it as a step.
    """
    return (
        b'{"type":"otel_step_end","action_sequence_id":%d,"end_time":"%b","action":%b,'
        b'"exception":%b,"otel":%b}\n'
        % (
            sequence_id,
            local_time(time_ns),
            _name(action),
            b"null" if exception is None else encode_text(exception),
            otel,
        )
    )


def chain_members(checksum: int, number: int = 0, base_checksum: int = 0) -> bytes:
    """Members of an `otel` object that place a state in a chain; see `burr_otel.store.chain`."""
    own = b'"state_crc":%d' % checksum
    if not number:
        return own
    return b'%b,"delta":{"number":%d,"base_crc":%d}' % (own, number, base_checksum)


def end_members(exact: Sequence[Any], *, int64: bool, chain: bytes = b"") -> bytes:
    """Members of an `otel` object that say how to read the state beside it.

    Args:
        exact: See `burr_otel.store.exact`.
        int64: Whether all integers of the record fit in 64 bits.
        chain: Ready-made members.
    """
    mark = b'"int64":true' if int64 else b'"int64":false'
    if not exact and not chain:
        return mark
    if chain:
        mark = b"%b,%b" % (chain, mark)
    return b'"exact":%b,%b' % (orjson.dumps(exact), mark) if exact else mark


def begin_span(
    sequence_id: int,
    span_id: str,
    name: str,
    parent_span_id: str | None,
    dependencies: Sequence[str],
    time_ns: int,
    otel: bytes,
) -> bytes:
    """A span inside a step begins."""
    return (
        b'{"type":"begin_span","start_time":"%b","action_sequence_id":%d,"span_id":%b,'
        b'"span_name":%b,"parent_span_id":%b,"span_dependencies":[%b],"otel":%b}\n'
        % (
            local_time(time_ns),
            sequence_id,
            encode_text(span_id),
            encode_text(str(name)),
            b"null" if parent_span_id is None else encode_text(parent_span_id),
            b",".join([encode_text(str(item)) for item in dependencies]),
            otel,
        )
    )


def end_span(sequence_id: int, span_id: str, time_ns: int, otel: bytes) -> bytes:
    """A span inside a step has ended."""
    return (
        b'{"type":"end_span","end_time":"%b","action_sequence_id":%d,"span_id":%b,"otel":%b}\n'
        % (
            local_time(time_ns),
            sequence_id,
            encode_text(span_id),
            otel,
        )
    )


def attribute(
    key: str,
    value: bytes,
    tags: Mapping[str, Any],
    sequence_id: int,
    span_id: str | None,
    time_ns: int,
    otel: bytes,
) -> bytes:
    """An attribute was logged. The Burr UI accepts text tags only."""
    return (
        b'{"type":"attribute","key":%b,"action_sequence_id":%d,"span_id":%b,"value":%b,'
        b'"tags":{%b},"time_logged":"%b","otel":%b}\n'
        % (
            encode_text(str(key)),
            sequence_id,
            b"null" if span_id is None else encode_text(span_id),
            value,
            b",".join(
                [b"%b:%b" % (encode_text(str(k)), encode_text(str(v))) for k, v in tags.items()]
            ),
            local_time(time_ns),
            otel,
        )
    )


def stream_mark(
    kind: str, time_field: str, sequence_id: int, time_ns: int, otel: bytes, *, items: int | None
) -> bytes:
    """A stream begins, gives its first item or ends after so many items."""
    return b'{"type":"%b","action_sequence_id":%d,"span_id":null,"%b":"%b"%b,"otel":%b}\n' % (
        kind.encode(),
        sequence_id,
        time_field.encode(),
        local_time(time_ns),
        b"" if items is None else b',"items_streamed":%d' % items,
        otel,
    )


def root(fields: Mapping[str, Any], state: EncodedState | None, time_ns: int, otel: bytes) -> bytes:
    """A session begins; `state` is what it inherited and no finished step of the run holds.

    It carries no `sequence_id` of its own: the Burr UI would count it as a step.
    """
    inherited = b"" if state is None else b',"state":%b' % state.json
    return b'{"type":"otel_root","start_time":"%b",%b%b,"otel":%b}\n' % (
        local_time(time_ns),
        orjson.dumps(fields)[1:-1],
        inherited,
        otel,
    )


def root_end(time_ns: int, otel: bytes) -> bytes:
    """A session has ended."""
    return b'{"type":"otel_root_end","end_time":"%b","otel":%b}\n' % (
        local_time(time_ns),
        otel,
    )


def parse(line: bytes) -> Any:
    """The value on a line, exact to the last integer.

    Raises:
        ValueError: It is not JSON in UTF-8.
    """
    if line.rstrip().endswith(_INT64_TAIL):
        return orjson.loads(line)
    try:
        return json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply to be read") from error


def describe(line: bytes) -> tuple[str, int | None] | None:
    """Type and sequence id of a line, without a full parse where possible; None: neither."""
    head = _HEAD.match(line)
    if head is None:
        try:
            record = parse(line)
        except ValueError:
            return None
        if not isinstance(record, dict) or not isinstance(record.get("type"), str):
            return None
        sequence_id = record.get("sequence_id")
        return record["type"], sequence_id if type(sequence_id) is int else None
    kind, number = head[1].decode(), head[2]
    if number is None and kind in (BEGIN_ENTRY, END_ENTRY):
        tail = _TAIL_ID.search(line, max(0, len(line) - 64))
        number = tail and tail[1]
    return kind, None if number is None else int(number)


_TEXT, _NUMBER, _OBJECT = (str,), (int,), (dict,)
_OPTIONAL_TEXT, _OPTIONAL_OBJECT = (str, type(None)), (dict, type(None))
# What the Burr UI needs in each record; without it the whole run cannot be shown.
_REQUIRED: dict[str, dict[str, tuple[type, ...]]] = {
    BEGIN_ENTRY: {
        "start_time": _TEXT,
        "action": _TEXT,
        "inputs": _OBJECT,
        "sequence_id": _NUMBER,
    },
    END_ENTRY: {
        "end_time": _TEXT,
        "action": _TEXT,
        "result": _OPTIONAL_OBJECT,
        "exception": _OPTIONAL_TEXT,
        "state": _OBJECT,
        "sequence_id": _NUMBER,
    },
    "begin_span": {
        "start_time": _TEXT,
        "action_sequence_id": _NUMBER,
        "span_id": _TEXT,
        "span_name": _TEXT,
        "parent_span_id": _OPTIONAL_TEXT,
        "span_dependencies": (list,),
    },
    "end_span": {"end_time": _TEXT, "action_sequence_id": _NUMBER, "span_id": _TEXT},
    ATTRIBUTE: {
        "key": _TEXT,
        "action_sequence_id": _NUMBER,
        "tags": _OBJECT,
        "value": (object,),
    },
    "begin_stream": {"action_sequence_id": _NUMBER, "stream_init_time": _TEXT},
    "first_item_stream": {"action_sequence_id": _NUMBER, "first_item_time": _TEXT},
    "end_stream": {"action_sequence_id": _NUMBER, "end_time": _TEXT, "items_streamed": _NUMBER},
}


def check(line: bytes) -> tuple[dict[str, Any] | None, str]:
    """Parse a line and see whether readers would stumble over it.

    Returns:
        The record, or None and what is wrong.
    """
    if not line.strip(b" \t\r\n"):
        return None, "blank line"
    try:
        record = parse(line)
    except ValueError as error:
        return None, f"not JSON: {str(error)[:200]}"
    if not isinstance(record, dict) or not isinstance(record.get("type"), str):
        return None, "not a record: no type"
    for name, kinds in _REQUIRED.get(record["type"], {}).items():
        if name not in record or not isinstance(record[name], kinds):
            return None, f"not a sound {record['type']} record: bad or missing {name}"
    return record, ""


_MAX_SALVAGE_TRIES = 16


def salvage(line: bytes) -> tuple[int, dict[str, Any]] | None:
    """A sound record at the end of a damaged line, and where it begins there.

    A writer that takes no locks appends to a torn line, and a file system that lost power leaves
    NULs before the next record. No text inside a record looks like the beginning of one, since
    JSON escapes its quotes.
    """
    at = 0
    for _ in range(_MAX_SALVAGE_TRIES):
        at = line.find(b'{"type":', at + 1)
        if at < 0:
            return None
        record, _ = check(line[at:])
        if record is not None:
            return at, record
    return None
