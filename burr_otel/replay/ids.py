"""Ids for spans that were never given any: the same run gives the same ids wherever it is replayed.

A trace id is the first 16 bytes, and a span id the first 8 bytes, of the SHA-256 of the texts
``burr-otel/1``, ``trace`` or ``span``, project, app id, session id (empty in a log of Burr's own
client) and, for a span, what it is within the session: each text in UTF-8 behind its length in
bytes as a decimal number and a colon.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from opentelemetry.trace import SpanContext, TraceFlags

if TYPE_CHECKING:
    from typing import Final

__all__ = ["Ids"]

_SCHEME: Final = "burr-otel/1"
_TRACE_BYTES, _SPAN_BYTES = 16, 8


class Ids:
    """Ids of one session of one run.

    Args:
        project: Of the run.
        app_id: Of the run.
        session: The session's id; `None` in a log of Burr's own client.
    """

    def __init__(self, project: str, app_id: str, session: str | None) -> None:
        self._run = (project, app_id, session or "")

    def trace_id(self) -> int:
        """Id of the session's trace."""
        return _number(_TRACE_BYTES, "trace", *self._run)

    def root(self, trace_id: int) -> SpanContext:
        """Context of the application span."""
        return self._context(trace_id, "root")

    def step(self, trace_id: int, sequence_id: int, occurrence: int) -> SpanContext:
        """Context of a step's span.

        Args:
            trace_id: Of the trace that the session is in.
            sequence_id: Burr's number of the step.
            occurrence: How many steps of that number the session began before.
        """
        return self._context(trace_id, "step", str(sequence_id), str(occurrence))

    def inner(
        self, trace_id: int, sequence_id: int, occurrence: int, burr_id: str, again: int
    ) -> SpanContext:
        """Context of a span inside a step.

        Args:
            trace_id: Of the trace that the session is in.
            sequence_id: Burr's number of the step.
            occurrence: As for the step.
            burr_id: Burr's id of the span.
            again: How many spans of that id the step had before.
        """
        place = (str(sequence_id), str(occurrence), burr_id, str(again))
        return self._context(trace_id, "inner", *place)

    def _context(self, trace_id: int, *place: str) -> SpanContext:
        span_id = _number(_SPAN_BYTES, "span", *self._run, *place)
        return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(1))


def _number(size_bytes: int, *texts: str) -> int:
    digest = hashlib.sha256()
    for text in (_SCHEME, *texts):
        data = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:%b" % (len(data), data))
    return int.from_bytes(digest.digest()[:size_bytes], "big") or 1  # zero means "no id"
