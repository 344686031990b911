"""Spans whose records were written before spans were derived from records: they come back as sent.

Such a record keeps, in its `otel` object, what its span said beyond what a reader could make of
the record itself: `attributes`, `content` (texts as their difference to the record's own JSON),
`odd_attributes`, `absent`, `events`, `status`, `name` and `links`. What was hidden or cut on its
way to the span comes back hidden or cut, whatever the reader's settings are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

import orjson
from opentelemetry.util.types import AttributeValue

from burr_otel import semconv
from burr_otel.history.content import RunContent
from burr_otel.history.tree import SpanNode, session_of
from burr_otel.records import EndStep, state_data
from burr_otel.records.read import read_links
from burr_otel.spans.describe import SpanContent, SpanEvent, SpanStatus
from burr_otel.spans.facts import from_portable, is_scalar, items, mapping
from burr_otel.store import StoredRun

_ACTION_NAMES: Final = ("burr.action.name", "graph.node.id")
_WRITES: Final = "burr.action.writes"

Attributes = dict[str, "AttributeValue"]


class LegacyContent:
    """Reads what such spans of one run said."""

    def __init__(self, run: StoredRun, content: RunContent) -> None:
        self._run, self._content = run, content
        self._facts: dict[tuple[Any, str], Attributes] = {}

    def noted(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """The record, learning of it what only the first of an action says of all its steps."""
        otel = raw.get("otel")
        if raw.get("type") == "begin_entry" and isinstance(otel, dict) and "action" in otel:
            facts: Attributes = dict.fromkeys(_ACTION_NAMES, raw["action"])
            facts |= {key: from_portable(told) for key, told in mapping(otel["action"]).items()}
            self._facts[otel.get("session"), raw["action"]] = facts
        return raw

    def of(self, span: SpanNode) -> SpanContent | None:
        """What a span said; None when its records are not of this kind."""
        begin, end = getattr(span.begin, "otel", {}), getattr(span.end, "otel", {})
        # Of a step that lost its begin, the end alone tells what it said.
        end_alone = span.kind == "step" and span.begin is None and _is_legacy(end)
        if not _is_legacy(begin) and not end_alone:
            return None
        attributes, name = self._begun(span, begin), span.name
        if span.kind != "application" and begin.get("name") is not None:
            name = str(from_portable(begin["name"]))
        if not _is_legacy(end):
            return self._left_open(span, attributes, name)
        if "name" in end:
            name = str(from_portable(end["name"]))
        for each in span.logged:
            with contextlib.suppress(TypeError, ValueError):  # an integer beyond 64 bits
                attributes[each.key] = _native(each.value.value)
        if span.kind != "span":
            attributes[semconv.OUTCOME] = span.outcome
        events = [
            SpanEvent(from_portable(text), from_portable(said), time_ns)
            for text, time_ns, said in items(end.get("events"))
        ]
        code, text = end["status"] if isinstance(end.get("status"), list) else (None, None)
        status = SpanStatus() if code is None else SpanStatus(code, from_portable(text))
        attributes = _read(attributes, end, self._ended_bases(span))
        return SpanContent(name, attributes, events, status, read_links(end.get("links")))

    def _begun(self, span: SpanNode, otel: Mapping[str, Any]) -> Attributes:
        """What the span said when it began."""
        project, app_id, session = self._run.project, self._run.app_id, session_of(span)
        known: Attributes = {
            semconv.SESSION_ID: app_id,
            semconv.PROJECT: project,
            semconv.APP_ID: app_id,
        }
        key = session.root.fields.get("partition_key", self._run.partition_key)
        if key is not None:
            known[semconv.PARTITION_KEY] = key
        if span is session:
            known |= {
                "gen_ai.operation.name": "invoke_workflow",
                "gen_ai.workflow.name": project,
                "gen_ai.agent.name": project,
                "gen_ai.conversation.id": app_id,
                "openinference.span.kind": "CHAIN",
                "graph.node.id": project,
            }
            return _read(known, otel, {semconv.GRAPH: _graph(self._content.graph(session))})
        known[semconv.SEQUENCE_ID] = span.sequence_id or 0
        if span.kind == "span":
            return known
        facts = self._facts.get((span.session, span.name), {}) if span.begun else {}
        inputs = getattr(span.begin, "inputs", None)
        bases = {} if inputs is None else {semconv.INPUTS: _json(inputs.value)}
        return _read({**facts, **known}, otel, bases)

    def _ended_bases(self, span: SpanNode) -> dict[str, bytes | None]:
        end, found = span.end, dict[str, bytes | None]()
        if not isinstance(end, EndStep):
            return found
        if end.result is not None:
            found[semconv.RESULT] = _json(end.result.value)
        writes = self._facts.get((span.session, span.name), {}).get(_WRITES) if span.begun else None
        if end.raised is None and end.state is not None and isinstance(writes, tuple) and writes:
            state = state_data(end.state)
            kept = {str(key): state[str(key)] for key in writes if str(key) in state}
            found[semconv.STATE_WRITTEN] = _json(kept)
        return found

    def _left_open(self, span: SpanNode, attributes: Attributes, name: str) -> SpanContent:
        """What a span says of which no record tells how it ended."""
        described = self._content.of(span)
        said = described.attributes
        if span.end is None:
            policy = self._content.facts(session_of(span)).policy
            shown = {semconv.TRUNCATED, *(policy.name(each.key) for each in span.logged)}
            attributes = {**attributes, semconv.OUTCOME: span.outcome}
        else:
            shown = said.keys() - ({semconv.INPUTS, semconv.GRAPH} - attributes.keys())
        attributes = {**{key: said[key] for key in said if key in shown}, **attributes}
        return described._replace(name=name, attributes=attributes)


def _is_legacy(otel: Mapping[str, Any]) -> bool:
    return isinstance(otel.get("attributes"), Mapping) and "crc" not in otel


def _read(
    known: Mapping[str, AttributeValue],
    otel: Mapping[str, Any],
    bases: Mapping[str, bytes | None],
) -> Attributes:
    """The attributes that a record speaks of, without those that a damaged one does not tell."""
    # `bases` has the JSON that the record holds for each content attribute; None where reading that
    # JSON and writing it again need not give the same bytes.
    found = dict(known)
    content = mapping(otel.get("content"))
    for key, base in bases.items():
        if key in content:
            text = _applied(content[key], base)
        else:
            text = None if base is None else base.decode()
        if text is not None:
            found[key] = text
    for key, change in content.items():
        if isinstance(change, dict) and change.get("as") in found:
            found[key] = found[change["as"]]
    for key, value in mapping(otel.get("attributes")).items():
        found[key] = from_portable(value)
    for key, value in items(otel.get("odd_attributes")):
        found[from_portable(key)] = from_portable(value)
    for key in items(otel.get("absent")):
        found.pop(from_portable(key), None)
    return found


def _graph(graph: Mapping[str, Any] | None) -> bytes | None:
    """What the application span said of a ``graph.json``."""
    if graph is None:
        return None
    transitions = [
        {"from": str(each["from_"]), "to": str(each["to"]), "condition": str(each["condition"])}
        for each in graph.get("transitions") or ()
    ]
    actions = [str(each["name"]) for each in graph.get("actions") or ()]
    entrypoint = str(graph.get("entrypoint"))
    return _json({"entrypoint": entrypoint, "actions": actions, "transitions": transitions})


def _applied(change: Any, base: bytes | None) -> str | None:
    """A text from what it adds to its base: how much of the base's head and tail goes around it."""
    if isinstance(change, str):
        return change
    if not isinstance(change, list) or base is None:
        return None
    head, middle, tail = change
    if head + tail > len(base):
        return None
    try:
        return str(base[:head] + middle.encode() + base[len(base) - tail :], "utf-8")
    except UnicodeDecodeError:
        return None


def _native(value: Any) -> Any:
    """A JSON value as an attribute: unchanged where one can hold it, else its JSON."""
    if is_scalar(value):
        return value
    if type(value) is list and len(set(map(type, value))) == 1 and all(map(is_scalar, value)):
        return tuple(value)
    return orjson.dumps(value).decode()


def _json(value: Any) -> bytes | None:
    try:
        return orjson.dumps(value)
    except (TypeError, ValueError):  # an integer beyond 64 bits
        return None
