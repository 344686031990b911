"""The newest runs of a store, found without reading the others."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from burr_otel.view.find import LOG, Found, projects, runs
from burr_otel.view.summary import RunSummary, partition_key, status_at_end, summarise
from burr_otel.view.text import duration, local_time, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from burr_otel.view.build import Alive

__all__ = ["Filters", "newest", "table"]

_STATUS_STYLES = {
    "failed": "red",
    "crashed": "bold red",
    "running": "blue",
    "cancelled": "yellow",
    "abandoned": "yellow",
    "empty": "dim",
    "unreadable": "red",
}


@dataclasses.dataclass(frozen=True)
class Filters:
    """Which runs to list; ``None`` means any.

    Attributes:
        partition_key: Runs of this partition key.
        status: Runs of this status.
        since_ns: Runs with a record at or after this time, in nanoseconds since the epoch.
    """

    partition_key: str | None = None
    status: str | None = None
    since_ns: int | None = None


def newest(
    storage_dir: str, project: str | None, limit: int, alive: Alive, filters: Filters
) -> Iterator[RunSummary]:
    """Runs in the order of their last record, newest first.

    The order comes from the logs' times of change alone; only as many logs are opened as it takes
    to find `limit` runs that pass the filters, and of most others only the last line is read.

    Args:
        storage_dir: Where the projects are.
        project: Only runs of this one.
        limit: How many at most; 0 for all.
        alive: Whether the writer of an open session lives.
        filters: Which runs.

    Raises:
        StoreError: The folders cannot be read.
    """
    found = []
    for name, folder in projects(storage_dir, project):
        for entry in runs(folder):
            try:
                # os.stat: a Path for each of 100,000 runs would cost more than asking the disk.
                changed_ns = os.stat(f"{entry.path}/{LOG}").st_mtime_ns  # noqa: PTH116
            except OSError:
                continue  # a run that was forked from and never written here, or no run at all
            if filters.since_ns is None or changed_ns >= filters.since_ns:
                found.append((changed_ns, name, entry.name, entry.path))
    found.sort(reverse=True)
    passed = 0
    for _, name, app_id, path in found:
        if not _may_pass(path, filters):
            continue
        summary = _summary(Found(name, app_id, Path(path)), alive)
        if filters.status in (None, summary.status):
            yield summary
            passed += 1
            if passed == limit:
                return


def _may_pass(path: str, filters: Filters) -> bool:
    """What little of a run tells: a small file its partition key, mostly its last line its status.

    Not so for a run that was killed, or goes on.
    """
    wanted = filters.partition_key
    if wanted is not None and partition_key(path) != wanted:
        return False
    return filters.status is None or status_at_end(path) in (None, filters.status)


def _summary(run: Found, alive: Alive) -> RunSummary:
    try:
        return summarise(run, alive)
    except OSError:
        return RunSummary(run.project, run.app_id, status="unreadable", folder=str(run.folder))


def table(summaries: list[RunSummary], width: int) -> Table:
    """The runs as a table; columns that do not fit are left out, the app id never is."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    columns = [column for column in _COLUMNS if width >= column.from_width]
    for column in columns:
        made.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="fold" if column.whole else "ellipsis",
            min_width=column.least,
        )
    for summary in summaries:
        made.add_row(*(column.cell(summary) for column in columns))
    return made


@dataclasses.dataclass(frozen=True)
class _Column:
    title: str
    cell: Callable[[RunSummary], Text]
    from_width: int = 0  # narrower terminals go without it
    right: bool = False
    whole: bool = False
    least: int | None = None


def _length(summary: RunSummary) -> Text:
    if summary.started_ns is None or summary.last_ns is None:
        return Text("")
    return Text(duration(summary.last_ns - summary.started_ns))


_COLUMNS = (
    _Column("app id", lambda s: Text(one_line(s.app_id), style="bold"), least=12),
    _Column("project", lambda s: Text(one_line(s.project)), from_width=60),
    _Column(
        "started", lambda s: Text("" if s.started_ns is None else local_time(s.started_ns)), 70
    ),
    _Column("took", _length, 50, right=True),
    _Column("steps", lambda s: Text(f"{s.steps:,}"), 40, right=True),
    _Column("last action", lambda s: Text(one_line(s.last_action or "")), 90),
    _Column("status", lambda s: Text(s.status, style=_STATUS_STYLES.get(s.status, "green"))),
    _Column("trace", lambda s: Text(one_line(s.trace_id or ""), style="dim"), 150, least=32),
)
