"""What all spans of a session share, and what all steps of an action share, from plain data.

The store keeps that data (``graph.json`` and the session's first record), so a reader of the log
has just what the live process had. It keeps attribute values in a form that is strict JSON.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from burr_otel import semconv
from burr_otel.config import OtelConfig
from burr_otel.content import ContentPolicy, text_safely
from burr_otel.errors import ConfigError
from burr_otel.printable import logger
from burr_otel.records import sound_text

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue


_INT64: Final = 1 << 63
_INJECTED: Final = frozenset({"__tracer", "__context"})  # Burr's own, not data


KINDS: Final = {
    "chain": None,
    "llm": "chat",
    "tool": "execute_tool",
    "agent": "invoke_agent",
    "retriever": "retrieval",
}
"""What follows ``otel.kind:`` in a tag of an action, and what the GenAI conventions call it."""


class ActionFacts(NamedTuple):
    """An action; `attributes` are what each of its steps says of it."""

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    inputs: frozenset[str]
    kind: str
    attributes: Mapping[str, AttributeValue]


class SpanSettings(NamedTuple):
    """Settings of a session that decide what its spans say; the log keeps them."""

    openinference_content: bool = False
    capture_state_read: str = "failed"
    exception_events: bool = True

    @classmethod
    def of_record(cls, data: Any) -> SpanSettings:
        """The settings that a session's first record holds."""
        return cls(**{name: value for name, value in mapping(data).items() if name in cls._fields})


@dataclasses.dataclass(eq=False, slots=True)
class RunFacts:
    """What all spans of one session share."""

    project: str
    app_id: str
    partition_key: str | None
    policy: ContentPolicy
    settings: SpanSettings
    actions: Mapping[str, ActionFacts]
    conversation_id: str | None = None  # app id of the outermost application that it is a part of
    user_id: str | None = None
    identity: dict[str, AttributeValue] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        """Put together what each span says of whose it is."""
        self.conversation_id = self.conversation_id or self.app_id
        # A span at its limit of attributes drops those that were set first.
        identity = {
            semconv.USER_ID: self.user_id,
            semconv.SESSION_ID: self.conversation_id,
            semconv.GEN_AI_AGENT_NAME: self.project,
            semconv.GEN_AI_CONVERSATION_ID: self.conversation_id,
            semconv.PARTITION_KEY: self.partition_key,
            semconv.PROJECT: self.project,
            semconv.APP_ID: self.app_id,
        }
        self.identity = {name: value for name, value in identity.items() if value is not None}

    @property
    def name(self) -> str:
        """The application span's name."""
        return sys.intern(f"{semconv.ROOT_NAME_PREFIX} {self.project}")  # one for all its runs

    def action(self, name: str) -> ActionFacts:
        """The facts of an action; of one that the graph lacks, what its name tells."""
        found = self.actions.get(name) or self.actions.get(sound_text(name))
        return found or _action({"name": name}, {}, self.policy)


def _actions(graph: Any) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """What Burr and we keep of each action of a ``graph.json``, whatever its condition."""
    more = mapping(mapping(mapping(graph).get("otel")).get("actions"))
    for each in items(mapping(graph).get("actions")):
        name = mapping(each).get("name")
        if isinstance(name, str):
            yield each, mapping(more.get(name))


def actions_of_graph(graph: Any, policy: ContentPolicy) -> dict[str, ActionFacts]:
    """The actions of a ``graph.json`` by name."""
    return {each["name"]: _action(each, more, policy) for each, more in _actions(graph)}


def _action(data: Mapping[str, Any], more: Mapping[str, Any], policy: ContentPolicy) -> ActionFacts:
    name = data["name"]
    word = _kind(name, _texts(more.get("tags")), policy)
    operation, shown = KINDS[word], policy.name(name)
    attributes: dict[str, AttributeValue] = {
        semconv.ACTION_NAME: shown,
        semconv.OPENINFERENCE_SPAN_KIND: word.upper(),
        semconv.GRAPH_NODE_ID: shown,
    }
    if isinstance(more.get("function"), str):
        attributes[semconv.CODE_FUNCTION_NAME] = more["function"]
    if operation is not None:
        attributes[semconv.GEN_AI_OPERATION_NAME] = operation
    if word == "tool":
        attributes[semconv.GEN_AI_TOOL_NAME] = shown
    inputs = {*_texts(data.get("inputs")), *_texts(data.get("optional_inputs"))} - _INJECTED
    reads, writes = _texts(data.get("reads")), _texts(data.get("writes"))
    return ActionFacts(name, reads, writes, frozenset(inputs), word, attributes)


def _kind(action: str, tags: tuple[str, ...], policy: ContentPolicy) -> str:
    for tag in tags:
        if tag.startswith(semconv.KIND_TAG_PREFIX):
            word = tag[len(semconv.KIND_TAG_PREFIX) :].strip().lower()
            if word in KINDS:
                return word
            logger.warning(
                "action %r has the tag %r, which names no kind of span; allowed are %s. "
                "It is shown as a chain.",
                policy.name(action),
                policy.name(tag),
                ", ".join(semconv.KIND_TAG_PREFIX + each for each in KINDS),
            )
    return "chain"


def graph_document(graph: Any) -> dict[str, Any] | None:
    """What the application span says of a ``graph.json``: its actions and transitions."""
    if not isinstance(graph, Mapping):
        return None
    actions = []
    for each, more in _actions(graph):
        told = {key: each.get(key) for key in ("name", "reads", "writes")}
        told |= {key: more[key] for key in ("tags", "file", "line") if more.get(key)}
        actions.append(told)
    transitions = [
        {"from": each.get("from_"), "to": each.get("to"), "condition": each.get("condition")}
        for each in items(graph.get("transitions"))
        if isinstance(each, Mapping)
    ]
    entrypoint = graph.get("entrypoint")
    return {"entrypoint": entrypoint, "actions": actions, "transitions": transitions}


def content_policy(config: OtelConfig) -> ContentPolicy:
    """The content policy of settings."""
    try:
        return ContentPolicy(
            inputs=config.capture_inputs or config.capture,
            results=config.capture_results or config.capture,
            state=config.capture_state or config.capture,
            attributes=config.capture_attributes or config.capture,
            exceptions=config.capture_exceptions or config.capture,
            redact=config.redact,
            redact_keys=config.redact_keys,
            redact_values=config.redact_values,
            redactor=config.redactor,
            max_attribute_bytes=config.max_attribute_bytes,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(each for each in items(value) if isinstance(each, str))


# --- attribute values as strict JSON and back -----------------------------------------------------

# Attributes may hold what JSON cannot: NaN, bytes, integers beyond 64 bits, lone surrogates. Such a
# value becomes an object whose one key says what it is; no other value becomes an object.

_EXACT: Final[Any] = ((str, str.__str__), (int, int.__int__), (float, float.__float__))


def portable(value: Any) -> Any:
    """An attribute's value as something that `orjson` writes and every JSON reader reads."""
    if value is None or is_scalar(value):
        return value
    if isinstance(value, list | tuple):
        return [portable(item) for item in value]
    if isinstance(value, Mapping):
        return {"map": [[portable(key), portable(item)] for key, item in value.items()]}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    for kind, exact in _EXACT:  # of subclasses: enumerations, numpy's numbers
        if isinstance(value, kind):
            value = exact(value)
    if type(value) in (int, float):
        return value if is_scalar(value) else {type(value).__name__: repr(value)}
    text = text_safely(str, value)
    return text if is_scalar(text) else {"utf16": text.encode("utf-16-le", "surrogatepass").hex()}


def from_portable(value: Any) -> Any:
    """What `portable` was given, with tuples for lists."""
    if isinstance(value, list):
        return tuple(from_portable(item) for item in value)
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "utf16":
        return bytes.fromhex(held).decode("utf-16-le", "surrogatepass")
    if kind == "map":
        return {from_portable(key): from_portable(item) for key, item in held}
    if kind == "bytes":
        return base64.b64decode(held)
    if kind in ("int", "float"):
        return int(held) if kind == "int" else float(held)
    raise ValueError(f"a value of kind {kind!r} is not known; was a later version its writer?")


def is_scalar(value: Any) -> bool:
    """Whether JSON and attributes have a value in the same form."""
    kind = type(value)
    if kind is str:
        return bool(sound_text(value) == value)
    if kind is int:
        return bool(-_INT64 <= value < _INT64)
    return kind is bool or (kind is float and math.isfinite(value))
