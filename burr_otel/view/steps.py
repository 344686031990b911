"""One step of a run in full: what went in, what came out, what it did to the state."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Final

from burr_otel.errors import StoreError
from burr_otel.history.read import read_run
from burr_otel.history.settle import Alive
from burr_otel.history.tree import RunTree, SpanNode
from burr_otel.records import BeginRoot, EndStep
from burr_otel.store import StoredRun, exact
from burr_otel.view.content import ShownContent
from burr_otel.view.diff import MISSING, Change, changes

ShowValue = Callable[[tuple[Any, ...], Any], Any]
"""Gives a recorded value as a person may see it, by the keys that lead to it."""

INTERNAL_KEYS: Final = ("__SEQUENCE_ID", "__PRIOR_STEP")  # Burr's own, of no meaning to a user


class UnknownStepError(StoreError):
    """The run has no such step; the message says which it has."""

    def __init__(self, run: str, sequence_id: int, known: list[int]) -> None:
        steps = f"steps {known[0]} to {known[-1]}" if known else "no steps yet"
        super().__init__(f"{run} has no step {sequence_id}; it has {steps}.")


@dataclasses.dataclass(slots=True)
class StepDetails:
    """What the newest step of a number did to the state, as a person may see it.

    `times` tells how often the log has the step; `after` is None when it never ended.
    """

    times: int = 0
    before: dict[str, Any] = dataclasses.field(default_factory=dict)
    after: dict[str, Any] | None = None
    changes: list[Change] = dataclasses.field(default_factory=list)


def read_step(
    run: StoredRun, alive: Alive, sequence_id: int, content: ShownContent
) -> tuple[RunTree, SpanNode, StepDetails]:
    """Read a run, and of the newest step of a number what it did.

    Raises:
        UnknownStepError: It was never begun.
        OSError: The log cannot be read.
    """
    found: list[tuple[SpanNode, StepDetails]] = []

    def show(span: SpanNode) -> None:
        content(span)
        is_meant = span.kind == "step" and span.sequence_id == sequence_id
        if is_meant and (not found or span.order > found[0][0].order):
            found[:] = [(span, _details(span, content))]

    tree = read_run(run, alive, show)
    numbers = [step.sequence_id for step in tree.steps if step.sequence_id is not None]
    if not found:
        raise UnknownStepError(f"{run.project}/{run.app_id}", sequence_id, sorted(set(numbers)))
    span, details = found[0]
    details.times = numbers.count(sequence_id)
    return tree, span, details


def _details(span: SpanNode, content: ShownContent) -> StepDetails:
    before, after = whole_state(span.before), whole_state(span.end)
    found = StepDetails(before=_shown(span, before or {}, content))
    if after is not None:
        found.after = _shown(span, after, content)
        show = functools.partial(content.value, span)
        found.changes = shown_changes(before or {}, after, show, show)
    return found


def _shown(span: SpanNode, state: dict[str, Any], content: ShownContent) -> dict[str, Any]:
    return {key: content.value(span, (key,), value) for key, value in state.items()}


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
    values = dict(state.values_by_key)
    patches = record.otel.get("exact")
    if patches:
        values = copy.deepcopy(values)  # the record may be read again
        try:
            exact.restore(values, patches)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError):
            values = dict(state.values_by_key)  # the patches are damaged
    return {key: value for key, value in values.items() if key not in INTERNAL_KEYS}
