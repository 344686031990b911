"""Which projects and app ids may become folders, and where their files are."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from burr_otel.errors import InvalidIdentifierError

__all__ = [
    "CHILDREN",
    "GRAPH",
    "INDEX",
    "LOCK",
    "LOG",
    "METADATA",
    "TEMPORARY_PREFIX",
    "check_app_id",
    "check_project",
    "check_run_folder",
    "project_path",
]

LOG = "log.jsonl"
GRAPH = "graph.json"
METADATA = "metadata.json"
CHILDREN = "children.jsonl"
INDEX = "log.index"
LOCK = "run.lock"

# A run's folder is built under such a name and then renamed. The dot hides it from the Burr UI,
# which reads log.jsonl of every other folder and fails on one without it.
TEMPORARY_PREFIX = ".burr-otel-new-"

_PROJECT = re.compile(r"[a-zA-Z0-9_\-:]+")  # what Burr's own client accepts
_MAX_NAME_BYTES = 255  # the limit of one path component on ext4, xfs, btrfs, apfs and tmpfs


def check_project(project: object) -> str:
    """Return `project` when it can be the name of a project's folder.

    Raises:
        InvalidIdentifierError: It cannot.
    """
    if isinstance(project, str) and _PROJECT.fullmatch(project) and len(project) <= _MAX_NAME_BYTES:
        return project
    raise InvalidIdentifierError(
        f"project {_shown(project)} cannot be a folder name. Use 1 to {_MAX_NAME_BYTES} letters, "
        "digits, '_', '-' or ':'."
    )


def check_app_id(app_id: object) -> str:
    """Return `app_id` when it can be the name of one folder below the project's.

    Raises:
        InvalidIdentifierError: It cannot, or would lead out of the project's folder.
    """
    problem = _app_id_problem(app_id)
    if problem is None:
        return str(app_id)
    raise InvalidIdentifierError(
        f"app id {_shown(app_id)} cannot be a folder name: {problem}. Use text of 1 to "
        f"{_MAX_NAME_BYTES} bytes without '/' and NUL that is not '.' or '..'."
    )


def _app_id_problem(app_id: object) -> str | None:  # noqa: PLR0911 - one case each
    if not isinstance(app_id, str):
        return f"it is of type {type(app_id).__name__}, not str"
    if not app_id:
        return "it is empty"
    if app_id in (".", ".."):
        return "it names another folder"
    if app_id.startswith(TEMPORARY_PREFIX):
        return f"names that begin with {TEMPORARY_PREFIX!r} are kept for folders being made"
    if "/" in app_id or "\0" in app_id:
        return "it contains '/' or NUL"
    try:
        size = len(app_id.encode())
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    return f"it takes {size} bytes" if size > _MAX_NAME_BYTES else None


def check_run_folder(path: str) -> bool:
    """Whether the run's folder exists.

    Raises:
        InvalidIdentifierError: It is a symbolic link, so the run's files would be elsewhere.
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if stat.S_ISLNK(mode):
        raise InvalidIdentifierError(
            f"{path} is a symbolic link; a run's folder must be a real one inside its project. "
            "Move the folder here, or link the storage directory as a whole."
        )
    return stat.S_ISDIR(mode)


def project_path(project: str, storage_dir: str | os.PathLike[str]) -> Path:
    """Where the runs of a project are, with ``~`` expanded."""
    return Path(os.path.expanduser(storage_dir)) / project  # noqa: PTH111 - as Burr resolves it


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:80]}… ({len(text)} characters)"  # noqa: PLR2004
