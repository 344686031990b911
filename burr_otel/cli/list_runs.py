"""``burr-otel list``: runs as a table whose columns follow the width that there is."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import click
from rich.cells import cell_len
from rich.text import Text

from burr_otel.cli import options
from burr_otel.cli.terminal import CommandResult, output
from burr_otel.view.as_json import summary_as_json
from burr_otel.view.find import STATUSES, RunSummary, newest
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
    status: str | None, since: int | None, limit: int, wide: bool, where: options.Where
) -> CommandResult:
    """List recorded runs, the one written to last first.

    Only both ends of a log are read, and of a run that a filter passes over mostly just the last
    line, so 100,000 runs take seconds.

    A terminal gets the columns that it has room for; a file or a pipe gets all of them in full.

    \b
    Examples:
      burr-otel list
      burr-otel list --status failed --since 2h
      burr-otel list --project burr-otel-demo --partition user-7 --limit 5
      burr-otel list --json | jq -r '.[].app_id'
    """
    wanted = where.partition, status, since
    found = list(newest(where.storage_dir, where.project, limit, *wanted))
    if not found:
        none = "No runs yet. `burr-otel demo` makes one."
        if wanted != (None, None, None):
            none = "No runs that fit all of --partition, --status and --since."
        return CommandResult([], [none])
    console = output()
    width = console.width if console.is_terminal and not wide else None
    return CommandResult([summary_as_json(each) for each in found], run_table(found, width))


@dataclasses.dataclass
class _Column:
    title: str
    cells: list[str]
    rank: int  # those of the highest go first when there is no room
    right: bool = False
    cut: bool = False  # shortened before it goes
    width: int = 0

    def __post_init__(self) -> None:
        self.width = max(map(cell_len, [self.title, *self.cells]))


def run_table(runs: Sequence[RunSummary], width: int | None) -> Iterator[Text]:
    """The lines of the table: what does not fit is left out, app ids are cut last of all.

    Without a width everything is there, in full.
    """
    columns = _columns(runs, width)
    yield _line(columns, [column.title for column in columns], ["bold"] * len(columns))
    yield Text("─" * (sum(column.width + _GAP for column in columns) - _GAP), style="dim")
    for row, run in enumerate(runs):
        styles = {"app id": "bold", "trace": "dim"}
        styles["status"] = _UNUSUAL.get(run.status) or look(run.status).style
        texts = [column.cells[row] for column in columns]
        yield _line(columns, texts, [styles.get(column.title, "") for column in columns])


def _columns(runs: Sequence[RunSummary], width: int | None) -> list[_Column]:
    def column(
        title: str, text: Callable[[RunSummary], str | None], rank: int, **how: bool
    ) -> _Column:
        return _Column(title, [one_line(text(run) or "") for run in runs], rank, **how)

    def app_id(run: RunSummary) -> str:
        return run.app_id if width is None else _HASH.sub(r"\1…", run.app_id)

    columns = [
        column("app id", app_id, 0, cut=True),
        column("project", lambda run: run.project, 3, cut=True),
        column("partition", lambda run: run.partition_key, 9, cut=True),
        column("started", _started, 2),
        column("took", _took, 6, right=True),
        column("steps", lambda run: f"{run.steps:,}", 5, right=True),
        column("last action", lambda run: run.last_action, 10, cut=True),
        column("tokens", _tokens, 7, right=True),
        column("status", lambda run: run.status, 1),
        column("trace", lambda run: run.trace_id, 4),
        column("began with", _initial, 8, cut=True),
    ]
    return columns if width is None else _fitting(columns, width)


def _started(run: RunSummary) -> str:
    return "" if run.started_ns is None else local_time(run.started_ns)


def _initial(run: RunSummary) -> str:
    return one_line(run.initial or "", _LONGEST_INITIAL)


def _took(run: RunSummary) -> str:
    known = run.started_ns is not None and run.last_ns is not None
    return duration((run.last_ns or 0) - (run.started_ns or 0)) if known else ""


def _tokens(run: RunSummary) -> str:
    """What models took and gave."""
    usage = run.usage
    return "" if usage is None else f"{usage.input_tokens:,} / {usage.output_tokens:,}"


def _fitting(columns: list[_Column], width: int) -> list[_Column]:
    """The columns that fit: status and app id, and of the others as many as there is room for."""
    app_id, status = columns[0], next(each for each in columns if each.title == "status")
    app_id.width = max(min(app_id.width, width - status.width - _GAP), 1)
    chosen = [app_id, status]
    left = width - app_id.width - status.width - _GAP

    def rank(column: _Column) -> tuple[bool, int]:
        tells_nothing = column.title in ("project", "partition") and len(set(column.cells)) == 1
        return tells_nothing, column.rank

    for column in sorted(columns, key=rank):
        if column in chosen or not any(column.cells):
            continue
        room = left - _GAP
        least = min(column.width, _SHORTEST_NAME) if column.cut else column.width
        if room >= max(least, len(column.title)):
            column.width = min(column.width, room)
            left -= column.width + _GAP
            chosen.append(column)
    return [column for column in columns if column in chosen]


def _line(columns: list[_Column], texts: list[str], styles: list[str]) -> Text:
    line = Text()
    for column, text, style in zip(columns, texts, styles, strict=True):
        blanks = " " * (column.width - cell_len(text))
        line.append(blanks + text if column.right else fit(text, column.width), style=style)
        line.append(" " * _GAP)
    line.rstrip()
    return line
