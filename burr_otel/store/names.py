"""Which projects, app ids and partition keys every engine takes, so that runs can move anywhere."""

from __future__ import annotations

import re
from typing import Final

from burr_otel.errors import InvalidIdentifierError

# A run's folder is built under such a name and then renamed. The dot hides it from the Burr UI,
# which reads log.jsonl of every other folder and fails on one without it.
TEMPORARY_PREFIX: Final = ".burr-otel-new-"

_PROJECT: Final = re.compile(r"[a-zA-Z0-9_\-:]+")  # what Burr's own client accepts
MAX_NAME_BYTES: Final = 255  # the limit of one path component on ext4, xfs, btrfs, apfs and tmpfs


def is_project(name: str) -> bool:
    """Whether it can be the name of a project's folder."""
    return _PROJECT.fullmatch(name) is not None and len(name) <= MAX_NAME_BYTES


def check_project(project: object) -> str:
    """Return `project` when it can be the name of a project's folder."""
    if isinstance(project, str) and is_project(project):
        return project
    raise InvalidIdentifierError(
        f"project {_shown(project)} cannot be a folder name. Use 1 to {MAX_NAME_BYTES} letters, "
        "digits, '_', '-' or ':'."
    )


def check_app_id(app_id: object) -> str:
    """Return `app_id` when it can be the name of one folder below the project's."""
    problem = _app_id_problem(app_id)
    if problem is None:
        return str(app_id)
    raise InvalidIdentifierError(
        f"app id {_shown(app_id)} cannot be a folder name: {problem}. Use text of 1 to "
        f"{MAX_NAME_BYTES} bytes without '/' and NUL that is not '.' or '..'."
    )


def is_partition_key(key: object) -> bool:
    """Whether it is valid Unicode text."""
    try:
        return isinstance(key, str) and key.encode() is not None
    except UnicodeEncodeError:
        return False


def check_partition_key(key: str | None) -> str | None:
    """Return `key` when it can be kept; an empty one is none."""
    if not key or is_partition_key(key):
        return key or None
    raise InvalidIdentifierError(
        f"partition key {key!r} cannot be kept: use valid Unicode text or None."
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
    return f"it takes {size} bytes" if size > MAX_NAME_BYTES else None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:80]}… ({len(text)} characters)"  # noqa: PLR2004
