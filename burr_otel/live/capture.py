"""Values as the hooks see them -> what records hold of them.

What is plain JSON goes into a record as it is, and spans are described from that later. All other
values are shown here, in the hook, and the record carries the result: so does everything when the
user gave a function that redacts, which no later reader has.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import orjson
from opentelemetry import baggage

from burr_otel import semconv
from burr_otel.content import (
    Attribute,
    capture_exception,
    new_messages,
    shown_messages,
    text_safely,
)
from burr_otel.errors import SnapshotError
from burr_otel.records import NO_DOCUMENT, Document, Logged, Raised, sound_text
from burr_otel.store import EncodedState
from burr_otel.store.values import encode_mapping, encode_state, encode_value

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from burr_otel.config import OtelConfig
    from burr_otel.live.shared import Shared
    from burr_otel.live.step import LiveStep

OPENINFERENCE: Final = "openinference.instrumentation"

Shown = dict[str, Any]
"""Attributes that a record carries as spans show them."""
Digests = Mapping[str, "int | None"]
"""A checksum of each value of a state; None for what is no JSON."""

_MOST_EXCEPTION_BYTES: Final = 64 * 1024
_MOST_LOGGED_BYTES: Final = 4 * 1024
_NULL: Final = Document(b"null")
_NAMES: Final = (semconv.ACTION_NAME, semconv.GRAPH_NODE_ID, semconv.GEN_AI_TOOL_NAME)


def show(shown: Shown, name: str, content: Attribute | None) -> None:
    """Put content into `shown`."""
    if content is None:
        return
    shown[name] = content.value
    if content.truncated:
        shown.setdefault(semconv.TRUNCATED, []).append(name)


def captured(
    step: LiveStep, kind: Literal["inputs", "results"], values: Mapping[str, Any], shown: Shown
) -> tuple[Document, bool]:
    """Inputs or a result as JSON, and whether that says all; if not, `shown` gets the rest."""
    shared, exact, document = step.shared, False, NO_DOCUMENT
    if shared.keeps:  # else showing takes a bounded time, whatever the values; encoding does not
        what = "input" if kind == "inputs" else "result"
        text, exact = encode_mapping(
            values, serde_kwargs=shared.serde_kwargs, run=step.run, what=what
        )
        document = Document(text)
    if not shared.keeps or (shared.starter is not None and (not exact or shared.policy.asks_user)):
        name = semconv.INPUTS if kind == "inputs" else semconv.RESULT
        show(shown, name, shared.policy.document(kind, values))
    return document, exact


def show_names(step: LiveStep, prior: str | None, shown: Shown) -> None:
    """Put names into `shown` if the user has a say in what is shown of them."""
    policy, action = step.shared.policy, step.action
    if not policy.asks_user:
        return
    shown |= {
        name: value
        for name, value in action.attributes.items()
        if value != action.name and isinstance(value, str) and name in _NAMES
    }
    if prior is not None:
        shown[semconv.GRAPH_NODE_PARENT_ID] = policy.name(prior)


def show_prompt(step: LiveStep, inputs: Mapping[str, Any], shown: Shown) -> None:
    """Put the messages that a step asks a model with into `shown`, if it has them."""
    state = step.state_before
    read = {key: state[key] for key in step.action.reads if key in state}
    found = shown_messages(step.shared.policy, "user", ("inputs", inputs), ("state", read))
    show(shown, semconv.GEN_AI_INPUT_MESSAGES, found)


def show_answer(step: LiveStep, state: Any, result: Any, shown: Shown) -> None:
    """Put the messages that a model gave into `shown`, if the step has them."""
    before, results = step.state_before, result if isinstance(result, Mapping) else {}
    given = {key: new_messages(None, value) for key, value in results.items()}
    keys = [key for key in step.action.writes if key in state]
    written = {key: new_messages(before.get(key), state[key]) for key in keys}
    found = shown_messages(step.shared.policy, "assistant", ("results", given), ("state", written))
    show(shown, semconv.GEN_AI_OUTPUT_MESSAGES, found)


def show_state(
    step: LiveStep, state: Any, encoded: EncodedState | None, shown: Shown, *, failed: bool
) -> None:
    """Put the state that a step wrote, or read and failed, into `shown` if JSON says not all."""
    policy, action = step.shared.policy, step.action
    present = [key for key in (action.reads if failed else action.writes) if key in state]
    if encoded is not None and not policy.asks_user and all(map(encoded.is_exact, present)):
        return
    name = semconv.STATE_READ if failed else semconv.STATE_WRITTEN
    show(shown, name, policy.document("state", {key: state[key] for key in present}))


def raised_of(error: BaseException) -> Raised:
    """An exception as bounded texts, which keep none of its frames alive."""
    return capture_exception(error, _MOST_EXCEPTION_BYTES)


def show_attribute(shared: Shared, run: str, key: Any, value: Any) -> tuple[Document, Any]:
    """A logged value as a record holds it, and as it is shown if the JSON does not say all."""
    if not shared.keeps:
        content = shared.policy.attribute(str(key), value)
        return _NULL, None if content is None else [content.value, content.truncated]
    text, exact = encode_value(
        value, serde_kwargs=shared.serde_kwargs, run=run, what=f"attribute {key!r}"
    )
    content = None
    if not exact or shared.policy.asks_user:
        content = shared.policy.attribute(str(key), value)
    return Document(text), None if content is None else [content.value, content.truncated]


def light(shared: Shared, record: Logged, value: Any) -> Logged:
    """A logged attribute as its span holds it until somebody looks: no more than it will show."""
    if record.shown is None:
        if len(record.value.text) <= _MOST_LOGGED_BYTES:
            return record
        content = shared.policy.attribute(record.key, value)
        shown = None if content is None else [content.value, content.truncated]
        record = record._replace(shown=shown)
    return record._replace(value=_NULL)


def held_bytes(logged: Iterable[Logged], raised: Raised | None) -> int:
    """What an ended span holds of these until it is described."""
    size_bytes = sum(len(each.value.text) for each in logged)
    return size_bytes if raised is None else size_bytes + sum(map(len, raised))


def surrounding_attributes(config: OtelConfig, context: Context) -> dict[str, Any]:
    """What OpenInference's `using_attributes` set here, and the wanted baggage."""
    found: dict[str, Any] = {}
    if OPENINFERENCE in sys.modules:
        told = getattr(sys.modules[OPENINFERENCE], "get_attributes_from_context", None)
        for key, value in () if told is None else told():
            is_list = isinstance(value, list | tuple)
            found[key] = list(map(_text, value)) if is_list else _text(value)
    for key in config.baggage_keys:
        value = baggage.get_baggage(key, context)
        if value is not None:
            found[key] = _text(value)
    return found


def _text(value: Any) -> str:
    return sound_text(text_safely(str, value))


# --- what an application begins with ----------------------------------------------------------

# It tells which branch a spawned application is. Its siblings are not known, and may be in other
# processes; but all of them began with the state of the step that spawned them, so what equals that
# state is common to all.


def state_digests(state: Any) -> Digests:
    """A checksum of each value of a state; None for what is no JSON."""
    return {key: _digest(value) for key, value in _public(state).items()}


def differing(state: Any, digests: Digests) -> dict[str, Any]:
    """The keys of a state that are new, or whose values are known to be others."""
    return {
        key: value
        for key, value in _public(state).items()
        if key not in digests or (digests[key] is not None and digests[key] != _digest(value))
    }


def found_by_step(
    state: Any, keys: tuple[str, ...], serde_kwargs: Mapping[str, Any], run: str
) -> EncodedState:
    """The values of a state that a step may go on from: lists and texts that it writes."""
    wanted = {key: state[key] for key in keys if key in state and type(state[key]) in (list, str)}
    try:
        return encode_state(wanted, serde_kwargs=serde_kwargs, run=run, sequence_id=None)
    except SnapshotError:  # the step's end tells of it
        return EncodedState({}, {})


def _public(state: Any) -> dict[str, Any]:
    return {key: value for key, value in state.get_all().items() if not key.startswith("__")}


def _digest(value: Any) -> int | None:
    try:
        return zlib.crc32(orjson.dumps(value))
    except orjson.JSONEncodeError:
        return None
