"""Where two runs part: the first step in which they differ, and how."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple

from rich.text import Text

from burr_otel.history.fold import Fold
from burr_otel.history.settle import Alive
from burr_otel.history.tree import SpanNode
from burr_otel.store import StoredRun
from burr_otel.view.content import ShownContent
from burr_otel.view.diff import Change
from burr_otel.view.step_sheet import change_lines
from burr_otel.view.steps import ShowValue, shown_changes, whole_state
from burr_otel.view.text import one_line, plural

_PARTS: Final = ("inputs", "result", "state")
_MOST_STEPS_NAMED: Final = 12


@dataclasses.dataclass(slots=True)
class _Print:
    """What two steps must share to be the same."""

    action: str
    outcome: str
    parts: dict[str, bytes]
    order: int


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs; `rest` has number, action and outcome of its steps from there on."""

    project: str
    app_id: str
    rest: tuple[tuple[int, str, str], ...]


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
    parts_at: int | None
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

    Raises:
        OSError: A log cannot be read.
    """
    prints = _prints(left, ignore), _prints(right, ignore)
    # A fork has no steps before the one that it was forked at: they are its parent's.
    starts = [min(found) for found in prints if found]
    numbers = sorted(n for n in {*prints[0], *prints[1]} if n >= max(starts, default=0))
    for shared, number in enumerate(numbers):
        differs = _differs(prints[0].get(number), prints[1].get(number))
        if differs:
            sides = _side(left.run, prints[0], number), _side(right.run, prints[1], number)
            changed = _part_changes(left, right, number, ignore) if "gone" not in differs else {}
            told = tuple(part for part in differs if part != "gone")
            return Comparison(*sides, shared, number, told, changed)
    sides = _side(left.run, {}, None), _side(right.run, {}, None)
    return Comparison(*sides, len(numbers), None)


def comparison_lines(found: Comparison) -> Iterator[Text]:
    """The comparison as text."""
    left, right = found.left, found.right
    names = f"{_name(left)} and {_name(right)}"
    if found.parts_at is None:
        yield Text(f"{names} are the same: {plural(found.shared, 'step')}.", style="green")
        return
    same = f"after {plural(found.shared, 'equal step')}" if found.shared else "at once"
    yield Text(f"{names} part {same}, at step {found.parts_at}.", style="bold")
    yield Text()
    width = max(len(_name(left)), len(_name(right)))
    for sign, style, side in (("-", "red", left), ("+", "green", right)):
        yield Text.assemble((f"{sign} {_name(side):<{width}}  ", style), _path(side))
    for part, changed in found.changes.items():
        yield Text()
        yield Text(f"{part} of step {found.parts_at}", style="bold underline")
        yield from change_lines(changed)


def _differs(one: _Print | None, other: _Print | None) -> tuple[str, ...]:
    if one is None or other is None:
        return ("action", "gone")
    found = [part for part in ("action", "outcome") if getattr(one, part) != getattr(other, part)]
    found += [part for part in _PARTS if one.parts.get(part) != other.parts.get(part)]
    return tuple(found)


def _part_changes(
    left: RunReading, right: RunReading, number: int, ignore: Collection[str]
) -> dict[str, list[Change]]:
    """The differences of a step, with the values as a person may see them."""
    (parts, show), (other, show_other) = _values(left, number), _values(right, number)
    found = {}
    for part in _PARTS:
        left_out = ignore if part == "state" else ()
        before, after = _without(parts.get(part), left_out), _without(other.get(part), left_out)
        changed = shown_changes(before, after, show, show_other)
        if changed:
            found[part] = changed
    return found


def _values(reading: RunReading, number: int) -> tuple[dict[str, Any], ShowValue]:
    """Inputs, result and state of the newest step of a number, and how to show their values."""
    found: list[tuple[SpanNode, dict[str, Any]]] = []
    for step in _steps(reading):
        if step.sequence_id == number and (not found or step.order > found[0][0].order):
            found[:] = [(step, {part: _part(step, part) for part in _PARTS})]
    span, parts = found[0]
    return parts, functools.partial(reading.content.value, span)


def _part(step: SpanNode, part: str) -> Any:
    if part == "state":
        return whole_state(step.end)
    document = getattr(step.begin if part == "inputs" else step.end, part, None)
    return None if document is None else document.value


def _side(run: StoredRun, prints: Mapping[int, _Print], number: int | None) -> Side:
    rest = sorted((n, p.action, p.outcome) for n, p in prints.items() if n >= (number or 0))
    return Side(run.project, run.app_id, tuple(rest))


def _steps(reading: RunReading) -> Iterator[SpanNode]:
    """The steps of a run, each with its records."""
    fold = Fold(reading.run.project, reading.run.app_id, keep=False)
    for record in reading.run.records():
        yield from filter(_is_step, fold.add(record))
    yield from filter(_is_step, fold.finish(reading.alive))


def _is_step(span: SpanNode) -> bool:
    return span.kind == "step" and (span.begin is not None or span.end is not None)


def _prints(reading: RunReading, ignore: Collection[str]) -> dict[int, _Print]:
    """A digest of the newest run of each step: the states of them all may not fit in memory."""
    found: dict[int, _Print] = {}
    for step in _steps(reading):
        number = step.sequence_id or 0
        if number in found and found[number].order > step.order:
            continue
        state = _without(whole_state(step.end), ignore)
        parts = {"inputs": _part(step, "inputs"), "result": _part(step, "result"), "state": state}
        digests = {part: _digest(value) for part, value in parts.items()}
        found[number] = _Print(step.name, step.outcome, digests, step.order)
    return found


def _digest(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, default=repr, skipkeys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _without(state: Any, keys: Collection[str]) -> Any:
    if not isinstance(state, dict):
        return state
    return {key: value for key, value in state.items() if key not in keys}


def _name(side: Side) -> str:
    return one_line(f"{side.project}/{side.app_id}")


def _path(side: Side) -> str:
    if not side.rest:
        return "ends before"
    steps = [
        f"{number} {one_line(action)}" + ("" if outcome == "ok" else f" ({one_line(outcome)})")
        for number, action, outcome in side.rest[:_MOST_STEPS_NAMED]
    ]
    more = len(side.rest) - len(steps)
    return ", ".join(steps) + (f" and {more:,} more" if more else "")
