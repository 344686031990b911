"""Steps of runs one by one: one in full, and where the steps of two runs part."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Collection, Iterator
from typing import Any, Final, NamedTuple

from burr_otel.errors import StoreError
from burr_otel.history.fold import Fold
from burr_otel.history.tree import Alive, AliveOf, SpanNode
from burr_otel.store import StoredRun
from burr_otel.view.content import ShownContent, shown_changes, whole_state
from burr_otel.view.diff import Change

_PARTS: Final = ("inputs", "result", "state")
_COMPARED: Final = ("action", "outcome", *_PARTS)


class UnknownStepError(StoreError):
    """The run has no such step; the message says which it has."""


def steps_of(run: StoredRun, alive: Alive) -> Iterator[SpanNode]:
    """The steps of a run as they are over, each with its records and the spans in it.

    None is kept, so that a log of any length takes little memory.
    """
    fold = Fold.of_run(run, keep=False)
    for record in run.records():
        yield from (span for span in fold.add(record) if span.kind == "step")
    yield from (span for span in fold.finish(alive) if span.kind == "step")


def newest_step(run: StoredRun, alive: Alive, sequence_id: int | None) -> tuple[SpanNode, int]:
    """The newest step of that number, and how often the log has it.

    Without a number it is the last step that failed, else the last.

    Raises:
        UnknownStepError: It was never begun.
        OSError: The log cannot be read.
    """

    def rank(step: SpanNode) -> tuple[bool, int]:
        return sequence_id is None and step.is_bad, step.order

    found: SpanNode | None = None
    numbers: list[int] = []
    for step in steps_of(run, alive):
        numbers.append(step.sequence_id or 0)
        is_meant = sequence_id in (None, step.sequence_id)
        if is_meant and (found is None or rank(step) > rank(found)):
            found = step
    if found is None:
        known = f"steps {min(numbers)} to {max(numbers)}" if numbers else "no steps yet"
        meant = "such step" if sequence_id is None else f"step {sequence_id}"
        raise UnknownStepError(f"{run.project}/{run.app_id} has no {meant}; it has {known}.")
    return found, numbers.count(found.sequence_id or 0)


class StepDetails(NamedTuple):
    """A step of a run, and the states around it as a person may see them.

    `times` tells how often the log has its number; `after` is None when it never ended.
    """

    run: StoredRun
    span: SpanNode
    times: int
    before: dict[str, Any]
    after: dict[str, Any] | None

    @property
    def changes(self) -> list[Change]:
        """What the step did to the state."""
        changed: list[Change] = self.span.details.get("changes", [])
        return changed


def read_step(content: ShownContent, alive_of: AliveOf, sequence_id: int) -> StepDetails:
    """The newest step of a number in full; see `newest_step` for errors."""
    span, times = newest_step(content.run, alive_of(content.run), sequence_id)
    for each, _ in span.walk():
        if not each.is_foreign:
            content(each)

    def shown(state: dict[str, Any]) -> dict[str, Any]:
        return {key: content.value(span, (key,), value) for key, value in state.items()}

    before, after = whole_state(span.before), whole_state(span.end)
    return StepDetails(
        content.run, span, times, shown(before or {}), None if after is None else shown(after)
    )


# --- two runs -------------------------------------------------------------------------------------


class _Print(NamedTuple):
    """What two steps must share to be the same: names as they are, values as digests.

    The states of all steps of a run may not fit in memory.
    """

    order: int
    action: str
    outcome: str
    inputs: bytes
    result: bytes
    state: bytes


class Side(NamedTuple):
    """One of two runs; `rest` has number, action and outcome of its steps from where they part."""

    project: str
    app_id: str
    rest: list[tuple[int, str, str]]


class Comparison(NamedTuple):
    """What came of comparing two runs.

    The first `shared` steps are the same in both. `parts_at` is the number of the first step that
    differs, None when none does; `differs` names what differs in it (``action``, ``outcome``,
    ``inputs``, ``result``, ``state``), and `changes` has the differences by those names.
    """

    left: Side
    right: Side
    shared: int
    parts_at: int | None
    differs: tuple[str, ...]
    changes: dict[str, list[Change]]


def compare(
    left: ShownContent, right: ShownContent, alive_of: AliveOf, ignore: Collection[str] = ()
) -> Comparison:
    """Compare two runs step by step, by sequence id, so that a run and its fork line up.

    Values of state keys in `ignore`, such as time stamps, do not count.
    """
    one, other = (_prints(each.run, alive_of, ignore) for each in (left, right))
    # A fork has no steps before the one that it was forked at: they are its parent's.
    start = max((min(found) for found in (one, other) if found), default=0)
    numbers = sorted(number for number in {*one, *other} if number >= start)
    for shared, number in enumerate(numbers):
        mine, theirs = one.get(number), other.get(number)
        differs: tuple[str, ...] = ("action",)
        changes: dict[str, list[Change]] = {}
        if mine is not None and theirs is not None:
            differs = tuple(n for n in _COMPARED if getattr(mine, n) != getattr(theirs, n))
            if not differs:
                continue
            changes = _step_changes(left, right, alive_of, number, ignore)
        sides = _side(left.run, one, number), _side(right.run, other, number)
        return Comparison(*sides, shared, number, differs, changes)
    return Comparison(_side(left.run, {}, 0), _side(right.run, {}, 0), len(numbers), None, (), {})


def _prints(run: StoredRun, alive_of: AliveOf, ignore: Collection[str]) -> dict[int, _Print]:
    """Of each number the newest step."""
    found: dict[int, _Print] = {}
    for step in steps_of(run, alive_of(run)):
        number = step.sequence_id or 0
        is_newest = number not in found or found[number].order <= step.order
        if is_newest and (step.begin or step.end):
            digests = map(_digest, _parts(step, ignore).values())
            found[number] = _Print(step.order, step.name, step.outcome, *digests)
    return found


def _step_changes(
    left: ShownContent,
    right: ShownContent,
    alive_of: AliveOf,
    number: int,
    ignore: Collection[str],
) -> dict[str, list[Change]]:
    """The differences of a step, with the values as a person may see them."""
    one, other = (newest_step(c.run, alive_of(c.run), number)[0] for c in (left, right))
    show, show_other = functools.partial(left.value, one), functools.partial(right.value, other)
    parts, others = _parts(one, ignore), _parts(other, ignore)
    found = {part: shown_changes(parts[part], others[part], show, show_other) for part in _PARTS}
    return {part: changed for part, changed in found.items() if changed}


def _parts(step: SpanNode, ignore: Collection[str]) -> dict[str, Any]:
    inputs, result = getattr(step.begin, "inputs", None), getattr(step.end, "result", None)
    state = whole_state(step.end)
    if state is not None:
        state = {key: value for key, value in state.items() if key not in ignore}
    values = (None if each is None else each.value for each in (inputs, result))
    return dict(zip(_PARTS, (*values, state), strict=True))


def _digest(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, default=repr, skipkeys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _side(run: StoredRun, prints: dict[int, _Print], number: int) -> Side:
    rest = sorted((n, p.action, p.outcome) for n, p in prints.items() if n >= number)
    return Side(run.project, run.app_id, rest)
