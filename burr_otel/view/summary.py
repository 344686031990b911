"""One line about a run, from the ends of its log: what is read does not grow with the log."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Final

from burr_otel import semconv
from burr_otel.errors import BurrOtelError
from burr_otel.history.fold import Fold
from burr_otel.history.read import run_outcome
from burr_otel.history.tree import Alive, AliveOf
from burr_otel.records import BEGIN_ENTRY, END_ENTRY, ROOT, ROOT_END, Usage, time_of, writer_zone
from burr_otel.store import StoredRun
from burr_otel.store.lines import otel_of
from burr_otel.store.loading import newest_record
from burr_otel.view.find import record_of, runs

STATUSES: Final = ("ok", "failed", "crashed", "running", "cancelled", "abandoned")
"""What a run's status may be."""

_HEAD_LINES: Final = 21
_LONGEST_TAIL_BYTES: Final = 16 * 1024 * 1024  # a larger last state is not read for one line
_LONGEST_SEARCH_BYTES: Final = 1024 * 1024
_ROOT_LINES: Final = (b'{"type":"otel_root"', b'{"type":"otel_root_end"')


@dataclasses.dataclass(frozen=True, slots=True)
class RunSummary:
    """What a table says about a run.

    `steps` counts by the first and the last sequence id; `status` is one of `STATUSES`, ``empty``
    or ``unreadable``; `trace_id` is that of the newest session, when it was traced; `initial` is
    what a spawned run began with.
    """

    project: str
    app_id: str
    partition_key: str | None = None
    started_ns: int | None = None
    last_ns: int | None = None
    steps: int = 0
    last_action: str | None = None
    status: str = "empty"
    trace_id: str | None = None
    place: str = ""
    usage: Usage | None = None
    initial: str | None = None


def summarise(run: StoredRun, alive: Alive) -> RunSummary:
    """Read both ends of a run's log."""
    blank = RunSummary(run.project, run.app_id, run.partition_key, place=run.place)
    tail = _tail(run)
    head = _head(run) if tail else []
    zone = functools.cache(lambda: writer_zone([*head, *tail]))
    fold = Fold(run.project, run.app_id, zone=zone)
    for record in tail:
        fold.add(record)
    fold.finish(alive)
    if not fold.sessions:
        return blank
    steps = [step for session in fold.sessions for step in session.children]
    first = next((n for record in head if type(n := record.get("sequence_id")) is int), 0)
    last_ns = max(time_of(record, zone) for record in tail) or None
    newest_first = fold.sessions[::-1]
    outcome = run_outcome(fold.sessions)
    return dataclasses.replace(
        blank,
        started_ns=next((ns for record in head if (ns := time_of(record, zone))), last_ns),
        last_ns=last_ns,
        steps=max(1, (steps[-1].sequence_id or 0) - first + 1) if steps else 0,
        last_action=steps[-1].name if steps else None,
        # Whether an exception told of a failure is a detail.
        status="failed" if outcome == semconv.ERROR else outcome,
        trace_id=next((each.trace_id for each in newest_first if each.trace_id), None),
        usage=next((each.usage for each in newest_first if each.usage), None),
        initial=next((each.initial for each in newest_first if each.initial), None),
    )


def newest(
    storage_dir: str,
    project: str | None,
    limit: int,
    alive_of: AliveOf,
    partition_key: str | None = None,
    status: str | None = None,
    since_ns: int | None = None,
) -> Iterator[RunSummary]:
    """Runs in the order of their last record, newest first; `limit` 0 means all.

    Only as many logs are opened as it takes to find `limit` runs that pass the filters.
    """
    found = [(run.changed_ns, run) for run in runs(storage_dir, project, partition_key)]
    found = [each for each in found if since_ns is None or each[0] >= since_ns]
    found.sort(key=lambda each: (each[0], each[1].project, each[1].app_id), reverse=True)
    passed = 0
    for _, run in found:
        try:
            summary = summarise(run, alive_of(run))
        except (OSError, BurrOtelError):
            summary = RunSummary(run.project, run.app_id, status="unreadable", place=run.place)
        if status in (None, summary.status):
            yield summary
            passed += 1
            if passed == limit:
                return


def _tail(run: StoredRun) -> list[Mapping[str, Any]]:
    """The last records in file order from the last one of a step on, and how its session began.

    The session's end too, if that came before the step: an application span may end by idling
    while its application goes on.
    """
    found: list[Mapping[str, Any]] = []  # newest first
    session, end, longest_bytes = None, None, _LONGEST_TAIL_BYTES
    is_step_found = False
    for line in run.backward():
        end = line.end if end is None else end
        is_read = not is_step_found or line.data.startswith(_ROOT_LINES)
        record = record_of(line) if is_read else None
        if record is not None and not is_step_found:
            found.append(record)
            is_step_found = record["type"] in (BEGIN_ENTRY, END_ENTRY)
            if is_step_found:
                session, end, longest_bytes = _session(record), line.position, _LONGEST_SEARCH_BYTES
                if session is None:
                    return found[::-1]
        elif record is not None and _session(record) == session:
            found.append(record)
            if record["type"] == ROOT:
                return found[::-1]
        if end - line.position > longest_bytes:
            break
    root = None
    if session is not None:
        root = newest_record(run.log, (ROOT,), accept=lambda each: _session(each) == session)
    return found[::-1] if root is None else [root, *found[::-1]]


def _head(run: StoredRun) -> list[Mapping[str, Any]]:
    """The first records, up to the end of the first step: what tells the time zone is in there."""
    found: list[Mapping[str, Any]] = []
    for record in filter(None, map(record_of, itertools.islice(run.forward(), _HEAD_LINES))):
        found.append(record)
        exact = type(record.get("sequence_id")) is int and _session(record) is not None
        if exact or record["type"] in (END_ENTRY, ROOT_END):
            break
    return found


def _session(record: Mapping[str, Any]) -> str | None:
    session = (otel_of(record) or {}).get("session")
    return session if isinstance(session, str) else None
