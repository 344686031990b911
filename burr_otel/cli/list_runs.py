"""``burr-otel list``."""

from __future__ import annotations

from typing import Final

import click

from burr_otel.cli import options
from burr_otel.cli.table import run_table
from burr_otel.cli.terminal import lines, output, print_json
from burr_otel.history.settle import writer_lives
from burr_otel.view.as_json import summary_as_json
from burr_otel.view.summary import STATUSES, newest

_NONE_OF_THESE: Final = "No runs that fit all of --partition, --status and --since."


@click.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only runs that ended so, or stand so.")
@click.option(
    "--since",
    type=options.Since(),
    metavar="TIME",
    help="Only runs written to since: an age such as 30m, 2h or 3d, or a date or time.",
)
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
@options.as_json
def command(
    status: str | None,
    since: int | None,
    limit: int,
    wide: bool,
    where: options.Where,
    as_json: bool,
) -> None:
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
    alive_of, wanted = writer_lives(), (where.partition, status, since)
    found = list(newest(where.storage_dir, where.project, limit, alive_of, *wanted))
    if as_json:
        print_json([summary_as_json(summary) for summary in found])
        return
    console = output()
    if not found:
        narrowed = wanted != (None, None, None)
        console.print(_NONE_OF_THESE if narrowed else "No runs yet. `burr-otel demo` makes one.")
        return
    whole = wide or not console.is_terminal
    lines(console, run_table(found, None if whole else console.width))
