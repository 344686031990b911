"""Whether whoever writes a run still lives."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from burr_otel.config import OtelConfig
from burr_otel.store import owner_is_alive

if TYPE_CHECKING:
    from burr_otel.view.build import Alive

__all__ = ["writer_lives"]


def writer_lives() -> Alive:
    """A function that judges sessions by their `otel_root` record and their last record's time.

    A process of this host is looked up. What cannot be known (another host, plain Burr's logs,
    which name no process) is taken to live until it has been silent for `recover_after` seconds.
    """
    silence_ns = int(OtelConfig.resolve().recover_after * 1e9)
    return functools.partial(_lives, now_ns=time.time_ns(), silence_ns=silence_ns)


def _lives(record: Mapping[str, Any] | None, last_ns: int, *, now_ns: int, silence_ns: int) -> bool:
    owner = record.get("owner") if record else None
    known = owner_is_alive(owner) if isinstance(owner, Mapping) else None
    return now_ns - last_ns < silence_ns if known is None else known
