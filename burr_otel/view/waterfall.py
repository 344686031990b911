"""A run as a waterfall: one line a span, drawn to the width of the terminal."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from burr_otel.history.read import RunTree
from burr_otel.history.tree import RUNNING, SpanNode
from burr_otel.view.rows import Row, began_text, first_item, look, notes, relatives, rows, took_text
from burr_otel.view.text import fit, one_line, plural

_OK_STYLES: Final = {"application": "bold cyan", "step": "green", "span": "cyan"}
_LEAST_BAR: Final = 4
_LEAST_NAME: Final = 14
_LEAST_TEXT: Final = 8  # of a name, however deep it is indented
_NAME_SHARE: Final = 0.42
_DURATION_CELLS: Final = 8
_FRAME_CELLS: Final = 4  # sign and the blanks between columns
_NOTE_LINES: Final = 3
_MOST_FORKS: Final = 5
_FRAME_LINES: Final = 5  # blank lines, the session's own row, hidden steps, one to spare
_ASCII: Final = str.maketrans("━╸╺◆✗⊘…·", "===*x-~.")


def header(view: RunTree) -> list[Text]:
    """What the run is, where it is, and how it went. For lines that may wrap: ids stay whole."""
    shown = look(view.outcome)
    title = (f"{one_line(view.project)}/{one_line(view.app_id)}", "bold")
    lines = [Text.assemble(title, "  ", (shown.word, shown.style))]
    traces = list(dict.fromkeys(s.trace_id for s in view.sessions if s.trace_id))
    traces = traces or ["none (written without OpenTelemetry)"]
    lines += [field("trace", one_line(trace_id)) for trace_id in traces]
    lines.append(field("place", one_line(view.place, limit=4096)))
    if view.partition_key:
        lines.append(field("key", one_line(view.partition_key)))
    found = [field(label, text) for label, text, _ in relatives(view)]
    most = _MOST_FORKS + sum(each is not None for each in (view.forked_from, view.spawned_by))
    lines += found[:most]
    if len(found) > most:
        lines.append(field("fork", f"and {len(found) - most:,} more"))
    lines.append(field("began", began_text(view)))
    lines += [field("skipped", one_line(reason), "yellow") for reason in view.skipped]
    return lines


def field(label: str, value: str, style: str = "") -> Text:
    """A fact below a title."""
    return Text.assemble((f"{label:<8}", "dim"), (value, style))


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
            for line in _lines(row, console, options.max_width, name_cells):
                if options.ascii_only:
                    line.plain = line.plain.translate(_ASCII)
                yield line


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
    line.append_text(_bar(row, span, cells, style))
    line.append(f" {took_text(span).rjust(_DURATION_CELLS)}", style=style if bad else "dim")
    yield line
    room = max(width - indent - 4, _LEAST_BAR)
    for note, note_style in notes(span):
        text = Text(one_line(note, limit=room * _NOTE_LINES), style=note_style)
        wrapped = text.wrap(console, room)
        for number, part in enumerate(wrapped[:_NOTE_LINES], 1):
            part.rstrip()
            if number == _NOTE_LINES < len(wrapped):
                part.truncate(room - 1)
                part.append("…")
            yield Text.assemble(" " * (indent + 4), part)


def _bar(row: Row, span: SpanNode, cells: int, style: str) -> Text:
    halves = 2 * cells
    start = min(math.floor(row.axis.at(span.start_ns, halves)), halves - 1)
    end = min(max(math.ceil(row.axis.at(span.last_ns, halves)), start + 1), halves)
    bar = [" "] * cells
    for cell in range(start // 2, (end + 1) // 2):
        left, right = start <= 2 * cell < end, start <= 2 * cell + 1 < end
        bar[cell] = "━" if left and right else "╸" if left else "╺"
    first = first_item(span)
    if first is None:
        return Text("".join(bar), style=style)
    at = min(int(row.axis.at(first.time_ns, cells)), cells - 1)
    bar[at] = "◆"
    drawn = Text("".join(bar), style=style)
    drawn.stylize("bold magenta", at, at + 1)
    return drawn


def _label(span: SpanNode) -> str:
    name = one_line(span.name, limit=120)
    return f"{span.sequence_id} {name}" if span.kind == "step" else name


# --- a run that goes on ---------------------------------------------------------------------------


def grow(view: RunTree, now_ns: int) -> None:
    """Draw what is running up to now, not up to its last record."""
    for span, _ in view.walk():
        if span.outcome == RUNNING:
            span.end_ns = max(now_ns, span.start_ns)
            span.forget_last()


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
