"""What the log keeps of a span besides its ids, and what comes back from it.

A record already holds inputs, result, state and logged attributes, so of a span's attributes only
those are kept that a reader could not make from the record itself, from the run, or from the
action's first record. What was hidden or cut on its way to the span comes back hidden or cut,
whatever the reader's settings are. Both directions stand here, as pure functions.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import orjson
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Status, StatusCode, TraceFlags

from burr_otel import semconv
from burr_otel.spans import parents, shield
from burr_otel.spans.portable import (
    UNKNOWN,
    applied,
    difference,
    from_portable,
    is_sound,
    native,
    portable,
)

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.util.types import AttributeValue

__all__ = [
    "Bases",
    "Described",
    "begin_members",
    "end_record",
    "facts_member",
    "graph_base",
    "is_exact",
    "left_alone",
    "logged_value",
    "read_attributes",
    "read_events",
    "read_facts",
    "read_name",
    "read_status",
    "readable",
    "root_members",
    "soonest_end",
    "source_members",
    "usual_begin",
    "usual_end",
]

Bases = Mapping[str, "bytes | None"]
"""Content attributes by name, each with the JSON that the record holds for it; `None` where reading
that JSON and writing it again need not give the same bytes."""

_ATTRIBUTES: Final = "attributes"
_ODD: Final = "odd_attributes"  # whose names are not valid Unicode
_CONTENT: Final = "content"
_ABSENT: Final = "absent"
_EVENTS: Final = "events"
_STATUS: Final = "status"
_NAME: Final = "name"
_LONG: Final = 64  # characters: a text that is worth a look whether another attribute says it too
_MOST_PARSED_BYTES: Final = 16 * 1024
_NAMES_OF_THE_ACTION: Final = (semconv.ACTION_NAME, semconv.GRAPH_NODE_ID)


def soonest_end(start_ns: int, end_ns: int) -> int:
    """`end_ns`, or the soonest end: Jaeger warns of a duration that is not positive."""
    return max(end_ns, start_ns + 1)


def readable(span: trace.Span | ReadableSpan) -> ReadableSpan | None:
    """The span as it can be read; `None` for one that nobody will ever see."""
    if isinstance(span, ReadableSpan):
        context: Any = span.get_span_context()
        _, _, _, flags, _, _ = context
        if flags & TraceFlags.SAMPLED:
            return span
    return None


def is_exact(otel: Mapping[str, Any]) -> bool:
    """Whether a record's `otel` object has the members of this module."""
    return isinstance(otel.get(_ATTRIBUTES), Mapping)


# --- writing --------------------------------------------------------------------------------------


def begin_members(
    own_name: str,
    name: str,
    attributes: Mapping[str, AttributeValue],
    bases: Bases,
) -> dict[str, Any]:
    """Members for the record of a span's begin.

    Args:
        own_name: The name that the record holds.
        name: The name that the span has.
        attributes: What the span says from its start, without what all spans of the run or all
            steps of the action say.
        bases: What the record holds of them.
    """
    members = _members(dict(attributes), {}, bases)
    return members if name == own_name else {**members, _NAME: portable(name)}


@functools.lru_cache(256)
def usual_begin(method: str | None, prior: str | None) -> bytes:
    """What `begin_members` gives for most steps, as JSON members.

    That is for a step of the name and with the inputs that the record holds.

    Args:
        method: What it says as ``burr.execute.method``.
        prior: What it says as ``graph.node.parent_id``.
    """
    said = {semconv.EXECUTE_METHOD: method, semconv.GRAPH_NODE_PARENT_ID: prior}
    kept = {key: portable(value) for key, value in said.items() if value is not None}
    return b'"attributes":%b' % orjson.dumps(kept)


def end_record(
    span: trace.Span | ReadableSpan,
    *,
    ids: Mapping[str, Any],
    name: str,
    start_ns: int,
    end_ns: int,
    outcome: str,
    links: int,
    known: Mapping[str, Any],
    bases: Bases,
) -> dict[str, Any]:
    """What the record of a span's end keeps of it; never raises.

    Args:
        span: The span.
        ids: What `parents.record_of` gives of it.
        name: The name that it began with.
        start_ns: Unix time of its start.
        end_ns: Unix time of its end.
        outcome: How it ended.
        links: How many links it began with.
        known: Attributes that a reader knows without this record; one that the span does not have
            is noted.
        bases: Content that this record holds.

    Returns:
        An `otel` object; only ids, time and outcome for a span that nobody will ever see.
    """
    record = {**ids, "time_unix_nano": end_ns, "outcome": outcome}
    ended = readable(span)
    if ended is None:
        return record
    try:
        end_ns = soonest_end(start_ns, end_ns)
        record |= _end_members(ended, name, end_ns, links, known, bases)
    except Exception as error:
        shield.report("recording what a span says", error)
    return record


def _end_members(
    span: ReadableSpan,
    name: str,
    end_ns: int,
    links: int,
    known: Mapping[str, Any],
    bases: Bases,
) -> dict[str, Any]:
    attributes: Any = span.attributes
    members = _members(attributes.copy(), known, bases)
    if span.name != name:
        members[_NAME] = portable(span.name)
    if span.end_time not in (None, end_ns):
        members["end_unix_nano"] = span.end_time
    all_links = span.links
    if len(all_links) != links:
        members["links"] = parents.link_records(all_links)
    events = span.events
    if events:
        members[_EVENTS] = [
            [portable(each.name), each.timestamp, portable(each.attributes or {})]
            for each in events
        ]
    status = span.status
    if status.status_code is not StatusCode.UNSET:
        members[_STATUS] = [status.status_code.name, portable(status.description)]
    return members


def left_alone(span: ReadableSpan, name: str, links: int) -> bool:
    """Whether all that an open span has beside its attributes is what it began with."""
    return (
        span.name == name
        and not span.events
        and len(span.links) == links
        and span.status.status_code is StatusCode.UNSET
        and span.end_time is None
    )


def usual_end(
    said: Mapping[str, AttributeValue], bases: Bases, truncated: Sequence[str]
) -> bytes | None:
    """What `end_record` adds for a span that says just what its step does, as JSON members.

    Args:
        said: The content that the step has said at its end.
        bases: What the record holds of it.
        truncated: Names of attributes that were cut.

    Returns:
        `None` where content and record do not correspond.
    """
    if len(said) != len(bases):
        return None
    content: dict[str, Any] = {}
    for name, base in bases.items():
        text = said.get(name)
        if not isinstance(text, str):
            return None
        if text.encode() != base:
            content[name] = difference(text, base)
    members = b'"attributes":%b' % (
        orjson.dumps({semconv.TRUNCATED: truncated}) if truncated else b"{}"
    )
    return members + b',"content":%b' % orjson.dumps(content) if content else members


def root_members(
    span: trace.Span, graph_says: Mapping[str, AttributeValue], graph: Any
) -> dict[str, Any]:
    """Members for the record of an application span's begin; never raises.

    Args:
        span: The span.
        graph_says: What it says of the graph.
        graph: The graph, as a reader makes it of ``graph.json``.
    """
    begun = readable(span)
    if begun is None:
        return {}
    try:
        return {
            **_members(dict(graph_says), {}, {semconv.GRAPH: graph_base(graph)}),
            **source_members(begun),
        }
    except Exception as error:
        shield.report("recording what a span says", error)
        return {}


def graph_base(graph: Any) -> bytes | None:
    """The graph as `Bases` has it."""
    try:
        return orjson.dumps(graph)
    except orjson.JSONEncodeError:  # a name with a lone surrogate
        return None


def source_members(span: ReadableSpan) -> dict[str, Any]:
    """What the record of a session's first span keeps of where its spans come from."""
    scope, resource = span.instrumentation_scope, span.resource
    members = {
        "resource": {key: portable(value) for key, value in resource.attributes.items()},
        "scope_version": None if scope is None else scope.version,
        "schema_url": None if scope is None else scope.schema_url,
    }
    if resource.schema_url:
        members["resource_schema_url"] = resource.schema_url
    return members


def facts_member(action: str, attributes: Mapping[str, AttributeValue]) -> dict[str, Any]:
    """What every step of an action says, as the action's first begin record keeps it."""
    return {
        key: portable(value)
        for key, value in attributes.items()
        if value != action or key not in _NAMES_OF_THE_ACTION
    }


def logged_value(value: Any, written: bytes | None) -> Any:
    """What a reader takes a logged attribute for when no end record says otherwise.

    Args:
        value: As it was logged.
        written: As the record holds it, see `Bases`.
    """
    if type(value) in (str, bool, int, float):
        return native(value)
    if written is None or len(written) > _MOST_PARSED_BYTES:
        return UNKNOWN
    return native(orjson.loads(written))


def _members(found: dict[str, Any], known: Mapping[str, Any], bases: Bases) -> dict[str, Any]:
    """Members from which `read_attributes` makes `found` again, given `known` and `bases`."""
    content: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    odd: list[Any] = []
    for key, value in found.items():
        expected = known.get(key, UNKNOWN)
        if value is expected or (type(value) is type(expected) and value == expected):
            continue
        text = value if type(value) is str and is_sound(value) else ""
        if text and key in bases:
            base = bases[key]
            if text.encode() != base:
                content[key] = difference(text, base)
        elif len(text) >= _LONG and (twin := _twin(key, found, bases)):
            content[key] = {"as": twin}
        elif is_sound(key):
            attributes[key] = portable(value)
        else:
            odd.append([portable(key), portable(value)])
    absent = [portable(key) for key in (*bases, *known) if key not in found]
    members = {_ATTRIBUTES: attributes, _CONTENT: content, _ODD: odd, _ABSENT: absent}
    return {name: member for name, member in members.items() if member or name == _ATTRIBUTES}


def _twin(key: str, found: Mapping[str, Any], bases: Bases) -> str | None:
    """Another attribute, one with a base, that says the same as `key`."""
    return next((other for other in bases if found.get(other) == found[key]), None)


class Described:
    """Which actions the log of a session describes.

    Each is described again after so many steps, so that a reader never looks far back for it.

    Args:
        source: Whether the log does not tell either where the session's spans come from: a forked
            process has no application span of its own that would.

    Attributes:
        lacks_source: The same, by now.
    """

    __slots__ = ("_actions", "_steps", "lacks_source")
    _STEPS: Final = 256

    def __init__(self, *, source: bool = False) -> None:
        self.lacks_source = source
        self._actions: tuple[str, ...] = ()
        self._steps = 0

    def lacks(self, action: str) -> bool:
        """Whether the next begin record should describe the action."""
        return action not in self._actions

    def note(self, action: str) -> None:
        """Note that a begin record has been written; where it was lacking, with the description."""
        self.lacks_source = False
        self._steps += 1
        if self._steps % self._STEPS == 0:
            self._actions = ()
        elif action not in self._actions:
            self._actions += (action,)


# --- reading --------------------------------------------------------------------------------------


def read_attributes(
    known: Mapping[str, AttributeValue], otel: Mapping[str, Any], bases: Bases
) -> dict[str, AttributeValue]:
    """The attributes that a record speaks of.

    Args:
        known: What the reader knows without it.
        otel: The record's `otel` object.
        bases: As for writing, from the record as it is read.

    Returns:
        The attributes, without those that a damaged record does not tell any more.
    """
    found = dict(known)
    content = _mapping(otel.get(_CONTENT))
    for key, base in bases.items():
        text = base if key not in content else applied(content[key], base)
        if text is not None:
            found[key] = text if isinstance(text, str) else text.decode()
    for key, change in content.items():
        if isinstance(change, dict) and change.get("as") in found:
            found[key] = found[change["as"]]
    for key, value in _mapping(otel.get(_ATTRIBUTES)).items():
        found[key] = from_portable(value)
    for key, value in _items(otel.get(_ODD)):
        found[from_portable(key)] = from_portable(value)
    for key in _items(otel.get(_ABSENT)):
        found.pop(from_portable(key), None)
    return found


def read_facts(action: str, member: Any) -> dict[str, AttributeValue]:
    """What `facts_member` kept."""
    found: dict[str, AttributeValue] = dict.fromkeys(_NAMES_OF_THE_ACTION, action)
    for key, value in _mapping(member).items():
        found[key] = from_portable(value)
    return found


def read_events(otel: Mapping[str, Any]) -> list[Event]:
    """The events that `end_members` kept."""
    return [
        Event(from_portable(name), from_portable(attributes), timestamp)
        for name, timestamp, attributes in _items(otel.get(_EVENTS))
    ]


def read_status(otel: Mapping[str, Any]) -> Status:
    """The status that `end_members` kept."""
    kept = otel.get(_STATUS)
    if not isinstance(kept, list):
        return Status(StatusCode.UNSET)
    return Status(StatusCode[kept[0]], from_portable(kept[1]))


def read_name(otel: Mapping[str, Any], default: str) -> str:
    """The span's name, `default` where the record does not say otherwise."""
    return str(from_portable(otel[_NAME])) if _NAME in otel else default


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _items(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else ()
