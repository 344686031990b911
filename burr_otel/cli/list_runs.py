"""``burr-otel list``."""

from __future__ import annotations

import click

from burr_otel.cli import options
from burr_otel.cli.terminal import output, print_json
from burr_otel.view.listing import Filters, newest, table
from burr_otel.view.liveness import writer_lives
from burr_otel.view.plain import summary_as_json

__all__ = ["command"]


@click.command("list")
@options.project
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="How many runs at most; 0 for all.",
)
@options.storage_dir
@options.as_json
def command(project: str | None, limit: int, storage_dir: str, as_json: bool) -> None:
    r"""List recorded runs, the one written to last first.

    \b
    Examples:
      burr-otel list
      burr-otel list --project burr-otel-demo --limit 5
      burr-otel list --json | jq -r '.[].app_id'
    """
    found = list(newest(storage_dir, project, limit, writer_lives(), Filters()))
    if as_json:
        print_json([summary_as_json(summary) for summary in found])
        return
    console = output()
    if not found:
        console.print("No runs yet. `burr-otel demo` makes one.")
        return
    console.print(table(found, console.width))
