"""Which stored run a person means, and one line about each, read from the ends of its log."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import itertools
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from burr_otel import semconv
from burr_otel.errors import BurrOtelError, ConfigError, StoreError, UnknownRunError
from burr_otel.history.content import RunContent
from burr_otel.history.fold import Fold
from burr_otel.history.read import children_of, run_outcome
from burr_otel.history.tree import Alive, SessionNode, writer_lives
from burr_otel.records import BEGIN_ENTRY, END_ENTRY, ROOT, ROOT_END, Usage
from burr_otel.records.read import DamageError, parse, read, read_ids, time_of, writer_zone
from burr_otel.store import ALL, Store, StoredRun, open_engine
from burr_otel.store.port import Line
from burr_otel.store.reading import newest_record, otel_of
from burr_otel.view.content import reader_policy

_MOST_NAMED: Final = 5
_TRACE_OR_SPAN_ID: Final = re.compile("[0-9a-f]{32}|[0-9a-f]{16}")
_TRACE_DIGITS: Final = 32
_MOST_COMPARED: Final = 200_000  # difflib takes some 15 µs a name

STATUSES: Final = ("ok", "failed", "crashed", "running", "cancelled", "abandoned")
"""What a run's status may be."""

_HEAD_LINES: Final = 21
_LONGEST_TAIL_BYTES: Final = 16 * 1024 * 1024  # a larger last state is not read for one line
_LONGEST_SEARCH_BYTES: Final = 1024 * 1024
_ROOT_LINES: Final = (b'{"type":"otel_root"', b'{"type":"otel_root_end"')


class NoSingleRunError(StoreError):
    """What was named is no project or step, or more than one run; the message tells what is."""


class FoundRun(NamedTuple):
    """A run, and `otel` of the record whose trace or span was named, with the step's number."""

    run: StoredRun
    otel: Mapping[str, Any] | None = None
    sequence_id: int | None = None


class Where(NamedTuple):
    """Which runs are meant: in a storage directory, of a project, of a partition ('': of none)."""

    storage_dir: str
    project: str | None = None
    partition: str | None = None

    @property
    def _place(self) -> str:
        return open_engine(self.storage_dir).place

    def stores(self) -> Iterator[Store]:
        """The projects of a storage directory, in order of their names, or only the named one."""
        try:
            names = open_engine(self.storage_dir).projects()
        except FileNotFoundError:
            raise StoreError(
                f"no storage directory {self._place}: nothing has been recorded there. "
                "Pass --storage-dir, or run `burr-otel demo` for a first run."
            ) from None
        project = self.project
        if project is not None:
            store = Store(project, self.storage_dir)
            if project not in names:
                close = difflib.get_close_matches(project, names, n=2, cutoff=0.5)
                hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
                raise NoSingleRunError(f"no project {project!r} under {self._place}.{hint}")
            yield store
            return
        for name in names:
            with contextlib.suppress(ConfigError):  # not a project's folder
                yield Store(name, self.storage_dir)

    def runs(self) -> Iterator[StoredRun]:
        """All runs, or those of a partition ('': of none), in no order."""
        key = ALL if self.partition is None else self.partition or None
        place = self._place
        try:
            for store in self.stores():
                place = store.place
                yield from store.runs(key)
        except StoreError:  # a bucket's is an `OSError`, too
            raise
        except OSError as error:
            why = f"{place} cannot be read: {error.strerror}" if error.strerror else error
            raise StoreError(f"{why}.") from error

    def find(self, app_id: str) -> FoundRun:
        """The run of that id, or the only one whose id begins so, or with such a trace or span."""
        return next(self.find_each([app_id]))

    def find_each(self, app_ids: Iterable[str]) -> Iterator[FoundRun]:
        """The same of several ids."""
        known = list(self.runs())  # which may take longer than all else
        return (self._found(app_id, known) for app_id in app_ids)

    def _found(self, app_id: str, known: Sequence[StoredRun]) -> FoundRun:
        found = [FoundRun(run) for run in known if run.app_id == app_id]
        if app_id and not found:
            found = [FoundRun(run) for run in known if run.app_id.startswith(app_id)]
        if not found and _TRACE_OR_SPAN_ID.fullmatch(app_id.lower()):
            is_trace = len(app_id) == _TRACE_DIGITS
            found = _of_trace(known, int(app_id, 16)) if is_trace else []
            found = found or _of_record(known, app_id.lower(), is_trace=is_trace)
        if not found:
            names = [run.app_id for run in known]
            close = difflib.get_close_matches(app_id, names[:_MOST_COMPARED], n=3, cutoff=0.5)
            inside = [name for name in names if app_id and app_id.lower() in name.lower()]
            where = f"{self._place}/{self.project or ''}".rstrip("/")
            raise UnknownRunError(app_id, where, list(dict.fromkeys([*close, *inside]))[:3])
        if len(found) > 1:
            raise NoSingleRunError(_ambiguous(app_id, [each.run for each in found]))
        return found[0]

    def newest(
        self, limit: int, status: str | None = None, since_ns: int | None = None
    ) -> Iterator[RunSummary]:
        """Runs by their last record, newest first, opened only until `limit` pass (0: all)."""
        found = [(run.changed_ns, run) for run in self.runs()]
        found = [each for each in found if since_ns is None or each[0] >= since_ns]
        found.sort(key=lambda each: (each[0], each[1].project, each[1].app_id), reverse=True)
        alive_of, passed = writer_lives(), 0
        for _, run in found:
            try:
                summary = summarise(run, alive_of(run), status)
            except (OSError, BurrOtelError):
                summary = RunSummary(run.project, run.app_id, status="unreadable", place=run.place)
            if summary is not None and status in (None, summary.status):
                yield summary
                passed += 1
                if passed == limit:
                    return

    def chosen(self, app_ids: Sequence[str], since_ns: int | None = None) -> list[StoredRun]:
        """Runs by id, with those that they spawned, or all; the one written to last comes last."""
        if app_ids:
            found = {
                (each.project, each.partition_key, each.app_id): each
                for named in self.find_each(app_ids)
                for each in _with_spawned(named.run, self.storage_dir)
            }
            wanted: Iterable[StoredRun] = found.values()
        else:
            wanted = self.runs()
        meant = [run for run in wanted if since_ns is None or run.changed_ns >= since_ns]
        return sorted(meant, key=lambda run: (run.changed_ns, run.project, run.app_id))


def _with_spawned(run: StoredRun, storage_dir: str) -> list[StoredRun]:
    """A run and those that it spawned: they are one trace."""
    store, seen, found = Store(run.project, storage_dir), {run.app_id}, [run]
    for parent in found:  # grows
        for child in children_of(parent):
            if child.kind == "spawn" and child.app_id not in seen:
                seen.add(child.app_id)
                with contextlib.suppress(BurrOtelError):  # it is gone, or the pointer is damaged
                    found.append(store.read(child.app_id))
    return found


def _ambiguous(app_id: str, found: Sequence[StoredRun]) -> str:
    names = [f"{run.project}/{run.app_id}" for run in found[:_MOST_NAMED]]
    more = len(found) - len(names)
    rest = f" and {more:,} more" if more else ""
    hint = "Give more of the id, or add --project."
    if len({run.app_id for run in found}) == 1:
        hint = "Add --project."
        if len({run.project for run in found}) == 1:
            keys = sorted(run.partition_key or "" for run in found)[:_MOST_NAMED]
            names = [f"--partition {shlex.quote(key)}" for key in keys]
            hint = "Add one of these."
    return f"{app_id!r} may mean {len(found):,} runs: {', '.join(names)}{rest}. {hint}"


def _of_trace(candidates: Sequence[StoredRun], trace_id: int) -> list[FoundRun]:
    """The runs with a session in that trace; without those that another of them spawned."""
    found = []
    for run in candidates:
        root = newest_record(run.log, (ROOT,), accept=lambda each: _ids(each)[0] == trace_id)
        if root is not None:
            found.append(FoundRun(run, otel_of(root)))
    names = {each.run.app_id for each in found}
    spawners = ((each, each.run.spawning_parent_pointer) for each in found)
    outermost = [each for each, spawner in spawners if not spawner or spawner.app_id not in names]
    return outermost or found


def _of_record(candidates: Sequence[StoredRun], digits: str, *, is_trace: bool) -> list[FoundRun]:
    """The newest run with a record of that span, or of that trace where no root is in it."""
    text = f'"{"trace_id" if is_trace else "span_id"}":"{digits}"'.encode()
    for run in sorted(candidates, key=lambda each: each.changed_ns, reverse=True):
        for line in run.forward():
            record = _record_of(line) if text in line.data else None
            # Not a span that the record only names.
            if record is not None and int(digits, 16) == _ids(record)[0 if is_trace else 1]:
                number = getattr(read(record), "sequence_id", None)
                return [FoundRun(run, otel_of(record), number)]
    return []


def _ids(record: Mapping[str, Any]) -> tuple[int, int]:
    """Trace and span of a record; zeros without any."""
    ids = read_ids(otel_of(record) or {})
    return (0, 0) if ids is None else (ids.trace_id, ids.span_id)


def _record_of(line: Line) -> Mapping[str, Any] | None:
    """The record on a line; None when it is damaged."""
    try:
        return parse(line.data)
    except DamageError:
        return None


# --- one line about each run ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class RunSummary:
    """What a table says about a run."""

    project: str
    app_id: str
    partition_key: str | None = None
    started_ns: int | None = None
    last_ns: int | None = None
    steps: int = 0  # by the first and the last sequence id
    last_action: str | None = None
    status: str = "empty"  # or "unreadable", or one of `STATUSES`
    trace_id: str | None = None  # of the newest session that was traced
    place: str = ""
    usage: Usage | None = None
    initial: str | None = None  # what a spawned run began with


def summarise(run: StoredRun, alive: Alive, wanted: str | None = None) -> RunSummary | None:
    """Read both ends of a run's log; None, after the one, when its status is not the wanted one."""
    tail, read_head = _tail(run), functools.cache(_head)
    zone = functools.cache(lambda: writer_zone([*read_head(run), *tail]))
    fold = Fold(run.project, run.app_id, zone=zone)
    for record in tail:
        fold.add(record)
    fold.finish(alive)
    status = run_outcome(fold.sessions) if fold.sessions else "empty"
    # Whether an exception told of a failure is a detail.
    status = "failed" if status == semconv.ERROR else status
    if wanted not in (None, status):
        return None
    summary = RunSummary(run.project, run.app_id, run.partition_key, status=status, place=run.place)
    if not fold.sessions:
        return summary
    steps = [step for session in fold.sessions for step in session.children]
    head = read_head(run)
    first = next((n for record in head if type(n := record.get("sequence_id")) is int), 0)
    last_ns = max(time_of(record, zone) for record in tail) or None
    newest_first = fold.sessions[::-1]
    return dataclasses.replace(
        summary,
        started_ns=next((ns for record in head if (ns := time_of(record, zone))), last_ns),
        last_ns=last_ns,
        steps=max(1, (steps[-1].sequence_id or 0) - first + 1) if steps else 0,
        last_action=steps[-1].name if steps else None,
        trace_id=next((each.trace_id for each in newest_first if each.trace_id), None),
        usage=next((each.usage for each in newest_first if each.usage), None),
        initial=next((_initial(run, each) for each in newest_first if each.initial), None),
    )


def _initial(run: StoredRun, session: SessionNode) -> str | None:
    told = RunContent(run, reader_policy()).of(session).attributes.get(semconv.STATE_INITIAL)
    return None if told is None else str(told)


def _tail(run: StoredRun) -> list[Mapping[str, Any]]:
    """The records from the last one of a step on, behind begin and earlier ends of its session."""
    # An application span may have ended by idling while its application went on. Of other sessions
    # there may be the end: where that of an earlier one came late, its begin tells that it is.
    found: list[Mapping[str, Any]] = []  # newest first
    begun_earlier: set[str | None] = set()  # sessions of which the begin was not found yet
    step, left_bytes = None, _LONGEST_TAIL_BYTES
    for line in run.backward():
        is_read = step is None or line.data.startswith(_ROOT_LINES)
        record = _record_of(line) if is_read else None
        left_bytes -= len(line.data)
        if record is not None and (step is None or _session(record) in begun_earlier):
            found.append(record)
            is_begin = record["type"] == ROOT
            (begun_earlier.discard if is_begin else begun_earlier.add)(_session(record))
            if step is None and record["type"] in (BEGIN_ENTRY, END_ENTRY):
                step, left_bytes = record, _LONGEST_SEARCH_BYTES
        if left_bytes < 0 or (step is not None and not begun_earlier - {None}):
            break
    if step is None:
        return found[::-1]
    session, root = _session(step), None
    if session is not None and session in begun_earlier:
        root = newest_record(run.log, (ROOT,), accept=lambda each: _session(each) == session)
    begun_earlier.discard(session)
    kept = [each for each in found[::-1] if _session(each) not in begun_earlier]
    return kept if root is None else [root, *kept]


def _head(run: StoredRun) -> list[Mapping[str, Any]]:
    """The first records, up to the end of the first step: what tells the time zone is in there."""
    found: list[Mapping[str, Any]] = []
    for record in filter(None, map(_record_of, itertools.islice(run.forward(), _HEAD_LINES))):
        found.append(record)
        exact = type(record.get("sequence_id")) is int and _session(record) is not None
        if exact or record["type"] in (END_ENTRY, ROOT_END):
            break
    return found


def _session(record: Mapping[str, Any]) -> str | None:
    session = (otel_of(record) or {}).get("session")
    return session if isinstance(session, str) else None
