"""Which runs a store has had for too long, or too many or too large of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import NamedTuple

from burr_otel.store.stored_run import StoredRun


class Bounds(NamedTuple):
    """What may stay: runs written to since then, so many of the newest, so many bytes of them.

    None: no such bound. A run must be within all of them.
    """

    since_ns: int | None = None
    most_runs: int | None = None
    most_bytes: int | None = None


def runs_beyond(runs: Iterable[StoredRun], bounds: Bounds) -> list[StoredRun]:
    """The runs that are out of bounds, oldest first."""
    found = []
    for run in runs:
        with contextlib.suppress(FileNotFoundError):  # somebody else deletes, too
            found.append((run.changed_ns, run.size_bytes, run))
    found.sort(key=lambda each: each[:2], reverse=True)
    within, size_bytes = 0, 0
    for changed_ns, length, _ in found:
        size_bytes += length
        if (
            (bounds.since_ns is not None and changed_ns < bounds.since_ns)
            or (bounds.most_runs is not None and within >= bounds.most_runs)
            or (bounds.most_bytes is not None and size_bytes > bounds.most_bytes)
        ):
            break
        within += 1
    return [run for _, _, run in reversed(found[within:])]
