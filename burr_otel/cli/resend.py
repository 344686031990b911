"""Commands that send what is stored: ``burr-otel replay`` and ``burr-otel recover``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click
from rich.text import Text

from burr_otel.cli import options
from burr_otel.cli.app import FAILED, INTERRUPTED
from burr_otel.cli.terminal import LONGEST_LINE, CommandResult
from burr_otel.errors import BurrOtelError, UnknownRunError
from burr_otel.view.find import Where
from burr_otel.view.text import iso, one_line, plural

if TYPE_CHECKING:
    from burr_otel.replay.send import Job

_MOST_SHOWN: Final = 50  # runs of which something is to be told
_REPORTED: Final = ("project", "app_id", "status", "spans", "refused", "reasons")


@click.command("replay")
@options.some_runs
@options.since
@click.option(
    "--to",
    metavar="ENDPOINT",
    help="Where to send to.  [default: that of the OTEL_* variables, else localhost]",
)
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@options.where
@options.printed
def replay_command(
    app_id: tuple[str, ...],
    since: int | None,
    to: str | None,
    dry_run: bool,
    where: Where,
) -> CommandResult:
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
    from burr_otel.cli.sending import find_target, send

    target = find_target(to)
    if target.problem and not dry_run:
        return CommandResult(None, problems=[target.problem])
    found = where.chosen(app_id, since)
    job, interrupted = send(found, where.storage_dir, None if dry_run else target)
    rest = found[job.done :] if interrupted or job.stopped else []
    go_on = f"{iso(min(run.changed_ns for run in rest))!s:.19}Z" if rest else None
    data = {
        "to": target.place.shown,
        "dry_run": dry_run,
        "interrupted": interrupted,
        "go_on_since": go_on,
        "stopped": job.stopped,
        "spans": sum(report.spans for report in job.reports),
        "refused": sum(report.refused for report in job.reports),
        "runs": [
            {**{name: getattr(each, name) for name in _REPORTED}, "trace_ids": [*each.trace_ids]}
            for each in job.reports
        ],
    }
    wrong = any(report.status in ("refused", "unreadable") for report in job.reports)
    exit_code = INTERRUPTED if interrupted else FAILED if wrong or job.stopped else 0
    return CommandResult(data, _summary(job, data), exit_code=exit_code)


def _summary(job: Job, data: dict[str, Any]) -> Iterator[Text]:
    dry_run, refused, go_on = data["dry_run"], data["refused"], data["go_on_since"]
    counts: Counter[str] = Counter(report.status for report in job.reports)
    told = [report for report in job.reports if report.reasons or dry_run]
    for report in told[:_MOST_SHOWN]:
        facts = [plural(report.spans, "span")] if dry_run and report.spans else []
        said = f"{report.project}/{report.app_id}: {'; '.join(facts + report.reasons)}"
        yield Text(one_line(said, LONGEST_LINE))
    if len(told) > _MOST_SHOWN:
        yield Text(f"... and so on for {plural(len(told) - _MOST_SHOWN, 'run')} more (--json)")
    if not job.reports:
        yield Text("No runs to send.")
        return
    others = ("refused", "unsent", "skipped", "unreadable")
    rest = ", ".join(f"{counts[status]:,} {status}" for status in others if counts[status])
    but = f"; {rest}" if rest else ""
    verb = "Would send" if dry_run else "Sent"
    sent = f"{plural(counts['sent'], 'run')} ({plural(data['spans'], 'span')}) to {data['to']}"
    yield Text(f"{verb} {sent}{but}.", style="yellow" if rest else "green")
    if refused:
        yield Text(f"{plural(refused, 'span')} refused.", style="red")
    if job.stopped:
        stopped = f"Stopped, because the endpoint takes nothing: {job.stopped}"
        yield Text(one_line(stopped, LONGEST_LINE), style="red")
    if go_on:
        yield Text(f"The same command with --since {go_on} goes on from here.")


@click.command("recover")
@options.some_runs
@options.where
@options.printed
def recover_command(app_id: tuple[str, ...], where: Where) -> CommandResult:
    """Complete the traces of runs whose process was killed.

    Sends the spans that it left open to the endpoint of the OTEL_* variables, once, with outcome
    "crashed", and again the finished ones that may never have been sent; and mends torn logs. The
    next process that builds the run does the same. Sessions whose process lives are left alone; one
    whose spans nobody took stays as it is. Without an APP_ID, all runs with an open session are
    looked at.

    \b
    Examples:
      burr-otel recover
      burr-otel recover --project burr-otel-demo
      burr-otel recover 4f1c9d7e --json
    """
    from burr_otel import OtelTracker
    from burr_otel.cli.sending import Courier, find_target

    target = find_target()
    courier = Courier(target)
    # What is not sent by OTLP is the provider's affair.
    send = courier if target.unreachable or not target.problem else None
    done: list[dict[str, Any]] = []
    problems: list[str] = []
    trackers: dict[str, OtelTracker] = {}
    for run in (each.run for each in where.find_each(app_id)) if app_id else where.runs():
        if not app_id and not any(run.log.open_markers()):
            continue
        if run.project not in trackers:
            trackers[run.project] = OtelTracker(run.project, where.storage_dir)
        names, tracker = {"project": run.project, "app_id": run.app_id}, trackers[run.project]
        try:
            found = tracker.recover(run.app_id, send, partition_key=run.partition_key)
            done += [{**names, **each._asdict()} for each in found]
        except (FileNotFoundError, UnknownRunError):
            continue  # it is deleted meanwhile
        except (BurrOtelError, OSError) as error:
            problems.append(f"{run.project}/{run.app_id} is not recovered: {error}")
    for tracker in trackers.values():
        tracker.close()
    parts = map(_recovered_line, done) if done or problems else ["Nothing to recover."]
    unsent = [each for each in done if not each["sent"]]
    if unsent:
        what = f"{plural(len(unsent), 'session')} could not be sent: {courier.problem}"
        problems.append(f"{what} Nothing of them is lost; call it again when that is mended.")
    return CommandResult(done, parts, problems=problems)


def _recovered_line(each: dict[str, Any]) -> str:
    spans = ", ".join(each["spans"]) or "never traced, so nothing to send"
    spans += f" and {plural(each['again'], 'finished span')} again" if each["again"] else ""
    trace = f" (trace {each['trace_id']})" if each["trace_id"] else ""
    unsent = "" if each["sent"] else "  not sent"
    run = one_line(f"{each['project']}/{each['app_id']}")
    return f"{run}: {one_line(spans, LONGEST_LINE)}{trace}{unsent}"
