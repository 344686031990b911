"""A stored run with the runs that it spawned, as a person may see them."""

from __future__ import annotations

from burr_otel.content import ContentPolicy
from burr_otel.history.read import nest_spawned, read_run
from burr_otel.history.settle import writer_lives
from burr_otel.history.tree import RunTree
from burr_otel.store import Store, StoredRun
from burr_otel.view.content import ShownContent


def load(
    run: StoredRun,
    store: Store,
    policy: ContentPolicy,
    *,
    details: bool = False,
    unredacted: bool = False,
    ends: tuple[int, int] | None = None,
) -> RunTree:
    """Read a run of a store and the runs that it spawned; with `ends`, see `read_run`."""
    alive_of = writer_lives()

    def read(stored: StoredRun) -> RunTree:
        shown = ShownContent(stored, policy, details=details, unredacted=unredacted)
        return read_run(stored, alive_of(stored), shown, ends)

    view = read(run)
    nest_spawned(view, lambda app_id: read(store.read(app_id)) if store.exists(app_id) else None)
    return view
