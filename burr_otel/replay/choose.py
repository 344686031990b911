"""Which stored runs are meant, and how each is read."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from burr_otel.config import OtelConfig
from burr_otel.replay.family import Family
from burr_otel.replay.job import Chosen
from burr_otel.replay.read import RunSpans, default_resource
from burr_otel.spans.shared import content_policy
from burr_otel.store import Store
from burr_otel.view import find
from burr_otel.view.liveness import writer_lives

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["Found", "choose", "opened"]


class Found(NamedTuple):
    """A run that is to be sent.

    Attributes:
        changed_ns: When its log was written to last.
        project: Its project.
        app_id: Its application id.
        size_bytes: Length of its log.
    """

    changed_ns: int
    project: str
    app_id: str
    size_bytes: int


def choose(
    storage_dir: str, app_ids: Sequence[str], project: str | None, since_ns: int | None
) -> list[Found]:
    """Runs in the order in which they were written to last.

    Args:
        storage_dir: Where the projects are.
        app_ids: Ids or beginnings of ids, whose runs are meant with those that they spawned; all
            when empty.
        project: Where to look; everywhere when absent.
        since_ns: Only runs written to since, in nanoseconds since the epoch.

    Raises:
        UnknownRunError: There is no such run.
        AmbiguousRunError: Several are meant by one id.
        StoreError: The folders cannot be read.
    """
    wanted: Iterable[tuple[str, str, Path]]
    if app_ids:
        named = [find.find_run(storage_dir, app_id, project) for app_id in app_ids]
        wanted = dict.fromkeys(each for run in named for each in _with_spawned(run, storage_dir))
    else:
        wanted = (
            (name, entry.name, Path(entry.path))
            for name, folder in find.projects(storage_dir, project)
            for entry in find.runs(folder)
        )
    found = []
    for name, app_id, folder in wanted:
        with contextlib.suppress(OSError):  # a run that was forked from and never written here
            log = (folder / find.LOG).stat()
            if since_ns is None or log.st_mtime_ns >= since_ns:
                found.append(Found(log.st_mtime_ns, name, app_id, log.st_size))
    return sorted(found)


def _with_spawned(run: find.Found, storage_dir: str) -> Iterator[tuple[str, str, Path]]:
    """A run and those that it spawned: they are one trace."""
    store, seen, queue = Store(run.project, storage_dir), {run.app_id}, [run.app_id]
    while queue:
        app_id = queue.pop(0)
        yield run.project, app_id, store.run_path(app_id)
        for child in store.read(app_id).children:
            spawned = (child.get("child") or {}).get("app_id")
            if child.get("event_type") != "spawn_start" or not isinstance(spawned, str):
                continue
            if spawned not in seen and store.exists(spawned):
                seen.add(spawned)
                queue.append(spawned)


def opened(found: Iterable[Found], storage_dir: str) -> Iterator[Chosen]:
    """What it takes to read each run, with the settings of the environment.

    Raises:
        ConfigError: A setting cannot be used.
    """
    config = OtelConfig.resolve()
    policy, alive = content_policy(config), writer_lives()
    stores: dict[str, tuple[Store, Family]] = {}

    def opener(run: Found) -> Callable[[], RunSpans]:
        if run.project not in stores:
            store = Store(run.project, storage_dir)
            stores[run.project] = store, Family(store)
        store, family = stores[run.project]
        return lambda: RunSpans(
            store.read(run.app_id),
            policy=policy,
            openinference=config.openinference_content,
            family=family,
            alive=alive,
            resource=default_resource(run.project),
        )

    for run in found:
        yield Chosen(run.project, run.app_id, run.size_bytes, opener(run))
