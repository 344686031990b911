"""Exporting without noise or needless loss: one warning an outage, batches that fit a message."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from burr_otel.printable import logger

# Jaeger, Phoenix and most collectors take messages of 4 MiB, and sizes here are estimates.
_BATCH_BYTES = 2 * 1024 * 1024
_LEAST_BATCH_BYTES = 64 * 1024
_SPAN_BYTES = 200  # ids, times, name and framing
_REASON_CHARACTERS = 400

_REFUSED_KEY = re.compile(r"UNAUTHENTICATED|PERMISSION_DENIED|code: (?:401|403)\b")
# As said by gRPC in C, Go and Java, by HTTP, and by servers that answer 400.
TOO_LARGE = re.compile(
    r"larger than|exceeds (?:max|limit|the (?:max|limit))|too large|code: 413\b", re.IGNORECASE
)


class QuietExporter(SpanExporter):
    """Sends batches that are small enough, and warns once an outage that nobody takes them.

    It counts spans that `ended` and were queued, that `reached` it, and that were `sent` or
    `refused`: the SDK drops from a full queue uncounted.
    """

    def __init__(
        self, exporter: SpanExporter, place: str, secret: str = "", key_variable: str = ""
    ) -> None:
        self._exporter = exporter
        self._place, self._secret, self._key_variable = place, secret, key_variable
        self._batch_bytes = _BATCH_BYTES
        self._lost_before: int | None = None  # while an outage lasts: what was lost until then
        self._said: list[str] = []
        self._told: set[str] = set()
        # Nothing public reads OTEL_BSP_MAX_QUEUE_SIZE.
        self.queue_size: int = BatchSpanProcessor._default_max_queue_size()  # type: ignore[no-untyped-call]  # noqa: SLF001
        self.count_anew()

    def count_anew(self) -> None:
        """Count from nothing, as in a forked child, where the batch processor clears its queue."""
        # Without a lock: what two threads that end a span at once may cost is one in a log line.
        self.ended = self.reached = self.sent = self.refused = 0

    @property
    def _dropped(self) -> int:
        """Spans dropped from the full queue, at least; exact when asked while it is full."""
        return max(0, self.ended - self.reached - self.queue_size)

    @property
    def struggling(self) -> bool:
        """Whether the endpoint did not take the batch that is being, or was last, sent."""
        return self._lost_before is not None or bool(self._said)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; a failure is reported once until a batch goes through again."""
        self.reached += len(spans)
        if self._dropped:
            self._tell_once(
                "spans end faster than %s takes them: the queue of %d is full and drops the "
                "oldest. Raise OTEL_BSP_MAX_QUEUE_SIZE; `burr-otel replay` sends the runs whole "
                "later.",
                self.queue_size,
            )
        lost = self.refused + self._dropped
        waiting, refused = [spans], 0
        while waiting:
            batch = waiting.pop()
            batch_bytes = sum(map(size_bytes, batch))
            if len(batch) > 1 and batch_bytes > self._batch_bytes:
                waiting += _halves(batch)
                continue
            reason = self._refusal(batch)
            if reason is None:
                self.sent += len(batch)
                if self._lost_before is not None:
                    logger.warning(
                        "%s takes spans again. Meanwhile %d were lost; "
                        "`burr-otel replay` sends their runs.",
                        self._place,
                        lost - self._lost_before,
                    )
                self._lost_before = None
            elif not TOO_LARGE.search(reason):
                refused += len(batch) + sum(map(len, waiting))  # nor would it take the rest
                if self._lost_before is None:
                    self._tell_of_outage(reason)
                    self._lost_before = lost
                break
            elif len(batch) > 1:
                waiting += _halves(batch)
                self._batch_bytes = max(batch_bytes // 2, _LEAST_BATCH_BYTES)
            else:
                refused += 1
                self._tell_once(
                    "%s takes no span of about %d bytes (%s), so it is missing there. Lower "
                    "BURR_OTEL_MAX_ATTRIBUTE_BYTES, or raise the limit of the receiver.",
                    batch_bytes,
                    reason,
                )
        self.refused += refused
        return SpanExportResult.FAILURE if refused else SpanExportResult.SUCCESS

    def _refusal(self, batch: Sequence[ReadableSpan]) -> str | None:
        """Send a batch; why it was not taken, `None` when it was."""
        with _hushed() as said:
            self._said = said
            try:
                if self._exporter.export(batch) is SpanExportResult.SUCCESS:
                    said.clear()  # of a transient failure
                    return None
            except Exception as error:
                said.append(f"{type(error).__name__}: {error}")
        reason = next(filter(TOO_LARGE.search, said), said[0] if said else "it gave no reason")
        reason = reason.replace(self._secret, "***") if self._secret else reason
        return textwrap.shorten(reason, _REASON_CHARACTERS, placeholder=" …")

    def _tell_of_outage(self, reason: str) -> None:
        change = "`burr-otel check` says what to change."
        if _REFUSED_KEY.search(reason):
            change = (
                f"It refuses the key that is sent, or misses one: correct {self._key_variable}."
            )
        logger.warning(
            "cannot send spans to %s (%s). %s The run is unaffected and its snapshots are "
            "kept; `burr-otel replay` sends it later.",
            self._place,
            reason,
            change,
        )

    def _tell_once(self, message: str, *arguments: object) -> None:
        if message not in self._told:
            self._told.add(message)
            logger.warning(message, self._place, *arguments)

    def tell_of_losses(self) -> None:
        """At the end: how many spans did not arrive, unless a warning has said that none did."""
        unsent = self.ended - self.reached
        if self.sent + self._dropped and self.refused + unsent:
            logger.warning(
                "%d of %d spans did not get to %s: %d were refused, and %d never sent, because "
                "the queue of %d was full or time ran out at exit. "
                "`burr-otel replay` sends their runs.",
                self.refused + unsent,
                self.ended,
                self._place,
                self.refused,
                unsent,
                self.queue_size,
            )
            self.count_anew()

    def shutdown(self) -> None:
        """Shut the exporter down, quietly when nobody answers."""
        with _hushed():
            self._exporter.shutdown()


class QuietBatchProcessor(BatchSpanProcessor):
    """Queues and counts spans for an exporter; what the SDK logs of a full queue is kept back."""

    def __init__(self, exporter: QuietExporter) -> None:
        super().__init__(exporter)
        self._exporter = exporter

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span."""
        if span.context is not None and span.context.trace_flags.sampled:
            self._exporter.ended += 1
            with _hushed():
                super().on_end(span)


# --- sizes ----------------------------------------------------------------------------------------


def _halves(batch: Sequence[ReadableSpan]) -> list[Sequence[ReadableSpan]]:
    """For the end of a stack: the first half comes next."""
    middle = len(batch) // 2
    return [batch[middle:], batch[:middle]]


def size_bytes(span: ReadableSpan) -> int:
    """About what a span takes in a message."""
    carriers: list[Any] = [span, *span.events, *span.links]
    return sum(_SPAN_BYTES + _value_bytes(each.attributes or {}) for each in carriers)


def _value_bytes(value: Any) -> int:
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode(errors="surrogatepass"))
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(len(key) + 10 + _value_bytes(each) for key, each in value.items())
    if isinstance(value, Sequence):
        return sum(4 + _value_bytes(each) for each in value)
    return 6


# --- log lines of the SDK and its exporters -------------------------------------------------------


class _TooLargeError(Exception):
    """The endpoint refuses a batch for its size."""


class _Hush(threading.local):
    """A filter that keeps what is logged on a thread that is inside `_hushed`."""

    lines: list[str] | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is logged all the same."""
        if self.lines is None or record.levelno < logging.WARNING:
            return True
        text = " ".join(record.getMessage().split())
        details = getattr(sys.exc_info()[1], "details", None)  # older exporters do not log them
        if callable(details) and str(details()) not in text:
            text = f"{text} {details()}"
        self.lines.append(text)
        if TOO_LARGE.search(text):
            # The exporter of gRPC would try the same again for seconds.
            raise _TooLargeError(text)
        return False


_hush = _Hush()
for _name in (
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http._common",
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.trace.export",
):
    logging.getLogger(_name).addFilter(_hush)


@contextlib.contextmanager
def _hushed() -> Iterator[list[str]]:
    before, _hush.lines = _hush.lines, []
    try:
        yield _hush.lines
    finally:
        _hush.lines = before
