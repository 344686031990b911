"""Which stored run a person means."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from burr_otel.errors import ConfigError, StoreError, UnknownRunError
from burr_otel.records import ROOT, DamageError, parse, read, read_ids
from burr_otel.store import ALL, Store, StoredRun, is_url, port, without_password
from burr_otel.store import projects as project_names

_MOST_NAMED: Final = 5
_TRACE_OR_SPAN_ID: Final = re.compile("[0-9a-f]{32}|[0-9a-f]{16}")
_TRACE_DIGITS: Final = 32
_MOST_COMPARED: Final = 200_000  # difflib takes some 15 µs a name


class UnknownProjectError(StoreError):
    """There is no project of that name; the message names the nearest."""


class AmbiguousRunError(StoreError):
    """More than one run is meant; the message names some of them."""

    def __init__(self, app_id: str, candidates: list[StoredRun]) -> None:
        self.candidates = candidates
        names = [f"{run.project}/{run.app_id}" for run in candidates[:_MOST_NAMED]]
        more = len(candidates) - len(names)
        rest = f" and {more:,} more" if more else ""
        hint = "Give more of the id, or add --project."
        if len({run.app_id for run in candidates}) == 1:
            keys = {run.partition_key for run in candidates}
            one_project = len({run.project for run in candidates}) == 1
            hint = "Add --partition." if one_project and len(keys) > 1 else "Add --project."
        super().__init__(
            f"{app_id!r} may mean {len(candidates):,} runs: {', '.join(names)}{rest}. {hint}"
        )


def stores(storage_dir: str, project: str | None = None) -> Iterator[Store]:
    """The projects of a storage directory, in order of their names, or only the named one.

    Raises:
        InvalidIdentifierError: `project` cannot be a project's name.
        StoreError: There is no such place or project, or it cannot be read.
    """
    try:
        names = project_names(storage_dir)
    except FileNotFoundError:
        raise StoreError(
            f"no storage directory {_shown(storage_dir)}: nothing has been recorded there. "
            "Pass --storage-dir, or run `burr-otel demo` for a first run."
        ) from None
    except OSError as error:
        what = f"{_shown(storage_dir)} cannot be read"
        raise StoreError(f"{what}: {error.strerror or error}.") from error
    if project is not None:
        store = Store(project, storage_dir)
        if project not in names:
            close = difflib.get_close_matches(project, names, n=2, cutoff=0.5)
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise UnknownProjectError(f"no project {project!r} under {_shown(storage_dir)}.{hint}")
        yield store
        return
    for name in names:
        with contextlib.suppress(ConfigError):  # not a project's folder
            yield Store(name, storage_dir)


def runs(
    storage_dir: str, project: str | None = None, partition: str | None = None
) -> Iterator[StoredRun]:
    """All runs, or those of a partition ('': of none), in no order; see `stores` for errors."""
    key = ALL if partition is None else partition or None
    place = _shown(storage_dir)
    try:
        for store in stores(storage_dir, project):
            place = store.place
            yield from store.runs(key)
    except OSError as error:
        raise StoreError(f"{place} cannot be read: {error.strerror or error}.") from error


class FoundRun(NamedTuple):
    """A run, and what of it was named: itself, a session by its trace, or a step by its span.

    `otel` is of the record that has the trace or span, `sequence_id` the step's.
    """

    run: StoredRun
    otel: Mapping[str, Any] | None = None
    sequence_id: int | None = None


def find_run(
    storage_dir: str, app_id: str, project: str | None = None, partition: str | None = None
) -> StoredRun:
    """The run that `find` finds."""
    return find(storage_dir, app_id, project, partition).run


def find(
    storage_dir: str, app_id: str, project: str | None = None, partition: str | None = None
) -> FoundRun:
    """The run of that id, or the only one whose id begins so, or that has such a trace or span.

    Of the runs of one trace it is the one that spawned the others.

    Raises:
        UnknownRunError: There is none; names the nearest ids.
        AmbiguousRunError: There are several.
        StoreError: The files cannot be read.
    """
    exact: list[StoredRun] = []
    prefixed: list[StoredRun] = []
    fitting: list[StoredRun] = []
    others: list[str] = []
    for run in runs(storage_dir, project):
        fits = partition is None or run.partition_key == partition
        if fits:
            fitting.append(run)
        if not run.app_id.startswith(app_id):
            others.append(run.app_id)
        elif fits:
            (exact if run.app_id == app_id else prefixed).append(run)
    found = [FoundRun(run) for run in exact or (prefixed if app_id else [])]
    if not found and _TRACE_OR_SPAN_ID.fullmatch(app_id.lower()):
        is_trace = len(app_id) == _TRACE_DIGITS
        found = _of_trace(fitting, int(app_id, 16)) if is_trace else []
        found = found or _of_record(fitting, app_id.lower(), is_trace=is_trace)
    if len(found) == 1:
        return found[0]
    if found:
        raise AmbiguousRunError(app_id, [each.run for each in found])
    where = f"{_shown(storage_dir)}/{project or ''}".rstrip("/")
    raise UnknownRunError(app_id, where, _nearest(app_id, others))


def _of_trace(candidates: list[StoredRun], trace_id: int) -> list[FoundRun]:
    found = []
    for run in candidates:
        for line in run.log.newest((port.ROOT, port.INHERITED)):
            record = _record(line)
            ids = read_ids(_otel(record))
            if ids is not None and ids.trace_id == trace_id and record.get("type") == ROOT:
                found.append(FoundRun(run, _otel(record)))
                break
    names = {each.run.app_id for each in found}
    parents = [each.run.spawning_parent_pointer or {} for each in found]
    outermost = [
        each
        for each, parent in zip(found, parents, strict=True)
        if parent.get("app_id") not in names
    ]
    return outermost or found


def _of_record(candidates: list[StoredRun], digits: str, *, is_trace: bool) -> list[FoundRun]:
    """The newest run with a record of that span, or of that trace where no root is in it."""
    text = f'"{"trace_id" if is_trace else "span_id"}":"{digits}"'.encode()
    for run in sorted(candidates, key=lambda each: each.changed_ns, reverse=True):
        for line in run.forward():
            record = _record(line) if text in line.data else {}
            ids = read_ids(_otel(record))
            # Not a span that the record only names.
            if ids is not None and (ids.trace_id if is_trace else ids.span_id) == int(digits, 16):
                number = getattr(read(record), "sequence_id", None)
                return [FoundRun(run, _otel(record), number)]
    return []


def _record(line: port.Line) -> Mapping[str, Any]:
    try:
        return parse(line.data)
    except DamageError:
        return {}


def _otel(record: Mapping[str, Any]) -> Mapping[str, Any]:
    otel = record.get("otel")
    return otel if isinstance(otel, dict) else {}


def _shown(storage_dir: str) -> str:
    if is_url(storage_dir):
        return without_password(storage_dir)
    return str(Path(storage_dir).expanduser())


def _nearest(app_id: str, names: list[str]) -> list[str]:
    inside = [name for name in names if app_id and app_id.lower() in name.lower()]
    close = difflib.get_close_matches(app_id, names[:_MOST_COMPARED], n=3, cutoff=0.5)
    return list(dict.fromkeys([*close, *inside[:3]]))[:3]
