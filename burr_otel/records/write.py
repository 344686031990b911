"""Records -> lines of a log."""

from __future__ import annotations

import datetime as dt
import functools
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from burr_otel.records.types import (
    STREAM_TIMES,
    BeginInner,
    BeginRoot,
    BeginStep,
    EndInner,
    EndRoot,
    EndStep,
    LinkIds,
    Logged,
    Origin,
    Record,
    SpanIds,
    StreamMark,
    encode_text,
    sound_text,
)

_S_NS: Final = 1_000_000_000
_US_NS: Final = 1_000
_name = functools.lru_cache(1024)(encode_text)  # actions have few names


@functools.lru_cache(4)  # most records of a run fall into the same second
def _local_second(seconds: int) -> bytes:
    return dt.datetime.fromtimestamp(seconds).isoformat().encode()  # noqa: DTZ006 - local, as Burr's


def local_time(time_ns: int) -> bytes:
    """Naive local ISO time in microseconds, as Burr writes it, of nanoseconds since the epoch."""
    return b"%b.%06d" % (_local_second(time_ns // _S_NS), time_ns % _S_NS // _US_NS)


def encode(record: Record, session: bytes, more: bytes = b"") -> bytes:
    """The line of a record; `session` and `more` are JSON members of its `otel`."""
    return _WRITERS[type(record)](record, session, more)


def encode_end_step(
    record: EndStep, session: bytes, state: Sequence[bytes], more: bytes
) -> list[bytes]:
    """The line of a step's end in pieces, with `state` uncopied between them."""
    raised, time_ns = record.raised, record.time_ns
    head = (
        b'{"type":"end_entry","sequence_id":%d,"end_time":"%b.%06d","action":%b,"result":%b,'
        b'"exception":%b,"state":'
        % (
            record.sequence_id,
            _local_second(time_ns // _S_NS),
            time_ns % _S_NS // _US_NS,
            _name(record.action),
            b"null" if record.result is None else record.result.text,
            b"null" if raised is None else encode_text(raised.traceback or raised.type),
        )
    )
    tail = b',"otel":{%b%b' % (_end_members(record, session), more)
    crc = zlib.crc32(head)
    for piece in state:
        crc = zlib.crc32(piece, crc)
    crc = zlib.crc32(tail, crc)
    return [head, *state, b'%b,"crc":"%08x"}}\n' % (tail, crc)]


def _sealed(line: bytes) -> bytes:
    """A line that ends inside its `otel` object, with its checksum."""
    return b'%b,"crc":"%08x"}}\n' % (line, zlib.crc32(line))


@functools.lru_cache(1024)  # nearly all spans of a run are in one trace, under one parent
def _place_members(
    trace_id: int, flags: int, trace_state: str, parent: SpanIds | None = None
) -> bytes:
    text = b',"trace_id":"%032x","flags":%d' % (trace_id, flags)
    if trace_state:
        text += b',"trace_state":%b' % encode_text(trace_state)
    if parent is not None:
        text += b',"parent_span_id":"%016x"' % parent.span_id
        if parent.trace_id != trace_id:
            text += b',"parent_trace_id":"%032x"' % parent.trace_id
        if parent.is_remote:
            text += b',"parent_is_remote":true'
    return text


def _ids_members(ids: SpanIds) -> bytes:
    trace_id, span_id, flags, trace_state, _ = ids
    place = _place_members(trace_id, flags, trace_state)
    return b',"span_id":"%016x"%b' % (span_id, place)


def _origin_members(origin: Origin | None) -> bytes:
    if origin is None:
        return b""
    (trace_id, span_id, flags, trace_state, _), parent, links = origin
    place = _place_members(trace_id, flags, trace_state, parent)
    text = b',"span_id":"%016x"%b' % (span_id, place)
    if links:
        text += b',"links":%b' % orjson.dumps([link_data(each) for each in links])
    return text


def link_data(link: LinkIds) -> dict[str, Any]:
    """A link as records hold it; `read_links` reads it."""
    target = link.target
    found: dict[str, Any] = {
        "trace_id": f"{target.trace_id:032x}",
        "span_id": f"{target.span_id:016x}",
        "flags": target.flags,
    }
    if target.trace_state:
        found["trace_state"] = target.trace_state
    if target.is_remote:
        found["is_remote"] = True
    if link.attributes is not None:
        found["attributes"] = link.attributes
    else:
        found["type"] = link.kind
    return found


def encode_begin_step(record: BeginStep, session: bytes, more: bytes = b"") -> bytes:
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
            _origin_members(record.origin),
            more,
        )
    )
    return b'%b,"crc":"%08x"}}\n' % (line, zlib.crc32(line))


def _end_members(record: EndStep, session: bytes) -> bytes:
    ids = b"" if record.ids is None else _ids_members(record.ids)
    otel = b'%b,"time_unix_nano":%d,"outcome":%b%b' % (
        session,
        record.time_ns,
        _name(record.outcome),
        ids,
    )
    rare: dict[str, Any] = {}
    if record.raised is not None:
        rare["error"] = [sound_text(record.raised.type), sound_text(record.raised.message)]
    if record.failed is not None:
        rare["failed"] = sound_text(record.failed)
    if record.stream is not None:
        rare["stream"] = tuple(record.stream)
    if record.swallowed is not None:
        raised, time_ns = record.swallowed
        rare["swallowed"] = [*map(sound_text, raised), time_ns]
    if record.usage is not None:
        rare["usage"] = tuple(record.usage)
    if record.snapshot_error is not None:
        rare["snapshot_error"] = sound_text(record.snapshot_error)
    if record.grown:
        rare["grown"] = record.grown
    if record.shown:
        rare["shown"] = record.shown
    if record.user:
        rare["user"] = record.user
    return b"%b,%b" % (otel, orjson.dumps(rare)[1:-1]) if rare else otel


def _step_end(record: EndStep, session: bytes, more: bytes) -> bytes:
    # Not an `end_entry`, which a resume would take for the step's completion, and without a
    # `sequence_id` of its own: the Burr UI would count it as a step.
    raised = record.raised
    return _sealed(
        b'{"type":"otel_step_end","action_sequence_id":%d,"end_time":"%b","action":%b,'
        b'"exception":%b,"otel":{%b%b'
        % (
            record.sequence_id,
            local_time(record.time_ns),
            _name(record.action),
            b"null" if raised is None else encode_text(raised.traceback or raised.type),
            _end_members(record, session),
            more,
        )
    )


def _begin_inner(record: BeginInner, session: bytes, more: bytes) -> bytes:
    if record.scope is not None:
        foreign = {"kind": record.kind, "scope": sound_text(record.scope)}
        more = b",%b%b" % (orjson.dumps(foreign)[1:-1], more)
    return _sealed(
        b'{"type":"begin_span","start_time":"%b","action_sequence_id":%d,"span_id":%b,'
        b'"span_name":%b,"parent_span_id":%b,"span_dependencies":[%b],"otel":{%b,'
        b'"time_unix_nano":%d%b%b'
        % (
            local_time(record.time_ns),
            record.sequence_id,
            encode_text(record.span_id),
            encode_text(record.name),
            b"null" if record.parent_span_id is None else encode_text(record.parent_span_id),
            b",".join([encode_text(str(item)) for item in record.dependencies]),
            session,
            record.time_ns,
            _origin_members(record.origin),
            more,
        )
    )


def _end_inner(record: EndInner, session: bytes, more: bytes) -> bytes:
    rare: dict[str, Any] = {"outcome": record.outcome}
    if record.raised is not None:
        rare["error"] = [*map(sound_text, record.raised)]
    if record.user:
        rare["user"] = record.user
    return _sealed(
        b'{"type":"end_span","end_time":"%b","action_sequence_id":%d,"span_id":%b,"otel":{%b,'
        b'"time_unix_nano":%d%b,%b%b'
        % (
            local_time(record.time_ns),
            record.sequence_id,
            encode_text(record.span_id),
            session,
            record.time_ns,
            b"" if record.ids is None else _ids_members(record.ids),
            orjson.dumps(rare)[1:-1],
            more,
        )
    )


def _logged(record: Logged, session: bytes, more: bytes) -> bytes:
    # The Burr UI accepts text tags only.
    tags = b",".join(
        [b"%b:%b" % (encode_text(str(k)), encode_text(str(v))) for k, v in record.tags.items()]
    )
    shown = b"" if record.shown is None else b',"shown":%b' % orjson.dumps(record.shown)
    return _sealed(
        b'{"type":"attribute","key":%b,"action_sequence_id":%d,"span_id":%b,"value":%b,'
        b'"tags":{%b},"time_logged":"%b","otel":{%b,"time_unix_nano":%d%b%b'
        % (
            encode_text(record.key),
            record.sequence_id,
            b"null" if record.span_id is None else encode_text(record.span_id),
            record.value.text,
            tags,
            local_time(record.time_ns),
            session,
            record.time_ns,
            shown,
            more,
        )
    )


def _stream_mark(record: StreamMark, session: bytes, more: bytes) -> bytes:
    return _sealed(
        b'{"type":"%b","action_sequence_id":%d,"span_id":null,"%b":"%b"%b,"otel":{%b,'
        b'"time_unix_nano":%d%b'
        % (
            record.kind.encode(),
            record.sequence_id,
            STREAM_TIMES[record.kind].encode(),
            local_time(record.time_ns),
            b"" if record.items is None else b',"items_streamed":%d' % record.items,
            session,
            record.time_ns,
            more,
        )
    )


def _begin_root(record: BeginRoot, session: bytes, more: bytes) -> bytes:
    # Without a `sequence_id` of its own: the Burr UI would count it as a step.
    state = record.state
    inherited = b""
    if state is not None:
        members = [b"%b:%b" % (encode_text(key), state[key]) for key in state]
        inherited = b',"state":{%b}' % b",".join(members)
    about = b",%b" % orjson.dumps(record.about)[1:-1] if record.about else b""
    return _sealed(
        b'{"type":"otel_root","start_time":"%b",%b%b,"otel":{%b,"kind":"%b","time_unix_nano":%d%b%b%b'
        % (
            local_time(record.time_ns),
            orjson.dumps(record.fields)[1:-1],
            inherited,
            session,
            record.kind.encode(),
            record.time_ns,
            _origin_members(record.origin),
            about,
            more,
        )
    )


def _end_root(record: EndRoot, session: bytes, more: bytes) -> bytes:
    rare: dict[str, Any] = {
        "outcome": record.outcome,
        "steps": record.steps,
        "steps_failed": record.failed,
    }
    for name in ("error", "error_type"):
        text = getattr(record, name)
        if text is not None:
            rare[name] = sound_text(text)
    if record.usage is not None:
        rare["usage"] = tuple(record.usage)
    for name in ("shown", "user"):
        if value := getattr(record, name):
            rare[name] = value
    return _sealed(
        b'{"type":"otel_root_end","end_time":"%b","otel":{%b,"time_unix_nano":%d%b,%b%b'
        % (
            local_time(record.time_ns),
            session,
            record.time_ns,
            b"" if record.ids is None else _ids_members(record.ids),
            orjson.dumps(rare)[1:-1],
            more,
        )
    )


_WRITERS: dict[type, Callable[[Any, bytes, bytes], bytes]] = {
    BeginStep: encode_begin_step,
    EndStep: _step_end,
    BeginInner: _begin_inner,
    EndInner: _end_inner,
    Logged: _logged,
    StreamMark: _stream_mark,
    BeginRoot: _begin_root,
    EndRoot: _end_root,
}
