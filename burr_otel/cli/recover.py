"""``burr-otel recover``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from burr_otel import OtelTracker
from burr_otel.cli import options
from burr_otel.cli.complete import app_ids
from burr_otel.cli.terminal import output, print_json
from burr_otel.store.markers import PREFIX
from burr_otel.view.find import Found, find_run, projects, runs
from burr_otel.view.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["command"]


@click.command("recover")
@click.argument("app_id", nargs=-1, shell_complete=app_ids)
@options.project
@options.storage_dir
@options.as_json
def command(app_id: tuple[str, ...], project: str | None, storage_dir: str, as_json: bool) -> None:
    """Complete the traces of runs whose process was killed.

    Sends the spans that it left open to the endpoint of the OTEL_* variables, once, with outcome
    "crashed", and mends torn logs. The next process that builds the run does the same. Sessions
    whose process lives are left alone. Without an APP_ID, all runs with an open session are looked
    at.

    \b
    Examples:
      burr-otel recover
      burr-otel recover --project burr-otel-demo
      burr-otel recover 4f1c9d7e --json
    """
    done: list[dict[str, Any]] = []
    trackers: dict[str, OtelTracker] = {}
    for run in _meant(app_id, project, storage_dir):
        tracker = trackers.get(run.project)
        if tracker is None:
            tracker = trackers[run.project] = OtelTracker(run.project, storage_dir)
        done.extend(
            {"project": run.project, "app_id": run.app_id, **each._asdict()}
            for each in tracker.recover(run.app_id)
        )
    for tracker in trackers.values():
        tracker.close()
    if as_json:
        print_json(done)
        return
    console = output()
    for each in done:
        spans = ", ".join(each["spans"]) or "never traced, so nothing to send"
        trace = f" (trace {each['trace_id']})" if each["trace_id"] else ""
        line = f"{each['project']}/{each['app_id']}: {spans}{trace}"
        console.print(clean(line), soft_wrap=True, markup=False, highlight=False)
    if not done:
        console.print("Nothing to recover.")


def _meant(app_ids: tuple[str, ...], project: str | None, storage_dir: str) -> Iterator[Found]:
    if app_ids:
        for app_id in app_ids:
            yield find_run(storage_dir, app_id, project)
        return
    for name, folder in projects(storage_dir, project):
        for run in runs(folder):
            if any(Path(run.path).glob(f"{PREFIX}*")):
                yield Found(name, run.name, Path(run.path))
