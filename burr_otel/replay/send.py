"""Sending stored runs no faster than their spans are taken, and losing none in silence.

Batches go straight to an exporter and are waited for; there is no queue that could overflow. A
batch that is refused for what is in it is halved until the span is found that is not taken; an
endpoint that is away or busy is given time; one that takes nothing ends the sending, with its
reason.
"""

from __future__ import annotations

import dataclasses
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import INVALID_SPAN_CONTEXT, format_trace_id

from burr_otel.errors import BurrOtelError
from burr_otel.replay.read import RunSpans
from burr_otel.spans.quiet import TOO_LARGE, size_bytes

_BATCH_SPANS: Final = 512
_BATCH_BYTES: Final = 1024 * 1024  # Jaeger takes 4 MiB a message
_WAITS_S: Final = (1.0, 2.0, 4.0, 8.0)
_MOST_REFUSED_IN_A_ROW: Final = 20
_MOST_REASONS: Final = 5  # of one run

# What an endpoint says when nothing is wrong with the spans, and when it would take none whatever.
_LATER: Final = re.compile(
    r"UNAVAILABLE|DEADLINE_EXCEEDED|CANCELLED|ABORTED|RESOURCE_EXHAUSTED"
    r"|due to timeout|code: (?:408|429|5\d\d)|[Cc]onnection|[Tt]imed out"
)
_NEVER: Final = re.compile(
    r"UNAUTHENTICATED|PERMISSION_DENIED|UNIMPLEMENTED|NOT_FOUND|code: (?:401|403|404|405)"
)

Settled = list[tuple[ReadableSpan, str]]
"""Spans of a batch, each with the endpoint's reason for not taking it, empty when it did."""


class SendingStoppedError(BurrOtelError):
    """The endpoint takes nothing, so nothing more was sent; `reason` is what it said."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the endpoint takes nothing: {reason}")


class Sender:
    """Sends spans in batches by an exporter, which logs to `said` why it could not."""

    def __init__(
        self, exporter: SpanExporter, said: list[str], wait: Callable[[float], object]
    ) -> None:
        self._exporter, self._said, self._wait = exporter, said, wait
        self._refused_in_a_row = 0

    def send(self, spans: Iterable[ReadableSpan]) -> Iterator[Settled]:
        """Send spans and tell of each in order; reads no further before a batch is settled."""
        batch: list[ReadableSpan] = []
        batch_bytes = 0
        for span in spans:
            span_bytes = size_bytes(span)
            if batch and batch_bytes + span_bytes > _BATCH_BYTES:
                yield from self._settle(batch)
                batch, batch_bytes = [], 0
            batch.append(span)
            batch_bytes += span_bytes
            if len(batch) >= _BATCH_SPANS:
                yield from self._settle(batch)
                batch, batch_bytes = [], 0
        if batch:
            yield from self._settle(batch)

    def _settle(self, batch: list[ReadableSpan]) -> Iterator[Settled]:
        reason = self._refusal(batch)
        if not reason:
            self._refused_in_a_row = 0
            yield [(span, "") for span in batch]
        elif len(batch) > 1:
            half = len(batch) // 2
            yield from self._settle(batch[:half])
            yield from self._settle(batch[half:])
        else:
            self._refused_in_a_row += 1
            yield [(batch[0], reason)]
            if self._refused_in_a_row >= _MOST_REFUSED_IN_A_ROW:
                raise SendingStoppedError(
                    f"it refused {self._refused_in_a_row} spans in a row, the last with: {reason}"
                )

    def _refusal(self, batch: list[ReadableSpan]) -> str:
        """Why a batch is refused for what is in it; empty when it is taken."""
        for wait_s in (*_WAITS_S, None):
            self._said.clear()
            try:
                if self._exporter.export(batch) is SpanExportResult.SUCCESS:
                    return ""
            except Exception as error:
                self._said.append(f"{type(error).__name__}: {error}")
            # The last line may only say that the exporter gave up, and the one before it why.
            reason = " ".join((" ".join(self._said[-2:]) or "it gave no reason").split())[:500]
            last = self._said[-1] if self._said else ""
            if TOO_LARGE.search(last):
                break
            if _NEVER.search(last) or (wait_s is None and _LATER.search(last)):
                raise SendingStoppedError(reason)
            if wait_s is None or not _LATER.search(last):
                break
            self._wait(wait_s)
        return reason


@dataclasses.dataclass
class ReplayReport:
    """What became of a run; `reasons` say why, of whatever did not go as one would think."""

    project: str
    app_id: str
    spans: int = 0
    refused: int = 0
    trace_ids: dict[str, None] = dataclasses.field(default_factory=dict)  # of each session one
    reasons: list[str] = dataclasses.field(default_factory=list)
    waiting: int = 0  # spans that nothing is known of yet
    is_read: bool = False
    is_unreadable: bool = False

    @property
    def status(self) -> Literal["sent", "skipped", "refused", "unsent", "unreadable"]:
        """``skipped``: it has no spans; ``unsent``: the sending stopped before its end."""
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


class Job:
    """Sends runs one after another, several of them in a batch; without a sender it rehearses."""

    def __init__(self, sender: Sender | None) -> None:
        self.reports: list[ReplayReport] = []
        self.stopped: str | None = None
        self._sender = sender
        self._under_way: deque[ReplayReport] = deque()  # of each span that is not settled yet
        self._reading: RunSpans | None = None
        self._behind_bytes = 0  # logs of the runs before it
        self._spans = 0

    @property
    def done(self) -> int:
        """How many runs at the beginning need not be sent again."""
        unsent = (at for at, each in enumerate(self.reports) if each.status == "unsent")
        return next(unsent, len(self.reports))

    def run(self, runs: Iterable[RunSpans]) -> Iterator[tuple[int, int, int]]:
        """Send runs until the last one, or until the endpoint takes nothing.

        Gives, batch by batch, the runs, the bytes of their logs and the spans that are done.
        """
        spans = self._read(runs)
        rehearsed = ([(span, "")] for span in spans)
        try:
            for batch in rehearsed if self._sender is None else self._sender.send(spans):
                for span, reason in batch:
                    report = self._under_way.popleft()
                    report.waiting -= 1
                    report.refused += bool(reason)
                    report.spans += not reason
                    self._spans += not reason
                    if reason:
                        report.explain(f"span {span.name!r} was refused: {reason}")
                yield self._progress()
        except SendingStoppedError as error:
            self.stopped = error.reason
        yield self._progress()

    def _read(self, runs: Iterable[RunSpans]) -> Iterator[ReadableSpan]:
        """The spans of all runs, each noted in the report of its own."""
        for spans in runs:
            report = ReplayReport(spans.run.project, spans.run.app_id)
            self.reports.append(report)
            size_bytes, self._reading = spans.run.size_bytes, spans
            try:
                for span in spans:
                    context = span.get_span_context() or INVALID_SPAN_CONTEXT
                    report.trace_ids[format_trace_id(context.trace_id)] = None
                    report.waiting += 1
                    self._under_way.append(report)
                    yield span
            except (BurrOtelError, OSError) as error:
                report.is_unreadable = True
                report.explain(str(error))
            else:
                report.is_read = True
                _explain(report, spans)
            self._reading = None
            self._behind_bytes += size_bytes

    def _progress(self) -> tuple[int, int, int]:
        read_bytes = self._reading.run.read_bytes if self._reading else 0
        runs = len(self.reports) - (self._reading is not None)
        return runs, self._behind_bytes + read_bytes, self._spans


def _explain(report: ReplayReport, spans: RunSpans) -> None:
    """Say what of a run is not sent, and why."""
    if spans.running:
        names = ", ".join(dict.fromkeys(spans.running))
        report.explain(f"not ended as far as is known, so not sent yet: {names}")
    if spans.foreign:
        report.explain(f"{spans.foreign:,} spans of others, which whoever made them sends")
    if spans.damaged:
        report.explain(f"{spans.damaged:,} records could not be understood")
    if spans.run.skipped:
        lost = sum(length for _, length, _ in spans.run.skipped)
        report.explain(f"{lost:,} damaged bytes of its log were passed over")
    if not report.trace_ids:
        report.explain("its log is empty")
