"""One step, or the difference between two runs, as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from rich.text import Text

from burr_otel.view.diff import MISSING, Change, as_text, path_text
from burr_otel.view.rows import failure_text, look, tokens_text
from burr_otel.view.steps import Comparison, Side, StepDetails
from burr_otel.view.text import clean, duration, local_time, one_line, plural
from burr_otel.view.waterfall import field

_LONGEST_VALUE: Final = 2_000
_MOST_CHANGES: Final = 200
_MOST_FRAMES: Final = 60  # lines of a traceback
_MOST_STEPS_NAMED: Final = 12
_FROM_BURR: Final = "__burr_function"  # name and hash of the source, logged by @trace
_SIGNS: Final = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


def value_text(value: Any) -> str:
    """A value as one line of JSON; a long one is cut and its length told."""
    text = as_text(value)
    shown = one_line(text[:_LONGEST_VALUE], _LONGEST_VALUE * 8)
    return shown if len(text) <= _LONGEST_VALUE else f"{shown}… ({len(text):,} characters)"


def change_lines(changed: Iterable[Change]) -> Iterator[Text]:
    """One line a difference: ``+`` new, ``-`` gone, ``~`` another value."""
    for number, change in enumerate(changed):
        if number == _MOST_CHANGES:
            yield Text("  and more; --json shows all", style="dim")
            return
        sign, style = _SIGNS[change.kind]
        where = one_line(path_text(change.path) or "(all)")
        line = Text.assemble((f"  {sign} ", style), (where, "bold"), ": ")
        if change.before is not MISSING:
            line.append(value_text(change.before), style="red")
        if change.kind == "changed":
            line.append(" -> ")
        if change.after is not MISSING:
            line.append(value_text(change.after), style="green")
        yield line


def step_sheet(step: StepDetails) -> Iterator[Text]:
    """Everything recorded about a step, without its waterfall."""
    span, shown = step.span, look(step.span.outcome)
    title = (f"step {span.sequence_id} {one_line(span.name)}", "bold")
    yield Text.assemble(title, "  ", (shown.word, shown.style))
    yield field("run", f"{one_line(step.run.project)}/{one_line(step.run.app_id)}")
    if span.trace_id:
        yield field("trace", f"{one_line(span.trace_id)}, span {one_line(span.span_id or '?')}")
    took = duration(span.last_ns - span.start_ns)
    yield field("began", f"{local_time(span.start_ns)}, {took}")
    if step.times > 1:
        yield field("times", f"run {step.times} times under this number; this is the last")
    if span.usage is not None:
        yield field("tokens", tokens_text(span.usage))
    if span.failure is not None:
        yield Text()
        yield Text(clean(failure_text(span.failure)), style="red")
        lines = clean(span.failure.traceback).splitlines()
        if len(lines) > _MOST_FRAMES:
            yield Text(f"  {len(lines) - _MOST_FRAMES:,} lines left out", style="dim")
        yield from (Text(f"  {line}", style="dim") for line in lines[-_MOST_FRAMES:])
    for part in ("inputs", "read", "result"):
        if part != "read" or part in span.details:
            yield from _section(part, _entries(span.details.get(part)))
    yield from _section("state", _state_lines(step))
    for logged, depth in span.walk():
        said = {k: v for k, v in logged.attributes.items() if not k.startswith(_FROM_BURR)}
        if said:
            name = "logged" if depth == 0 else f"logged on {one_line(logged.name)}"
            yield from _section(name, _entries(said))


def _state_lines(step: StepDetails) -> list[Text]:
    if step.after is None:
        return [Text("  not recorded: the step never ended", style="dim")]
    touched = {change.path[0] for change in step.changes if change.path}
    kept = [key for key in step.after if key not in touched]
    lines = list(change_lines(step.changes))
    if kept:
        names = one_line(", ".join(kept), 200)
        lines.append(Text(f"  {plural(len(kept), 'key')} unchanged: {names}", style="dim"))
    return lines


def _entries(value: Any) -> list[Text]:
    if isinstance(value, Mapping):
        return [
            Text.assemble("  ", (one_line(key), "bold"), ": ", value_text(item))
            for key, item in value.items()
        ]
    return [] if value is None else [Text(f"  {value_text(value)}")]


def _section(title: str, lines: Iterable[Text]) -> Iterator[Text]:
    yield Text()
    yield Text(title, style="bold underline")
    yield from list(lines) or [Text("  nothing", style="dim")]


def comparison_lines(found: Comparison) -> Iterator[Text]:
    """The comparison as text."""
    names = [one_line(f"{side.project}/{side.app_id}") for side in (found.left, found.right)]
    if found.parts_at is None:
        said = f"are the same: {plural(found.shared, 'step')}."
        yield Text(f"{' and '.join(names)} {said}", style="green")
        return
    same = f"after {plural(found.shared, 'equal step')}" if found.shared else "at once"
    yield Text(f"{' and '.join(names)} part {same}, at step {found.parts_at}.", style="bold")
    yield Text()
    width = max(map(len, names))
    for sign, name, side in zip("-+", names, (found.left, found.right), strict=True):
        style = "red" if sign == "-" else "green"
        yield Text.assemble((f"{sign} {name:<{width}}  ", style), _path(side))
    for part, changed in found.changes.items():
        yield from _section(f"{part} of step {found.parts_at}", change_lines(changed))


def _path(side: Side) -> str:
    steps = [
        f"{number} {one_line(action)}" + ("" if outcome == "ok" else f" ({one_line(outcome)})")
        for number, action, outcome in side.rest[:_MOST_STEPS_NAMED]
    ]
    more = len(side.rest) - len(steps)
    return (", ".join(steps) or "ends before") + (f" and {more:,} more" if more else "")
