"""The snapshot store: a run's log, its index, and what is loaded from them.

Knows no OpenTelemetry. Files and records are those of Burr's `LocalTrackingClient`.
"""

from burr_otel.store.async_loader import AsyncStoreLoader
from burr_otel.store.encoded import EncodedState
from burr_otel.store.owner import owner_is_alive
from burr_otel.store.session import Session
from burr_otel.store.store import RunHistory, Store
from burr_otel.store.stored_run import StoredRun
from burr_otel.store.values import encode_state

__all__ = [
    "AsyncStoreLoader",
    "EncodedState",
    "RunHistory",
    "Session",
    "Store",
    "StoredRun",
    "encode_state",
    "owner_is_alive",
]
