"""``burr-otel recover``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import click
from rich.text import Text

from burr_otel.cli import options
from burr_otel.cli.app import FAILED
from burr_otel.cli.complete import app_ids
from burr_otel.cli.terminal import complain, lines, output, print_json
from burr_otel.store import StoredRun
from burr_otel.view.find import runs
from burr_otel.view.text import one_line, plural

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

    from burr_otel import OtelTracker
    from burr_otel.cli.sending import Target

_TIMEOUT_S: Final = 10.0
_LONGEST_LINE: Final = 4000


@click.command("recover")
@click.argument("app_id", nargs=-1, shell_complete=app_ids)
@options.where_of_project
@options.as_json
def command(app_id: tuple[str, ...], where: options.Where, as_json: bool) -> int | None:
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
    from burr_otel.cli.sending import find_target

    target = find_target()
    # What is not sent by OTLP is the provider's affair.
    courier = _Courier(target) if target.unreachable or not target.problem else None
    done: list[dict[str, Any]] = []
    trackers: dict[str, OtelTracker] = {}
    for run in _meant(app_id, where):
        tracker = trackers.get(run.project)
        if tracker is None:
            tracker = trackers[run.project] = OtelTracker(run.project, where.storage_dir)
        done.extend(
            {"project": run.project, "app_id": run.app_id, **each._asdict()}
            for each in tracker.recover(run.app_id, courier, partition_key=run.partition_key)
        )
    for tracker in trackers.values():
        tracker.close()
    if courier is not None:
        courier.close()
    unsent = [each for each in done if not each["sent"]]
    if as_json:
        print_json(done)
    else:
        lines(output(), map(_line, done) if done else [Text("Nothing to recover.")])
    if unsent:
        reason = courier.problem if courier is not None else target.problem
        what = f"{plural(len(unsent), 'session')} could not be sent: {reason}"
        complain(f"{what} Nothing of them is lost; call it again when that is mended.")
        return FAILED
    return None


def _line(each: dict[str, Any]) -> Text:
    spans = ", ".join(each["spans"]) or "never traced, so nothing to send"
    spans += f" and {plural(each['again'], 'finished span')} again" if each["again"] else ""
    trace = f" (trace {each['trace_id']})" if each["trace_id"] else ""
    unsent = "" if each["sent"] else "  not sent"
    run = one_line(f"{each['project']}/{each['app_id']}")
    return Text(f"{run}: {one_line(spans, _LONGEST_LINE)}{trace}{unsent}")


class _Courier:
    """Sends spans to an endpoint, and says whether it took them.

    Attributes:
        problem: Why it did not.
    """

    def __init__(self, target: Target) -> None:
        self.problem = target.problem
        self._target = target
        self._stopped = bool(target.problem)
        self._exporter: SpanExporter | None = None

    def __call__(self, spans: Sequence[ReadableSpan]) -> bool:
        """Send the spans of one session; once the endpoint takes nothing, it is not asked again."""
        from burr_otel.check.settings import kept_warnings
        from burr_otel.cli.sending import open_exporter
        from burr_otel.replay.send import Sender, SendingStoppedError

        if not spans or self._stopped:
            return not spans
        if self._exporter is None:
            self._exporter = open_exporter(self._target, _TIMEOUT_S)
        with kept_warnings("opentelemetry") as said:
            sender = Sender(self._exporter, said, time.sleep)
            try:
                settled = [each for batch in sender.send(spans) for each in batch]
            except SendingStoppedError as error:
                self._stopped = True
                self.problem = f"{self._target.shown} takes nothing: {error.reason}"
                return False
        refused = [reason for _, reason in settled if reason]
        if refused:
            self.problem = f"{self._target.shown} refused a span: {refused[0]}"
        return not refused

    def close(self) -> None:
        """Let go of the endpoint."""
        if self._exporter is not None:
            self._exporter.shutdown()


def _meant(app_ids: tuple[str, ...], where: options.Where) -> Iterator[StoredRun]:
    if app_ids:
        for app_id in app_ids:
            yield where.run(app_id)
        return
    for run in runs(where.storage_dir, where.project):
        if run.has_open:
            yield run
