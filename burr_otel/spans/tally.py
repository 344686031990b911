"""How many spans ended, and what became of them: the SDK drops from a full queue uncounted."""

from __future__ import annotations

import os
import threading
import weakref

from opentelemetry.sdk.trace.export import BatchSpanProcessor

__all__ = ["Tally"]


class Tally:
    """Counts for one exporter behind a `BatchSpanProcessor`.

    Attributes:
        queue_size: Spans that the processor keeps waiting at most (``OTEL_BSP_MAX_QUEUE_SIZE``).
        ended: Spans that the provider handed on.
        reached_in_all: Spans that the exporter was given.
        sent: Spans that the endpoint took.
        refused: Spans that it did not take.
    """

    def __init__(self) -> None:
        # Nothing public reads the variable.
        self.queue_size: int = BatchSpanProcessor._default_max_queue_size()  # type: ignore[no-untyped-call]  # noqa: SLF001
        self.start()
        weak_start = weakref.WeakMethod(self.start)

        def after_fork() -> None:
            start = weak_start()
            if start is not None:
                start()

        os.register_at_fork(after_in_child=after_fork)

    def start(self) -> None:
        """Count from nothing, as in a forked child, where the batch processor clears its queue."""
        self._lock = threading.Lock()  # in a child, a thread that is no more may hold the old one
        self.ended = self.reached_in_all = self.sent = self.refused = 0

    def count(self) -> None:
        """A span has ended that the batch processor will take."""
        with self._lock:
            self.ended += 1

    def reached(self, count: int) -> None:
        """The exporter has been given so many spans."""
        self.reached_in_all += count

    @property
    def dropped(self) -> int:
        """Spans dropped from the full queue, at least: what is neither there nor came out of it.

        Exact while the queue is full. To be asked where a batch has just come out of it.
        """
        return max(0, self.ended - self.reached_in_all - self.queue_size)

    @property
    def lost(self) -> int:
        """Spans that were refused or dropped, as far as known."""
        return self.refused + self.dropped
