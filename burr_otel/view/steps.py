"""Steps of runs one by one: one in full, and where the steps of two runs part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from typing import Any, Final, NamedTuple

from burr_otel.content import Kind
from burr_otel.errors import StoreError
from burr_otel.history.fold import Fold
from burr_otel.history.tree import SpanNode, writer_lives
from burr_otel.store import StoredRun
from burr_otel.view.content import ShownContent, whole_state
from burr_otel.view.diff import Change, changes
from burr_otel.view.find import NoSingleRunError


def steps_of(run: StoredRun) -> Iterator[SpanNode]:
    """The steps of a run, each with its records and the spans in it; none is kept."""
    spans = Fold.of_run(run, keep=False).spans(run.records(), writer_lives()(run))
    return (span for span in spans if span.kind == "step")


def newest_step(run: StoredRun, sequence_id: int | None) -> tuple[SpanNode, int]:
    """The newest step of a number (else that failed, else of all); how often the log has it."""

    def rank(step: SpanNode) -> tuple[bool, int]:
        return sequence_id is None and step.is_bad, step.order

    found: SpanNode | None = None
    numbers: list[int] = []
    for step in steps_of(run):
        numbers.append(step.sequence_id or 0)
        is_meant = sequence_id in (None, step.sequence_id)
        if is_meant and (found is None or rank(step) > rank(found)):
            found = step
    if found is None:
        known = f"steps {min(numbers)} to {max(numbers)}" if numbers else "no steps yet"
        meant = "such step" if sequence_id is None else f"step {sequence_id}"
        raise NoSingleRunError(f"{run.project}/{run.app_id} has no {meant}; it has {known}.")
    return found, numbers.count(found.sequence_id or 0)


class StepDetails(NamedTuple):
    """A step of a run, and the states around it as a person may see them."""

    run: StoredRun
    span: SpanNode
    times: int  # that the log has its number
    before: dict[str, Any]
    after: dict[str, Any] | None  # None: it never ended
    changes: list[Change]


def read_step(content: ShownContent, sequence_id: int) -> StepDetails:
    """The newest step of a number in full."""
    span, times = newest_step(content.run, sequence_id)
    for each, _ in span.walk():
        content(each)

    def shown(record: Any) -> dict[str, Any] | None:
        state = whole_state(record)
        return state and {
            key: content.value(span, "state", state, (key,), state[key]) for key in state
        }

    before, after = shown(span.before), shown(span.end)
    changed = span.details.get("changes", [])
    return StepDetails(content.run, span, times, before or {}, after, changed)


# --- two runs -------------------------------------------------------------------------------------


_KINDS: Final[dict[str, Kind]] = {"inputs": "inputs", "result": "results", "state": "state"}
_Print = tuple[str, str, bytes]  # action, outcome, and the digest of inputs, result and state


class Side(NamedTuple):
    """One of two runs, with number, action and outcome of its steps from where they part."""

    project: str
    app_id: str
    rest: list[tuple[int, str, str]]


class Comparison(NamedTuple):
    """What came of comparing two runs: the first `shared` steps are the same in both."""

    sides: tuple[Side, Side]
    shared: int
    parts_at: int | None  # number of the first step that differs, if one does
    differs: tuple[str, ...]  # what of it: action, outcome, inputs, result, state
    changes: dict[str, list[Change]]  # of the last three


def compare(left: ShownContent, right: ShownContent, ignore: Collection[str] = ()) -> Comparison:
    """Compare two runs by sequence id, as a run and its fork line up, but for keys to `ignore`."""
    one, other = _prints(left.run, ignore), _prints(right.run, ignore)
    # A fork has no steps before the one that it was forked at: they are its parent's.
    start = max((min(found) for found in (one, other) if found), default=0)
    numbers = sorted(number for number in {*one, *other} if number >= start)
    parts_at = next((n for n in numbers if one.get(n) != other.get(n)), None)

    def side(run: StoredRun, found: dict[int, _Print]) -> Side:
        rest = [] if parts_at is None else sorted(n for n in found if n >= parts_at)
        return Side(run.project, run.app_id, [(n, *found[n][:2]) for n in rest])

    sides = side(left.run, one), side(right.run, other)
    if parts_at is None:
        return Comparison(sides, len(numbers), None, (), {})
    shared, mine, theirs = numbers.index(parts_at), one.get(parts_at), other.get(parts_at)
    if mine is None or theirs is None:
        return Comparison(sides, shared, parts_at, ("action",), {})
    differing = _step_changes(left, right, parts_at, ignore)
    names = [name for at, name in enumerate(("action", "outcome")) if mine[at] != theirs[at]]
    return Comparison(sides, shared, parts_at, (*names, *differing), differing)


def _prints(run: StoredRun, ignore: Collection[str]) -> dict[int, _Print]:
    """What must be the same in the newest step of each number."""
    found: dict[int, _Print] = {}
    orders: dict[int, int] = {}
    for step in steps_of(run):
        number = step.sequence_id or 0
        if step.order >= orders.get(number, 0) and (step.begin or step.end):
            parts = _parts(step, ignore)
            try:
                text = json.dumps(parts, sort_keys=True, default=repr, skipkeys=True)
            except RecursionError:
                raise StoreError(
                    f"step {number} of {run.project}/{run.app_id} cannot be compared, because a "
                    "value in it is nested too deeply. Leave out its state key with --ignore."
                ) from None
            digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            found[number] = (step.name, step.outcome, digest)
            orders[number] = step.order
    return found


def _step_changes(
    left: ShownContent, right: ShownContent, number: int, ignore: Collection[str]
) -> dict[str, list[Change]]:
    """The differences of a step, with the values as a person may see them."""
    one, other = newest_step(left.run, number)[0], newest_step(right.run, number)[0]
    parts, others = _parts(one, ignore), _parts(other, ignore)
    found = {
        part: [
            Change(
                path,
                left.value(one, kind, parts[part], path, before),
                right.value(other, kind, others[part], path, after),
            )
            for path, before, after in changes(parts[part], others[part])
        ]
        for part, kind in _KINDS.items()
    }
    return {part: changed for part, changed in found.items() if changed}


def _parts(step: SpanNode, ignore: Collection[str]) -> dict[str, Any]:
    inputs, result = getattr(step.begin, "inputs", None), getattr(step.end, "result", None)
    state = whole_state(step.end)
    return {
        "inputs": None if inputs is None else inputs.value,
        "result": None if result is None else result.value,
        "state": state and {key: state[key] for key in state if key not in ignore},
    }
