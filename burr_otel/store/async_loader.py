"""The store for asynchronous applications, whose `abuild` refuses a synchronous loader."""

from __future__ import annotations

import asyncio
from typing import Any

from burr.core.persistence import AsyncBaseStateLoader, PersistedStateData

from burr_otel.store.store import Store


class AsyncStoreLoader(AsyncBaseStateLoader):
    """Loads states of a store off the event loop."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def load(
        self,
        partition_key: str | None,
        app_id: str | None,
        sequence_id: int | None = None,
        **_: Any,
    ) -> PersistedStateData | None:
        """See `Store.load`."""
        return await asyncio.to_thread(self.store.load, partition_key, app_id, sequence_id)

    async def list_app_ids(self, partition_key: str | None, **_: Any) -> list[str]:
        """See `Store.list_app_ids`."""
        return await asyncio.to_thread(self.store.list_app_ids, partition_key)
