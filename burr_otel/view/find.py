"""Which stored run a person means."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from burr_otel.errors import ConfigError, StoreError, UnknownRunError
from burr_otel.store import Store, StoredRun, is_url, without_password
from burr_otel.store import projects as project_names

_MOST_NAMED: Final = 5
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


def runs(storage_dir: str, project: str | None = None) -> Iterator[StoredRun]:
    """All runs, in no order; see `stores` for what it raises."""
    place = _shown(storage_dir)
    try:
        for store in stores(storage_dir, project):
            place = store.place
            yield from store.runs()
    except OSError as error:
        raise StoreError(f"{place} cannot be read: {error.strerror or error}.") from error


def find_run(
    storage_dir: str, app_id: str, project: str | None = None, partition: str | None = None
) -> StoredRun:
    """The run of that id, or the only one whose id begins so.

    Raises:
        UnknownRunError: There is none; names the nearest ids.
        AmbiguousRunError: There are several.
        StoreError: The files cannot be read.
    """
    exact: list[StoredRun] = []
    prefixed: list[StoredRun] = []
    others: list[str] = []
    for run in runs(storage_dir, project):
        if not run.app_id.startswith(app_id):
            others.append(run.app_id)
        elif partition is None or run.partition_key == partition:
            (exact if run.app_id == app_id else prefixed).append(run)
    candidates = exact or (prefixed if app_id else [])
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise AmbiguousRunError(app_id, candidates)
    where = f"{_shown(storage_dir)}/{project or ''}".rstrip("/")
    raise UnknownRunError(app_id, where, _nearest(app_id, others))


def _shown(storage_dir: str) -> str:
    if is_url(storage_dir):
        return without_password(storage_dir)
    return str(Path(storage_dir).expanduser())


def _nearest(app_id: str, names: list[str]) -> list[str]:
    inside = [name for name in names if app_id and app_id.lower() in name.lower()]
    close = difflib.get_close_matches(app_id, names[:_MOST_COMPARED], n=3, cutoff=0.5)
    return list(dict.fromkeys([*close, *inside[:3]]))[:3]
