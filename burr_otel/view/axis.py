"""Time -> columns. Long idle pauses are cut out, so that a chat over a day stays readable."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable
from typing import Final, NamedTuple

from burr_otel.history.tree import SpanNode

_SHORTEST_PAUSE_NS: Final = 1_000_000_000
_PAUSE_SHARE: Final = 0.4  # a pause is cut when it is longer than this share of the busy time
_DRAWN_SHARE: Final = 0.03  # and is then drawn as long as this share of the busy time
_MOST_DRAWN_SHARE: Final = 0.3  # all cut pauses together


class Pause(NamedTuple):
    """A stretch in which nothing ran and which the axis leaves out."""

    start_ns: int
    end_ns: int

    @property
    def length_ns(self) -> int:
        """How long it was."""
        return self.end_ns - self.start_ns


class Axis:
    """Maps the time of a session onto a width."""

    def __init__(self, busy: Iterable[tuple[int, int]], whole: tuple[int, int]) -> None:
        # `busy` has start and end of everything that ran, in any order; `whole` is widened to
        # hold all of it.
        merged = _merged(busy)
        start_ns = min([whole[0], *(s for s, _ in merged)])
        end_ns = max([whole[1], *(e for _, e in merged)])
        # The session itself may outlast its last step by a linger; that tail is a pause too.
        edges = [(start_ns, start_ns), *merged, (end_ns, end_ns)]
        gaps = [Pause(a, b) for (_, a), (b, _) in itertools.pairwise(edges) if b > a]
        busy_ns = sum(e - s for s, e in merged)
        longest_ns = max(_SHORTEST_PAUSE_NS, int(busy_ns * _PAUSE_SHARE))
        self.pauses = [gap for gap in gaps if merged and gap.length_ns > longest_ns]
        kept_ns = max(1, end_ns - start_ns - sum(pause.length_ns for pause in self.pauses))
        share = min(_DRAWN_SHARE, _MOST_DRAWN_SHARE / max(1, len(self.pauses)))
        drawn = kept_ns * share
        # Knots of a piecewise linear function: recorded time -> drawn time.
        self._times, self._drawn = [start_ns], [0.0]
        for pause in self.pauses:
            self._knot(pause.start_ns, pause.start_ns - self._times[-1])
            self._knot(pause.end_ns, drawn)
        self._knot(end_ns, end_ns - self._times[-1])

    def at(self, time_ns: int, width: int) -> float:
        """The position of a moment on a line `width` long, between 0 and `width`."""
        total = self._drawn[-1]
        if total <= 0:
            return 0.0
        right = min(max(bisect.bisect_right(self._times, time_ns), 1), len(self._times) - 1)
        t0, t1 = self._times[right - 1], self._times[right]
        d0, d1 = self._drawn[right - 1], self._drawn[right]
        inside = (time_ns - t0) / (t1 - t0) if t1 > t0 else 0.0
        return (d0 + (d1 - d0) * min(max(inside, 0.0), 1.0)) / total * width

    def time_at(self, share: float) -> int:
        """The moment that stands at this share of the line."""
        wanted = share * self._drawn[-1]
        right = min(max(bisect.bisect_left(self._drawn, wanted), 1), len(self._times) - 1)
        t0, t1 = self._times[right - 1], self._times[right]
        d0, d1 = self._drawn[right - 1], self._drawn[right]
        return round(t0 + (t1 - t0) * ((wanted - d0) / (d1 - d0) if d1 > d0 else 0.0))

    def _knot(self, time_ns: int, drawn: float) -> None:
        self._times.append(time_ns)
        self._drawn.append(self._drawn[-1] + drawn)


def session_axis(session: SpanNode) -> Axis:
    """The axis of a session and all steps in it."""
    steps, left_out = session.children, session.left_out
    busy = [(step.start_ns, step.last_ns) for step in steps]
    if left_out is not None and left_out.at < len(steps):  # nobody knows of pauses there
        busy.append((steps[left_out.at - 1].last_ns, steps[left_out.at].start_ns))
    return Axis(busy, (session.start_ns, session.last_ns))


def _merged(intervals: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, end in sorted((s, max(s, e)) for s, e in intervals):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found
