"""What an application begins with.

Of a spawned one it tells which branch it is. Its siblings are not known, and may be in other
processes; but all of them began with the state of the step that spawned them, so that what is the
same there is common to all.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import orjson

from burr_otel.errors import SnapshotError
from burr_otel.store import EncodedState, encode_state

Digests = Mapping[str, "int | None"]


def state_digests(state: Any) -> Digests:
    """A checksum of each value of a state; None for what is no JSON."""
    return {key: _digest(value) for key, value in _public(state).items()}


def differing(state: Any, digests: Digests) -> dict[str, Any]:
    """The keys of a state that are new, or whose values are known to be others."""
    return {
        key: value
        for key, value in _public(state).items()
        if key not in digests or (digests[key] is not None and digests[key] != _digest(value))
    }


def found_by_step(
    state: Any, keys: tuple[str, ...], serde_kwargs: Mapping[str, Any], run: str
) -> EncodedState:
    """The values of a state that a step may go on from: lists and texts that it writes."""
    wanted = {key: state[key] for key in keys if key in state and type(state[key]) in (list, str)}
    try:
        return encode_state(wanted, serde_kwargs=serde_kwargs, run=run, sequence_id=None)
    except SnapshotError:  # the step's end tells of it
        return EncodedState({}, {})


def _public(state: Any) -> dict[str, Any]:
    return {key: value for key, value in state.get_all().items() if not key.startswith("__")}


def _digest(value: Any) -> int | None:
    try:
        return zlib.crc32(orjson.dumps(value))
    except orjson.JSONEncodeError:
        return None
