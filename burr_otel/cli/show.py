"""``burr-otel show``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

import click
from rich.text import Text

from burr_otel.cli import options
from burr_otel.cli.complete import app_ids
from burr_otel.cli.redaction import redact_run, redact_step
from burr_otel.cli.terminal import lines, output, print_json, write_file
from burr_otel.store import Store
from burr_otel.view.find import LOG, Found, find_run
from burr_otel.view.liveness import writer_lives
from burr_otel.view.plain import run_as_json, step_as_json
from burr_otel.view.read import nest_spawned, view_run
from burr_otel.view.step_sheet import step_sheet
from burr_otel.view.steps import read_step
from burr_otel.view.text import clean
from burr_otel.view.waterfall import Waterfall, header

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rich.console import Console

    from burr_otel.view.model import RunView
    from burr_otel.view.steps import StepDetails

__all__ = ["command", "draw", "load"]

CHILDREN: Final = "children.jsonl"
_MOST_WATCHED: Final = 50


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
@options.project
@options.storage_dir
@options.as_json
def command(
    app_id: str,
    step: int | None,
    html_file: str | None,
    follow: bool,
    unredacted: bool,
    project: str | None,
    storage_dir: str,
    as_json: bool,
) -> None:
    """Draw a recorded run as a waterfall.

    APP_ID may be the beginning of an id, when no other run's id begins so.

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
    run = find_run(storage_dir, app_id, project)

    def read(*, details: bool = False) -> RunView:
        view = load(run, storage_dir, details=details)
        if not unredacted:
            redact_run(view)
        return view

    if step is not None:
        found = read_step(Store(run.project, storage_dir).read(run.app_id), step)
        _show_step(read(), found if unredacted else redact_step(found), as_json=as_json)
    elif html_file is not None:
        _write_page(read(details=True), html_file)
    elif follow:
        _follow(run, read, as_json=as_json)
    elif as_json:
        print_json(run_as_json(read(details=True)))
    else:
        draw(output(), read())


def _show_step(view: RunView, details: StepDetails, *, as_json: bool) -> None:
    # The last one of that number is also the one that the details are about.
    span = [step for step in view.steps if step.sequence_id == details.sequence_id][-1]
    if as_json:
        print_json(step_as_json(view, span, details))
        return
    console = output()
    lines(console, step_sheet(view, span, details))
    if span.children:
        console.print()
        console.print(Waterfall(dataclasses.replace(view, sessions=[span])))


def _follow(run: Found, load_view: Callable[[], RunView], *, as_json: bool) -> None:
    from burr_otel.cli.follow import follow as follow_run  # noqa: PLC0415 - for this only

    files = [run.folder / LOG, run.folder / CHILDREN]

    def read() -> RunView:
        view = load_view()
        spawned = [child.app_id for child in view.children if child.kind == "spawn"]
        files[2:] = [run.folder.parent / app_id / LOG for app_id in spawned[:_MOST_WATCHED]]
        return view

    view = follow_run(read, lambda: [_fingerprint(file) for file in files], as_json=as_json)
    console = output()
    if not as_json and console.is_terminal:
        draw(console, view)


def _fingerprint(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _write_page(view: RunView, file: str) -> None:
    from burr_otel.view.page import html_page  # noqa: PLC0415 - likewise

    page = html_page(view)
    if file == "-":
        click.echo(page, nl=False)
        return
    write_file(file, page)
    size = f"{len(page.encode('utf-8', 'replace')) / 1000:,.0f} kB"
    lines(output(), [Text(f"Wrote {clean(file)} ({size}). Open it in a browser.")])


def load(run: Found, storage_dir: str, *, details: bool = False) -> RunView:
    """Read a run and the runs that it spawned."""
    store, alive = Store(run.project, storage_dir), writer_lives()

    def load_child(app_id: str) -> RunView | None:
        if not store.exists(app_id):
            return None
        return view_run(store.read(app_id), alive, details=details)

    view = view_run(store.read(run.app_id), alive, details=details)
    nest_spawned(view, load_child)
    return view


def draw(console: Console, view: RunView) -> None:
    """Print header and waterfall."""
    lines(console, header(view))
    console.print()
    console.print(Waterfall(view))
