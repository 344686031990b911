"""Which stored run a person means."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from burr_otel.errors import ConfigError, StoreError, UnknownRunError
from burr_otel.records import ROOT, DamageError, parse, read, read_ids
from burr_otel.store import ALL, Store, StoredRun, is_url, without_password
from burr_otel.store import projects as project_names
from burr_otel.store.lines import otel_of
from burr_otel.store.loading import newest_record
from burr_otel.store.port import Line

_MOST_NAMED: Final = 5
_TRACE_OR_SPAN_ID: Final = re.compile("[0-9a-f]{32}|[0-9a-f]{16}")
_TRACE_DIGITS: Final = 32
_MOST_COMPARED: Final = 200_000  # difflib takes some 15 µs a name


class UnknownProjectError(StoreError):
    """There is no project of that name; the message names the nearest."""


class AmbiguousRunError(StoreError):
    """More than one run is meant; the message names some of them."""


class FoundRun(NamedTuple):
    """A run, and what of it was named: itself, a session by its trace, or a step by its span.

    `otel` is of the record that has the trace or span, `sequence_id` the step's.
    """

    run: StoredRun
    otel: Mapping[str, Any] | None = None
    sequence_id: int | None = None


def stores(storage_dir: str, project: str | None = None) -> Iterator[Store]:
    """The projects of a storage directory, in order of their names, or only the named one.

    Raises:
        InvalidIdentifierError: `project` cannot be a project's name.
        StoreError: There is no such place or project, or it cannot be read.
    """
    place = _place(storage_dir)
    try:
        names = project_names(storage_dir)
    except FileNotFoundError:
        raise StoreError(
            f"no storage directory {place}: nothing has been recorded there. "
            "Pass --storage-dir, or run `burr-otel demo` for a first run."
        ) from None
    except OSError as error:
        raise StoreError(f"{place} cannot be read: {error.strerror or error}.") from error
    if project is not None:
        store = Store(project, storage_dir)
        if project not in names:
            close = difflib.get_close_matches(project, names, n=2, cutoff=0.5)
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise UnknownProjectError(f"no project {project!r} under {place}.{hint}")
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
    place = _place(storage_dir)
    try:
        for store in stores(storage_dir, project):
            place = store.place
            yield from store.runs(key)
    except OSError as error:
        raise StoreError(f"{place} cannot be read: {error.strerror or error}.") from error


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
    known = list(runs(storage_dir, project, partition))
    found = [FoundRun(run) for run in known if run.app_id == app_id]
    if app_id and not found:
        found = [FoundRun(run) for run in known if run.app_id.startswith(app_id)]
    if not found and _TRACE_OR_SPAN_ID.fullmatch(app_id.lower()):
        is_trace = len(app_id) == _TRACE_DIGITS
        found = _of_trace(known, int(app_id, 16)) if is_trace else []
        found = found or _of_record(known, app_id.lower(), is_trace=is_trace)
    if not found:
        where = f"{_place(storage_dir)}/{project or ''}".rstrip("/")
        raise UnknownRunError(app_id, where, _nearest(app_id, [run.app_id for run in known]))
    if len(found) > 1:
        raise AmbiguousRunError(_ambiguous(app_id, [each.run for each in found]))
    return found[0]


def _ambiguous(app_id: str, found: Sequence[StoredRun]) -> str:
    names = [f"{run.project}/{run.app_id}" for run in found[:_MOST_NAMED]]
    more = len(found) - len(names)
    rest = f" and {more:,} more" if more else ""
    hint = "Give more of the id, or add --project."
    if len({run.app_id for run in found}) == 1:
        one_project = len({run.project for run in found}) == 1
        hint = "Add --partition." if one_project else "Add --project."
    return f"{app_id!r} may mean {len(found):,} runs: {', '.join(names)}{rest}. {hint}"


def _of_trace(candidates: Sequence[StoredRun], trace_id: int) -> list[FoundRun]:
    """The runs of which a session's application span is in that trace."""
    found = []
    for run in candidates:
        root = newest_record(run.log, (ROOT,), accept=lambda each: _ids(each)[0] == trace_id)
        if root is not None:
            found.append(FoundRun(run, otel_of(root)))
    names = {each.run.app_id for each in found}
    outermost = [
        each
        for each in found
        if (each.run.spawning_parent_pointer or {}).get("app_id") not in names
    ]
    return outermost or found


def _of_record(candidates: Sequence[StoredRun], digits: str, *, is_trace: bool) -> list[FoundRun]:
    """The newest run with a record of that span, or of that trace where no root is in it."""
    text = f'"{"trace_id" if is_trace else "span_id"}":"{digits}"'.encode()
    for run in sorted(candidates, key=lambda each: each.changed_ns, reverse=True):
        for line in run.forward():
            record = record_of(line) if text in line.data else None
            # Not a span that the record only names.
            if record is not None and int(digits, 16) == _ids(record)[0 if is_trace else 1]:
                number = getattr(read(record), "sequence_id", None)
                return [FoundRun(run, otel_of(record), number)]
    return []


def _ids(record: Mapping[str, Any]) -> tuple[int, int]:
    """Trace and span of a record; zeros without any."""
    ids = read_ids(otel_of(record) or {})
    return (0, 0) if ids is None else (ids.trace_id, ids.span_id)


def record_of(line: Line) -> Mapping[str, Any] | None:
    """The record on a line; None when it is damaged."""
    try:
        return parse(line.data)
    except DamageError:
        return None


def _place(storage_dir: str) -> str:
    """What messages call a storage directory."""
    if is_url(storage_dir):
        return without_password(storage_dir)
    return str(Path(storage_dir).expanduser())


def _nearest(app_id: str, names: list[str]) -> list[str]:
    inside = [name for name in names if app_id and app_id.lower() in name.lower()]
    close = difflib.get_close_matches(app_id, names[:_MOST_COMPARED], n=3, cutoff=0.5)
    return list(dict.fromkeys([*close, *inside]))[:3]
