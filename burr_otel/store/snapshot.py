"""From a record to the state that Burr resumes from."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from burr.core import State
from burr.core.persistence import PersistedStateData

from burr_otel.store import exact, records
from burr_otel.store.query import inherited_id, otel_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PRIOR_STEP", "SEQUENCE_ID", "persisted_state", "plain_state"]

# Burr's own keys in a state; all others are the user's.
SEQUENCE_ID, PRIOR_STEP = "__SEQUENCE_ID", "__PRIOR_STEP"


def plain_state(record: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The state of a record as plain data, with its sequence id, and the position."""
    document, after = _document(record)
    exact.restore(document, after)
    place = _place(record)
    if place.sequence_id is not None:
        document[SEQUENCE_ID] = place.sequence_id
    return document, place.position


def persisted_state(
    record: Mapping[str, Any],
    *,
    partition_key: str | None,
    app_id: str,
    created_ns: int,
    serde_kwargs: Mapping[str, Any],
) -> PersistedStateData:
    """What Burr's `load` returns, from a record that holds a state.

    Raises:
        ValueError: Burr's serde cannot read a value.
    """
    document, after = _document(record)
    values = State.deserialize(document, **serde_kwargs).get_all()
    exact.restore(values, after)
    place = _place(record)
    if place.sequence_id is not None:
        values[SEQUENCE_ID] = place.sequence_id
    created = dt.datetime.fromtimestamp(created_ns / 1e9)  # noqa: DTZ006 - as Burr's client
    return PersistedStateData(
        partition_key=cast("str", partition_key),  # Burr's own annotations forget None
        app_id=app_id,
        sequence_id=cast("int", place.sequence_id),
        position=place.position,
        state=State(values),
        created_at=created.isoformat(),
        status=place.status,
    )


class _Place(NamedTuple):
    """Where in its graph a run was."""

    sequence_id: int | None
    position: str
    status: str


def _place(record: Mapping[str, Any]) -> _Place:
    if record["type"] == records.ROOT:
        return _Place(inherited_id(record), record["position"], record["status"])
    status = "completed" if record["exception"] is None else "failed"
    return _Place(record["sequence_id"], record["action"], status)


def _document(record: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """A record's state without Burr's internal keys, and the patches that must wait."""
    document = dict(record["state"])
    patches = (otel_of(record) or {}).get("exact")
    patches = patches if isinstance(patches, list) else []
    exact.restore(document, [patch for patch in patches if not exact.is_after(patch)])
    for key in (SEQUENCE_ID, PRIOR_STEP):
        document.pop(key, None)
    return document, [patch for patch in patches if exact.is_after(patch)]
