"""From a record to the state that Burr resumes from."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from burr.core import State
from burr.core.persistence import AsyncBaseStateLoader, PersistedStateData

from burr_otel.errors import StateLoadError
from burr_otel.records import ROOT
from burr_otel.store import exact
from burr_otel.store.encoded import PRIOR_STEP, SEQUENCE_ID
from burr_otel.store.lines import inherited_id, otel_of

if TYPE_CHECKING:
    from burr_otel.store.store import Store


class AsyncStoreLoader(AsyncBaseStateLoader):
    """A store for asynchronous applications, whose `abuild` refuses a synchronous loader.

    It loads states off the event loop.
    """

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


def plain_state(record: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The state of a record as plain data, with its sequence id, and the position."""
    document, patches = _document(record)
    exact.restore(document, [p for p in patches if not exact.is_after(p)])
    exact.restore(document, [p for p in patches if exact.is_after(p) and p[1] != exact.OBJECT])
    sequence_id, position, _ = _place(record)
    if sequence_id is not None:
        document[SEQUENCE_ID] = sequence_id
    return document, position


def persisted_state(
    record: Mapping[str, Any],
    *,
    partition_key: str | None,
    app_id: str,
    created_ns: int,
    serde_kwargs: Mapping[str, Any],
) -> PersistedStateData:
    """What Burr's `load` returns, from a record that holds a state."""
    document, patches = _document(record)
    values = values_of(document, patches, serde_kwargs)
    sequence_id, position, status = _place(record)
    if sequence_id is not None:
        values[SEQUENCE_ID] = sequence_id
    created = dt.datetime.fromtimestamp(created_ns / 1e9)  # noqa: DTZ006 - as Burr's client
    return PersistedStateData(
        partition_key=cast("str", partition_key),  # Burr's own annotations forget None
        app_id=app_id,
        sequence_id=cast("int", sequence_id),
        position=position,
        state=State(values),
        created_at=created.isoformat(),
        status=status,
    )


def values_of(
    document: dict[str, Any], patches: list[Any], serde_kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of a state, deserialized by Burr's serde, with what JSON cannot carry put back."""
    exact.restore(document, [patch for patch in patches if not exact.is_after(patch)])
    values = State.deserialize(document, **serde_kwargs).get_all()
    exact.restore(values, [patch for patch in patches if exact.is_after(patch)])
    return values


def load_error(
    record: Mapping[str, Any], error: Exception, *, run: str, serde_kwargs: Mapping[str, Any]
) -> StateLoadError:
    """Names run, step, key and class of a state that could not be loaded.

    The record is a fresh one: deserializers take their marks out of what they read.
    """
    document, patches = _document(record)
    sequence_id = _place(record)[0]
    for key, value in document.items():
        kind = _class_of(value)
        own = [patch for patch in patches if isinstance(patch, list) and patch[0][:1] == [key]]
        try:
            values_of({key: value}, own, serde_kwargs)
        except Exception as cause:
            return StateLoadError(run, sequence_id, key=key, kind=kind, cause=brief(cause))
    return StateLoadError(run, sequence_id, key=None, kind=None, cause=brief(error))


def brief(error: BaseException) -> str:
    """What went wrong, without the lines in which validation errors quote the data."""
    cause = error.__cause__ or error
    try:
        first = next(iter(str(error).splitlines()), "")[:300]
    except Exception:
        first = "its message cannot be read"
    return f"{type(cause).__name__}: {first}"


def _class_of(value: Any) -> str | None:
    """What a serialized value says of its class."""
    queue = [value]
    while queue:
        each = queue.pop()
        if isinstance(each, dict):
            named = [text for name, text in each.items() if str(name).endswith("_class")]
            if "__burr_serde__" in each:
                return str((named or [each["__burr_serde__"]])[0])
            queue.extend(each.values())
        elif isinstance(each, list):
            queue.extend(each)
    return None


def _place(record: Mapping[str, Any]) -> tuple[int | None, str, str]:
    """Where in its graph a run was: sequence id, action and status."""
    if record["type"] == ROOT:
        return inherited_id(record), str(record.get("position")), str(record.get("status"))
    status = "completed" if record["exception"] is None else "failed"
    return record["sequence_id"], record["action"], status


def _document(record: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """A record's state without Burr's internal keys, and its patches."""
    document = {k: v for k, v in record["state"].items() if k not in (SEQUENCE_ID, PRIOR_STEP)}
    patches = (otel_of(record) or {}).get("exact")
    return document, patches if isinstance(patches, list) else []
