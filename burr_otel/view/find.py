"""Which stored run a person means."""

from __future__ import annotations

import contextlib
import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from burr_otel.errors import ConfigError, StoreError, UnknownRunError
from burr_otel.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["AmbiguousRunError", "Found", "UnknownProjectError", "find_run", "projects", "runs"]

LOG: Final = "log.jsonl"
_MOST_NAMED: Final = 5
_MOST_COMPARED: Final = 200_000  # difflib takes some 15 µs a name


class Found(NamedTuple):
    """A run's place.

    Attributes:
        project: Its project.
        app_id: Its application id.
        folder: Folder of its files.
    """

    project: str
    app_id: str
    folder: Path


class UnknownProjectError(StoreError):
    """There is no project of that name; the message names the nearest."""


class AmbiguousRunError(StoreError):
    """More than one run is meant; the message names some of them.

    Attributes:
        candidates: All of them.
    """

    def __init__(self, app_id: str, candidates: list[Found]) -> None:
        self.candidates = candidates
        names = [f"{run.project}/{run.app_id}" for run in candidates[:_MOST_NAMED]]
        more = len(candidates) - len(names)
        rest = f" and {more:,} more" if more else ""
        same = len({run.app_id for run in candidates}) == 1
        hint = "Add --project." if same else "Give more of the id, or add --project."
        super().__init__(
            f"{app_id!r} may mean {len(candidates):,} runs: {', '.join(names)}{rest}. {hint}"
        )


def projects(storage_dir: str, project: str | None = None) -> Iterator[tuple[str, Path]]:
    """Names and folders of the projects below a storage directory, in order of their names.

    Args:
        storage_dir: Where the projects are.
        project: Only this one.

    Raises:
        InvalidIdentifierError: `project` cannot be a folder's name.
        StoreError: There is no such folder, or it cannot be read.
    """
    top = Path(storage_dir).expanduser()
    if project is not None:
        folder = Store(project, storage_dir).path
        if not folder.is_dir():
            hint = _nearest_project(project, top)
            raise UnknownProjectError(f"no project {project!r} under {top}.{hint}")
        yield project, folder
        return
    try:
        names = sorted(entry.name for entry in os.scandir(top) if entry.is_dir())
    except FileNotFoundError:
        raise StoreError(
            f"no storage directory {top}: nothing has been recorded there. "
            "Pass --storage-dir, or run `burr-otel demo` for a first run."
        ) from None
    except OSError as error:
        raise StoreError(f"{top} cannot be read: {error.strerror}.") from error
    for name in names:
        with contextlib.suppress(ConfigError):  # not a project's folder
            yield name, Store(name, storage_dir).path


def runs(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Folders in a project's folder that may hold a run.

    Raises:
        StoreError: It cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise StoreError(f"{folder} cannot be read: {error.strerror}.") from error


def find_run(storage_dir: str, app_id: str, project: str | None = None) -> Found:
    """The run of that id, or the only one whose id begins so.

    Args:
        storage_dir: Where the projects are.
        app_id: An id or the beginning of one.
        project: Where to look; everywhere when absent.

    Raises:
        UnknownRunError: There is none; names the nearest ids.
        AmbiguousRunError: There are several.
        StoreError: The files cannot be read.
    """
    exact: list[Found] = []
    prefixed: list[Found] = []
    others: list[str] = []
    for name, folder in projects(storage_dir, project):
        for entry in runs(folder):
            if not entry.name.startswith(app_id):
                others.append(entry.name)
                continue
            path = Path(entry.path)
            if (path / LOG).is_file():
                (exact if entry.name == app_id else prefixed).append(Found(name, entry.name, path))
    candidates = exact or (prefixed if app_id else [])
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise AmbiguousRunError(app_id, candidates)
    where = Path(storage_dir).expanduser() / (project or "")
    raise UnknownRunError(app_id, str(where), _nearest(app_id, others))


def _nearest(app_id: str, names: list[str]) -> list[str]:
    inside = [name for name in names if app_id and app_id.lower() in name.lower()]
    close = difflib.get_close_matches(app_id, names[:_MOST_COMPARED], n=3, cutoff=0.5)
    return list(dict.fromkeys([*close, *inside[:3]]))[:3]


def _nearest_project(project: str, top: Path) -> str:
    try:
        names = [entry.name for entry in os.scandir(top) if entry.is_dir()]
    except OSError:
        return ""
    close = difflib.get_close_matches(project, names, n=2, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
