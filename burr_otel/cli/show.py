"""``burr-otel show``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from burr_otel.cli import options
from burr_otel.cli.terminal import lines, output, print_json
from burr_otel.store import Store
from burr_otel.view.find import Found, find_run
from burr_otel.view.liveness import writer_lives
from burr_otel.view.plain import run_as_json
from burr_otel.view.read import nest_spawned, view_run
from burr_otel.view.waterfall import Waterfall, header

if TYPE_CHECKING:
    from rich.console import Console

    from burr_otel.view.model import RunView

__all__ = ["command", "draw", "load"]


@click.command("show")
@click.argument("app_id")
@options.project
@options.storage_dir
@options.as_json
def command(app_id: str, project: str | None, storage_dir: str, as_json: bool) -> None:
    r"""Draw a recorded run as a waterfall.

    APP_ID may be the beginning of an id, when no other run's id begins so.

    \b
    Examples:
      burr-otel show demo-1f3a9c02
      burr-otel show demo-1f --project burr-otel-demo --json
    """
    view = load(find_run(storage_dir, app_id, project), storage_dir, details=as_json)
    if as_json:
        print_json(run_as_json(view))
    else:
        draw(output(), view)


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
