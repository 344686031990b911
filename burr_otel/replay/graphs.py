"""The graphs that a run has had."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

__all__ = ["Graphs"]


class Graphs:
    """The graphs of a run by their digests.

    Args:
        folder: Of the run.
        current: The current one.
    """

    def __init__(self, folder: Path, current: Mapping[str, Any] | None) -> None:
        self._folder, self._current = folder, current
        self._known: dict[str, Mapping[str, Any] | None] = {}

    def __call__(self, digest: str | None) -> Mapping[str, Any] | None:
        """The graph of that digest, the current one for `None`; `None` when it is lost."""
        if digest is None:
            return self._current
        if digest not in self._known:
            self._known[digest] = self._read(digest)
        return self._known[digest]

    def _read(self, digest: str) -> Mapping[str, Any] | None:
        for name in ("graph.json", f"graph-{digest}.json"):
            try:
                data = (self._folder / name).read_bytes()
                found = json.loads(data)
            except (OSError, ValueError):
                continue
            if hashlib.sha256(data).hexdigest().startswith(digest) and isinstance(found, dict):
                return found
        return None
