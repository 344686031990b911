"""The store of runs: what is written while an application runs, and what is loaded from it.

Knows no OpenTelemetry, and imports Burr only to encode and load states: commands that list and show
runs start quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from burr_otel.store.encoded import EncodedState
from burr_otel.store.engines import is_url, projects, without_password
from burr_otel.store.graphs import digest, graph_json
from burr_otel.store.owner import owner_is_alive
from burr_otel.store.port import ALL
from burr_otel.store.session import Session
from burr_otel.store.store import RunHistory, Store
from burr_otel.store.stored_run import StoredRun

if TYPE_CHECKING:
    from burr_otel.store.snapshot import AsyncStoreLoader
    from burr_otel.store.values import encode_mapping, encode_state, encode_value

__all__ = [
    "ALL",
    "AsyncStoreLoader",
    "EncodedState",
    "RunHistory",
    "Session",
    "Store",
    "StoredRun",
    "digest",
    "encode_mapping",
    "encode_state",
    "encode_value",
    "graph_json",
    "is_url",
    "owner_is_alive",
    "projects",
    "without_password",
]

_LATER: Final = {
    "AsyncStoreLoader": "snapshot",
    "encode_mapping": "values",
    "encode_state": "values",
    "encode_value": "values",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = found
    return found
