"""Everything that is stored of one run, read whatever its condition."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from burr_otel.store import folder, names
from burr_otel.store.chain import Unfolding
from burr_otel.store.repair import parts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["StoredRun"]


class StoredRun:
    """A run's files, read tolerantly.

    Args:
        project: Of the run.
        app_id: Of the run.
        path: Its folder.

    Attributes:
        partition_key: From its metadata.
        parent_pointer: Where it was forked from, in Burr's layout.
        spawning_parent_pointer: The step that it is a part of, in Burr's layout.
        graph: Its current graph in Burr's layout; None when it is lost.
        children: Its forks and spawned applications, in Burr's layout.
        skipped: Offset, length and reason of each damaged part that `records` passed over.
        read_bytes: How much of the log `records` has read.
    """

    def __init__(self, project: str, app_id: str, path: Path) -> None:
        self.project, self.app_id, self.path = project, app_id, path
        metadata = folder.read_json(f"{path}/{names.METADATA}") or {}
        self.partition_key: str | None = metadata.get("partition_key")
        self.parent_pointer: dict[str, Any] | None = metadata.get("parent_pointer")
        self.spawning_parent_pointer: dict[str, Any] | None = metadata.get(
            "spawning_parent_pointer"
        )
        self.graph = folder.read_json(f"{path}/{names.GRAPH}")
        self.children = folder.read_children(str(path))
        self.skipped: list[tuple[int, int, str]] = []
        self.read_bytes = 0

    def records(self) -> Iterator[dict[str, Any]]:
        """The sound records in file order, with whole states; damaged parts go to `skipped`.

        The state of a record whose base is lost is None, and `skipped` tells it too.

        Raises:
            OSError: The log cannot be read.
        """
        self.skipped.clear()
        unfolding = Unfolding()
        fd = os.open(self.path / names.LOG, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            for part in parts(fd, 0, os.fstat(fd).st_size):
                self.read_bytes = part.offset + len(part.data)
                if part.record is None:
                    self.skipped.append((part.offset, len(part.data), part.reason))
                    continue
                record = unfolding.whole(part.record, part.data)
                if record is None:
                    reason = "the record that its state builds on is lost"
                    self.skipped.append((part.offset, len(part.data), reason))
                    record = {**part.record, "state": None}
                yield record
        finally:
            os.close(fd)
