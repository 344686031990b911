"""``burr-otel diff``."""

from __future__ import annotations

import click

from burr_otel.cli import options
from burr_otel.cli.app import DIFFERENT
from burr_otel.cli.complete import app_ids
from burr_otel.cli.terminal import lines, output, print_json
from burr_otel.history.settle import writer_lives
from burr_otel.view.as_json import comparison_as_json


@click.command("diff")
@click.argument("app_a", shell_complete=app_ids)
@click.argument("app_b", shell_complete=app_ids)
@click.option(
    "--ignore",
    metavar="KEY",
    multiple=True,
    help="A state key whose value does not count, such as a time stamp; may be repeated.",
)
@options.unredacted
@options.where
@options.as_json
def command(
    app_a: str,
    app_b: str,
    ignore: tuple[str, ...],
    unredacted: bool,
    where: options.Where,
    as_json: bool,
) -> int:
    """Show where two runs part.

    Names the first step in which two runs (or a run and its fork) differ, and what differs there:
    the action, its outcome, inputs, result or the state after it. Exits with 4 when they differ.

    \b
    Examples:
      burr-otel diff demo-1f3a9c02 demo-77b01d9e
      burr-otel diff checkout-8 checkout-8-fork --ignore started_at
    """
    from burr_otel.view.content import ShownContent, reader_policy
    from burr_otel.view.sheet import comparison_lines
    from burr_otel.view.steps import compare

    policy = reader_policy()
    left, right = (
        ShownContent(where.run(app_id), policy, details=True, unredacted=unredacted)
        for app_id in (app_a, app_b)
    )
    found = compare(left, right, writer_lives(), ignore)
    if as_json:
        print_json(comparison_as_json(found))
    else:
        lines(output(), comparison_lines(found))
    return 0 if found.parts_at is None else DIFFERENT
