"""From a record to the state that Burr resumes from, and what would not come back equal."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sys
from collections.abc import Iterator, Mapping
from math import isnan
from typing import TYPE_CHECKING, Any, Final, cast

from burr.core import State
from burr.core.persistence import AsyncBaseStateLoader, PersistedStateData

from burr_otel.errors import StateLoadError
from burr_otel.printable import first_time, logger
from burr_otel.records import ROOT
from burr_otel.store import exact
from burr_otel.store.encoded import PRIOR_STEP, SEQUENCE_ID
from burr_otel.store.reading import inherited_id, otel_of

if TYPE_CHECKING:
    from burr_otel.store.store import Store
    from burr_otel.store.values import Walk

_MAX_DEPTH: Final = 30
_REMEDY: Final = (
    "Register a serializer that keeps it (burr.core.serde), or keep plain values in the state."
)
_IDENTITY: Final[object] = object.__eq__
_PYDANTIC_CLASS: Final = "__pydantic_class"
_PLAIN: Final = (str, int, float, type(None), list, dict, tuple)


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
    for each in _dicts_in(value):
        if "__burr_serde__" in each:
            named = [text for name, text in each.items() if str(name).endswith("_class")]
            return str((named or [each["__burr_serde__"]])[0])
    return None


def _dicts_in(value: Any) -> Iterator[dict[Any, Any]]:
    """All dicts in a tree of plain data."""
    queue = [value]
    while queue:
        each = queue.pop()
        if isinstance(each, dict):
            yield each
            queue.extend(each.values())
        elif isinstance(each, list):
            queue.extend(each)


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


# --- values that would not come back equal --------------------------------------------------------


def warn_of_losses(
    run: str, walk: Walk, values: Mapping[str, Any], fragments: Mapping[str, bytes]
) -> None:
    """Warn of each key and type, once a run, that a resume would see changed."""
    for key, type_name in walk.fallbacks:
        if first_time(run, key, type_name):
            logger.warning(
                "%s: state key %r holds a %s, which Burr can only keep as text: a resume will see "
                "a str. %s",
                run,
                key,
                type_name,
                _REMEDY,
            )
    for key in walk.serialized & values.keys():
        # What a serializer wrote is read back at once, since only its own code knows what it
        # leaves out. Two values may be written alike, so each is looked at.
        patches = [patch for patch in walk.patches if patch[0][:1] == [key]]
        lost = _lost(key, values[key], fragments[key], patches, walk.serde_kwargs)
        if lost is not None and first_time(run, key, lost[0]):
            logger.warning(
                "%s: state key %r holds a %s that would not come back equal from a resume: %s. %s",
                run,
                key,
                *lost,
                _REMEDY,
            )


def _lost(
    key: str, value: Any, fragment: bytes, patches: list[Any], serde_kwargs: Mapping[str, Any]
) -> tuple[str, str] | None:
    """Type of the first value that comes back changed, and how."""
    owner = exact.class_name(type(_first_object(value)))
    try:
        tree = json.loads(fragment)
        back = values_of({key: tree}, patches, _allowing(tree, serde_kwargs))[key]
        how = _difference(value, back, "", owner, 0)
    except Exception as error:
        return owner, brief(error)
    return how


def _allowing(tree: Any, serde_kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments with which Burr does not warn of the pydantic classes that it just wrote itself.

    `warnings.catch_warnings` would do, but for threads: it sets back what another one has set.
    """
    burr = sys.modules.get("burr.integrations.serde.pydantic")
    if "allowlist" in serde_kwargs or getattr(burr, "_global_allowlist", None) is not None:
        return serde_kwargs  # the user's own; what it refuses would not load either
    classes = [str(each.get(_PYDANTIC_CLASS, "")) for each in _dicts_in(tree)]
    modules = {name.rpartition(".")[0] for name in classes} - {""}
    return {**serde_kwargs, "allowlist": sorted(modules)} if modules else serde_kwargs


def _first_object(value: Any) -> Any:
    """The first value in a tree that is no list or dict."""
    while type(value) in (list, dict) and value:
        items = value if type(value) is list else list(value.values())
        value = next((each for each in items if not isinstance(each, _PLAIN)), items[0])
    return value


def _difference(  # noqa: PLR0911 - one case each
    left: Any, right: Any, path: str, owner: str, depth: int
) -> tuple[str, str] | None:
    """Class of the object in which two values differ, and how; None: they are equal."""
    if left is right or depth > _MAX_DEPTH:
        return None
    same: bool | None
    try:
        same = bool(left == right)
    except Exception:  # arrays and frames have no one answer
        same = None
    if same:
        return None
    kind = type(left)
    if not isinstance(left, _PLAIN):
        owner = exact.class_name(kind)
    where = path.lstrip(".") or "it"
    if kind is not type(right):
        return owner, f"{where} comes back as a {exact.class_name(type(right))}"
    if kind is float and isnan(left) and isnan(right):
        return None
    pairs = _parts(left, right)
    if pairs is None:
        has_equality = same is False and getattr(kind, "__eq__", None) is not _IDENTITY
        return (owner, f"{where} comes back changed") if has_equality else None
    for name, one, other in pairs:
        found = _difference(one, other, f"{path}.{name}", owner, depth + 1)
        if found is not None:
            return found
    return None


def _parts(  # noqa: PLR0911 - one case each
    left: Any, right: Any
) -> list[tuple[Any, Any, Any]] | None:
    """What two values of one type consist of, in pairs; None: not the same parts, or none."""
    if isinstance(left, dict):
        if left.keys() != right.keys():
            return None
        return [(key, left[key], right[key]) for key in left]
    if isinstance(left, list | tuple):
        if len(left) != len(right):
            return None
        return [(at, *pair) for at, pair in enumerate(zip(left, right, strict=True))]
    fields, others = getattr(left, "__dict__", None), getattr(right, "__dict__", None)
    if not fields or others is None or fields.keys() != others.keys():
        return None
    private = [getattr(each, "__pydantic_private__", None) or {} for each in (left, right)]
    if private[0].keys() != private[1].keys():
        return None
    pairs = [(name, fields[name], others[name]) for name in fields]
    return pairs + [(name, private[0][name], private[1][name]) for name in private[0]]
