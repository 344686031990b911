"""How many spans ended, and what became of them: the SDK drops from a full queue uncounted."""

from __future__ import annotations

import threading

from opentelemetry.sdk.trace.export import BatchSpanProcessor


class Tally:
    """Counts for one exporter behind a batch processor with a queue of `queue_size`."""

    # Spans that ended are queued; those that reached the exporter were sent or refused.

    def __init__(self) -> None:
        # Nothing public reads OTEL_BSP_MAX_QUEUE_SIZE.
        self.queue_size: int = BatchSpanProcessor._default_max_queue_size()  # type: ignore[no-untyped-call]  # noqa: SLF001
        self.start()

    def start(self) -> None:
        """Count from nothing, as in a forked child, where the batch processor clears its queue."""
        self._lock = threading.Lock()  # in a child, a thread that is no more may hold the old one
        self.ended = self.reached = self.sent = self.refused = 0

    def count(self) -> None:
        """A span has ended and will be queued."""
        with self._lock:
            self.ended += 1

    @property
    def dropped(self) -> int:
        """Spans dropped from the full queue, at least; exact when asked while it is full."""
        return max(0, self.ended - self.reached - self.queue_size)

    @property
    def lost(self) -> int:
        """Spans that were refused or dropped, as far as known."""
        return self.refused + self.dropped
