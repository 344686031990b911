"""Writes the page of ``burr-otel show --html``, with addresses of traces in the backend."""

from __future__ import annotations

import contextlib

import click
from rich.text import Text

from burr_otel.cli.terminal import lines, output, write_file
from burr_otel.config import OtelConfig
from burr_otel.errors import BurrOtelError
from burr_otel.history.settle import writer_lives
from burr_otel.history.tree import RunTree
from burr_otel.store import Store
from burr_otel.trace_url import TracePlace, read_template, trace_url
from burr_otel.view.page import html_page
from burr_otel.view.rows import relatives
from burr_otel.view.summary import summarise
from burr_otel.view.text import clean

_MOST_LOOKED_UP = 20


def write_page(view: RunTree, store: Store, file: str) -> None:
    """Write the page to a file, or to standard output for ``-``."""
    page = _page(view, store)
    if file == "-":
        click.echo(page, nl=False)
        return
    write_file(file, page)
    size = f"{len(page.encode('utf-8', 'replace')) / 1000:,.0f} kB"
    lines(output(), [Text(f"Wrote {clean(file)} ({size}). Open it in a browser.")])


def _page(view: RunTree, store: Store) -> str:
    template = read_template(OtelConfig.resolve().trace_url)
    places, traces = {}, {}
    whole = min((s.start_ns for s in view.sessions), default=0), 0
    for span, _ in view.walk():
        whole = whole[0], max(whole[1], span.last_ns)
        if span.kind == "application" and span.trace_id:
            places[span.trace_id] = span.app_id, span.start_ns, span.last_ns
    alive = writer_lives()
    for _, _, app_id in relatives(view)[:_MOST_LOOKED_UP]:
        with contextlib.suppress(BurrOtelError, OSError):  # it may be gone, or damaged
            run = store.read(app_id)
            found = summarise(run, alive(run))
            if found.trace_id:
                traces[app_id] = found.trace_id
                places[found.trace_id] = app_id, found.started_ns or 0, found.last_ns or 0

    def address(trace_id: str) -> str:
        app_id, start_ns, end_ns = places.get(trace_id, (view.app_id, *whole))
        return trace_url(template, TracePlace(trace_id, view.project, app_id, start_ns, end_ns))

    return html_page(view, address, traces)
