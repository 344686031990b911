"""Whether whoever writes a run still lives."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from burr_otel.config import OtelConfig
from burr_otel.history.settle import Alive
from burr_otel.store import StoredRun

AliveOf = Callable[["StoredRun"], "Alive"]
"""Gives what judges the sessions of a run."""


def writer_lives() -> AliveOf:
    """Judges sessions by the fields of their begin and the time of their last record.

    The store mostly knows whether an owner lives. What it cannot know (another host, logs of
    Burr's client, which name no process) is taken to live until it is silent for `recover_after`.
    """
    silence_ns, now_ns = int(OtelConfig.resolve().recover_after * 1e9), time.time_ns()

    def judge(run: StoredRun) -> Alive:
        def lives(fields: Mapping[str, Any] | None, last_ns: int) -> bool:
            owner = fields.get("owner") if fields else None
            known = run.owner_lives(owner) if isinstance(owner, Mapping) else None
            return now_ns - last_ns < silence_ns if known is None else known

        return lives

    return judge
