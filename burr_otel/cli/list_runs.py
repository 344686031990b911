"""``burr-otel list``: runs as a table whose columns follow the width that there is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import click
from rich.cells import cell_len
from rich.text import Text

from burr_otel.cli import options
from burr_otel.cli.terminal import CommandResult, output
from burr_otel.view.as_json import summary_as_json
from burr_otel.view.find import STATUSES, RunSummary, Where
from burr_otel.view.rows import look
from burr_otel.view.text import duration, fit, local_time, one_line

_GAP: Final = 2
_UNUSUAL: Final = {"empty": "dim", "unreadable": "red"}  # statuses that are no outcomes
_SHORTEST_NAME: Final = 8  # cells of a name that is cut
_LONGEST_INITIAL: Final = 60  # characters
# Burr's own id of a parallel application: its beginning tells it from others, and commands take it.
_HASH: Final = re.compile(r"\A([0-9a-f]{16})[0-9a-f]{48}\Z")


@click.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only runs that ended so, or stand so.")
@options.since
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="How many runs at most; 0 for all.",
)
@click.option("--wide", is_flag=True, help="Every column in full, however narrow the terminal.")
@options.where
@options.printed
def list_command(
    status: str | None, since: int | None, limit: int, wide: bool, where: Where
) -> CommandResult:
    """List recorded runs, the one written to last first.

    Of a run that is listed only both ends of its log are read, so 100,000 runs take seconds. With
    --status that is every run until enough are found: add --since.

    A terminal gets the columns that it has room for; a file or a pipe gets all of them in full.

    \b
    Examples:
      burr-otel list
      burr-otel list --status failed --since 2h
      burr-otel list --project burr-otel-demo --partition user-7 --limit 5
      burr-otel list --json | jq -r '.[].app_id'
    """
    found = list(where.newest(limit, status, since))
    if not found:
        none = "No runs yet. `burr-otel demo` makes one."
        if (where.partition, status, since) != (None, None, None):
            none = "No runs that fit all of --partition, --status and --since."
        return CommandResult([], [none])
    console = output()
    width = console.width if console.is_terminal and not wide else None
    return CommandResult([summary_as_json(each) for each in found], run_table(found, width))


class _Column(NamedTuple):
    title: str
    rank: int  # those of the highest go first when there is no room
    right: bool = False
    cut: bool = False  # shortened before it goes


_APP_ID, _STATUS, _TRACE = _Column("app id", 1, cut=True), _Column("status", 0), _Column("trace", 4)
_COLUMNS: Final = (
    _APP_ID,
    _Column("project", 3, cut=True),
    _Column("partition", 9, cut=True),
    _Column("started", 2),
    _Column("took", 6, right=True),
    _Column("steps", 5, right=True),
    _Column("last action", 10, cut=True),
    _Column("tokens", 7, right=True),
    _STATUS,
    _TRACE,
    _Column("began with", 8, cut=True),
)


def _row(run: RunSummary, *, whole: bool) -> tuple[str, ...]:
    """What stands in each column."""
    began_ns, last_ns, usage = run.started_ns, run.last_ns, run.usage
    return (
        one_line(run.app_id if whole else _HASH.sub(r"\1…", run.app_id)),
        one_line(run.project),
        one_line(run.partition_key or ""),
        "" if began_ns is None else local_time(began_ns),
        "" if began_ns is None or last_ns is None else duration(last_ns - began_ns),
        f"{run.steps:,}",
        one_line(run.last_action or ""),
        "" if usage is None else f"{usage.input_tokens:,} / {usage.output_tokens:,}",
        run.status,
        one_line(run.trace_id or ""),
        one_line(run.initial or "", _LONGEST_INITIAL),
    )


def run_table(runs: Sequence[RunSummary], width: int | None) -> Iterator[Text]:
    """The lines of the table: what does not fit into the width, if there is one, is left out."""
    rows = [_row(run, whole=width is None) for run in runs]
    cells = dict(zip(_COLUMNS, zip(*rows, strict=True), strict=True))
    widths = {each: max(map(cell_len, [each.title, *cells[each]])) for each in _COLUMNS}
    if width is not None:
        widths = _fitting(widths, cells, width)
    yield _line(widths, {column: column.title for column in widths}, dict.fromkeys(widths, "bold"))
    yield Text("─" * (sum(widths.values()) + _GAP * (len(widths) - 1)), style="dim")
    for run, row in zip(runs, rows, strict=True):
        status = _UNUSUAL.get(run.status) or look(run.status).style
        styles = {_APP_ID: "bold", _STATUS: status, _TRACE: "dim"}
        yield _line(widths, dict(zip(_COLUMNS, row, strict=True)), styles)


def _fitting(
    widths: dict[_Column, int], cells: dict[_Column, tuple[str, ...]], width: int
) -> dict[_Column, int]:
    """The columns that fit: app id and status, and of the others as many as there is room for."""

    def rank(column: _Column) -> tuple[bool, int]:
        same_for_all = column.title in ("project", "partition") and len(set(cells[column])) == 1
        return same_for_all, column.rank

    chosen: dict[_Column, int] = {}
    room = width
    for column in sorted(_COLUMNS, key=rank):
        least = min(widths[column], _SHORTEST_NAME) if column.cut else widths[column]
        fits = any(cells[column]) and room >= max(least, len(column.title))
        if fits or column in (_STATUS, _APP_ID):
            chosen[column] = max(min(widths[column], room), 1)
            room -= chosen[column] + _GAP
    return {column: chosen[column] for column in _COLUMNS if column in chosen}


def _line(
    widths: dict[_Column, int], texts: dict[_Column, str], styles: dict[_Column, str]
) -> Text:
    line = Text()
    for column, room in widths.items():
        text = texts[column]
        shown = text.rjust(room) if column.right else fit(text, room)
        line.append(shown + " " * _GAP, style=styles.get(column, ""))
    line.rstrip()
    return line
