"""One step of a run in full: what went in, what came out, what it did to the state."""

from __future__ import annotations

import dataclasses
from typing import Any

from burr_otel.errors import StoreError
from burr_otel.history.read import read_run
from burr_otel.history.settle import Alive
from burr_otel.history.tree import RunTree, SpanNode
from burr_otel.store import StoredRun
from burr_otel.view.content import ShownContent, whole_state
from burr_otel.view.diff import Change


class UnknownStepError(StoreError):
    """The run has no such step; the message says which it has."""

    def __init__(self, run: str, sequence_id: int | None, known: list[int]) -> None:
        steps = f"steps {known[0]} to {known[-1]}" if known else "no steps yet"
        meant = "such step" if sequence_id is None else f"step {sequence_id}"
        super().__init__(f"{run} has no {meant}; it has {steps}.")


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
        if span.sequence_id != sequence_id:
            return
        content(span)
        if span.kind == "step" and (not found or span.order > found[0][0].order):
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
        found.changes = span.details["changes"]
    return found


def _shown(span: SpanNode, state: dict[str, Any], content: ShownContent) -> dict[str, Any]:
    return {key: content.value(span, (key,), value) for key, value in state.items()}
