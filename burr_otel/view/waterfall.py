"""A run as a waterfall: one line a span, drawn to the width of the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from burr_otel import semconv
from burr_otel.history.tree import RUNNING, LeftOut, RunTree, SpanNode
from burr_otel.records import Raised, StreamMark, Usage
from burr_otel.view.axis import Axis, Pause, session_axis
from burr_otel.view.diff import as_text
from burr_otel.view.text import duration, fit, local_time, one_line, plural

OUTCOME_WORDS: Final = {semconv.ERROR: "failed"}
"""What is shown where the recorded word is another."""

_STYLES: Final = {
    semconv.ERROR: "red",
    semconv.FAILED: "red",
    semconv.CRASHED: "bold red",
    semconv.CANCELLED: "yellow",
    semconv.ABANDONED: "yellow",
    RUNNING: "blue",
}
_OK_STYLES: Final = {"application": "bold cyan", "step": "green", "span": "cyan"}
_WHY: Final = {
    semconv.CRASHED: ("crashed: it never ended, and its process is gone", "red"),
    semconv.CANCELLED: ("cancelled", "yellow"),
    semconv.ABANDONED: ("abandoned: nobody read its stream to the end", "yellow"),
}
_LEAST_BAR: Final = 4
_LEAST_NAME: Final = 14
_LEAST_TEXT: Final = 8  # of a name, however deep it is indented
_NAME_SHARE: Final = 0.42
_DURATION_CELLS: Final = 8
_FRAME_CELLS: Final = 4  # sign and the blanks between columns
NOTE_LINES: Final = 3
_MOST_FORKS: Final = 5


class _Glyphs(NamedTuple):
    full: str
    left: str
    right: str
    first_item: str
    failed: str
    stopped: str
    running: str
    rule: str
    more: str


_UNICODE: Final = _Glyphs("━", "╸", "╺", "◆", "✗", "⊘", "…", "·", "…")
_ASCII: Final = _Glyphs("=", "=", "=", "*", "x", "-", ">", ".", "~")


def outcome_style(outcome: str) -> str:
    """The colour of an outcome."""
    return _STYLES.get(outcome, "green")


def header(view: RunTree) -> list[Text]:
    """What the run is, where it is, and how it went. For lines that may wrap: ids stay whole."""
    outcome = view.outcome
    title = Text.assemble(
        (f"{one_line(view.project)}/{one_line(view.app_id)}", "bold"),
        "  ",
        (OUTCOME_WORDS.get(outcome, one_line(outcome)), outcome_style(outcome)),
    )
    lines = [title]
    traces = list(dict.fromkeys(s.trace_id for s in view.sessions if s.trace_id))
    lines += [
        _field("trace", one_line(trace_id))
        for trace_id in traces or ["none (written without OpenTelemetry)"]
    ]
    lines.append(_field("place", one_line(view.place, limit=4096)))
    if view.partition_key:
        lines.append(_field("key", one_line(view.partition_key)))
    found = [_field(label, text) for label, text, _ in relatives(view)]
    most = _MOST_FORKS + sum(each is not None for each in (view.forked_from, view.spawned_by))
    lines += found[:most]
    if len(found) > most:
        lines.append(_field("fork", f"and {len(found) - most:,} more"))
    lines.append(_field("began", began_text(view)))
    lines += [_field("skipped", one_line(reason), "yellow") for reason in view.skipped]
    return lines


def relatives(view: RunTree) -> list[tuple[str, str, str]]:
    """The runs that a run comes from and those that were forked from it: label, text, app id."""
    found = []
    for verb, pointer in (("forked from", view.forked_from), ("spawned by", view.spawned_by)):
        if pointer is not None:
            where = _where(pointer.app_id, pointer.sequence_id)
            found.append(("parent", f"{verb} {where}", pointer.app_id))
    forks = [child for child in view.children if child.kind == "fork"]
    return found + [("fork", _where(each.app_id, each.sequence_id), each.app_id) for each in forks]


def began_text(view: RunTree) -> str:
    """When a run began, how long it took, and how many steps it has."""
    if not view.sessions:
        return "never: its log is empty"
    steps, left_out = view.steps, [each.left_out for each in view.sessions if each.left_out]
    start_ns = min(session.start_ns for session in view.sessions)
    count = len(steps) + sum(each.steps for each in left_out)
    facts = [local_time(start_ns), duration(view.active_ns), plural(count, "step")]
    failed = sum(step.is_bad for step in steps) + sum(each.failed or 0 for each in left_out)
    if failed:
        facts.append(f"{failed:,} failed")
    if len(view.sessions) > 1:
        facts.append(plural(len(view.sessions), "session"))
    return ", ".join(facts)


def _field(label: str, value: str, style: str = "") -> Text:
    return Text.assemble((f"{label:<8}", "dim"), (value, style))


def _where(app_id: str, sequence_id: int | None) -> str:
    return one_line(app_id) + ("" if sequence_id is None else f" at step {sequence_id}")


class Waterfall:
    """The spans of a run as a Rich renderable, one line each, never wider than the console."""

    def __init__(self, view: RunTree) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw to the width at hand."""
        width = options.max_width
        glyphs = _ASCII if options.ascii_only else _UNICODE
        name_cells = self._name_cells(width)
        painter = _Painter(console, width, name_cells, glyphs)
        for number, session in enumerate(self._view.sessions):
            if number:
                yield Text("")
            if len(self._view.sessions) > 1:
                yield painter.session_title(number, session)
            yield from painter.session(session)

    def _name_cells(self, width: int) -> int:
        longest = max(
            (2 * depth + cell_len(_label(span)) for span, depth in self._view.walk()), default=0
        )
        most = max(_LEAST_NAME, int(width * _NAME_SHARE))
        return min(max(longest, _LEAST_NAME), most)


class _Painter:
    """Lines of one layout."""

    def __init__(self, console: Console, width: int, name_cells: int, glyphs: _Glyphs) -> None:
        self._console = console
        self._glyphs, self._width, self._name_cells = glyphs, width, name_cells
        self._bar_cells = max(_LEAST_BAR, width - name_cells - _DURATION_CELLS - _FRAME_CELLS)

    def session_title(self, number: int, session: SpanNode) -> Text:
        title = f"session {number + 1}, {local_time(session.start_ns)}"
        return Text(fit(title, self._width).rstrip(), style="dim")

    def session(self, session: SpanNode) -> Iterator[Text]:
        axis = session_axis(session)
        pauses = list(axis.pauses)
        yield from self._lines(session, 0, axis)
        for number, step in enumerate(session.children):
            if session.left_out is not None and number == session.left_out.at:
                text = f"{left_out_text(session.left_out)}; --json has all, --step N one"
                yield self._between(text)
            while pauses and step.start_ns >= pauses[0].end_ns:
                yield self._pause(pauses.pop(0))
            for span, depth in step.walk():
                yield from self._lines(span, depth + 1, axis)

    def _lines(self, span: SpanNode, depth: int, axis: Axis) -> Iterator[Text]:
        yield self._row(span, depth, axis)
        yield from self._note_lines(span, depth)

    def _between(self, label: str) -> Text:
        dots = self._glyphs.rule * 3
        return Text(fit(f"  {dots} {label} {dots}", self._width).rstrip(), style="dim")

    def _row(self, span: SpanNode, depth: int, axis: Axis) -> Text:
        style = _STYLES.get(span.outcome) or _OK_STYLES[span.kind]
        bad = span.outcome in _STYLES
        name = fit(" " * self._indent(depth) + _label(span), self._name_cells)
        row = Text(no_wrap=True, overflow="crop", end="\n")
        row.append(self._sign(span) + " ", style=style)
        row.append(name, style=style if bad else ("bold" if span.kind == "application" else ""))
        row.append(" ")
        self._bar(row, span, axis, style)
        length = duration(span.last_ns - span.start_ns) if span.begun else "?"
        row.append(" " + length.rjust(_DURATION_CELLS), style=style if bad else "dim")
        return row

    def _bar(self, row: Text, span: SpanNode, axis: Axis, style: str) -> None:
        cells, glyphs = self._bar_cells, self._glyphs
        halves = 2 * cells
        start = min(math.floor(axis.at(span.start_ns, halves)), halves - 1)
        end = min(max(math.ceil(axis.at(span.last_ns, halves)), start + 1), halves)
        bar = [" "] * cells
        for cell in range(start // 2, (end + 1) // 2):
            left, right = start <= 2 * cell < end, start <= 2 * cell + 1 < end
            bar[cell] = glyphs.full if left and right else glyphs.left if left else glyphs.right
        offset = len(row)
        first = first_item(span)
        if first is not None:
            cell = min(int(axis.at(first.time_ns, cells)), cells - 1)
            bar[cell] = glyphs.first_item
        row.append("".join(bar), style=style)
        if first is not None:
            row.stylize("bold magenta", offset + cell, offset + cell + 1)

    def _note_lines(self, span: SpanNode, depth: int) -> Iterator[Text]:
        indent = self._indent(depth) + 4
        room = max(self._width - indent, _LEAST_BAR)
        for note, style in notes(span):
            text = Text(one_line(note, limit=room * NOTE_LINES), style=style)
            lines = text.wrap(self._console, room)
            for number, line in enumerate(lines[:NOTE_LINES], 1):
                line.rstrip()
                if number == NOTE_LINES < len(lines):
                    line.truncate(room - 1)
                    line.append(self._glyphs.more)
                yield Text.assemble(" " * indent, line)

    def _indent(self, depth: int) -> int:
        return min(2 * depth, self._name_cells - _LEAST_TEXT)

    def _pause(self, pause: Pause) -> Text:
        return self._between(f"{duration(pause.length_ns)} pause")

    def _sign(self, span: SpanNode) -> str:
        glyphs = self._glyphs
        return {
            semconv.ERROR: glyphs.failed,
            semconv.FAILED: glyphs.failed,
            semconv.CRASHED: glyphs.failed,
            semconv.CANCELLED: glyphs.stopped,
            semconv.ABANDONED: glyphs.stopped,
            RUNNING: glyphs.running,
        }.get(span.outcome, " ")


def _label(span: SpanNode) -> str:
    name = one_line(span.name, limit=120)
    if span.kind == "step":
        return f"{span.sequence_id} {name}"
    return name


def first_item(span: SpanNode) -> StreamMark | None:
    """When a stream gave its first item."""
    return next((mark for mark in span.marks if mark.kind == "first_item_stream"), None)


def left_out_text(left_out: LeftOut) -> str:
    """How many steps were not read."""
    failed = f", {left_out.failed:,} of them failed" if left_out.failed else ""
    return f"{plural(left_out.steps, 'step')} left out{failed}"


def failure_text(failure: Raised) -> str:
    """Class and message of an exception, as a person reads them."""
    kind = failure.type.rpartition(".")[2]
    return f"{kind}: {failure.message}" if kind and failure.message else kind or failure.message


def tokens_text(usage: Usage | None) -> str:
    """What models took and gave; empty when none was asked."""
    if usage is None:
        return ""
    return f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out"


def reason(span: SpanNode) -> tuple[str, str] | None:
    """Why a span did not end well, and the style of that."""
    if span.failure is not None:
        return failure_text(span.failure) or "failed", "red"
    return _WHY.get(span.outcome) if span.kind == "step" else None


def stream_text(span: SpanNode) -> str:
    """What a stream gave, and when it began to."""
    facts = []
    first = first_item(span)
    if first is not None:
        facts.append(f"first item after {duration(first.time_ns - span.start_ns)}")
    items = next((mark.items for mark in span.marks if mark.items is not None), None)
    if items is not None:
        facts.append(plural(items, "item"))
    return ", ".join(facts)


def notes(span: SpanNode) -> Iterator[tuple[str, str]]:
    """What is said below a span's bar, each with its style."""
    why = reason(span)
    if why is not None:
        yield why
    initial = span.details.get("initial")
    facts = [as_text(initial) if initial else "", stream_text(span), tokens_text(span.usage)]
    if any(facts):
        yield ", ".join(filter(None, facts)), "dim"
