"""Which projects and app ids may become folders, and where their files are."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from typing import Final

from burr_otel.errors import ConfigError, InvalidIdentifierError

__all__ = [
    "CHILDREN",
    "GRAPH",
    "INDEX",
    "LOCK",
    "LOG",
    "METADATA",
    "OPEN_PREFIX",
    "TEMPORARY_PREFIX",
    "check_app_id",
    "check_project",
    "expanded",
    "is_partition_name",
    "partition_name",
    "share_folder",
]

LOG: Final = "log.jsonl"
GRAPH: Final = "graph.json"
METADATA: Final = "metadata.json"
CHILDREN: Final = "children.jsonl"
INDEX: Final = "log.index"
LOCK: Final = "run.lock"
OPEN_PREFIX: Final = "open-"

# A run's folder is built under such a name and then renamed. The dot hides it from the Burr UI,
# which reads log.jsonl of every other folder and fails on one without it.
TEMPORARY_PREFIX: Final = ".burr-otel-new-"

_PARTITION_SUFFIX: Final = re.compile(r"~p-[0-9a-f]{12}\Z")
_PROJECT: Final = re.compile(r"[a-zA-Z0-9_\-:]+")  # what Burr's own client accepts
_MAX_NAME_BYTES: Final = 255  # the limit of one path component on ext4, xfs, btrfs, apfs and tmpfs


def check_project(project: object) -> str:
    """Return `project` when it can be the name of a project's folder."""
    if isinstance(project, str) and _PROJECT.fullmatch(project) and len(project) <= _MAX_NAME_BYTES:
        return project
    raise InvalidIdentifierError(
        f"project {_shown(project)} cannot be a folder name. Use 1 to {_MAX_NAME_BYTES} letters, "
        "digits, '_', '-' or ':'."
    )


def check_app_id(app_id: object) -> str:
    """Return `app_id` when it can be the name of one folder below the project's."""
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


def partition_name(app_id: str, partition_key: str | None) -> str:
    """Name of the folder of a run whose app id another partition has used for a folder already."""
    digest = hashlib.sha256(json.dumps([app_id, partition_key]).encode()).hexdigest()
    suffix = f"~p-{digest[:12]}"
    start = app_id.encode()[: _MAX_NAME_BYTES - len(suffix)]
    return start.decode(errors="ignore") + suffix


def is_partition_name(name: str) -> bool:
    """Whether a folder's name looks like one that `partition_name` makes."""
    return _PARTITION_SUFFIX.search(name) is not None


def share_folder(one: str, other: str) -> bool:
    """Whether two app ids are one folder where the file system ignores case or normalizes."""
    return one != other and _folded(one) == _folded(other)


def expanded(storage_dir: str | os.PathLike[str]) -> str:
    """A storage directory with ``~`` expanded."""
    path = os.fspath(storage_dir)
    found = os.path.expanduser(path)  # noqa: PTH111 - as Burr resolves it
    if path.startswith("~") and found.startswith("~"):
        raise ConfigError(
            f"storage directory {path!r} cannot be found: there is no home directory (neither HOME "
            "nor an entry for the user). Set HOME or BURR_OTEL_STORAGE_DIR, or pass storage_dir."
        )
    return found


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:80]}… ({len(text)} characters)"  # noqa: PLR2004
