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
    Raised,
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
    if isinstance(record, BeginStep):
        return encode_begin_step(record, session, more)
    fields, members = _WRITERS[type(record)](record)
    otel = session, record.time_ns, members, more
    line = b'%b,"otel":{%b,"time_unix_nano":%d%b%b' % (fields, *otel)
    return b'%b,"crc":"%08x"}}\n' % (line, zlib.crc32(line))


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


def encode_end_step(
    record: EndStep, session: bytes, state: Sequence[bytes], more: bytes
) -> list[bytes]:
    """The line of a step's end in pieces, with `state` uncopied between them."""
    time_ns = record.time_ns
    head = (
        b'{"type":"end_entry","sequence_id":%d,"end_time":"%b.%06d","action":%b,"result":%b,'
        b'"exception":%b,"state":'
        % (
            record.sequence_id,
            _local_second(time_ns // _S_NS),
            time_ns % _S_NS // _US_NS,
            _name(record.action),
            b"null" if record.result is None else record.result.text,
            _traceback(record.raised),
        )
    )
    otel = session, time_ns, _end_members(record), more
    tail = b',"otel":{%b,"time_unix_nano":%d%b%b' % otel
    crc = zlib.crc32(head)
    for piece in state:
        crc = zlib.crc32(piece, crc)
    return [head, *state, b'%b,"crc":"%08x"}}\n' % (tail, zlib.crc32(tail, crc))]


# --- members of several kinds of records ----------------------------------------------------------


def _members(**values: Any) -> bytes:
    """JSON members, each after a comma, of what there is; texts without lone surrogates."""
    kept = {
        name: sound_text(value) if type(value) is str else value
        for name, value in values.items()
        if value is not None and value != {}
    }
    return b",%b" % orjson.dumps(kept, default=tuple)[1:-1] if kept else b""


@functools.lru_cache(64)  # nearly all spans of a run are in one trace, under one parent
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


def _ids_members(ids: SpanIds | None) -> bytes:
    if ids is None:
        return b""
    trace_id, span_id, flags, trace_state, _ = ids
    return b',"span_id":"%016x"%b' % (span_id, _place_members(trace_id, flags, trace_state))


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


def _traceback(raised: Raised | None) -> bytes:
    return b"null" if raised is None else encode_text(raised.traceback or raised.type)


def _texts(raised: Raised | None, count: int = 3) -> list[str] | None:
    return None if raised is None else [*map(sound_text, raised[:count])]


# --- each kind: its fields, and the members of its `otel` -----------------------------------------


def _end_members(record: EndStep) -> bytes:
    text = b'%b,"outcome":"%b"' % (_ids_members(record.ids), record.outcome.encode())
    raised, swallowed, stream, usage = record.raised, record.swallowed, record.stream, record.usage
    noted = record.failed, record.snapshot_error, record.grown, record.shown, record.user
    if not (raised or swallowed or stream or usage or any(noted)):
        return text  # as of most steps
    return text + _members(
        error=_texts(raised, 2),
        failed=record.failed,
        stream=stream,
        swallowed=swallowed and [*map(sound_text, swallowed[0]), swallowed[1]],
        usage=usage,
        snapshot_error=record.snapshot_error,
        grown=record.grown,
        shown=record.shown,
        user=record.user,
    )


def _step_end(record: EndStep) -> tuple[bytes, bytes]:
    # Not an `end_entry`, which a resume would take for the step's completion, and without a
    # `sequence_id` of its own: the Burr UI would count it as a step.
    fields = (
        b'{"type":"otel_step_end","action_sequence_id":%d,"end_time":"%b","action":%b,'
        b'"exception":%b'
        % (
            record.sequence_id,
            local_time(record.time_ns),
            _name(record.action),
            _traceback(record.raised),
        )
    )
    return fields, _end_members(record)


def _begin_inner(record: BeginInner) -> tuple[bytes, bytes]:
    fields = (
        b'{"type":"begin_span","start_time":"%b","action_sequence_id":%d,"span_id":%b,'
        b'"span_name":%b,"parent_span_id":%b,"span_dependencies":[%b]'
        % (
            local_time(record.time_ns),
            record.sequence_id,
            encode_text(record.span_id),
            encode_text(record.name),
            b"null" if record.parent_span_id is None else encode_text(record.parent_span_id),
            b",".join([encode_text(str(item)) for item in record.dependencies]),
        )
    )
    return fields, _origin_members(record.origin) + _members(kind=record.kind, scope=record.scope)


def _end_inner(record: EndInner) -> tuple[bytes, bytes]:
    fields = b'{"type":"end_span","end_time":"%b","action_sequence_id":%d,"span_id":%b' % (
        local_time(record.time_ns),
        record.sequence_id,
        encode_text(record.span_id),
    )
    rare = _members(outcome=record.outcome, error=_texts(record.raised), user=record.user)
    return fields, _ids_members(record.ids) + rare


def _logged(record: Logged) -> tuple[bytes, bytes]:
    # The Burr UI accepts text tags only.
    tags = [b"%b:%b" % (encode_text(str(k)), encode_text(str(v))) for k, v in record.tags.items()]
    fields = (
        b'{"type":"attribute","key":%b,"action_sequence_id":%d,"span_id":%b,"value":%b,'
        b'"tags":{%b},"time_logged":"%b"'
        % (
            encode_text(record.key),
            record.sequence_id,
            b"null" if record.span_id is None else encode_text(record.span_id),
            record.value.text,
            b",".join(tags),
            local_time(record.time_ns),
        )
    )
    return fields, _members(shown=record.shown)


def _stream_mark(record: StreamMark) -> tuple[bytes, bytes]:
    fields = b'{"type":"%b","action_sequence_id":%d,"span_id":null,"%b":"%b"%b' % (
        record.kind.encode(),
        record.sequence_id,
        STREAM_TIMES[record.kind].encode(),
        local_time(record.time_ns),
        b"" if record.items is None else b',"items_streamed":%d' % record.items,
    )
    return fields, b""


def _begin_root(record: BeginRoot) -> tuple[bytes, bytes]:
    # Without a `sequence_id` of its own: the Burr UI would count it as a step.
    fields = b'{"type":"otel_root","start_time":"%b",%b' % (
        local_time(record.time_ns),
        orjson.dumps(record.fields)[1:-1],
    )
    if record.state is not None:
        members = [b"%b:%b" % (encode_text(key), text) for key, text in record.state.items()]
        fields += b',"state":{%b}' % b",".join(members)
    return fields, _origin_members(record.origin) + _members(
        **{"kind": record.kind, **record.about}
    )


def _end_root(record: EndRoot) -> tuple[bytes, bytes]:
    fields = b'{"type":"otel_root_end","end_time":"%b"' % local_time(record.time_ns)
    return fields, _ids_members(record.ids) + _members(
        outcome=record.outcome,
        steps=record.steps,
        steps_failed=record.failed,
        error=record.error,
        error_type=record.error_type,
        usage=record.usage,
        shown=record.shown,
        user=record.user,
    )


_WRITERS: dict[type, Callable[[Any], tuple[bytes, bytes]]] = {
    EndStep: _step_end,
    BeginInner: _begin_inner,
    EndInner: _end_inner,
    Logged: _logged,
    StreamMark: _stream_mark,
    BeginRoot: _begin_root,
    EndRoot: _end_root,
}
