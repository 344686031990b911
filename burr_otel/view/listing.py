"""The newest runs of a store, found without reading the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from burr_otel.errors import BurrOtelError
from burr_otel.history.liveness import AliveOf
from burr_otel.store import StoredRun
from burr_otel.view.find import runs
from burr_otel.view.summary import RunSummary, summarise


@dataclasses.dataclass(frozen=True)
class Filters:
    """Which runs to list; None means any."""

    partition_key: str | None = None
    status: str | None = None
    since_ns: int | None = None


def newest(
    storage_dir: str, project: str | None, limit: int, alive_of: AliveOf, filters: Filters
) -> Iterator[RunSummary]:
    """Runs in the order of their last record, newest first; `limit` 0 means all.

    Only as many logs are opened as it takes to find `limit` runs that pass the filters.

    Raises:
        StoreError: The store cannot be read.
    """
    found: list[tuple[int, str, str, StoredRun]] = []
    for run in runs(storage_dir, project):
        changed_ns = run.changed_ns
        if filters.since_ns is None or changed_ns >= filters.since_ns:
            found.append((changed_ns, run.project, run.app_id, run))
    found.sort(key=lambda each: each[:3], reverse=True)
    passed = 0
    for *_, run in found:
        if filters.partition_key is not None and run.partition_key != filters.partition_key:
            continue
        try:
            summary = summarise(run, alive_of(run))
        except (OSError, BurrOtelError):
            summary = RunSummary(run.project, run.app_id, status="unreadable", place=run.place)
        if filters.status in (None, summary.status):
            yield summary
            passed += 1
            if passed == limit:
                return
