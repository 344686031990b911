"""The store of runs: what is written while an application runs, and what is loaded from it.

Knows no OpenTelemetry. What encodes and loads states, `values` and `snapshot`, imports Burr and is
left out here: commands that list and show runs start quickly.
"""

from __future__ import annotations

from burr_otel.store.encoded import EncodedState
from burr_otel.store.engines import is_url, open_engine, without_password
from burr_otel.store.graphs import digest, graph_json
from burr_otel.store.port import ALL
from burr_otel.store.process import owner_is_alive
from burr_otel.store.session import Session
from burr_otel.store.store import RunHistory, Store
from burr_otel.store.stored_run import StoredRun

__all__ = [
    "ALL",
    "EncodedState",
    "RunHistory",
    "Session",
    "Store",
    "StoredRun",
    "digest",
    "graph_json",
    "is_url",
    "open_engine",
    "owner_is_alive",
    "without_password",
]
