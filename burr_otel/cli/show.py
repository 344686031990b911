"""``burr-otel show``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

import click
from rich.console import Console

from burr_otel.cli import options
from burr_otel.cli.complete import app_ids
from burr_otel.cli.terminal import lines, output, print_json
from burr_otel.history.settle import writer_lives
from burr_otel.history.tree import RunTree
from burr_otel.store import Store, StoredRun
from burr_otel.view.as_json import run_as_json, step_as_json
from burr_otel.view.content import load, reader_policy
from burr_otel.view.find import find
from burr_otel.view.waterfall import Waterfall, header

_STEPS_DRAWN: Final = (200, 1_800)  # of a long run, at its beginning and at its end


@click.command("show")
@click.argument("app_id", shell_complete=app_ids)
@click.option(
    "--step",
    type=int,
    metavar="N",
    help="Show one step instead: inputs, result, and what it did to the state.",
)
@click.option(
    "--html",
    "html_file",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write one page for a browser instead, which needs no network (-: standard output).",
)
@click.option("--follow", is_flag=True, help="Go on showing the run until its process ends.")
@options.unredacted
@options.where
@options.as_json
def command(
    app_id: str,
    step: int | None,
    html_file: str | None,
    follow: bool,
    unredacted: bool,
    where: options.Where,
    as_json: bool,
) -> None:
    """Draw a recorded run as a waterfall.

    APP_ID may be the beginning of an id, when no other run's id begins so, or the id of a trace or
    span: that of a step, or of a span inside one, shows the step.

    \b
    Examples:
      burr-otel show demo-1f3a9c02
      burr-otel show demo-1f3a9c02 --step 7
      burr-otel show demo-1f3a9c02 --html run.html
      burr-otel show conversation-7 --follow
      burr-otel show demo-1f --project burr-otel-demo --json
    """
    if (step is not None) + (html_file is not None) + follow > 1 or (html_file and as_json):
        raise click.UsageError(
            "--step, --html and --follow exclude each other, --html also --json."
        )
    run, _, named_step = find(where.storage_dir, app_id, where.project, where.partition)
    if html_file is None and not follow and step is None:
        step = named_step

    def read(*, details: bool = False, whole: bool = True) -> RunTree:
        store, ends = Store(run.project, where.storage_dir), None if whole else _STEPS_DRAWN
        policy = reader_policy()
        return load(run, store, policy, details=details, unredacted=unredacted, ends=ends)

    if step is not None:
        _show_step(run, step, as_json=as_json, unredacted=unredacted)
    elif html_file is not None:
        from burr_otel.cli.page import write_page

        write_page(read(details=True), Store(run.project, where.storage_dir), html_file)
    elif follow:
        every_step = as_json or not output().is_terminal  # a line each
        _follow(functools.partial(read, whole=every_step), as_json=as_json)
    elif as_json:
        print_json(run_as_json(read(details=True)))
    else:
        draw(output(), read(whole=False))


def _show_step(run: StoredRun, sequence_id: int, *, as_json: bool, unredacted: bool) -> None:
    from burr_otel.view.content import ShownContent
    from burr_otel.view.sheet import step_sheet
    from burr_otel.view.steps import read_step

    content = ShownContent(run, reader_policy(), details=True, unredacted=unredacted)
    step = read_step(content, writer_lives(), sequence_id)
    if as_json:
        print_json(step_as_json(step))
        return
    console = output()
    lines(console, step_sheet(step))
    if step.span.children:
        console.print()
        console.print(Waterfall([step.span]))


def _follow(read: Callable[[], RunTree], *, as_json: bool) -> None:
    from burr_otel.cli.follow import follow

    view, console = follow(read, as_json=as_json), output()
    if not as_json and console.is_terminal:
        draw(console, view)


def draw(console: Console, view: RunTree) -> None:
    """Print header and waterfall."""
    lines(console, header(view))
    console.print()
    console.print(Waterfall(view.sessions))
