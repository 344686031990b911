"""The records of a run's log: what each holds.

A record is one immutable fact: a step began, a step ended with this state, and so on. It is written
as one line of strict JSON in the layout of Burr's `LocalTrackingClient`, so that the Burr UI reads
our logs and we read its. What Burr has no field for stands in the object `otel`, which comes last
and ends with a CRC-32 of all bytes before it. Records of earlier versions and of Burr's client have
none.

Everything that a span says of a step is derived from these records by `spans.describe`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

# Types of records that others look for in a log; `write.LAYOUTS` has all.
BEGIN_ENTRY: Final = "begin_entry"
END_ENTRY: Final = "end_entry"
ROOT: Final = "otel_root"
ROOT_END: Final = "otel_root_end"

# For more bytes than that, zlib lets go of the interpreter, and among busy threads it takes longer
# to get it back than to go over some more pieces.
_GIL_KEPT_BYTES: Final = 5 * 1024
_MOST_KEPT_BYTES: Final = 64 * 1024


# --- JSON -----------------------------------------------------------------------------------------


def sound_text(text: str) -> str:
    """The text with U+FFFD in place of lone surrogates."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def encode_json(tree: Any) -> bytes:
    """Strict JSON of exact JSON types: integers of any size; lone surrogates become U+FFFD."""
    try:
        return orjson.dumps(tree)
    except orjson.JSONEncodeError:
        text = json.dumps(tree, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return sound_text(text).encode()


def checksum(data: bytes | memoryview, before: int = 0) -> int:
    """CRC-32 of `data`, which goes on from that of what came before."""
    size = len(data)
    if size <= _GIL_KEPT_BYTES or size > _MOST_KEPT_BYTES:
        return zlib.crc32(data, before)
    view = memoryview(data)
    for start in range(0, size, _GIL_KEPT_BYTES):
        before = zlib.crc32(view[start : start + _GIL_KEPT_BYTES], before)
    return before


class Document:
    """One JSON object, held as text, as values, or as both: each is made of the other on demand."""

    __slots__ = ("text", "value")
    text: bytes
    value: Any

    def __init__(self, text: bytes | None = None, value: Any = None) -> None:
        if text is not None:
            self.text = text
        if text is None or value is not None:
            self.value = value

    def __getattr__(self, name: str) -> Any:  # asked only for what is not there yet
        if name == "text":
            self.text = encode_json(self.value)
        elif name == "value":
            self.value = json.loads(self.text)
        else:
            raise AttributeError(name)
        return getattr(self, name)


NO_DOCUMENT: Final = Document(b"{}", {})


class Fragments(Mapping[str, bytes]):
    """A state that was read: the JSON of each of its top-level keys is made on demand."""

    __slots__ = ("data",)

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data

    def __getitem__(self, key: str) -> bytes:
        return encode_json(self.data[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


def state_data(state: Mapping[str, bytes]) -> Mapping[str, Any]:
    """A state as plain data."""
    if isinstance(state, Fragments):
        return state.data
    return {key: json.loads(text) for key, text in state.items()}


# --- parts of records -----------------------------------------------------------------------------


class SpanIds(NamedTuple):
    """A span context as the log keeps it; `trace_state` is the W3C header."""

    trace_id: int
    span_id: int
    flags: int = 1
    trace_state: str = ""
    is_remote: bool = False


class LinkIds(NamedTuple):
    """A link: its target, and its ``burr.link.type`` or, with `kind` None, its attributes."""

    target: SpanIds
    kind: str | None = None
    attributes: Mapping[str, Any] | None = None


class Origin(NamedTuple):
    """Where a span stands: its own ids, its parent and the links that it began with."""

    ids: SpanIds
    parent: SpanIds | None = None
    links: Sequence[LinkIds] = ()


class Raised(NamedTuple):
    """An exception as bounded texts: qualified class, message, and chained traceback."""

    type: str
    message: str
    traceback: str


class Usage(NamedTuple):
    """Sums over the LLM spans inside of something, and how many these were."""

    input_tokens: int
    output_tokens: int
    calls: int


class StreamTimes(NamedTuple):
    """A stream's items, time of the first one, and time in its generator if that was measured."""

    items: int
    first_item_ns: int | None
    generator_ns: int | None


# --- records --------------------------------------------------------------------------------------

_NOTHING: Mapping[str, Any] = {}


class BeginStep(NamedTuple):
    """A step begins (``begin_entry``).

    `shown` holds attributes that cannot be derived from the record, as the span carries them.
    `otel` is the whole object of a record that was read.
    """

    sequence_id: int
    action: str
    inputs: Document
    time_ns: int
    origin: Origin | None = None
    root_span_id: int | None = None
    method: str | None = None
    prior: str | None = None
    shown: Mapping[str, Any] = _NOTHING
    otel: Mapping[str, Any] = _NOTHING


class EndStep(NamedTuple):
    """A step has ended: ``end_entry`` with the state after it, else ``otel_step_end``.

    After an exception Burr's state is the one before the step; of a live step, `state` has what its
    span needs of it. `grown` tells of each key whose value goes on from its earlier one how many
    bytes and items did not change. `swallowed` is what a stream raised and Burr did not pass on.
    `failed` is the text of a failure that raised nothing.
    `user` is what other code set on the span.
    """

    sequence_id: int
    action: str
    result: Document | None = None
    raised: Raised | None = None
    state: Mapping[str, Any] | None = None
    time_ns: int = 0
    outcome: str = "ok"
    ids: SpanIds | None = None
    failed: str | None = None
    stream: StreamTimes | None = None
    swallowed: tuple[Raised, int] | None = None
    grown: Mapping[str, tuple[int, int]] = _NOTHING
    usage: Usage | None = None
    snapshot_error: str | None = None
    shown: Mapping[str, Any] = _NOTHING
    user: Mapping[str, Any] = _NOTHING
    otel: Mapping[str, Any] = _NOTHING


class BeginInner(NamedTuple):
    """A span inside a step begins; `span_id` and `parent_span_id` are Burr's own.

    `scope` names the library that made it, and `kind` is its kind, unless it is one of Burr's.
    """

    sequence_id: int
    span_id: str
    name: str
    parent_span_id: str | None
    dependencies: Sequence[str]
    time_ns: int
    origin: Origin | None = None
    kind: str | None = None
    scope: str | None = None
    otel: Mapping[str, Any] = _NOTHING


class EndInner(NamedTuple):
    """A span inside a step has ended; `abandoned` at its step's end when it did not itself."""

    sequence_id: int
    span_id: str
    time_ns: int
    outcome: str = "ok"
    ids: SpanIds | None = None
    raised: Raised | None = None
    shown: Mapping[str, Any] = _NOTHING
    user: Mapping[str, Any] = _NOTHING
    otel: Mapping[str, Any] = _NOTHING


class Logged(NamedTuple):
    """An attribute was logged on a step, or on the inner span of Burr's `span_id`."""

    key: str
    value: Document
    tags: Mapping[str, str]
    sequence_id: int
    span_id: str | None
    time_ns: int
    shown: Any = None
    otel: Mapping[str, Any] = _NOTHING


class StreamMark(NamedTuple):
    """A stream begins, gives its first item, or ends after so many items."""

    kind: str
    sequence_id: int
    time_ns: int
    items: int | None = None
    otel: Mapping[str, Any] = _NOTHING


class BeginRoot(NamedTuple):
    """A session begins.

    `fields` are the top-level members of ``otel_root``: app_id, partition_key, parent_pointer,
    spawning_parent_pointer, graph (digest), owner, graph_changed, forked_from, and with an
    inherited `state` inherited_sequence_id, position and status. `about` has what its spans need
    beside their records: resource, scope_version, schema_url, policy, settings, initial.
    """

    fields: Mapping[str, Any]
    time_ns: int
    origin: Origin | None = None
    state: Mapping[str, bytes] | None = None
    kind: str = "root"
    about: Mapping[str, Any] = _NOTHING
    otel: Mapping[str, Any] = _NOTHING


class EndRoot(NamedTuple):
    """A session has ended; `error` is the text and `error_type` the class of its failure."""

    time_ns: int
    outcome: str = "ok"
    ids: SpanIds | None = None
    steps: int = 0
    failed: int = 0
    error: str | None = None
    error_type: str | None = None
    usage: Usage | None = None
    shown: Mapping[str, Any] = _NOTHING
    user: Mapping[str, Any] = _NOTHING
    otel: Mapping[str, Any] = _NOTHING


Record = BeginStep | EndStep | BeginInner | EndInner | Logged | StreamMark | BeginRoot | EndRoot
