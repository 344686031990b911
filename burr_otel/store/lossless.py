"""Warnings, when a state is written, of values that would not come back equal."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from math import isnan
from typing import Any, Final

from burr_otel.printable import logger_of_lines
from burr_otel.store import exact
from burr_otel.store.snapshot import brief, values_of
from burr_otel.store.walk import Walk

logger = logger_of_lines(__name__)

_MOST_WARNED: Final = 10_000
_MAX_DEPTH: Final = 30
_warned: set[tuple[str, ...]] = set()
_REMEDY: Final = (
    "Register a serializer that keeps it (burr.core.serde), or keep plain values in the state."
)
_IDENTITY: Final[object] = object.__eq__
_PYDANTIC_CLASS: Final = "__pydantic_class"
_PLAIN: Final = (str, int, float, type(None), list, dict, tuple)


def first_time(*parts: str) -> bool:
    """Whether these parts were not warned of before."""
    if parts in _warned or len(_warned) >= _MOST_WARNED:
        return False
    _warned.add(parts)
    return True


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
    modules, queue = set(), [tree]
    while queue:
        each = queue.pop()
        if isinstance(each, dict):
            modules.add(str(each.get(_PYDANTIC_CLASS, "")).rpartition(".")[0])
            queue.extend(each.values())
        elif isinstance(each, list):
            queue.extend(each)
    modules.discard("")
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
