"""Sending spans no faster than they are taken, and losing none in silence.

Batches go straight to an exporter and are waited for; there is no queue that could overflow. A
batch that is refused for what is in it is halved until the span is found that is not taken; an
endpoint that is away or busy is given time; one that takes nothing ends the sending, with its
reason.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from burr_otel.errors import BurrOtelError
from burr_otel.spans.quiet import TOO_LARGE, size_bytes

_BATCH_SPANS: Final = 512
_BATCH_BYTES: Final = 1024 * 1024  # Jaeger takes 4 MiB a message
_WAITS_S: Final = (1.0, 2.0, 4.0, 8.0)
_MOST_REFUSED_IN_A_ROW: Final = 20

_LATER: Final = re.compile(
    r"UNAVAILABLE|DEADLINE_EXCEEDED|CANCELLED|ABORTED|RESOURCE_EXHAUSTED"
    r"|due to timeout|code: (?:408|429|5\d\d)|[Cc]onnection|[Tt]imed out"
)
_NEVER: Final = re.compile(
    r"UNAUTHENTICATED|PERMISSION_DENIED|UNIMPLEMENTED|NOT_FOUND|code: (?:401|403|404|405)"
)


class SendingStoppedError(BurrOtelError):
    """The endpoint takes nothing, so nothing more was sent; `reason` is what it said."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the endpoint takes nothing: {reason}")


class Refusal(NamedTuple):
    """A span that was not taken, and what the endpoint said."""

    span: ReadableSpan
    reason: str


class Taken(NamedTuple):
    """What became of the spans of a batch."""

    spans: Sequence[ReadableSpan]
    refused: Sequence[Refusal]


class _Verdict(enum.Enum):
    TAKEN = enum.auto()
    LATER = enum.auto()  # nothing is wrong with the spans
    NEVER = enum.auto()  # whatever they were
    NOT_THESE = enum.auto()


class Sender:
    """Sends spans in batches, and tells `taken` what became of each."""

    def __init__(
        self,
        exporter: SpanExporter,
        said: list[str],
        taken: Callable[[Taken], None],
        wait: Callable[[float], object],
    ) -> None:
        self._exporter, self._said, self._taken, self._wait = exporter, said, taken, wait
        self._batch: list[ReadableSpan] = []
        self._size_bytes = 0
        self._refused_in_a_row = 0

    def add(self, span: ReadableSpan) -> None:
        """Take a span; when a batch is full, send it and wait until it has been taken."""
        span_bytes = size_bytes(span)
        if self._batch and self._size_bytes + span_bytes > _BATCH_BYTES:
            self.flush()
        self._batch.append(span)
        self._size_bytes += span_bytes
        if len(self._batch) >= _BATCH_SPANS:
            self.flush()

    def flush(self) -> None:
        """Send what is left."""
        batch, self._batch, self._size_bytes = self._batch, [], 0
        if batch:
            self._send(batch)

    def _send(self, batch: list[ReadableSpan]) -> None:
        verdict, reason = self._try(batch)
        if verdict is _Verdict.TAKEN:
            self._refused_in_a_row = 0
            self._taken(Taken(batch, ()))
        elif verdict is not _Verdict.NOT_THESE:
            raise SendingStoppedError(reason)
        elif len(batch) > 1:
            half = len(batch) // 2
            self._send(batch[:half])
            self._send(batch[half:])
        else:
            self._refused_in_a_row += 1
            self._taken(Taken((), [Refusal(batch[0], reason)]))
            if self._refused_in_a_row >= _MOST_REFUSED_IN_A_ROW:
                raise SendingStoppedError(
                    f"it refused {self._refused_in_a_row} spans in a row, the last with: {reason}"
                )

    def _try(self, batch: list[ReadableSpan]) -> tuple[_Verdict, str]:
        for wait_s in (*_WAITS_S, None):
            self._said.clear()
            try:
                result = self._exporter.export(batch)
            except Exception as error:
                result = SpanExportResult.FAILURE
                self._said.append(f"{type(error).__name__}: {error}")
            if result is SpanExportResult.SUCCESS:
                return _Verdict.TAKEN, ""
            # The last line may only say that the exporter gave up, and the one before it why.
            reason = " ".join(self._said[-2:]) or "it gave no reason"
            verdict = _verdict(self._said[-1] if self._said else "")
            if verdict is not _Verdict.LATER or wait_s is None:
                break
            self._wait(wait_s)
        return verdict, " ".join(reason.split())[:500]


def _verdict(reason: str) -> _Verdict:
    if TOO_LARGE.search(reason):
        return _Verdict.NOT_THESE
    if _NEVER.search(reason):
        return _Verdict.NEVER
    return _Verdict.LATER if _LATER.search(reason) else _Verdict.NOT_THESE
