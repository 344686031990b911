"""A bucket as an engine."""

from __future__ import annotations

import secrets
import weakref
from collections.abc import Iterator
from typing import Final

from burr_otel.errors import StoreError
from burr_otel.store.objects import keys
from burr_otel.store.objects.bucket import PAGE, Bucket
from burr_otel.store.objects.lease import Heartbeat
from burr_otel.store.objects.run import ObjectRun, identity
from burr_otel.store.port import ALL, Durability, Engine, NewRun, Partition, RunLog, Wanted

_PARTS: Final = 4  # of the name of a run's metadata


class ObjectEngine(Engine):
    """The runs below a URL; see `Engine`. Connects with its first request."""

    answers_late = True

    def __init__(self, url: str) -> None:
        self._bucket = Bucket(url)
        self.place = self._bucket.place
        self._heartbeat = Heartbeat(self._bucket)
        # Of one run there is one writer in a process.
        self._runs: weakref.WeakValueDictionary[str, ObjectRun] = weakref.WeakValueDictionary()

    def prepare(self, *, dry_run: bool) -> list[str]:
        """Find out whether the store keeps the conditions that keep writers apart."""
        return _probe(self._bucket, dry_run=dry_run)

    def projects(self) -> list[str]:
        """Names of projects that have runs."""
        return sorted(self._bucket.folders("run"))

    def runs(self, project: str, partition_key: Partition = ALL) -> Iterator[ObjectRun]:
        """All runs of a project or partition; their names say which they are, unless too long."""
        folder = f"run/{project}"
        if partition_key is not ALL:
            folder += f"/{keys.partition_part(partition_key or None)}"
        for listed in self._bucket.names(folder):
            parts = listed.path.split("/")
            if len(parts) == _PARTS:
                run = self._listed(project, *parts[2:])
                if run is not None:
                    yield run

    def find(
        self, project: str, app_id: str, partition_key: Partition, _ahead: Wanted | None = None
    ) -> ObjectRun | None:
        """A run; with `ALL` the one that was made first."""
        if partition_key is not ALL:
            run = self._run(project, app_id, partition_key or None)
            return run if run.exists() else None
        without = self.find(project, app_id, None)
        app = keys.escaped(app_id)
        found = list(self._bucket.names(f"app/{project}/{app}"))
        if not found:
            return without
        first = min(found, key=lambda each: each.changed_ns)
        if without is not None:
            made = self._bucket.fetch(without.names[-1])
            if made is None or made.changed_ns <= first.changed_ns:
                return without
        return self._listed(project, first.path.rpartition("/")[2], app)

    def create(self, new: NewRun, *, durability: Durability) -> tuple[RunLog, bool]:  # noqa: ARG002
        """Make a run unless it is there; what a store has answered is safe."""
        run = self._run(new.project, new.app_id, new.partition_key)
        made = run.make(new.metadata, new.graph)
        run.opened(made=made)
        return run, made

    def delete(self, run: RunLog) -> None:
        """Delete a run: last the name that lists it, so that what is cut short can be repeated.

        The claim of whoever deletes it stays: sessions that begin look for it.
        """
        run.close()
        mine = self._run(run.project, run.app_id, run.partition_key)
        while page := self._bucket.page(mine.folder):
            paths = [each.path for each in page]
            self._bucket.delete([path for path in paths if not path.endswith("/leases/run")])
            if len(page) < PAGE:
                break
        self._bucket.delete(mine.names)
        mine.changed()

    def close(self) -> None:
        """Send what waits of any run."""
        for run in list(self._runs.values()):
            run.flush()

    def _run(self, project: str, app_id: str, partition_key: str | None) -> ObjectRun:
        """The process's one handle of a run."""
        run = ObjectRun(self._bucket, self._heartbeat, project, app_id, partition_key)
        return self._runs.setdefault(run.folder, run)

    def _listed(self, project: str, partition: str, app: str) -> ObjectRun | None:
        """The run that is listed under such names; None: something else is."""
        app_id = keys.unescaped(app)
        key = None if partition == keys.NO_PARTITION else keys.unescaped(partition)
        if app_id is None or (key is None and partition != keys.NO_PARTITION):
            told = identity(self._bucket.get(f"run/{project}/{partition}/{app}"))
            if told is None:
                return None
            app_id, key = told
        return self._run(project, app_id, key)


def _probe(bucket: Bucket, *, dry_run: bool) -> list[str]:
    """Write, list, read and delete a few objects; what was found, or would be looked for."""
    folder = f"probe/{secrets.token_hex(8)}"
    if dry_run:
        return [f"Writes, lists, reads and deletes objects in {bucket.place}/probe."]
    one, two, three = paths = [f"{folder}/{number}" for number in range(3)]
    try:
        bucket.create(two, b"first")
        if bucket.create(two, b"second"):
            raise _unfit(bucket, "makes an object that is there already (If-None-Match)")
        version = bucket.put(one, b"first")
        bucket.replace(one, b"second", version)
        if bucket.replace(one, b"third", version):
            raise _unfit(bucket, "replaces an older version of an object (If-Match)")
        bucket.put(three, b"first")
        listed = [found.path for found in bucket.names(folder)]
        if listed != paths or [found.path for found in bucket.names(folder, one)] != paths[1:]:
            raise _unfit(bucket, "does not list at once, and by name, what is there")
        if (bucket.get(one), bucket.get(two)) != (b"second", b"first"):
            raise _unfit(bucket, "does not give back what was written")
    finally:
        bucket.delete(paths)
    return [
        f"{bucket.place} can keep runs:",
        "  a second create of an object is refused",
        "  a replacement of an older version is refused",
        "  a listing has what was written, in the order of names",
    ]


def _unfit(bucket: Bucket, what: str) -> StoreError:
    return StoreError(
        f"{bucket.place} cannot keep runs, because the store {what}: writers would lose each "
        "other's records. Use a store that keeps conditions, such as S3, or PostgreSQL."
    )
