"""Commands that take single runs: compare two, open one's trace, make a test of one's step."""

from __future__ import annotations

import webbrowser
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from burr_otel.cli import options
from burr_otel.cli.app import DIFFERENT
from burr_otel.cli.terminal import CommandResult, write_file
from burr_otel.config import OtelConfig
from burr_otel.errors import StoreError
from burr_otel.records import ROOT
from burr_otel.store import StoredRun
from burr_otel.store.reading import newest_record, otel_of
from burr_otel.trace_url import TracePlace, recorded_place, trace_url
from burr_otel.view.as_json import comparison_as_json
from burr_otel.view.content import ShownContent, reader_policy
from burr_otel.view.find import Where


@click.command("diff")
@click.argument("app_a", shell_complete=options.app_ids)
@click.argument("app_b", shell_complete=options.app_ids)
@click.option(
    "--ignore",
    metavar="KEY",
    multiple=True,
    help="A state key whose value does not count, such as a time stamp; may be repeated.",
)
@options.unredacted
@options.where
@options.printed
def diff_command(
    app_a: str, app_b: str, ignore: tuple[str, ...], unredacted: bool, where: Where
) -> CommandResult:
    """Show where two runs part.

    Names the first step in which two runs (or a run and its fork) differ, and what differs there:
    the action, its outcome, inputs, result or the state after it. Exits with 4 when they differ.

    \b
    Examples:
      burr-otel diff demo-1f3a9c02 demo-77b01d9e
      burr-otel diff checkout-8 checkout-8-fork --ignore started_at
    """
    from burr_otel.view.drawing import comparison_lines
    from burr_otel.view.steps import compare

    policy = reader_policy()
    left, right = (
        ShownContent(found.run, policy, details=True, unredacted=unredacted)
        for found in where.find_each([app_a, app_b])
    )
    compared = compare(left, right, ignore)
    exit_code = 0 if compared.parts_at is None else DIFFERENT
    data, lines = comparison_as_json(compared), comparison_lines(compared)
    return CommandResult(data, lines, exit_code=exit_code)


@click.command("open")
@options.one_run
@click.option("--browser", is_flag=True, help="Open it in a browser too.")
@options.where
@options.printed
def open_command(app_id: str, browser: bool, where: Where) -> CommandResult:
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
    setting = OtelConfig.resolve(strict=True).trace_url
    run, otel, _ = where.find(app_id)
    live = live_trace(run, otel)
    place = live or _replayed_trace(run, where.storage_dir)
    url = trace_url(setting, place)
    opened = browser and webbrowser.open(url)
    data = {
        "project": run.project,
        "app_id": run.app_id,
        "trace_id": place.trace_id,
        "url": url,
        "live": live is not None,
        "opened": opened,
    }
    note = "It was never traced: it is there once `burr-otel replay` has sent it."
    problem = "no browser could be opened here; open the address in one yourself."
    problems = [problem] if browser and not opened else []
    return CommandResult(data, [url], [] if live else [note], problems)


def live_trace(run: StoredRun, named: Mapping[str, Any] | None = None) -> TracePlace | None:
    """The trace that a record names, else the newest one of the run; `None`: it was not traced."""

    def place(otel: Mapping[str, Any] | None) -> TracePlace | None:
        return recorded_place(otel or {}, run.project, run.app_id, run.changed_ns)

    def was_traced(root: dict[str, Any]) -> bool:
        return place(otel_of(root)) is not None

    return place(named or otel_of(newest_record(run.log, (ROOT,), accept=was_traced)))


def _replayed_trace(run: StoredRun, storage_dir: str) -> TracePlace:
    """The trace that a replay would make of a run's newest session."""
    from burr_otel.replay.read import opened

    # The newest session's own span comes last.
    spans = deque((span for each in opened([run], storage_dir) for span in each), maxlen=1)
    context = spans[-1].get_span_context() if spans else None
    if context is None:
        raise StoreError(f"{run.project}/{run.app_id} has no trace: nothing is in its log.")
    began_ns, ended_ns = spans[-1].start_time or 0, spans[-1].end_time or 0
    return TracePlace(f"{context.trace_id:032x}", run.project, run.app_id, began_ns, ended_ns)


@click.command("test-case")
@options.one_run
@click.option(
    "--step",
    type=int,
    metavar="N",
    help="Which step.  [default: that of the span; else the last that failed; else the last]",
)
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default="tests",
    show_default=True,
    metavar="DIR",
    help="Where the files go; it is made when it is not there.",
)
@click.option(
    "--action",
    metavar="MODULE:NAME",
    help="What to import.  [default: the function that was recorded]",
)
@click.option("--redacted", is_flag=True, help="Hide in the data what spans hide.")
@click.option("--replace", is_flag=True, help="Replace files of an earlier time.")
@click.option(
    "--burr", "for_burr", is_flag=True, help="Write a file of `burr-test-case` in place of both."
)
@options.where
@options.printed
def test_case_command(
    app_id: str,
    step: int | None,
    folder: Path,
    action: str | None,
    redacted: bool,
    replace: bool,
    for_burr: bool,
    where: Where,
) -> CommandResult:
    """Make a test of a recorded step.

    Writes a pytest file and its data: the state that the step read, its inputs, and its result or
    exception. The test runs the action on them. That of a step that failed fails until the action
    no longer raises; that of another one compares. APP_ID may also be the id of a trace or span.

    The data are the recorded values, secrets too, unless --redacted says otherwise.

    \b
    Examples:
      burr-otel test-case conversation-7
      burr-otel test-case 5b2f9f072eceeea4 -o tests/regressions
      burr-otel test-case demo-1f3a9c02 --step 7 --redacted
    """
    from burr_otel.view.test_case import step_case

    run, _, named_step = where.find(app_id)
    found = step_case(
        run,
        named_step if step is None else step,
        reader_policy(),
        redacted=redacted,
        action=action,
        for_burr=for_burr,
    )
    texts = {folder / name: text for name, text in found.items()}
    for file in texts:
        if file.exists() and not replace:
            raise StoreError(f"{file} is there already; --replace writes it anew.")
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        write_file(str(file), text)
    data = {"project": run.project, "app_id": run.app_id, "files": list(map(str, texts))}
    note = "They hold recorded values as they are, secrets too; --redacted hides these."
    return CommandResult(data, [f"Wrote {file}" for file in texts], [] if redacted else [note])
