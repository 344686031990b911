"""What a person is shown of a span's content: what the span itself says, so hidden alike."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from burr_otel import semconv
from burr_otel.config import OtelConfig
from burr_otel.content import ContentPolicy
from burr_otel.history.content import RunContent, session_of
from burr_otel.history.tree import SpanNode
from burr_otel.records import BeginRoot, EndStep, Raised, state_data
from burr_otel.spans.describe import SpanContent
from burr_otel.spans.facts import content_policy
from burr_otel.store import StoredRun, exact
from burr_otel.view.diff import MISSING, Change, changes

_MOST_CHANGES: Final = 20_000  # of all steps together; finding out what to hide takes long
_MOST_BYTES: Final = 1024 * 1024  # of one value; a span's own limit is that of backends
HIDDEN: Final = "[not captured]"
_PARTS: Final = {
    "inputs": semconv.INPUTS,
    "result": semconv.RESULT,
    "state": semconv.STATE_WRITTEN,
}


ShowValue = Callable[[tuple[Any, ...], Any], Any]
"""Gives a recorded value as a person may see it, by the keys that lead to it."""

INTERNAL_KEYS: Final = ("__SEQUENCE_ID", "__PRIOR_STEP")  # Burr's own, of no meaning to a user


def reader_policy() -> ContentPolicy:
    """The reader's own policy, from the settings of the environment.

    Raises:
        ConfigError: A setting cannot be used.
    """
    return content_policy(OtelConfig.resolve())


def _view_policy(policy: ContentPolicy, *, unredacted: bool) -> ContentPolicy:
    """The policy by which values are shown to a person."""
    if unredacted:
        return ContentPolicy(redact=False, max_attribute_bytes=_MOST_BYTES)
    return dataclasses.replace(policy, max_attribute_bytes=_MOST_BYTES)


class ShownContent:
    """Fills `failure`, `details` and `attributes` of the spans of a run, and redacts their names.

    Without `details` nothing else than failures and names is looked at: a waterfall shows no more.
    """

    def __init__(
        self, run: StoredRun, policy: ContentPolicy, *, details: bool, unredacted: bool = False
    ) -> None:
        self._details, self._changes_left = details, _MOST_CHANGES
        self._policy = _view_policy(policy, unredacted=unredacted)
        self._content = RunContent(run, self._policy, unredacted=unredacted)

    def __call__(self, span: SpanNode) -> None:
        """Fill one span."""
        if span.kind == "span":  # user code chose its name
            span.name = self._content.facts(session_of(span)).policy.name(span.name)
        if span.kind == "application":
            self._initial(span)
        elif self._details or span.is_bad or getattr(span.end, "raised", None) is not None:
            self._fill(span, self._content.of(span))

    def value(self, span: SpanNode, path: tuple[Any, ...], value: Any) -> Any:
        """A recorded value as a person may see it, given the keys that lead to it."""
        session = session_of(span)
        if self._content.is_hidden(session):
            return HIDDEN
        policy = self._content.facts(session).policy
        policy = dataclasses.replace(policy, attributes=policy.state)
        nested = value
        for part in reversed(path[1:]):
            nested = {part: nested} if isinstance(part, str) else [nested]
        shown = policy.attribute(str(path[0]) if path else "", nested)
        if shown is None:
            return HIDDEN
        tree = _tree(shown.value, value if len(path) <= 1 else None)
        for _ in path[1:]:
            if isinstance(tree, dict) and len(tree) == 1:
                (tree,) = tree.values()
            elif isinstance(tree, list) and len(tree) == 1:
                (tree,) = tree
            else:
                break
        return tree

    def _initial(self, span: SpanNode) -> None:
        session = session_of(span)
        if session.initial and self._content.facts(session).policy.state != "off":
            span.details["initial"] = _tree(session.initial)

    def _fill(self, span: SpanNode, content: SpanContent) -> None:
        exceptions = [each for each in content.events if each.name == semconv.EVENT_EXCEPTION]
        if exceptions:
            span.failure = _failure(exceptions[-1].attributes or {})
        elif content.status.description and span.outcome == semconv.FAILED:
            span.failure = Raised("", content.status.description, "")
        if not self._details:
            return
        for part, name in _PARTS.items():
            if name in content.attributes:
                span.details[part] = _tree(content.attributes[name])
        if span.kind == "step":
            self._read(span)
            self._changes(span)
        names = {self._policy.name(each.key): each for each in span.logged}
        span.attributes = {
            name: _tree(content.attributes[name], each.value.value)
            for name, each in names.items()
            if name in content.attributes
        }

    def _changes(self, span: SpanNode) -> None:
        """What the step made of the state before it."""
        before, after = whole_state(span.before), whole_state(span.end)
        if after is None or self._changes_left <= 0:
            return
        if before is None:  # not in the log: then what the action does not write is as it was
            writes = self._content.facts(session_of(span)).action(span.name).writes
            before = {key: after[key] for key in after if writes and key not in writes}
        show = functools.partial(self.value, span)
        span.details["changes"] = shown_changes(before, after, show, show)
        self._changes_left -= len(span.details["changes"])

    def _read(self, span: SpanNode) -> None:
        """What the step read of the state before it."""
        facts = self._content.facts(session_of(span))
        reads = facts.action(span.name).reads
        state = None if span.before is None else span.before.state
        if state is None or not reads:
            return
        parts = {key: state[key] for key in reads if key in state}
        shown = facts.policy.shown_parts("state", parts)
        if shown is not None:
            span.details["read"] = _tree(shown.value)


def _failure(told: Mapping[str, Any]) -> Raised:
    names = semconv.EXCEPTION_TYPE, semconv.EXCEPTION_MESSAGE, semconv.EXCEPTION_STACKTRACE
    return Raised(*(str(told.get(name, "")) for name in names))


def _tree(value: Any, recorded: Any = None) -> Any:
    """An attribute's value as data: structured values are JSON texts on a span."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, str) and not isinstance(recorded, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def shown_changes(
    before: Any, after: Any, show_before: ShowValue, show_after: ShowValue
) -> list[Change]:
    """The differences between two values, with both sides as a person may see them."""
    return [
        Change(
            change.path,
            MISSING if change.before is MISSING else show_before(change.path, change.before),
            MISSING if change.after is MISSING else show_after(change.path, change.after),
        )
        for change in changes(before, after)
    ]


def whole_state(record: EndStep | BeginRoot | Any) -> dict[str, Any] | None:
    """The state in a record with its exact values, without Burr's own keys; None without one."""
    state = getattr(record, "state", None)
    if state is None:
        return None
    values = dict(state_data(state))
    patches = record.otel.get("exact")
    if patches:
        values = copy.deepcopy(values)  # the record may be read again
        try:
            exact.restore(values, patches)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError):
            values = dict(state_data(state))  # the patches are damaged
    return {key: value for key, value in values.items() if key not in INTERNAL_KEYS}
