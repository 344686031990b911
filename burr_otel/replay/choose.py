"""Which stored runs are meant, and how each is read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from burr_otel.config import OtelConfig
from burr_otel.errors import BurrOtelError
from burr_otel.history.read import children_of
from burr_otel.history.settle import writer_lives
from burr_otel.replay.places import Relatives
from burr_otel.replay.read import RunSpans, default_resource
from burr_otel.spans.facts import content_policy
from burr_otel.store import Store, StoredRun
from burr_otel.view.find import find_run, runs


def choose(
    storage_dir: str,
    app_ids: Sequence[str],
    project: str | None,
    since_ns: int | None,
    partition: str | None = None,
) -> list[StoredRun]:
    """Runs by id (with those that they spawned) or all, in the order they were written to last."""
    if app_ids:
        named = [find_run(storage_dir, app_id, project, partition) for app_id in app_ids]
        found = {
            (each.project, each.partition_key, each.app_id): each
            for run in named
            for each in _with_spawned(run, storage_dir)
        }
        wanted: Iterable[StoredRun] = found.values()
    else:
        wanted = runs(storage_dir, project, partition)
    meant = [run for run in wanted if since_ns is None or run.changed_ns >= since_ns]
    return sorted(meant, key=lambda run: (run.changed_ns, run.project, run.app_id))


def _with_spawned(run: StoredRun, storage_dir: str) -> Iterator[StoredRun]:
    """A run and those that it spawned: they are one trace."""
    store, seen, queue = Store(run.project, storage_dir), {run.app_id}, [run]
    while queue:
        parent = queue.pop(0)
        yield parent
        for child in children_of(parent):
            if child.kind == "spawn" and child.app_id not in seen:
                seen.add(child.app_id)
                with contextlib.suppress(BurrOtelError):  # it is gone, or the pointer is damaged
                    queue.append(store.read(child.app_id))


def opened(found: Iterable[StoredRun], storage_dir: str) -> Iterator[RunSpans]:
    """The spans of each run, with the settings of the environment."""
    policy, alive_of = content_policy(OtelConfig.resolve()), writer_lives()
    relatives: dict[str, Relatives] = {}
    for run in found:
        if run.project not in relatives:
            relatives[run.project] = Relatives(Store(run.project, storage_dir))
        yield RunSpans(
            run,
            policy=policy,
            relatives=relatives[run.project],
            alive=alive_of(run),
            resource=default_resource(run.project),
        )
