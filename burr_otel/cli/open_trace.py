"""``burr-otel open``."""

from __future__ import annotations

import webbrowser
from collections.abc import Mapping
from typing import Any, Final

import click
from rich.text import Text

from burr_otel.cli import options
from burr_otel.cli.app import FAILED
from burr_otel.cli.complete import app_ids
from burr_otel.cli.terminal import complain, lines, output, print_json
from burr_otel.config import OtelConfig
from burr_otel.errors import StoreError
from burr_otel.store import Store, StoredRun
from burr_otel.trace_url import TracePlace, read_template, trace_url
from burr_otel.view.find import find

_SAMPLED: Final = 1


@click.command("open")
@click.argument("app_id", shell_complete=app_ids)
@click.option("--browser", is_flag=True, help="Open it in a browser too.")
@options.where
@options.as_json
def command(app_id: str, browser: bool, where: options.Where, as_json: bool) -> int | None:
    """Print the address of a run's trace in the backend.

    BURR_OTEL_TRACE_URL says which backend: jaeger (default, http://localhost:16686), phoenix
    (http://localhost:6006), tempo (in Grafana, http://localhost:3000), one of these with an address
    of its own such as jaeger=https://jaeger.example.com, or any URL with {trace_id} in it
    ({project}, {app_id}, {start_s}, {end_s}, {start_ms} and {end_ms} are filled in too).
    Honeycomb: honeycomb=https://ui.honeycomb.io/TEAM/environments/ENVIRONMENT.

    APP_ID may also be the id of a trace or span. A run of several sessions has a trace for each;
    by its own id, this is the newest one's. A run that was never traced has the address that
    burr-otel replay sends it to.

    \b
    Examples:
      burr-otel open demo-1f3a9c02
      burr-otel open demo-1f3a9c02 --browser
      BURR_OTEL_TRACE_URL=phoenix burr-otel open demo-1f3a9c02
    """
    template = read_template(OtelConfig.resolve(strict=True).trace_url)
    run, otel, _ = find(where.storage_dir, app_id, where.project, where.partition)
    place = _live_trace(run, where.storage_dir, otel)
    live = place is not None
    place = place or _replayed_trace(run, where.storage_dir)
    url = trace_url(template, place)
    opened = webbrowser.open(url) if browser else None
    if as_json:
        found = {"project": run.project, "app_id": run.app_id, "trace_id": place.trace_id}
        print_json({**found, "url": url, "live": live, "opened": bool(opened)})
    else:
        lines(output(), [Text(url)])
        if not live:
            said = "It was never traced: it is there once `burr-otel replay` has sent it."
            lines(output(stderr=True), [Text(said)])
    if opened is False:
        complain("no browser could be opened here; open the address in one yourself.")
        return FAILED
    return None


def _live_trace(
    run: StoredRun, storage_dir: str, named: Mapping[str, Any] | None
) -> TracePlace | None:
    history = Store(run.project, storage_dir).history(run.app_id, run.partition_key)
    root = named or (history.last_root if history else None) or {}
    trace_id, began_ns = root.get("trace_id"), root.get("time_unix_nano")
    flags = root.get("flags", 1)
    if not isinstance(trace_id, str) or not isinstance(flags, int) or not flags & _SAMPLED:
        return None
    began_ns = began_ns if isinstance(began_ns, int) else run.changed_ns
    return TracePlace(trace_id, run.project, run.app_id, began_ns, run.changed_ns)


def _replayed_trace(run: StoredRun, storage_dir: str) -> TracePlace:
    """The trace that a replay would make of a run's newest session."""
    from burr_otel.replay.read import opened

    last = None
    for spans in opened([run], storage_dir):
        for span in spans:
            last = span  # the newest session's own comes last
    context = None if last is None else last.get_span_context()
    if last is None or context is None:
        raise StoreError(f"{run.project}/{run.app_id} has no trace: nothing is in its log.")
    began_ns, ended_ns = last.start_time or 0, last.end_time or 0
    return TracePlace(f"{context.trace_id:032x}", run.project, run.app_id, began_ns, ended_ns)
