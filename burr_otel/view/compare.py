"""Where two runs part: the first step in which they differ, and how."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Collection, Iterator
from typing import Any, Final, NamedTuple

from rich.text import Text

from burr_otel.history.fold import Fold
from burr_otel.history.settle import Alive
from burr_otel.history.tree import SpanNode
from burr_otel.store import StoredRun
from burr_otel.view.content import ShownContent, ShowValue, shown_changes, whole_state
from burr_otel.view.diff import Change
from burr_otel.view.step_sheet import change_lines
from burr_otel.view.text import one_line, plural

_PARTS: Final = ("inputs", "result", "state")
_COMPARED: Final = ("action", "outcome", *_PARTS)
_MOST_STEPS_NAMED: Final = 12

# What two steps must share to be the same: names as they are, values as digests.
_Print = dict[str, Any]


class Side(NamedTuple):
    """One of the two runs; `rest` has number, action and outcome of its steps from there on."""

    project: str
    app_id: str
    rest: list[tuple[int, str, str]]

    @property
    def name(self) -> str:
        """The run as it is shown."""
        return one_line(f"{self.project}/{self.app_id}")


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """What came of comparing two runs.

    The first `shared` steps are the same in both. `parts_at` is the number of the first step that
    differs, None when none does; `differs` names what differs in it (``action``, ``outcome``,
    ``inputs``, ``result``, ``state``), and `changes` has the differences by those names.
    """

    left: Side
    right: Side
    shared: int
    parts_at: int | None = None
    differs: tuple[str, ...] = ()
    changes: dict[str, list[Change]] = dataclasses.field(default_factory=dict)


class RunReading(NamedTuple):
    """A stored run, how its values are shown, and whether its writers live."""

    run: StoredRun
    content: ShownContent
    alive: Alive


def compare(left: RunReading, right: RunReading, ignore: Collection[str] = ()) -> Comparison:
    """Compare two runs step by step, by sequence id, so that a run and its fork line up.

    Values of state keys in `ignore`, such as time stamps, do not count.
    """
    one, other = _prints(left, ignore), _prints(right, ignore)
    # A fork has no steps before the one that it was forked at: they are its parent's.
    starts = [min(found) for found in (one, other) if found]
    numbers = sorted(n for n in {*one, *other} if n >= max(starts, default=0))
    for shared, number in enumerate(numbers):
        sides = _side(left.run, one, number), _side(right.run, other, number)
        if number not in one or number not in other:
            return Comparison(*sides, shared, number, ("action",))
        differs = tuple(each for each in _COMPARED if one[number][each] != other[number][each])
        if differs:
            changes = _part_changes(left, right, number, ignore)
            return Comparison(*sides, shared, number, differs, changes)
    return Comparison(_side(left.run, {}, 0), _side(right.run, {}, 0), len(numbers))


def comparison_lines(found: Comparison) -> Iterator[Text]:
    """The comparison as text."""
    left, right = found.left, found.right
    names = f"{left.name} and {right.name}"
    if found.parts_at is None:
        yield Text(f"{names} are the same: {plural(found.shared, 'step')}.", style="green")
        return
    same = f"after {plural(found.shared, 'equal step')}" if found.shared else "at once"
    yield Text(f"{names} part {same}, at step {found.parts_at}.", style="bold")
    yield Text()
    width = max(len(left.name), len(right.name))
    for sign, style, side in (("-", "red", left), ("+", "green", right)):
        yield Text.assemble((f"{sign} {side.name:<{width}}  ", style), _path(side))
    for part, changed in found.changes.items():
        yield Text()
        yield Text(f"{part} of step {found.parts_at}", style="bold underline")
        yield from change_lines(changed)


def _prints(reading: RunReading, ignore: Collection[str]) -> dict[int, _Print]:
    """Of each number the newest step, as digests: the states of them all may not fit in memory."""
    found: dict[int, tuple[int, _Print]] = {}
    for step in _steps(reading):
        number = step.sequence_id or 0
        if number not in found or found[number][0] <= step.order:
            digests = {part: _digest(value) for part, value in _parts(step, ignore).items()}
            printed = {"action": step.name, "outcome": step.outcome, **digests}
            found[number] = step.order, printed
    return {number: printed for number, (_, printed) in found.items()}


def _part_changes(
    left: RunReading, right: RunReading, number: int, ignore: Collection[str]
) -> dict[str, list[Change]]:
    """The differences of a step, with the values as a person may see them."""

    def newest(reading: RunReading) -> tuple[dict[str, Any], ShowValue]:
        steps = (each for each in _steps(reading) if each.sequence_id == number)
        step = max(steps, key=lambda each: each.order)
        return _parts(step, ignore), functools.partial(reading.content.value, step)

    (parts, show), (other, show_other) = newest(left), newest(right)
    found = {part: shown_changes(parts[part], other[part], show, show_other) for part in _PARTS}
    return {part: changed for part, changed in found.items() if changed}


def _parts(step: SpanNode, ignore: Collection[str]) -> dict[str, Any]:
    inputs, result = getattr(step.begin, "inputs", None), getattr(step.end, "result", None)
    state = whole_state(step.end)
    if state is not None:
        state = {key: value for key, value in state.items() if key not in ignore}
    return {
        "inputs": None if inputs is None else inputs.value,
        "result": None if result is None else result.value,
        "state": state,
    }


def _steps(reading: RunReading) -> Iterator[SpanNode]:
    """The steps of a run, each with its records."""
    fold = Fold(reading.run.project, reading.run.app_id, keep=False)
    for record in reading.run.records():
        yield from filter(_is_step, fold.add(record))
    yield from filter(_is_step, fold.finish(reading.alive))


def _is_step(span: SpanNode) -> bool:
    return span.kind == "step" and (span.begin is not None or span.end is not None)


def _digest(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, default=repr, skipkeys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _side(run: StoredRun, prints: dict[int, _Print], number: int) -> Side:
    rest = sorted((n, p["action"], p["outcome"]) for n, p in prints.items() if n >= number)
    return Side(run.project, run.app_id, rest)


def _path(side: Side) -> str:
    if not side.rest:
        return "ends before"
    steps = [
        f"{number} {one_line(action)}" + ("" if outcome == "ok" else f" ({one_line(outcome)})")
        for number, action, outcome in side.rest[:_MOST_STEPS_NAMED]
    ]
    more = len(side.rest) - len(steps)
    return ", ".join(steps) + (f" and {more:,} more" if more else "")
