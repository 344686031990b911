"""Ids for spans that were never given any: the same run gives the same ids wherever it is replayed.

A trace id is the first 16 bytes, and a span id the first 8 bytes, of the SHA-256 of the texts
``burr-otel/1``, ``trace`` or ``span``, project, app id, session id (empty in a log of Burr's own
client) and, for a span, what it is within the session: each text in UTF-8 behind its length in
bytes as a decimal number and a colon.
"""

from __future__ import annotations

import hashlib
from typing import Final

from burr_otel.records import SpanIds

_SCHEME: Final = "burr-otel/1"
_TRACE_BYTES, _SPAN_BYTES = 16, 8


class DerivedIds:
    """Ids of one session of one run; `session` is None in a log of Burr's own client."""

    def __init__(self, project: str, app_id: str, session: str | None) -> None:
        self._run = (project, app_id, session or "")

    def trace_id(self) -> int:
        """Id of the session's trace."""
        return _number(_TRACE_BYTES, "trace", *self._run)

    def root(self, trace_id: int) -> SpanIds:
        """The application span."""
        return self._span(trace_id, "root")

    def step(self, trace_id: int, sequence_id: int, occurrence: int) -> SpanIds:
        """A step; `occurrence` counts the steps of that number that the session began before."""
        return self._span(trace_id, "step", str(sequence_id), str(occurrence))

    def inner(self, trace_id: int, step: tuple[int, int], burr_id: str, occurrence: int) -> SpanIds:
        """A span inside a step, given as number and occurrence, by Burr's id and its use of it."""
        place = (*map(str, step), burr_id, str(occurrence))
        return self._span(trace_id, "inner", *place)

    def _span(self, trace_id: int, *place: str) -> SpanIds:
        return SpanIds(trace_id, _number(_SPAN_BYTES, "span", *self._run, *place))


def _number(size_bytes: int, *texts: str) -> int:
    digest = hashlib.sha256()
    for text in (_SCHEME, *texts):
        data = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:%b" % (len(data), data))
    return int.from_bytes(digest.digest()[:size_bytes], "big") or 1  # zero means "no id"
