"""``burr-otel replay``."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import click
from rich.text import Text

from burr_otel.cli import options
from burr_otel.cli.app import FAILED, INTERRUPTED
from burr_otel.cli.bar import bar
from burr_otel.cli.complete import app_ids
from burr_otel.cli.terminal import complain, lines, output, print_json
from burr_otel.store import StoredRun
from burr_otel.view.as_json import iso
from burr_otel.view.text import one_line, plural

if TYPE_CHECKING:
    from burr_otel.cli.sending import Target
    from burr_otel.replay.send import Job

_BATCH_TIMEOUT_S: Final = 10.0
_LONGEST_LINE: Final = 4000
_MOST_SHOWN: Final = 50  # runs of which something is to be told


@click.command("replay")
@click.argument("app_id", nargs=-1, shell_complete=app_ids)
@click.option(
    "--since",
    type=options.Since(),
    metavar="TIME",
    help="Only runs written to since: an age such as 30m, 2h or 3d, or a date or time.",
)
@click.option(
    "--to",
    metavar="ENDPOINT",
    help="Where to send to.  [default: that of the OTEL_* variables, else localhost]",
)
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@options.where_of_project
@options.as_json
def command(
    app_id: tuple[str, ...],
    since: int | None,
    to: str | None,
    dry_run: bool,
    where: options.Where,
    as_json: bool,
) -> int:
    """Send stored runs as traces.

    With the ids, times, links, attributes and outcomes that they had, or would have had, live; so
    what has been sent already is not doubled. Runs that Burr's own client wrote are sent too, under
    ids that are the same every time. Without an APP_ID, all runs are sent; with one, also the runs
    that it spawned. After Ctrl-C it says with which --since it goes on.

    \b
    Examples:
      burr-otel replay --since 2h
      burr-otel replay demo-1f3a9c02 --to http://localhost:4317
      burr-otel replay --project burr-otel-demo --dry-run
    """
    from burr_otel.cli.sending import find_target
    from burr_otel.replay.read import choose

    target = find_target(to)
    if target.problem and not dry_run:
        complain(target.problem)
        return FAILED
    found = choose(where.storage_dir, app_id, where.project, since)
    job, interrupted = _run(found, where.storage_dir, None if dry_run else target)
    rest = found[job.done :] if interrupted or job.stopped else []
    go_on = f"{iso(min(run.changed_ns for run in rest))!s:.19}Z" if rest else None
    if as_json:
        facts = {"to": target.shown, "dry_run": dry_run, "interrupted": interrupted}
        print_json({**facts, "go_on_since": go_on, **_as_json(job)})
    else:
        lines(output(), _summary(job, target, go_on, dry_run=dry_run))
    if interrupted:
        return INTERRUPTED
    wrong = any(report.status in ("refused", "unreadable") for report in job.reports)
    return FAILED if wrong or job.stopped else 0


# --- sending ------------------------------------------------------------------------------------


def _run(found: list[StoredRun], storage_dir: str, target: Target | None) -> tuple[Job, bool]:
    """Send, or rehearse without a target; gives the job, and whether it was interrupted."""
    from burr_otel.check.settings import kept_warnings
    from burr_otel.cli.sending import open_exporter
    from burr_otel.replay.read import opened
    from burr_otel.replay.send import Job, Sender

    with (
        kept_warnings("opentelemetry") as said,
        _bar(found, "reading" if target is None else "sending") as told,
        contextlib.ExitStack() as stack,
    ):
        job = Job(None, told)
        if target is not None:
            exporter = open_exporter(target, _BATCH_TIMEOUT_S)
            stack.callback(exporter.shutdown)
            job = Job(Sender(exporter, said, time.sleep), told)
        try:
            job.run(opened(found, storage_dir))
        except KeyboardInterrupt:
            return job, True
    return job, False


@contextlib.contextmanager
def _bar(found: list[StoredRun], doing: str) -> Iterator[Callable[[int, int, int], None]]:
    """A bar; what to call with the runs, bytes of logs and spans done so far."""
    began = time.monotonic()
    with bar(doing, sum(run.size_bytes for run in found)) as moved:

        def told(runs: int, read_bytes: int, spans: int) -> None:
            rate = spans / max(time.monotonic() - began, 1e-3)
            moved(read_bytes, f"{runs:,} of {plural(len(found), 'run')}, {rate:,.0f} spans/s")

        yield told


# --- what became of them ------------------------------------------------------------------------


def _summary(job: Job, target: Target, go_on: str | None, *, dry_run: bool) -> Iterator[Text]:
    counts = Counter(report.status for report in job.reports)
    spans = sum(report.spans for report in job.reports)
    refused = sum(report.refused for report in job.reports)
    told = [report for report in job.reports if report.reasons or dry_run]
    for report in told[:_MOST_SHOWN]:
        facts = [plural(report.spans, "span")] if dry_run and report.spans else []
        said = f"{report.project}/{report.app_id}: {'; '.join(facts + report.reasons)}"
        yield Text(one_line(said, _LONGEST_LINE))
    if len(told) > _MOST_SHOWN:
        yield Text(f"... and so on for {plural(len(told) - _MOST_SHOWN, 'run')} more (--json)")
    if not job.reports:
        yield Text("No runs to send.")
        return
    verb = "Would send" if dry_run else "Sent"
    sent = f"{verb} {plural(counts['sent'], 'run')} ({plural(spans, 'span')}) to {target.shown}"
    rest = [
        f"{counts[status]:,} {status}"
        for status in ("refused", "unsent", "skipped", "unreadable")
        if counts[status]
    ]
    but = f"; {', '.join(rest)}" if rest else ""
    yield Text(f"{sent}{but}.", style="yellow" if rest else "green")
    if refused:
        yield Text(f"{plural(refused, 'span')} refused.", style="red")
    if job.stopped:
        stopped = f"Stopped, because the endpoint takes nothing: {job.stopped}"
        yield Text(one_line(stopped, _LONGEST_LINE), style="red")
    if go_on:
        yield Text(f"The same command with --since {go_on} goes on from here.")


def _as_json(job: Job) -> dict[str, Any]:
    names = ("project", "app_id", "status", "spans", "refused", "trace_ids", "reasons")
    return {
        "stopped": job.stopped,
        "spans": sum(report.spans for report in job.reports),
        "refused": sum(report.refused for report in job.reports),
        "runs": [{name: getattr(report, name) for name in names} for report in job.reports],
    }
