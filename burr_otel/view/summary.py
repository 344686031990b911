"""One line about a run, from the ends of its log: what is read does not grow with the log."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final

from burr_otel.errors import BurrOtelError
from burr_otel.history.fold import Fold
from burr_otel.history.settle import Alive, AliveOf
from burr_otel.history.times import RecordTimes
from burr_otel.history.tree import ERROR, run_outcome
from burr_otel.records import BEGIN_ENTRY, END_ENTRY, ROOT, ROOT_END, DamageError, Usage, parse
from burr_otel.store import StoredRun, port
from burr_otel.store.port import Line
from burr_otel.view.find import runs

STATUSES: Final = ("ok", "failed", "crashed", "running", "cancelled", "abandoned")
"""What a run's status may be."""

_HEAD_LINES: Final = 20
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


def status_of(outcome: str) -> str:
    """An outcome as the status of a run: whether an exception told of a failure is a detail."""
    return "failed" if outcome == ERROR else outcome


def summarise(run: StoredRun, alive: Alive) -> RunSummary:
    """Read both ends of a run's log."""
    blank = RunSummary(run.project, run.app_id, run.partition_key, place=run.place)
    tail, before = _tail(run)
    head = _head(run) if tail else []
    times = RecordTimes(lambda: [*head, *tail])
    fold = Fold(run.project, run.app_id, times=times)
    for record in (*before, *tail):
        fold.add(record)
    fold.finish(alive)
    if not fold.sessions:
        return blank
    steps = [step for session in fold.sessions for step in session.children]
    first = next((n for record in head if type(n := record.get("sequence_id")) is int), 0)
    last_ns = max(times(record) for record in tail) or None
    sessions = list(reversed(fold.sessions))
    return dataclasses.replace(
        blank,
        started_ns=next((ns for record in head if (ns := times(record))), last_ns),
        last_ns=last_ns,
        steps=max(1, (steps[-1].sequence_id or 0) - first + 1) if steps else 0,
        last_action=steps[-1].name if steps else None,
        status=status_of(run_outcome([*fold.sessions])),
        trace_id=next((each.trace_id for each in sessions if each.trace_id), None),
        usage=next((each.usage for each in sessions if each.usage), None),
        initial=next((each.initial for each in sessions if each.initial), None),
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
    found: list[tuple[int, str, str, StoredRun]] = []
    for run in runs(storage_dir, project, partition_key):
        changed_ns = run.changed_ns
        if since_ns is None or changed_ns >= since_ns:
            found.append((changed_ns, run.project, run.app_id, run))
    found.sort(key=lambda each: each[:3], reverse=True)
    passed = 0
    for *_, run in found:
        try:
            summary = summarise(run, alive_of(run))
        except (OSError, BurrOtelError):
            summary = RunSummary(run.project, run.app_id, status="unreadable", place=run.place)
        if status in (None, summary.status):
            yield summary
            passed += 1
            if passed == limit:
                return


def _tail(run: StoredRun) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The last records in file order from the last one of a step on, and what came before them.

    That is how the session of that step began, and its end if that came before the step: a
    session's application span may end by idling while its application goes on.
    """
    lines = run.backward()
    tail: list[Mapping[str, Any]] = []
    end = None
    for line in lines:
        end = line.end if end is None else end
        record = _record(line.data)
        if record is not None:
            tail.insert(0, record)
            if record["type"] in (BEGIN_ENTRY, END_ENTRY):
                return tail, _session_before(run, _session(record), lines)
        if end - line.position > _LONGEST_TAIL_BYTES:
            break
    return tail, []


def _session_before(
    run: StoredRun, session: str | None, lines: Iterator[Line]
) -> list[Mapping[str, Any]]:
    """How a session began, and its end if there is one among these lines, newest first."""
    before: list[Mapping[str, Any]] = []
    end = None
    for line in () if session is None else lines:
        end = line.end if end is None else end
        record = _record(line.data) if line.data.startswith(_ROOT_LINES) else None
        if record is not None and _session(record) == session:
            before.insert(0, record)
            if record["type"] == ROOT:
                return before
        if end - line.position > _LONGEST_SEARCH_BYTES:
            break
    return before if session is None else [*_newest_root(run, session), *before]


def _newest_root(run: StoredRun, session: str | None) -> Iterator[Mapping[str, Any]]:
    for line in run.log.newest((port.ROOT, port.INHERITED)):
        record = _record(line.data)
        if record is not None and record["type"] == ROOT and _session(record) == session:
            yield record
            return


def _head(run: StoredRun) -> list[Mapping[str, Any]]:
    """The first records, up to the end of the first step: what tells the time zone is in there."""
    found: list[Mapping[str, Any]] = []
    for number, line in enumerate(run.forward()):
        record = _record(line.data)
        if record is not None:
            found.append(record)
            exact = type(record.get("sequence_id")) is int and _session(record) is not None
            if exact or record["type"] in (END_ENTRY, ROOT_END):
                break
        if number >= _HEAD_LINES:
            break
    return found


def _session(record: Mapping[str, Any]) -> str | None:
    otel = record.get("otel")
    session = otel.get("session") if isinstance(otel, dict) else None
    return session if isinstance(session, str) else None


def _record(line: bytes) -> Mapping[str, Any] | None:
    try:
        return parse(line)
    except DamageError:
        return None
