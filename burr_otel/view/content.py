"""What a person is shown of a span's content: what the span itself says, so hidden alike."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any, Final

from burr_otel import semconv
from burr_otel.config import OtelConfig
from burr_otel.content import ContentPolicy, Kind, with_name
from burr_otel.history.content import RunContent
from burr_otel.history.read import RunTree, nest_spawned, read_run
from burr_otel.history.tree import SpanNode, session_of, writer_lives
from burr_otel.records import Raised, state_data
from burr_otel.spans.facts import RunFacts, content_policy
from burr_otel.store import Store, StoredRun, exact
from burr_otel.view.diff import MISSING, Change, Path, changes

_MOST_CHANGES: Final = 20_000  # of all steps together; finding out what to hide takes long
_MOST_BYTES: Final = 1024 * 1024  # of one value; a span's own limit is that of backends
_HIDDEN: Final = "[not captured]"
_PARTS: Final = {
    "inputs": semconv.INPUTS,
    "result": semconv.RESULT,
    "state": semconv.STATE_WRITTEN,
}
INTERNAL_KEYS: Final = ("__SEQUENCE_ID", "__PRIOR_STEP")  # Burr's own, of no meaning to a user


def reader_policy() -> ContentPolicy:
    """The reader's own policy, from the settings of the environment."""
    return content_policy(OtelConfig.resolve())


def load(
    run: StoredRun,
    store: Store,
    policy: ContentPolicy,
    *,
    details: bool = False,
    unredacted: bool = False,
    ends: tuple[int, int] | None = None,
) -> RunTree:
    """Read a run of a store and the runs that it spawned; with `ends`, see `read_run`."""
    alive_of = writer_lives()

    def read(stored: StoredRun) -> RunTree:
        shown = ShownContent(stored, policy, details=details, unredacted=unredacted)
        return read_run(stored, alive_of(stored), shown, ends)

    view = read(run)
    nest_spawned(view, lambda app_id: read(store.read(app_id)) if store.exists(app_id) else None)
    return view


class ShownContent:
    """Fills `failure` of a run's spans and redacts their names; `details` and `attributes` too."""

    def __init__(
        self, run: StoredRun, policy: ContentPolicy, *, details: bool, unredacted: bool = False
    ) -> None:
        policy = ContentPolicy(redact=False) if unredacted else policy
        policy = dataclasses.replace(policy, max_attribute_bytes=_MOST_BYTES)
        self.run, self._details, self._changes_left = run, details, _MOST_CHANGES
        self._content = RunContent(run, policy, unredacted=unredacted)

    def __call__(self, span: SpanNode) -> None:
        """Fill one span."""
        session = session_of(span)
        if span.kind == "application":
            if session.initial:
                told = self._content.of(span).attributes.get(semconv.STATE_INITIAL)
                span.details["initial"] = None if told is None else _tree(told)
            return
        facts = self._content.facts(session)
        if span.kind == "span":  # user code chose its name
            span.name = facts.policy.name(span.name)
        if self._details or span.is_bad or getattr(span.end, "raised", None) is not None:
            self._fill(span, facts)

    def value(self, span: SpanNode, kind: Kind, whole: Any, path: Path, value: Any) -> Any:
        """A value in `whole`, content of a kind, as a person may see it."""
        if value is MISSING:
            return value
        policy = self._content.facts(session_of(span)).policy
        containers, nested = list[Any](), value
        for part in path[:-1] if getattr(policy, kind) == "full" else ():
            whole = whole[part]
            containers.append(whole)
        for container, part in zip(reversed(containers), reversed(path[1:]), strict=False):
            nested = with_name(container, part, nested)
        shown = policy.attribute(str(path[0]) if path else "", nested, kind)
        if shown is None:
            return _HIDDEN
        tree = _tree(shown.value, None if containers else value)
        for _ in containers:
            if not isinstance(tree, dict | list) or not tree:
                break
            tree = list(tree.values())[-1] if isinstance(tree, dict) else tree[-1]
        return tree

    def _fill(self, span: SpanNode, facts: RunFacts) -> None:
        content = self._content.of(span)
        exceptions = [each for each in content.events if each.name == semconv.EVENT_EXCEPTION]
        if exceptions:
            told = exceptions[-1].attributes
            names = semconv.EXCEPTION_TYPE, semconv.EXCEPTION_MESSAGE, semconv.EXCEPTION_STACKTRACE
            span.failure = Raised(*(str(told.get(name, "")) for name in names))
        elif content.status.description and span.outcome == semconv.FAILED:
            span.failure = Raised("", content.status.description, "")
        if not self._details:
            return
        for part, name in _PARTS.items():
            if name in content.attributes:
                span.details[part] = _tree(content.attributes[name])
        if span.kind == "step":
            self._compare_states(span, facts)
        for each in span.logged:
            name = facts.policy.name(each.key)
            if name in content.attributes:
                span.attributes[name] = _tree(content.attributes[name], each.value.value)

    def _compare_states(self, span: SpanNode, facts: RunFacts) -> None:
        """What a step read of the state before it, and what it made of it."""
        action = facts.action(span.name)
        found = None if span.before is None else span.before.state
        if found is not None and action.reads:
            parts = {key: found[key] for key in action.reads if key in found}
            read = facts.policy.shown("state", parts)
            if read is not None:
                span.details["read"] = _tree(read.value)
        before, after = whole_state(span.before), whole_state(span.end)
        if after is None or self._changes_left <= 0:
            return
        if before is None:  # not in the log: then what the action does not write is as it was
            before = {
                key: after[key] for key in after if action.writes and key not in action.writes
            }
        changed = [
            Change(
                path,
                self.value(span, "state", before, path, old),
                self.value(span, "state", after, path, new),
            )
            for path, old, new in changes(before, after)
        ]
        span.details["changes"] = changed
        self._changes_left -= len(changed)


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


def recorded_state(record: Any) -> dict[str, Any] | None:
    """The state in a record as its JSON has it; None without one."""
    state = getattr(record, "state", None)
    return None if state is None else dict(state_data(state))


def whole_state(record: Any) -> dict[str, Any] | None:
    """The state in a record with its exact values, without Burr's own keys; None without one."""
    values = recorded_state(record)
    if values is None:
        return None
    # An enumeration stays the text that stands for it: nothing is imported that a log names.
    patches = [patch for patch in exact_patches(record) if '"enum"' not in json.dumps(patch)]
    if patches:
        values = copy.deepcopy(values)  # the record may be read again
        exact.restore(values, patches)
    return {key: value for key, value in values.items() if key not in INTERNAL_KEYS}


def exact_patches(record: Any) -> list[Any]:
    """What JSON cannot say of the values in a record's state."""
    patches = record.otel.get("exact")
    return patches if isinstance(patches, list) else []
