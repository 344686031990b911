"""Sending many stored runs: which of their spans were taken, and what became of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Final, Literal

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import format_trace_id

from burr_otel.errors import BurrOtelError
from burr_otel.replay.read import RunSpans
from burr_otel.replay.send import Sender, SendingStoppedError, Taken

Status = Literal["sent", "skipped", "refused", "unsent", "unreadable"]
_MOST_REASONS: Final = 5  # of one run


@dataclasses.dataclass
class ReplayReport:
    """What became of a run; `reasons` say why, of whatever did not go as one would think."""

    project: str
    app_id: str
    spans: int = 0
    refused: int = 0
    trace_ids: list[str] = dataclasses.field(default_factory=list)
    reasons: list[str] = dataclasses.field(default_factory=list)
    waiting: int = 0  # spans that nothing is known of yet
    is_read: bool = False
    is_unreadable: bool = False

    @property
    def status(self) -> Status:
        """``sent``: all spans were taken, or would be; ``skipped``: there are none to send.

        ``refused``: some were not taken; ``unsent``: the sending stopped before its end.
        """
        if self.is_unreadable:
            return "unreadable"
        if not self.is_read or self.waiting:
            return "unsent"
        if not self.trace_ids:
            return "skipped"
        return "refused" if self.refused else "sent"

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
        told: Callable[[int, int, int], None] = lambda runs, read_bytes, spans: None,  # noqa: ARG005
    ) -> None:
        self.reports: list[ReplayReport] = []
        self.stopped: str | None = None
        self._sender = None if make_sender is None else make_sender(self._note)
        self._told = told
        self._under_way: dict[int, ReplayReport] = {}  # by identity of a span not yet taken
        self._reading: RunSpans | None = None
        self._behind_bytes = 0  # logs of the runs before it
        self._spans = 0

    @property
    def done(self) -> int:
        """How many runs at the beginning need not be sent again."""
        unsent = (at for at, each in enumerate(self.reports) if each.status == "unsent")
        return next(unsent, len(self.reports))

    def run(self, runs: Iterable[RunSpans]) -> None:
        """Send runs until the last one, or until the endpoint takes nothing."""
        try:
            for spans in runs:
                size_bytes, self._reading = spans.run.size_bytes, spans
                self._send(spans)
                self._reading = None
                self._behind_bytes += size_bytes
                self._tell()
            if self._sender is not None:
                self._sender.flush()
        except SendingStoppedError as error:
            self.stopped = error.reason
        self._tell()

    def _send(self, spans: RunSpans) -> None:
        report = ReplayReport(spans.run.project, spans.run.app_id)
        self.reports.append(report)
        try:
            for span in spans:
                self._hand_over(report, span)
        except SendingStoppedError:
            raise
        except (BurrOtelError, OSError) as error:
            report.is_unreadable = True
            report.explain(str(error))
            return
        report.is_read = True
        _explain(report, spans)
        if not report.trace_ids:
            report.explain("its log is empty")

    def _hand_over(self, report: ReplayReport, span: ReadableSpan) -> None:
        report.note_trace(span)
        if self._sender is None:
            report.spans += 1
            self._spans += 1
            return
        report.waiting += 1
        self._under_way[id(span)] = report
        self._sender.add(span)

    def _note(self, taken: Taken) -> None:
        for span in taken.spans:
            report = self._under_way.pop(id(span))
            report.spans += 1
            report.waiting -= 1
        for span, reason in taken.refused:
            report = self._under_way.pop(id(span))
            report.refused += 1
            report.waiting -= 1
            report.explain(f"span {span.name!r} was refused: {reason}")
        self._spans += len(taken.spans)
        self._tell()

    def _tell(self) -> None:
        read_bytes = self._reading.run.read_bytes if self._reading else 0
        runs = len(self.reports) - (self._reading is not None)
        self._told(runs, self._behind_bytes + read_bytes, self._spans)


def _explain(report: ReplayReport, spans: RunSpans) -> None:
    """Say what of a run is not sent, and why."""
    if spans.running:
        names = ", ".join(dict.fromkeys(spans.running))
        report.explain(f"still running, so not sent: {names}")
    if spans.foreign:
        report.explain(f"{spans.foreign:,} spans of others, which whoever made them sends")
    if spans.damaged:
        report.explain(f"{spans.damaged:,} records could not be understood")
    if spans.run.skipped:
        lost = sum(length for _, length, _ in spans.run.skipped)
        report.explain(f"{lost:,} damaged bytes of its log were passed over")
