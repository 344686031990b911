"""What every step of an action says of it."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from burr_otel import semconv

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.util.types import AttributeValue

__all__ = ["KINDS", "ActionFacts", "action_facts"]

logger = logging.getLogger("burr_otel")


_INJECTED = {"__tracer", "__context"}
_MOST_SHARED = 1024
_shared: dict[Any, ActionFacts] = {}


class Kind(NamedTuple):
    """What an action of a kind is called in the conventions.

    Attributes:
        openinference: Value of ``openinference.span.kind``.
        operation: Value of ``gen_ai.operation.name``, if the GenAI conventions have one.
        name_attribute: Attribute that holds the action's name, if they have one.
    """

    openinference: str
    operation: str | None = None
    name_attribute: str | None = None


KINDS = {
    "chain": Kind("CHAIN"),
    "llm": Kind("LLM", "chat"),
    "tool": Kind("TOOL", "execute_tool", semconv.GEN_AI_TOOL_NAME),
    "agent": Kind("AGENT", "invoke_agent", semconv.GEN_AI_AGENT_NAME),
    "retriever": Kind("RETRIEVER", "retrieval"),
}
"""What follows ``otel.kind:`` in a tag of an action."""


class ActionFacts(NamedTuple):
    """An action, as its spans describe it.

    Attributes:
        inputs: Names of the inputs that it takes.
    """

    name: str
    writes: tuple[str, ...]
    inputs: frozenset[str]
    attributes: dict[str, AttributeValue]


def action_facts(action: Any, shown: Callable[[str], str]) -> ActionFacts:
    """Name, reads, writes, tags, kind and place of definition of a Burr action.

    Args:
        action: Burr's.
        shown: A name of the user's as a span may carry it.
    """
    kind = _kind(action, shown)
    name = shown(action.name)
    attributes: dict[str, AttributeValue] = {
        semconv.ACTION_NAME: name,
        semconv.ACTION_READS: tuple(map(shown, action.reads)),
        semconv.ACTION_WRITES: tuple(map(shown, action.writes)),
        semconv.OPENINFERENCE_SPAN_KIND: kind.openinference,
        semconv.GRAPH_NODE_ID: name,
    }
    if kind.operation is not None:
        attributes[semconv.GEN_AI_OPERATION_NAME] = kind.operation
    if kind.name_attribute is not None:
        attributes[kind.name_attribute] = name
    if action.tags:
        attributes[semconv.ACTION_TAGS] = tuple(map(shown, action.tags))
    attributes.update(_code_attributes(action))
    required, optional = action.optional_and_required_inputs
    inputs = frozenset(required | optional) - _INJECTED
    facts = ActionFacts(action.name, tuple(action.writes), inputs, attributes)
    if len(_shared) >= _MOST_SHARED:
        _shared.clear()
    # A web server builds the same application for every request.
    return _shared.setdefault((facts[:3], tuple(attributes.items())), facts)


def _kind(action: Any, shown: Callable[[str], str]) -> Kind:
    for tag in action.tags:
        if tag.startswith(semconv.KIND_TAG_PREFIX):
            word = tag[len(semconv.KIND_TAG_PREFIX) :].strip().lower()
            if word in KINDS:
                return KINDS[word]
            logger.warning(
                "action %r has the tag %r, which names no kind of span; allowed are %s. "
                "It is shown as a chain.",
                shown(action.name),
                shown(tag),
                ", ".join(semconv.KIND_TAG_PREFIX + each for each in KINDS),
            )
    return KINDS["chain"]


def _code_attributes(action: Any) -> dict[str, AttributeValue]:
    function = getattr(action, "fn", None)
    if function is None:
        method = "run_and_update" if action.single_step else "run"
        function = getattr(type(action), method, None)
    function = inspect.unwrap(function) if callable(function) else None
    code = getattr(function, "__code__", None)
    if function is None or code is None:
        return {}
    return {
        semconv.CODE_FUNCTION_NAME: f"{function.__module__}.{function.__qualname__}",
        semconv.CODE_FILE_PATH: code.co_filename,
        semconv.CODE_LINE_NUMBER: code.co_firstlineno,
    }
