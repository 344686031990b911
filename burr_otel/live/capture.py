"""Values as the hooks see them -> what records hold of them.

What is plain JSON goes into a record as it is, and spans are described from that later. All other
values are shown here, in the hook, and the record carries the result: so does everything when the
user gave a function that redacts, which no later reader has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from burr_otel import semconv
from burr_otel.content import capture_exception, new_messages, shown_messages
from burr_otel.records import NO_DOCUMENT, Document, Raised
from burr_otel.spans.describe import exception_attributes
from burr_otel.store import encode_mapping, encode_value

if TYPE_CHECKING:
    from burr_otel.content import Attribute, ContentPolicy
    from burr_otel.live.shared import Shared
    from burr_otel.records import Logged
    from burr_otel.spans.facts import ActionFacts
    from burr_otel.store import EncodedState

_MOST_EXCEPTION_BYTES: Final = 64 * 1024
_MOST_LOGGED_BYTES: Final = 4 * 1024
_NULL: Final = Document(b"null")
_NAMES: Final = (semconv.ACTION_NAME, semconv.GRAPH_NODE_ID, semconv.GEN_AI_TOOL_NAME)


def show(shown: dict[str, Any], name: str, content: Attribute | None) -> None:
    """Put content into `shown`, the attributes that a record carries as spans show them."""
    if content is None:
        return
    shown[name] = content.value
    if content.truncated:
        shown.setdefault(semconv.TRUNCATED, []).append(name)


def captured(
    shared: Shared,
    run: str,
    kind: Literal["inputs", "results"],
    name: str,
    values: Mapping[str, Any],
    shown: dict[str, Any],
) -> tuple[Document, bool]:
    """Inputs or a result as JSON, and whether that says all; if not, `shown` gets the rest."""
    if not values:
        return NO_DOCUMENT, True
    if not shared.keeps:  # showing takes a bounded time, whatever the values; encoding does not
        show(shown, name, shared.policy.document(kind, values))
        return NO_DOCUMENT, False
    what = "input" if kind == "inputs" else "result"
    text, exact = encode_mapping(values, serde_kwargs=shared.serde_kwargs, run=run, what=what)
    if shared.starter is not None and (not exact or shared.policy.asks_user):
        show(shown, name, shared.policy.document(kind, values))
    return Document(text), exact


def show_prompt(
    policy: ContentPolicy,
    action: ActionFacts,
    inputs: Mapping[str, Any],
    state: Any,
    shown: dict[str, Any],
) -> None:
    """Put the messages that a step asks a model with into `shown`, if it has them."""
    read = {key: state[key] for key in action.reads if key in state}
    found = shown_messages(policy, "user", ("inputs", inputs), ("state", read))
    show(shown, semconv.GEN_AI_INPUT_MESSAGES, found)


def show_answer(
    policy: ContentPolicy,
    action: ActionFacts,
    before: Any,
    state: Any,
    result: Any,
    shown: dict[str, Any],
) -> None:
    """Put the messages that a model gave into `shown`, if the step has them."""
    results = result if isinstance(result, Mapping) else {}
    given = {key: new_messages(None, value) for key, value in results.items()}
    written = {
        key: new_messages(before.get(key), state[key]) for key in action.writes if key in state
    }
    found = shown_messages(policy, "assistant", ("results", given), ("state", written))
    show(shown, semconv.GEN_AI_OUTPUT_MESSAGES, found)


def show_state(
    policy: ContentPolicy,
    name: str,
    keys: tuple[str, ...],
    state: Any,
    encoded: EncodedState | None,
    shown: dict[str, Any],
) -> None:
    """Put a part of a state into `shown` if its JSON does not say all of it."""
    present = [key for key in keys if key in state]
    if encoded is not None and not policy.asks_user and all(map(encoded.is_exact, present)):
        return
    show(shown, name, policy.document("state", {key: state[key] for key in present}))


def raised_of(error: BaseException) -> Raised:
    """An exception as bounded texts, which keep none of its frames alive."""
    return Raised(*capture_exception(error, _MOST_EXCEPTION_BYTES))


def show_exception(policy: ContentPolicy, raised: Raised, shown: dict[str, Any]) -> None:
    """Put an exception into `shown` if the user has a say in what is shown of it."""
    if policy.asks_user:
        shown |= exception_attributes(policy, raised)


def show_names(
    policy: ContentPolicy, action: ActionFacts, prior: str | None, shown: dict[str, Any]
) -> None:
    """Put names into `shown` if the user has a say in what is shown of them."""
    if not policy.asks_user:
        return
    shown |= {
        name: value
        for name, value in action.attributes.items()
        if value != action.name and isinstance(value, str) and name in _NAMES
    }
    if prior is not None:
        shown[semconv.GRAPH_NODE_PARENT_ID] = policy.name(prior)


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
