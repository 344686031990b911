"""``burr-otel prune``."""

from __future__ import annotations

import click
from rich.text import Text

from burr_otel.cli import options
from burr_otel.cli.app import FAILED, INTERRUPTED
from burr_otel.cli.delete import DELETABLE, DELETED, IN_USE, delete_runs, fate_line
from burr_otel.cli.terminal import complain, lines, output, print_json
from burr_otel.store.bounds import Bounds, runs_beyond
from burr_otel.view.find import runs
from burr_otel.view.text import plural


@click.command("prune")
@click.option(
    "--older-than",
    type=options.Since(),
    metavar="TIME",
    help="Delete runs not written to since: an age such as 30d or 12h, or a date or time.",
)
@click.option(
    "--keep", type=click.IntRange(min=0), metavar="N", help="Keep the N newest runs, delete others."
)
@click.option(
    "--max-bytes",
    type=options.Size(),
    metavar="SIZE",
    help="Keep the newest runs that together take no more, such as 500M or 5G; delete others.",
)
@options.project
@click.option(
    "--partition",
    metavar="KEY",
    help="Only runs of this partition key; without another bound, all of them are deleted.",
)
@click.option("--dry-run", is_flag=True, help="Only tell what would be deleted.")
@options.storage_dir
@options.as_json
def command(
    older_than: int | None,
    keep: int | None,
    max_bytes: int | None,
    project: str | None,
    partition: str | None,
    dry_run: bool,
    storage_dir: str,
    as_json: bool,
) -> int | None:
    """Delete old runs, to keep a store in bounds, or all runs of one user.

    A run stays when it is within every bound that is given, among the runs of --project and
    --partition. Its age is that of its newest record. Runs whose process lives are left alone. At
    least one of --older-than, --keep, --max-bytes and --partition is needed.

    \b
    Examples:
      burr-otel prune --older-than 30d --dry-run
      burr-otel prune --older-than 30d --keep 1000 --max-bytes 5G
      burr-otel prune --partition user-7
    """
    bounds = Bounds(older_than, keep, max_bytes)
    if bounds == Bounds():
        if partition is None:
            raise click.UsageError(
                "which runs? Give --older-than, --keep, --max-bytes or --partition."
            )
        bounds = Bounds(most_runs=0)
    beyond = runs_beyond(runs(storage_dir, project, partition), bounds)
    fates, interrupted = delete_runs(beyond, storage_dir, dry_run=dry_run)
    gone = [each for each in fates if each.status in (DELETED, DELETABLE)]
    if as_json:
        print_json([each._asdict() for each in fates])
    else:
        lines(output(), map(fate_line, fates))
        size = f"{plural(len(gone), 'run')}, {sum(each.size_bytes for each in gone):,} bytes"
        summary = f"Would delete {size}." if dry_run else f"Deleted {size}."
        lines(output(stderr=True), [Text(summary)])
    failed = [each for each in fates if each not in gone and each.status != IN_USE]
    for each in failed:
        complain(f"{each.project}/{each.app_id} is not deleted: {each.reason}")
    if interrupted:
        return INTERRUPTED
    return FAILED if failed else None
