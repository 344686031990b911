"""Sending many stored runs: which of their spans were taken, and what became of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Final, Literal

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import format_trace_id

from burr_otel.errors import BurrOtelError
from burr_otel.replay.progress import Progress
from burr_otel.replay.read import RunSpans
from burr_otel.replay.send import Sender, SendingStoppedError, Taken

Status = Literal["sent", "skipped", "refused", "unsent", "unreadable"]
_MOST_REASONS: Final = 5  # of one run


@dataclasses.dataclass
class ReplayReport:
    """What became of a run.

    ``sent``: all its spans were taken (in a rehearsal: would be sent); ``skipped``: it has none to
    send; ``refused``: some were not taken; ``unsent``: the sending stopped before its end.
    `reasons` say why, of whatever did not go as one would think.
    """

    project: str
    app_id: str
    status: Status = "unsent"
    spans: int = 0
    refused: int = 0
    trace_ids: list[str] = dataclasses.field(default_factory=list)
    reasons: list[str] = dataclasses.field(default_factory=list)

    def explain(self, reason: str) -> None:
        """Add a reason, unless there are many."""
        if reason not in self.reasons and len(self.reasons) < _MOST_REASONS:
            self.reasons.append(reason)

    def note_trace(self, span: ReadableSpan) -> None:
        """Note the trace that a span is in."""
        context = span.get_span_context()
        trace_id = "" if context is None else format_trace_id(context.trace_id)
        if trace_id not in self.trace_ids:
            self.trace_ids.append(trace_id)


class Job:
    """Sends runs one after another, several of them in a batch; without a sender it rehearses."""

    def __init__(
        self,
        make_sender: Callable[[Callable[[Taken], None]], Sender] | None,
        progress: Progress | None = None,
        told: Callable[[int, int, int], None] = lambda runs, read_bytes, spans: None,  # noqa: ARG005
    ) -> None:
        self.reports: list[ReplayReport] = []
        self.stopped: str | None = None
        self._sender = None if make_sender is None else make_sender(self._note)
        self._progress, self._told = progress, told
        self._under_way: dict[int, ReplayReport] = {}  # by identity of a span not yet taken
        self._waiting: list[tuple[ReplayReport, int]] = []  # read to the end, but not all taken
        self._reading: RunSpans | None = None
        self._behind_bytes = 0  # logs of the runs before it
        self._spans = 0

    def run(self, runs: Iterable[RunSpans]) -> None:
        """Send runs until the last one, or until the endpoint takes nothing."""
        try:
            for spans in runs:
                size_bytes = spans.run.size_bytes
                self._send(spans, size_bytes)
                self._reading = None
                self._behind_bytes += size_bytes
                self._tell()
            if self._sender is not None:
                self._sender.flush()
        except SendingStoppedError as error:
            self.stopped = error.reason
        else:
            if self._progress is not None and self._sender is not None:
                self._progress.finish()
        finally:
            self._settle()
            self._tell()

    def _send(self, spans: RunSpans, size_bytes: int) -> None:
        run = spans.run
        report = ReplayReport(run.project, run.app_id)
        self.reports.append(report)
        if self._progress is not None and self._progress.has(run.project, run.app_id, size_bytes):
            report.status = "skipped"
            report.explain("an interrupted replay has sent it already")
            return
        self._reading = spans
        try:
            for span in spans:
                self._hand_over(report, span)
        except SendingStoppedError:
            raise
        except (BurrOtelError, OSError) as error:
            report.status = "unreadable"
            report.explain(str(error))
            return
        _explain(report, spans)
        if not report.trace_ids:
            report.status = "skipped"
            if not report.reasons:
                report.explain("its log is empty")
            return
        self._waiting.append((report, size_bytes))
        if self._sender is None:
            report.status = "sent"
        self._settle()

    def _hand_over(self, report: ReplayReport, span: ReadableSpan) -> None:
        report.note_trace(span)
        if self._sender is None:
            report.spans += 1
            self._spans += 1
            return
        self._under_way[id(span)] = report
        self._sender.add(span)

    def _note(self, taken: Taken) -> None:
        for span in taken.spans:
            self._under_way.pop(id(span)).spans += 1
        self._spans += len(taken.spans)
        for span, reason in taken.refused:
            report = self._under_way.pop(id(span))
            report.refused += 1
            report.explain(f"span {span.name!r} was refused: {reason}")
        self._tell()

    def _tell(self) -> None:
        runs = len(self.reports) - len(self._waiting) - (self._reading is not None)
        read_bytes = self._reading.run.read_bytes if self._reading else 0
        self._told(runs, self._behind_bytes + read_bytes, self._spans)

    def _settle(self) -> None:
        """Close the reports of the runs whose spans have all been answered for."""
        under_way = {id(report) for report in self._under_way.values()}
        for waiting in list(self._waiting):  # Ctrl-C may come at any line
            report, size_bytes = waiting
            if id(report) in under_way:
                continue
            report.status = "refused" if report.refused else "sent"
            if report.status == "sent" and self._progress is not None:
                self._progress.note(report.project, report.app_id, size_bytes)
            self._waiting.remove(waiting)


def _explain(report: ReplayReport, spans: RunSpans) -> None:
    """Say what of a run is not sent, and why."""
    counts = spans.counts
    if counts.running:
        names = ", ".join(dict.fromkeys(counts.running))
        report.explain(f"still running, so not sent: {names}")
    if counts.foreign:
        report.explain(f"{counts.foreign:,} spans of others, which whoever made them sends")
    if counts.damaged:
        report.explain(f"{counts.damaged:,} records could not be understood")
    if spans.run.skipped:
        lost = sum(length for _, length, _ in spans.run.skipped)
        report.explain(f"{lost:,} damaged bytes of its log were passed over")
