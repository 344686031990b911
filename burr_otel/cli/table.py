"""Runs as a table whose columns follow the width that there is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from rich.cells import cell_len
from rich.text import Text

from burr_otel.view.summary import RunSummary
from burr_otel.view.text import duration, fit, local_time, one_line

_GAP: Final = 2
_SHORTEST_NAME: Final = 8  # cells of a name that is cut
_LONGEST_INITIAL: Final = 60  # characters
# Burr's own id of a parallel application: its beginning tells it from others, and commands take it.
_HASH: Final = re.compile(r"\A([0-9a-f]{16})[0-9a-f]{48}\Z")
_STATUS_STYLES: Final = {
    "failed": "red",
    "crashed": "bold red",
    "running": "blue",
    "cancelled": "yellow",
    "abandoned": "yellow",
    "empty": "dim",
    "unreadable": "red",
}


class _Column(NamedTuple):
    title: str
    value: Callable[[RunSummary], str]
    rank: int  # those of the highest go first when there is no room
    right: bool = False
    cut: bool = False  # shortened before it goes


def _took(run: RunSummary) -> str:
    known = run.started_ns is not None and run.last_ns is not None
    return duration((run.last_ns or 0) - (run.started_ns or 0)) if known else ""


def _tokens(run: RunSummary) -> str:
    """What models took and gave."""
    usage = run.usage
    return "" if usage is None else f"{usage.input_tokens:,} / {usage.output_tokens:,}"


_COLUMNS: Final = (
    _Column("app id", lambda run: one_line(run.app_id), 0, cut=True),
    _Column("project", lambda run: one_line(run.project), 3, cut=True),
    _Column("partition", lambda run: one_line(run.partition_key or ""), 9, cut=True),
    _Column("started", lambda run: "" if run.started_ns is None else local_time(run.started_ns), 2),
    _Column("took", _took, 6, right=True),
    _Column("steps", lambda run: f"{run.steps:,}", 5, right=True),
    _Column("last action", lambda run: one_line(run.last_action or ""), 10, cut=True),
    _Column("tokens", _tokens, 7, right=True),
    _Column("status", lambda run: run.status, 1),
    _Column("trace", lambda run: one_line(run.trace_id or ""), 4),
    _Column("began with", lambda run: one_line(run.initial or "", _LONGEST_INITIAL), 8, cut=True),
)
_SAME_FOR_ALL_RANK: Final = 11  # of a project or partition that tells no two runs apart


def run_table(runs: Sequence[RunSummary], width: int | None) -> Iterator[Text]:
    """The lines of the table: what does not fit is left out, app ids are cut last of all.

    Without a width everything is there, in full.
    """
    cells = {column: [column.value(run) for run in runs] for column in _COLUMNS}
    widths = {column: max(map(cell_len, [column.title, *cells[column]])) for column in _COLUMNS}
    if width is not None:
        ids = cells[_COLUMNS[0]] = [_HASH.sub(r"\1…", app_id) for app_id in cells[_COLUMNS[0]]]
        widths[_COLUMNS[0]] = max(map(cell_len, [_COLUMNS[0].title, *ids]))
        widths = _fitting(widths, cells, width)
    shown = [column for column in _COLUMNS if column in widths]
    yield _line(shown, widths, [column.title for column in shown], ["bold"] * len(shown))
    yield Text("─" * (sum(widths.values()) + _GAP * (len(shown) - 1)), style="dim")
    for row, run in enumerate(runs):
        styles = {"app id": "bold", "status": _STATUS_STYLES.get(run.status, "green")}
        styles["trace"] = "dim"
        texts = [cells[column][row] for column in shown]
        yield _line(shown, widths, texts, [styles.get(column.title, "") for column in shown])


def _fitting(
    widths: dict[_Column, int], cells: dict[_Column, list[str]], width: int
) -> dict[_Column, int]:
    """The columns that fit, with their widths."""

    def rank(column: _Column) -> int:
        told = set(cells[column])
        same = column.title in ("project", "partition") and len(told) == 1
        return _SAME_FOR_ALL_RANK if same else column.rank

    app_id, status = _COLUMNS[0], next(c for c in _COLUMNS if c.title == "status")
    chosen = {status: widths[status]}
    left = width - widths[status] - _GAP
    chosen[app_id] = max(min(widths[app_id], left), 1)
    left -= chosen[app_id]
    for column in sorted(_COLUMNS, key=rank):
        if column in chosen or not any(cells[column]):
            continue
        room = left - _GAP
        least = min(widths[column], _SHORTEST_NAME) if column.cut else widths[column]
        if room >= max(least, len(column.title)):
            chosen[column] = min(widths[column], room)
            left -= chosen[column] + _GAP
    return chosen


def _line(
    columns: list[_Column], widths: dict[_Column, int], texts: list[str], styles: list[str]
) -> Text:
    line = Text()
    for column, text, style in zip(columns, texts, styles, strict=True):
        room = widths[column]
        padded = text.rjust(room + len(text) - cell_len(text)) if column.right else fit(text, room)
        line.append(padded, style=style)
        line.append(" " * _GAP)
    line.rstrip()
    return line
