"""Where two runs part: the first step in which they differ, and how."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from burr_otel.view.diff import Change, changes
from burr_otel.view.step_sheet import change_lines
from burr_otel.view.steps import StepDetails, read_step
from burr_otel.view.text import one_line, plural

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from burr_otel.store import StoredRun

__all__ = ["Comparison", "Side", "compare", "comparison_lines"]

_PARTS: Final = ("inputs", "result", "state")
_MOST_STEPS_NAMED: Final = 12


@dataclasses.dataclass(slots=True)
class _Print:
    """What two steps must share to be the same."""

    action: str
    outcome: str = "unfinished"
    parts: dict[str, bytes] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs.

    Attributes:
        project: Its project.
        app_id: Its application id.
        step: The step in which they part; ``None`` when this run has no step of that number.
        rest: Number, action and outcome of its steps from there on.
    """

    project: str
    app_id: str
    step: StepDetails | None
    rest: tuple[tuple[int, str, str], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """What came of comparing two runs.

    Attributes:
        left: The first run.
        right: The second.
        shared: How many steps, from the first on, are the same in both.
        parts_at: Number of the first step that differs; ``None`` when none does.
        differs: What differs in it: ``action``, ``outcome``, ``inputs``, ``result``, ``state``.
        changes: The differences of inputs, result and state, by those names.
    """

    left: Side
    right: Side
    shared: int
    parts_at: int | None
    differs: tuple[str, ...] = ()
    changes: dict[str, list[Change]] = dataclasses.field(default_factory=dict)


def compare(left: StoredRun, right: StoredRun, ignore: Collection[str] = ()) -> Comparison:
    """Compare two runs step by step, by sequence id, so that a run and its fork line up.

    Args:
        left: The first run.
        right: The second.
        ignore: State keys whose values do not count, such as time stamps.

    Raises:
        OSError: A log cannot be read.
    """
    prints = _prints(left, ignore), _prints(right, ignore)
    # A fork has no steps before the one that it was forked at: they are its parent's.
    starts = [min(found) for found in prints if found]
    numbers = sorted(n for n in {*prints[0], *prints[1]} if n >= max(starts, default=0))
    shared = 0
    for number in numbers:
        one, other = prints[0].get(number), prints[1].get(number)
        differs = _differs(one, other)
        if differs:
            one_side = _side(left, prints[0], number)
            other_side = _side(right, prints[1], number)
            changed = _part_changes(one_side.step, other_side.step, ignore)
            return Comparison(one_side, other_side, shared, number, differs, changed)
        shared += 1
    return Comparison(_side(left, {}, None), _side(right, {}, None), shared, None)


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
        return ("action",)
    found = [part for part in ("action", "outcome") if getattr(one, part) != getattr(other, part)]
    found += [part for part in _PARTS if one.parts.get(part) != other.parts.get(part)]
    return tuple(found)


def _part_changes(
    left: StepDetails | None, right: StepDetails | None, ignore: Collection[str]
) -> dict[str, list[Change]]:
    if left is None or right is None:
        return {}
    pairs = {
        "inputs": (left.inputs, right.inputs),
        "result": (left.result, right.result),
        "state": (_without(left.after, ignore), _without(right.after, ignore)),
    }
    found = {part: list(changes(*pair)) for part, pair in pairs.items()}
    return {part: changed for part, changed in found.items() if changed}


def _side(run: StoredRun, prints: Mapping[int, _Print], number: int | None) -> Side:
    step = read_step(run, number) if number is not None and number in prints else None
    rest = sorted((n, p.action, p.outcome) for n, p in prints.items() if n >= (number or 0))
    return Side(run.project, run.app_id, step, tuple(rest))


def _prints(run: StoredRun, ignore: Collection[str]) -> dict[int, _Print]:
    """A digest of the newest run of each step: the states of them all may not fit in memory."""
    found: dict[int, _Print] = {}
    for record in run.records():
        number = record.get("sequence_id")
        if not isinstance(number, int):
            continue
        if record["type"] == "begin_entry":
            found[number] = _Print(record["action"], parts={"inputs": _digest(record["inputs"])})
        elif record["type"] == "end_entry":
            step = found.setdefault(number, _Print(record["action"]))
            step.outcome = _outcome(record)
            step.parts["result"] = _digest(record["result"])
            state = _without(record["state"], ("__SEQUENCE_ID", "__PRIOR_STEP", *ignore))
            step.parts["state"] = _digest([state, _otel(record).get("exact")])
    return found


def _digest(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, default=repr)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _outcome(record: Mapping[str, Any]) -> str:
    outcome = _otel(record).get("outcome")
    return str(outcome or ("error" if record.get("exception") else "ok"))


def _otel(record: Mapping[str, Any]) -> Mapping[str, Any]:
    otel = record.get("otel")
    return otel if isinstance(otel, dict) else {}


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
