"""State, inputs and results as strict JSON, with exactly the meaning of Burr's serde.

The usual state is plain JSON already: one `orjson` call a key writes it, and one sweep over the
types proves that Burr's recursive `serde.serialize` would have returned it unchanged. Only what
fails the proof takes the slow walk.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
from math import isfinite
from typing import TYPE_CHECKING, Any

import orjson
from burr.core import serde
from burr.core.state import FIELD_SERIALIZATION

from burr_otel.errors import SnapshotError
from burr_otel.store.walk import MAX_DEPTH, Walk

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EncodedState", "encode_mapping", "encode_state", "encode_text", "encode_value"]

logger = logging.getLogger(__name__)

_OPTIONS = (
    orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)
_PLAIN_TYPES = frozenset({str, int, float, bool, type(None), list, dict})
_SERDE_KEY = serde.KEY.encode()
_STANDARD = {
    str: serde.serialize_primitive,
    int: serde.serialize_primitive,
    float: serde.serialize_primitive,
    bool: serde.serialize_primitive,
    list: serde.serialize_list,
    dict: serde.serialize_dict,
}
_MAX_WARNED = 10_000
_warned: set[tuple[str, str, str]] = set()
_key_json: dict[str, bytes] = {}


@dataclasses.dataclass(slots=True)
class EncodedState:
    """A state as it stands in a record.

    Attributes:
        json: One strict JSON object.
        exact: Patches for what JSON cannot carry; see `burr_otel.store.exact`.
        fragments: The JSON of each top-level key.
        int64: Whether every integer fits in 64 bits, so that fast parsers read it right.
    """

    json: bytes
    exact: list[Any]
    fragments: dict[str, bytes]
    int64: bool = True


def encode_state(
    state: Any, *, serde_kwargs: Mapping[str, Any], run: str, sequence_id: int | None
) -> EncodedState:
    """Encode a state as `State.serialize` means it.

    Args:
        state: A Burr state, or a mapping.
        serde_kwargs: Passed to Burr's serializers.
        run: ``project/app_id``, for messages.
        sequence_id: The step, or None for the state at creation.

    Returns:
        The encoded state.

    Raises:
        SnapshotError: A value cannot be written; the error names run and key.
    """
    items = state.get_all() if hasattr(state, "get_all") else dict(state)
    fragments = _fast_fragments(items)
    exact: list[Any] = []
    int64 = True
    if fragments is None:
        walk, fragments = Walk(serde_kwargs), {}
        names = walk.key_names(items)
        for key, value in items.items():
            try:
                fragments[names[key]] = _fragment(walk, key, names[key], value)
            except Exception as error:  # noqa: PERF203 - each key has its own error
                cause = f"{type(error).__name__}: {_text_of(error)}"
                raise SnapshotError(run, cause, key=names[key], sequence_id=sequence_id) from error
        walk.record_key_names([], names, user=True)
        exact, int64 = walk.patches, walk.int64
        for key, type_name in walk.fallbacks:
            _warn_fallback(run, key, type_name)
    return EncodedState(_join(fragments), exact, fragments, int64)


def encode_mapping(
    value: Mapping[str, Any],
    *,
    serde_kwargs: Mapping[str, Any],
    run: str,
    what: str,
) -> tuple[bytes, bool]:
    """Encode inputs or results, which are looked at but never loaded back.

    What cannot be written becomes a text that says so, and a warning; nothing raises.

    Returns:
        A strict JSON object, and whether all its integers fit in 64 bits.
    """
    if not value:
        return b"{}", True
    items = dict(value)
    fragments = _fast_fragments(items)
    if fragments is not None:
        return _join(fragments), True
    fragments, int64 = {}, True
    try:
        names = Walk(serde_kwargs).key_names(items)
    except Exception:
        names = {key: f"{index}" for index, key in enumerate(items)}
    for key, item in items.items():
        fragments[names[key]], small = encode_value(
            item, serde_kwargs=serde_kwargs, run=run, what=f"{what} {names[key]!r}"
        )
        int64 = int64 and small
    return _join(fragments), int64


def encode_value(
    value: Any, *, serde_kwargs: Mapping[str, Any], run: str, what: str
) -> tuple[bytes, bool]:
    """Encode one value as `encode_mapping` does."""
    fragments = _fast_fragments({"value": value})
    if fragments is not None:
        return fragments["value"], True
    walk = Walk(serde_kwargs)
    try:
        return _fragment(walk, None, "value", value), walk.int64
    except Exception as error:
        type_name = type(value).__qualname__
        if _first_time(run, what, type_name):
            logger.warning(
                "%s: %s (of type %s) cannot be written and is shown as a note instead: %s",
                run,
                what,
                type_name,
                _text_of(error),
            )
        return encode_text(f"<{type_name}: {type(error).__name__}: {_text_of(error)}>"), True


def encode_text(text: str) -> bytes:
    """One JSON string; lone surrogates become U+FFFD."""
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError:
        return orjson.dumps(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _fast_fragments(items: dict[Any, Any]) -> dict[str, bytes] | None:
    """The JSON of each value if the whole is plain JSON to Burr's serde too, else None."""
    registry = serde.serialize.registry
    if any(registry[kind] is not handler for kind, handler in _STANDARD.items()):
        return None  # somebody taught Burr another way to write lists or strings
    if FIELD_SERIALIZATION and not FIELD_SERIALIZATION.keys().isdisjoint(items):
        return None
    dumps, fragments, special = orjson.dumps, {}, False
    try:
        for key, value in items.items():
            if type(key) is not str or key == serde.KEY:
                return None
            _ = _key_json.get(key) or _encode_key(key)  # refuses a lone surrogate
            fragments[key] = text = dumps(value, None, _OPTIONS)
            special = special or b"null" in text
            if _SERDE_KEY in text:
                return None
    except orjson.JSONEncodeError:
        return None
    return fragments if _is_plain(list(items.values()), look_for_nan=special) else None


def _is_plain(level: list[Any], *, look_for_nan: bool) -> bool:
    """Whether only exact JSON types are reachable, to a depth that every reader takes.

    `orjson` also writes tuples, enums and UUIDs, and NaN as null; Burr does not. The garbage
    collector's own view of the containers finds them at C speed. There is no cycle, since
    `orjson` has been through.
    """
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH or not _PLAIN_TYPES.issuperset(map(type, level)):
            return False
        if look_for_nan and any(type(x) is float and not isfinite(x) for x in level):
            return False
        level = gc.get_referents(*level)
    return True


def _fragment(walk: Walk, key: Any, name: str, value: Any) -> bytes:
    walk.start(name)
    if key is not None and key in FIELD_SERIALIZATION:
        result = FIELD_SERIALIZATION[key][0](value, **walk.serde_kwargs)
        if not isinstance(result, dict):
            raise TypeError(f"its field serializer returned {type(result).__name__}, not a dict")
        tree = walk.plain(result)
    else:
        tree = walk.user(value)
    try:
        return orjson.dumps(tree)
    except orjson.JSONEncodeError:  # an integer beyond 64 bits
        walk.int64 = False
        return json.dumps(tree, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _join(fragments: Mapping[str, bytes]) -> bytes:
    return b"{%b}" % b",".join(
        [
            b"%b:%b" % (_key_json.get(key) or _encode_key(key), text)
            for key, text in fragments.items()
        ]
    )


def _encode_key(key: str) -> bytes:
    encoded = orjson.dumps(key)
    if len(_key_json) < 1000:  # noqa: PLR2004 - state keys come from code, so few are ever seen
        _key_json[key] = encoded
    return encoded


def _first_time(*parts: str) -> bool:
    if parts in _warned or len(_warned) >= _MAX_WARNED:
        return False
    _warned.add(parts)  # type: ignore[arg-type]  # always three parts
    return True


def _warn_fallback(run: str, key: str, type_name: str) -> None:
    if _first_time(run, key, type_name):
        logger.warning(
            "%s: state key %r holds a %s, which Burr can only keep as text: a resume will see a "
            "str. Register a serializer (burr.core.serde) or keep plain values in the state.",
            run,
            key,
            type_name,
        )


def _text_of(error: BaseException) -> str:
    try:
        return str(error)[:500]
    except Exception:
        return "its message cannot be read"
