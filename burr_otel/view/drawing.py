"""Runs, steps and comparisons as Rich draws them: for terminals, and for notebooks."""

from __future__ import annotations

import dataclasses
import html
import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from burr_otel.history.read import RunTree
from burr_otel.history.tree import RUNNING, SpanNode
from burr_otel.view.diff import MISSING, Change, as_text, path_text
from burr_otel.view.rows import (
    Axis,
    Row,
    began_text,
    failure_text,
    look,
    rows,
    run_facts,
    span_notes,
    tokens_text,
)
from burr_otel.view.steps import Comparison, Side, StepDetails
from burr_otel.view.text import clean, fit, local_time, one_line, plural

_OK_STYLES: Final = {"application": "bold cyan", "step": "green", "span": "cyan"}
_LEAST_BAR: Final = 4
_LEAST_NAME: Final = 14
_LEAST_TEXT: Final = 8  # of a name, however deep it is indented
_NAME_SHARE: Final = 0.42
_DURATION_CELLS: Final = 8
_FRAME_CELLS: Final = 4  # sign and the blanks between columns
_NOTE_LINES: Final = 3
_FRAME_LINES: Final = 5  # blank lines, the session's own row, hidden steps, one to spare

_LONGEST_VALUE: Final = 2_000
_COMMON_KEPT: Final = 60  # characters
_MOST_CHANGES: Final = 200
_MOST_FRAMES: Final = 60  # lines of a traceback
_MOST_STEPS_NAMED: Final = 12
_FROM_BURR: Final = "__burr_function"  # name and hash of the source, logged by @trace
_SIGNS: Final = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}

_CELL_WIDTH: Final = 100
_CELL_STYLE: Final = "overflow-x:auto;line-height:normal;font-family:monospace"


def header(view: RunTree) -> list[Text]:
    """What the run is, where it is, and how it went. For lines that may wrap: ids stay whole."""
    run = view.run
    title = _title(f"{one_line(run.project)}/{one_line(run.app_id)}", view.outcome)
    return [title, *(_field(label, text) for label, text, _ in run_facts(view))]


def _title(name: str, outcome: str) -> Text:
    shown = look(outcome)
    return Text.assemble((name, "bold"), "  ", (shown.word, shown.style))


def _field(label: str, value: str) -> Text:
    return Text.assemble((f"{label:<8}", "dim"), (value, "yellow" if label == "skipped" else ""))


class Waterfall:
    """Sessions or a step as a Rich renderable, a line a span, never wider than the console."""

    def __init__(self, spans: Sequence[SpanNode]) -> None:
        self._rows = [*rows(spans)]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw to the width at hand."""
        spans = ((row.depth, row.span) for row in self._rows if row.span)
        longest = max((2 * depth + cell_len(_label(span)) for depth, span in spans), default=0)
        most = max(_LEAST_NAME, int(options.max_width * _NAME_SHARE))
        name_cells = min(max(longest, _LEAST_NAME), most)
        for number, row in enumerate(self._rows):
            if number and row.depth == 0 and row.span is None:
                yield Text("")
            yield from _lines(row, console, options.max_width, name_cells)


def _lines(row: Row, console: Console, width: int, name_cells: int) -> Iterator[Text]:
    """A row, and what is said below it."""
    if row.span is None:
        title = f"  ··· {row.note} ···" if row.depth else row.note
        yield Text(fit(title, width).rstrip(), style="dim")
        return
    span, shown = row.span, look(row.span.outcome)
    bad = shown.sign != " "
    style = shown.style if bad else _OK_STYLES[span.kind]
    indent = min(2 * row.depth, name_cells - _LEAST_TEXT)
    name = fit(" " * indent + _label(span), name_cells)
    line = Text(no_wrap=True, overflow="crop", end="\n")
    line.append(f"{shown.sign} ", style=style)
    line.append(name, style=style if bad else ("bold" if span.kind == "application" else ""))
    line.append(" ")
    cells = max(_LEAST_BAR, width - name_cells - _DURATION_CELLS - _FRAME_CELLS)
    said = span_notes(span)
    line.append_text(_bar(row.axis, span, said.first_item_ns, cells, style))
    line.append(f" {said.took.rjust(_DURATION_CELLS)}", style=style if bad else "dim")
    yield line
    room = max(width - indent - 4, _LEAST_BAR)
    beside = ", ".join(filter(None, (said.initial, said.stream, said.tokens)))
    for note, note_style in ((said.why, "red" if span.failure else style), (beside, "dim")):
        if not note:
            continue
        text = Text(one_line(note, limit=room * _NOTE_LINES), style=note_style)
        wrapped = text.wrap(console, room)
        for number, part in enumerate(wrapped[:_NOTE_LINES], 1):
            part.rstrip()
            if number == _NOTE_LINES < len(wrapped):
                part.truncate(room - 1)
                part.append("…")
            yield Text.assemble(" " * (indent + 4), part)


def _bar(axis: Axis, span: SpanNode, first_item_ns: int | None, cells: int, style: str) -> Text:
    halves = 2 * cells
    start = min(math.floor(axis.at(span.start_ns, halves)), halves - 1)
    end = min(max(math.ceil(axis.at(span.last_ns, halves)), start + 1), halves)
    bar = [" "] * cells
    for cell in range(start // 2, (end + 1) // 2):
        left, right = start <= 2 * cell < end, start <= 2 * cell + 1 < end
        bar[cell] = "━" if left and right else "╸" if left else "╺"
    if first_item_ns is None:
        return Text("".join(bar), style=style)
    at = min(int(axis.at(first_item_ns, cells)), cells - 1)
    before, after = "".join(bar[:at]), "".join(bar[at + 1 :])
    return Text.assemble((before, style), ("◆", "bold magenta"), (after, style))


def _label(span: SpanNode) -> str:
    number = f"{span.sequence_id} " if span.kind == "step" else ""
    return number + one_line(span.name, limit=120)


# --- a run that goes on ---------------------------------------------------------------------------


def grow(view: RunTree, now_ns: int) -> None:
    """Draw what is running up to now, not up to its last record."""
    for span, _ in view.walk():
        if span.outcome == RUNNING:
            span.end_ns = max(now_ns, span.start_ns)


def frame(view: RunTree, height: int) -> RenderableType:
    """Header and the newest steps of the newest session, as many as fit into `height` lines."""
    top = header(view)
    for line in top:
        line.no_wrap, line.overflow = True, "ellipsis"
    if not view.sessions:
        return Group(*top)
    session = view.sessions[-1]
    room, kept = height - len(top) - _FRAME_LINES, len(session.children)
    while kept:
        spans = [span for span, _ in session.children[kept - 1].walk()]
        room -= sum(1 + _NOTE_LINES * bool(each.failure) + bool(each.marks) for each in spans)
        if room < 0 and kept < len(session.children):
            break
        kept -= 1
    hidden = kept + (session.left_out.steps if session.left_out else 0)
    parts: list[RenderableType] = [*top, Text()]
    if hidden:
        # The axis begins with the first step shown, so that the newest ones are not slivers.
        newest = session.children[kept:]
        began_ns = newest[0].start_ns
        session = dataclasses.replace(session, children=newest, start_ns=began_ns, left_out=None)
        parts.append(Text(f"  {plural(hidden, 'earlier step')}", style="dim"))
    return Group(*parts, Waterfall([session]))


# --- one step, and two runs -----------------------------------------------------------------------


def value_text(value: Any) -> str:
    """A value as one line of JSON; a long one is cut and its length told."""
    text = as_text(value)
    shown = one_line(text[:_LONGEST_VALUE], _LONGEST_VALUE * 8)
    return shown if len(text) <= _LONGEST_VALUE else f"{shown}… ({len(text):,} characters)"


def _change_lines(changed: Iterable[Change]) -> Iterator[Text]:
    """One line a difference: ``+`` new, ``-`` gone, ``~`` another value."""
    for number, change in enumerate(changed):
        if number == _MOST_CHANGES:
            yield Text("  and more; --json shows all", style="dim")
            return
        sign, style = _SIGNS[change.kind]
        where = one_line(path_text(change.path) or "(all)")
        line = Text.assemble((f"  {sign} ", style), (where, "bold"), ": ")
        before, after = _without_common(change.before, change.after)
        if before is not MISSING:
            line.append(value_text(before), style="red")
        if change.kind == "changed":
            line.append(" -> ")
        if after is not MISSING:
            line.append(value_text(after), style="green")
        yield line


def _without_common(before: Any, after: Any) -> Iterable[Any]:
    """Two values; of texts without most of a long beginning and end that both have."""
    if not (isinstance(before, str) and isinstance(after, str)):
        return before, after
    same, front, head = _left_out(before, after)
    _, back, tail = _left_out(before[same:][::-1], after[same:][::-1])
    return [head + text[front : len(text) - back] + tail for text in (before, after)]


def _left_out(one: str, other: str) -> tuple[int, int, str]:
    """How many characters two texts begin with alike, how many are left out, and what says so."""
    same = len(os.path.commonprefix([one, other]))  # noqa: RUF071 - these are no paths
    number = same - _COMMON_KEPT
    if number <= _COMMON_KEPT:
        return same, 0, ""
    return same, number, f"... [{number} unchanged characters] ..."


def step_sheet(step: StepDetails) -> Iterator[Text]:
    """Everything recorded about a step, without its waterfall."""
    span = step.span
    yield _title(f"step {span.sequence_id} {one_line(span.name)}", span.outcome)
    yield _field("run", f"{one_line(step.run.project)}/{one_line(step.run.app_id)}")
    if span.trace_id:
        yield _field("trace", f"{one_line(span.trace_id)}, span {one_line(span.span_id or '?')}")
    yield _field("began", f"{local_time(span.start_ns)}, {span_notes(span).took}")
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
    lines = list(_change_lines(step.changes))
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
    names = [one_line(f"{side.project}/{side.app_id}") for side in found.sides]
    if found.parts_at is None:
        said = f"are the same: {plural(found.shared, 'step')}."
        yield Text(f"{' and '.join(names)} {said}", style="green")
        return
    same = f"after {plural(found.shared, 'equal step')}" if found.shared else "at once"
    yield Text(f"{' and '.join(names)} part {same}, at step {found.parts_at}.", style="bold")
    yield Text()
    width = max(map(len, names))
    for sign, name, side in zip("-+", names, found.sides, strict=True):
        style = "red" if sign == "-" else "green"
        yield Text.assemble((f"{sign} {name:<{width}}  ", style), _path(side))
    for part, changed in found.changes.items():
        yield from _section(f"{part} of step {found.parts_at}", _change_lines(changed))


def _path(side: Side) -> str:
    steps = [
        f"{number} {one_line(action)}" + ("" if outcome == "ok" else f" ({one_line(outcome)})")
        for number, action, outcome in side.rest[:_MOST_STEPS_NAMED]
    ]
    more = len(side.rest) - len(steps)
    return (", ".join(steps) or "ends before") + (f" and {more:,} more" if more else "")


# --- notebooks ------------------------------------------------------------------------------------


class RunView:
    """A run as it stood when it was asked for: its last expression in a cell draws it."""

    ENDS = (100, 100)  # steps that are read of a long log

    def __init__(self, tree: RunTree, url: str | None = None) -> None:
        self._tree, self._url = tree, url

    def __repr__(self) -> str:
        """What it is and how it went, on one line."""
        tree, run = self._tree, self._tree.run
        return f"<run {run.project}/{run.app_id}: {look(tree.outcome).word}, {began_text(tree)}>"

    def __str__(self) -> str:
        """The waterfall as text."""
        return self._drawn().export_text()

    def _repr_html_(self) -> str:
        # These colours are legible on the light and on the dark ground of a notebook.
        drawn = self._drawn().export_html(
            theme=DIMMED_MONOKAI, code_format="{code}", inline_styles=True
        )
        link = ""
        if self._url is not None:
            link = f'<a href="{html.escape(self._url, quote=True)}">trace</a>'
        return f'<pre style="{_CELL_STYLE}">{drawn}{link}</pre>'

    def _drawn(self) -> Console:
        console = Console(
            file=io.StringIO(), record=True, width=_CELL_WIDTH, force_jupyter=False, highlight=False
        )
        for line in header(self._tree):
            console.print(line, soft_wrap=True)
        console.print(Waterfall(self._tree.sessions))
        return console
