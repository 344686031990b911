"""Records -> lines of a log, and what the line of each type of record holds."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from burr_otel import records
from burr_otel.records import checksum, encode_json, sound_text

_S_NS: Final = 1_000_000_000
_US_NS: Final = 1_000
_NOTHING: Mapping[str, Any] = {}

# --- values of members ----------------------------------------------------------------------------


@functools.lru_cache(4)  # most records of a run fall into the same second
def _local_second(seconds: int) -> bytes:
    return dt.datetime.fromtimestamp(seconds).isoformat().encode()  # noqa: DTZ006 - local, as Burr's


def local_time(time_ns: int) -> bytes:
    """Naive local ISO time in microseconds, as Burr writes it, of nanoseconds since the epoch."""
    return b"%b.%06d" % (_local_second(time_ns // _S_NS), time_ns % _S_NS // _US_NS)


# --- what a line holds ----------------------------------------------------------------------------

TIMES: Final = ("start_time", "end_time", "time_logged", "stream_init_time", "first_item_time")
_WRITTEN: Final[dict[str, Callable[[Any], Any]]] = {
    "exception": lambda raised: None if raised is None else raised.traceback or raised.type,
    # The Burr UI accepts no tags but texts.
    "tags": lambda tags: {str(key): str(value) for key, value in tags.items()},
    "swallowed": lambda swallowed: [*swallowed[0], swallowed[1]],
}
_READ: Final[dict[str, Callable[[Any], Any]]] = {
    "inputs": lambda value: records.Document(None, value),
    "value": lambda value: records.Document(None, value),
    "result": lambda value: None if value is None else records.Document(None, value),
    "state": lambda value: records.Fragments(value) if isinstance(value, dict) else None,
    "span_dependencies": lambda names: tuple(map(str, names)),
    "root_span_id": lambda digits: int(digits, 16),
    "outcome": str,
    "stream": records.StreamTimes._make,
    "swallowed": lambda values: (records.Raised(*values[:3]), values[3]),
    "grown": lambda heads: {key: (head[0], head[1]) for key, head in heads.items()},
    "usage": records.Usage._make,
}
# What is called otherwise in the class.
_FIELDS: Final = {
    "action_sequence_id": "sequence_id",
    "exception": "raised",
    "span_name": "name",
    "span_dependencies": "dependencies",
    "items_streamed": "items",
    "steps_failed": "failed",
}
# Without these the Burr UI cannot show a run.
_NEEDED: Final[dict[str, type | tuple[type, ...]]] = {
    **dict.fromkeys(("action", "key", "span_id", "span_name", *TIMES), str),
    **dict.fromkeys(("sequence_id", "action_sequence_id", "items_streamed"), int),
    **dict.fromkeys(("inputs", "state", "tags"), dict),
    **dict.fromkeys(("exception", "parent_span_id"), (str, type(None))),
    "result": (dict, type(None)),
    "span_dependencies": list,
    "value": object,
}


class Layout:
    """A type of record: its class, and the members of its line that are fields of that class.

    Those in `otel` and `optional` may be missing. Besides, `otel` has session, exact time, the ids
    of the span, and what was raised.
    """

    def __init__(self, kind: Any, needed: str, optional: str = "", otel: str = "") -> None:
        self.kind, has = kind, kind._fields
        self.needed = {key: _NEEDED[key] for key in needed.split()}
        names = [*needed.split(), *optional.split()]
        self.time = next(key.encode() for key in names if key in TIMES)
        untimed = [key for key in names if key not in TIMES]
        self.top, self.otel = _members_of(has, untimed), _members_of(has, otel.split())
        self.unset = {key: None for key in untimed if _FIELDS.get(key, key) not in has}
        self.has_origin, self.has_ids = "origin" in has, "ids" in has
        self.has_raised, self.has_exception = "raised" in has, "exception" in names


def _members_of(
    has: tuple[str, ...], keys: Iterable[str]
) -> list[tuple[str, str, int, Callable[[Any], Any] | None, Callable[[Any], Any] | None]]:
    """Of members that are fields: key, field, its place, how it is written and how it is read."""
    fields = [(key, _FIELDS.get(key, key)) for key in keys]
    return [
        (key, field, has.index(field), _WRITTEN.get(key), _READ.get(key))
        for key, field in fields
        if field in has
    ]


_OF_STEP_END: Final = "outcome failed stream swallowed usage snapshot_error grown shown user"
LAYOUTS: Final = {
    records.BEGIN_ENTRY: Layout(
        records.BeginStep,
        "sequence_id start_time action inputs",
        otel="root_span_id method prior shown",
    ),
    records.END_ENTRY: Layout(
        records.EndStep, "sequence_id end_time action result exception state", otel=_OF_STEP_END
    ),
    # Not an `end_entry`, which a resume would take for the step's completion. This one and those of
    # sessions have no `sequence_id` of their own: the Burr UI would count them as steps.
    "otel_step_end": Layout(
        records.EndStep, "action_sequence_id end_time action", "exception", _OF_STEP_END
    ),
    "begin_span": Layout(
        records.BeginInner,
        "start_time action_sequence_id span_id span_name parent_span_id span_dependencies",
        otel="kind scope",
    ),
    "end_span": Layout(
        records.EndInner, "end_time action_sequence_id span_id", otel="outcome shown user"
    ),
    "attribute": Layout(
        records.Logged, "key action_sequence_id value tags", "span_id time_logged", "shown"
    ),
    "begin_stream": Layout(records.StreamMark, "action_sequence_id stream_init_time", "span_id"),
    "first_item_stream": Layout(
        records.StreamMark, "action_sequence_id first_item_time", "span_id"
    ),
    "end_stream": Layout(
        records.StreamMark, "action_sequence_id end_time items_streamed", "span_id"
    ),
    records.ROOT: Layout(records.BeginRoot, "", "start_time state", "kind"),
    records.ROOT_END: Layout(
        records.EndRoot,
        "",
        "end_time",
        "outcome steps steps_failed error error_type usage shown user",
    ),
}
# The type of an `EndStep` is `otel_step_end`: `encode_end_step` writes the other.
_TYPES: Final = {layout.kind: name for name, layout in LAYOUTS.items()}


# --- records -> lines -----------------------------------------------------------------------------


def encode(record: records.Record, session: bytes, more: bytes = b"") -> bytes:
    """The line of a record; `session` and `more` are JSON members of its `otel`."""
    if isinstance(record, records.BeginStep):
        return encode_begin_step(record, session, more)
    name = record.kind if isinstance(record, records.StreamMark) else _TYPES[type(record)]
    layout, about = LAYOUTS[name], _NOTHING
    fields: dict[str, Any] = {**layout.unset}
    for key, _, at, write, _ in layout.top:
        fields[key] = record[at] if write is None else write(record[at])
    if isinstance(record, records.BeginRoot):
        fields, about = {**record.fields}, record.about
        if record.state is not None:
            fields["state"] = {key: orjson.Fragment(each) for key, each in record.state.items()}
    time_ns, own = record.time_ns, _members(record, layout, about)
    head = name.encode(), layout.time, local_time(time_ns), _json_members(fields)
    otel = session, time_ns, own, more
    line = b'{"type":"%b","%b":"%b"%b,"otel":{%b,"time_unix_nano":%d%b%b' % (*head, *otel)
    return b'%b,"crc":"%08x"}}\n' % (line, checksum(line))


_name = functools.lru_cache(1024)(encode_json)  # actions have few names


def encode_begin_step(record: records.BeginStep, session: bytes, more: bytes = b"") -> bytes:
    """The line of a step's begin."""
    time_ns = record.time_ns
    if record.root_span_id is not None:
        more = b',"root_span_id":"%016x"%b' % (record.root_span_id, more)
    if record.method is not None:
        more = b',"method":%b%b' % (_name(record.method), more)
    if record.prior is not None:
        more = b',"prior":%b%b' % (_name(record.prior), more)
    if record.shown:
        more = b',"shown":%b%b' % (orjson.dumps(record.shown), more)
    line = (
        b'{"type":"begin_entry","sequence_id":%d,"start_time":"%b.%06d","action":%b,"inputs":%b,'
        b'"otel":{%b,"time_unix_nano":%d%b%b'
        % (
            record.sequence_id,
            _local_second(time_ns // _S_NS),
            time_ns % _S_NS // _US_NS,
            _name(record.action),
            record.inputs.text,
            session,
            time_ns,
            b"" if record.origin is None else _ids_members(record.origin),
            more,
        )
    )
    return b'%b,"crc":"%08x"}}\n' % (line, checksum(line))


def encode_end_step(
    record: records.EndStep, session: bytes, state: Sequence[bytes], more: bytes
) -> list[bytes]:
    """The line of a step's end in pieces, with `state` uncopied between them."""
    time_ns, raised = record.time_ns, record.raised
    head = (
        b'{"type":"end_entry","sequence_id":%d,"end_time":"%b.%06d","action":%b,"result":%b,'
        b'"exception":%b,"state":'
        % (
            record.sequence_id,
            _local_second(time_ns // _S_NS),
            time_ns % _S_NS // _US_NS,
            _name(record.action),
            b"null" if record.result is None else record.result.text,
            b"null" if raised is None else encode_json(raised.traceback or raised.type),
        )
    )
    rare = record.failed, record.stream, record.swallowed, record.grown, record.usage, record.user
    if raised is None and not (any(rare) or record.shown or record.snapshot_error):  # most steps
        ids = b"" if record.ids is None else _ids_members((record.ids, None, ()))
        told = b'%b,"outcome":%b' % (ids, _name(record.outcome))
    else:
        told = _members(record, LAYOUTS[records.END_ENTRY])
    tail = b',"otel":{%b,"time_unix_nano":%d%b%b' % (session, time_ns, told, more)
    crc = checksum(head)
    for piece in state:
        crc = checksum(piece, crc)
    return [head, *state, b'%b,"crc":"%08x"}}\n' % (tail, checksum(tail, crc))]


def _members(record: Any, layout: Layout, more: Mapping[str, Any] = _NOTHING) -> bytes:
    """What stands in `otel` of a record behind session and time, each member after a comma."""
    told = {key: value for key, value in more.items() if value is not None and value != {}}
    for key, _, at, write, _ in layout.otel:
        value = record[at]
        if value is not None and value != {}:
            told[key] = value if write is None else write(value)
    if layout.has_raised and record.raised is not None:
        told["error"] = record.raised[: 2 if layout.has_exception else 3]
    origin = None
    if layout.has_origin:
        origin = record.origin
    elif layout.has_ids and record.ids is not None:
        origin = record.ids, None, ()
    return (b"" if origin is None else _ids_members(origin)) + _json_members(told)


def _json_members(told: dict[str, Any]) -> bytes:
    """Members, each after a comma; lone surrogates become U+FFFD."""
    if not told:
        return b""
    try:
        text = orjson.dumps(told, default=_of_ours)
    except orjson.JSONEncodeError:
        text = orjson.dumps(_sound(told), default=_of_ours)
    return b",%b" % text[1:-1]


def _of_ours(value: Any) -> Any:
    return orjson.Fragment(value.text) if isinstance(value, records.Document) else tuple(value)


def _sound(tree: Any) -> Any:
    if isinstance(tree, str):
        return sound_text(tree)
    if isinstance(tree, dict):
        return {_sound(key): _sound(value) for key, value in tree.items()}
    return [_sound(each) for each in tree] if isinstance(tree, list | tuple) else tree


@functools.lru_cache(64)  # nearly all spans of a run are in one trace, under one parent
def _trace_members(
    trace_id: int, flags: int, trace_state: str, parent: records.SpanIds | None = None
) -> bytes:
    text = b',"trace_id":"%032x","flags":%d' % (trace_id, flags)
    if trace_state:
        text += b',"trace_state":%b' % encode_json(trace_state)
    if parent is not None:
        text += b',"parent_span_id":"%016x"' % parent.span_id
        if parent.trace_id != trace_id:
            text += b',"parent_trace_id":"%032x"' % parent.trace_id
        if parent.is_remote:
            text += b',"parent_is_remote":true'
    return text


def _ids_members(
    origin: tuple[records.SpanIds, records.SpanIds | None, Sequence[records.LinkIds]],
) -> bytes:
    (trace_id, span_id, flags, trace_state, _), parent, links = origin
    place = _trace_members(trace_id, flags, trace_state, parent)
    text = b',"span_id":"%016x"%b' % (span_id, place)
    if links:
        text += b',"links":%b' % orjson.dumps([link_data(each) for each in links])
    return text


def link_data(link: records.LinkIds) -> dict[str, Any]:
    """A link as records hold it; `read_links` reads it."""
    target = link.target
    found = {
        "trace_id": f"{target.trace_id:032x}",
        "span_id": f"{target.span_id:016x}",
        "flags": target.flags,
        "trace_state": target.trace_state or None,
        "is_remote": target.is_remote or None,
        "attributes": link.attributes,
        "type": link.kind if link.attributes is None else None,
    }
    return {key: value for key, value in found.items() if value is not None}
