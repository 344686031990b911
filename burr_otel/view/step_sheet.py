"""One step, or the difference between two runs, as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from rich.text import Text

from burr_otel.history.tree import RunTree, SpanNode
from burr_otel.view.diff import MISSING, Change, as_text, path_text
from burr_otel.view.rows import failure_text, look, tokens_text
from burr_otel.view.steps import StepDetails
from burr_otel.view.text import clean, duration, local_time, one_line, plural

_LONGEST_VALUE: Final = 2_000
_MOST_CHANGES: Final = 200
_MOST_FRAMES: Final = 60  # lines of a traceback
_FROM_BURR: Final = "__burr_function"  # name and hash of the source, logged by @trace
_SIGNS: Final = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


def value_text(value: Any) -> str:
    """A value as one line of JSON; a long one is cut and its length told."""
    text = as_text(value)
    if len(text) <= _LONGEST_VALUE:
        return one_line(text, _LONGEST_VALUE * 8)
    return f"{one_line(text[:_LONGEST_VALUE], _LONGEST_VALUE * 8)}… ({len(text):,} characters)"


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


def step_sheet(view: RunTree, span: SpanNode, step: StepDetails) -> Iterator[Text]:
    """Everything recorded about a step, without its waterfall."""
    shown = look(span.outcome)
    yield Text.assemble(
        (f"step {span.sequence_id} {one_line(span.name)}", "bold"),
        "  ",
        (shown.word, shown.style),
    )
    yield _field("run", f"{one_line(view.project)}/{one_line(view.app_id)}")
    if span.trace_id:
        yield _field("trace", f"{one_line(span.trace_id)}, span {one_line(span.span_id or '?')}")
    took = duration(span.last_ns - span.start_ns)
    yield _field("began", f"{local_time(span.start_ns)}, {took}")
    if step.times > 1:
        yield _field("times", f"run {step.times} times under this number; this is the last")
    if span.usage is not None:
        yield _field("tokens", tokens_text(span.usage))
    if span.failure is not None:
        yield Text()
        yield Text(clean(failure_text(span.failure)), style="red")
        lines = clean(span.failure.traceback).splitlines()
        if len(lines) > _MOST_FRAMES:
            yield Text(f"  {len(lines) - _MOST_FRAMES:,} lines left out", style="dim")
        yield from (Text(f"  {line}", style="dim") for line in lines[-_MOST_FRAMES:])
    yield from _section("inputs", _entries(span.details.get("inputs")))
    if "read" in span.details:
        yield from _section("read", _entries(span.details["read"]))
    yield from _section("result", _entries(span.details.get("result")))
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
        names = one_line(", ".join(str(key) for key in kept), 200)
        lines.append(Text(f"  {plural(len(kept), 'key')} unchanged: {names}", style="dim"))
    return lines


def _entries(value: Any) -> list[Text]:
    if isinstance(value, Mapping):
        return [
            Text.assemble("  ", (one_line(key), "bold"), ": ", value_text(item))
            for key, item in value.items()
        ]
    return [] if value is None else [Text(f"  {value_text(value)}")]


def _section(title: str, lines: list[Text]) -> Iterator[Text]:
    yield Text()
    yield Text(title, style="bold underline")
    yield from lines or [Text("  nothing", style="dim")]


def _field(label: str, value: str) -> Text:
    return Text.assemble((f"{label:<8}", "dim"), value)
