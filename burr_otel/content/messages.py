"""The messages of a model's call as the GenAI conventions write them, where they are plain to see.

A message is a dict with a role, in the form of OpenAI, Anthropic or Google; or a text under one of
the names that people give to prompts and answers. What is found is shown as the value that it is
part of, and put into the form of the conventions after that: what hides the one hides the other.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import orjson

from burr_otel.content.objects import Failure, call_safely
from burr_otel.content.policy import Attribute, ContentPolicy, Kind
from burr_otel.content.prune import fit

_MOST_BYTES: Final = 4 * 1024  # of earlier messages: the spans of earlier steps have them
_PROMPTS: Final = ("prompt", "question", "query", "message", "user_input", "input")
_ANSWERS: Final = (
    *("response", "answer", "reply", "completion"),
    *("output", "message", "content", "text"),
)
_TEXTS: Final = (None, "text", "input_text", "output_text")

Source = tuple[Kind, Mapping[str, Any]]


def shown_messages(
    policy: ContentPolicy, role: Literal["user", "assistant"], *sources: Source
) -> Attribute | None:
    """The first messages in `sources`, newest last; lists of them count for more than texts.

    `role` is whose a text without one is. Never raises.
    """
    made = call_safely(_shown, policy, role, sources)
    return None if isinstance(made, Failure) else made


def new_messages(before: Any, after: Any) -> Any:
    """The messages that a step added; of other values, the value."""
    if type(after) is not list or not after:
        return after
    if type(before) is list and len(before) < len(after):
        return after[len(before) :]
    return after[-1:]


def _shown(policy: ContentPolicy, role: str, sources: tuple[Source, ...]) -> Attribute | None:
    found = _found(_PROMPTS if role == "user" else _ANSWERS, sources)
    if found is None:
        return None
    kind, key, value, is_part = found
    document = policy.document(kind, {key: value})
    tree = None if document is None else orjson.loads(str(document.value))
    told = tree.get(key) if type(tree) is dict else None
    if type(told) is str and type(value) is str:
        told = [{"role": role, "content": told}]
    if document is None or type(told) is not list:
        return None
    messages = [_message(each, role) for each in told if _is_message(each)]
    data, cut = fit(messages, policy.max_attribute_bytes)
    return Attribute(data.decode(), document.truncated or is_part or cut)


def _found(names: Sequence[str], sources: tuple[Source, ...]) -> tuple[Kind, str, Any, bool] | None:
    """Where messages are, the newest of them, and whether there are earlier ones."""
    values = [(kind, key, value) for kind, given in sources for key, value in given.items()]
    for kind, key, value in values:
        newest = _newest(value)
        if newest:
            return kind, key, newest, type(value) is list and len(newest) < len(value)
    for kind, key, value in values:
        if key in names and value and type(value) is str:
            return kind, key, value, False
    return None


def _newest(value: Any) -> list[Any] | None:
    """The newest of a list of messages, as many as are worth repeating; None: there are none."""
    messages = [value] if type(value) is dict else value
    if type(messages) is not list or not messages or not _is_message(messages[-1]):
        return None
    found: list[Any] = []
    left = _MOST_BYTES
    for message in reversed(messages):
        left -= len(orjson.dumps(message))
        if (left < 0 and found) or not _is_message(message):
            break
        found.insert(0, message)
    return found


def _is_message(value: Any) -> bool:
    is_dict = type(value) is dict and type(value.get("role")) is str
    return is_dict and not value.keys().isdisjoint(("content", "parts", "tool_calls"))


def _message(message: dict[str, Any], role: str) -> dict[str, Any]:
    content = message.get("content", message.get("parts"))
    blocks = content if type(content) is list else [] if content is None else [content]
    if message["role"] == "tool":
        blocks = [{**message, "type": "tool_result", "content": content}]
    parts = [_part(each) for each in blocks]
    calls = message.get("tool_calls")
    for call in calls if type(calls) is list else ():
        function = call.get("function", call)
        parts.append(_tool_call(call.get("id"), function, "arguments"))
    written = {"role": message["role"], "parts": parts}
    if role == "assistant":
        asks = any(part.get("type") == "tool_call" for part in parts)
        written["finish_reason"] = "tool_call" if asks else "stop"
    return written


def _tool_call(identity: Any, call: dict[str, Any], arguments: str) -> dict[str, Any]:
    told = {"name": call.get("name"), "arguments": call.get(arguments)}
    return {"type": "tool_call", "id": identity, **told}


def _part(block: Any) -> dict[str, Any]:
    if type(block) is not dict:
        return {"type": "text", "content": block if type(block) is str else str(block)}
    kind = block.get("type")
    if kind == "tool_use":
        return _tool_call(block.get("id"), block, "input")
    if "tool_call_id" in block or kind == "tool_result":
        identity = block.get("tool_call_id", block.get("tool_use_id"))
        return {"type": "tool_call_response", "id": identity, "response": block.get("content")}
    text = block.get("text", block.get("content"))
    if kind in _TEXTS and type(text) is str:
        return {"type": "text", "content": text}
    return {"type": "other", **block}
