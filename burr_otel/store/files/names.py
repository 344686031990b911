"""Where the files of a run are, and what its folder is called."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from typing import Final

from burr_otel.errors import ConfigError
from burr_otel.store.names import MAX_NAME_BYTES

LOG: Final = "log.jsonl"
GRAPH: Final = "graph.json"
METADATA: Final = "metadata.json"
CHILDREN: Final = "children.jsonl"
INDEX: Final = "log.index"
LOCK: Final = "run.lock"
OPEN_PREFIX: Final = "open-"

_PARTITION_SUFFIX: Final = re.compile(r"~p-[0-9a-f]{12}\Z")


def partition_name(app_id: str, partition_key: str | None) -> str:
    """Name of the folder of a run whose app id another partition has used for a folder already."""
    digest = hashlib.sha256(json.dumps([app_id, partition_key]).encode()).hexdigest()
    suffix = f"~p-{digest[:12]}"
    start = app_id.encode()[: MAX_NAME_BYTES - len(suffix)]
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
