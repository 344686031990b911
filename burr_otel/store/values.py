"""State, inputs and results as strict JSON, with exactly the meaning of Burr's serde.

The usual state is plain JSON already: one `orjson` call a key writes it, and one sweep over the
types proves that Burr's recursive `serde.serialize` would have returned it unchanged. Only what
fails the proof takes the slow walk.
"""

from __future__ import annotations

import gc
import logging
from math import isfinite
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson
from burr.core import serde
from burr.core.state import FIELD_SERIALIZATION

from burr_otel.errors import SnapshotError
from burr_otel.store.encoded import LONG_BYTES, EncodedState, encode_text, encode_tree, join
from burr_otel.store.walk import MAX_DEPTH, Walk

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["encode_mapping", "encode_state", "encode_value"]

logger = logging.getLogger(__name__)

_OPTIONS = (
    orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)
_PLAIN_TYPES = frozenset({str, int, float, bool, type(None), list, dict})
_CONTAINERS = (list, dict)
_NUMBERS = frozenset({int, float, bool})
_SERDE_KEY = serde.KEY.encode()
_STANDARD = (
    serde.serialize_primitive,
    serde.serialize_primitive,
    serde.serialize_primitive,
    serde.serialize_primitive,
    serde.serialize_list,
    serde.serialize_dict,
)
_REGISTERED = itemgetter(str, int, float, bool, list, dict)
_MAX_WARNED = 10_000
_MAX_TRIES = 16
_warned: set[tuple[str, str, str]] = set()


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
    text = _fast(items)
    if text is not None:
        return EncodedState(text, items)
    walk = Walk(serde_kwargs)
    fragments: dict[str, bytes] = {}
    names: dict[Any, str] = {}
    key: Any = None
    try:
        names = walk.key_names(items)
        for key, value in items.items():
            fragments[names[key]] = _fragment(walk, key, names[key], value)
    except Exception as error:
        cause = f"{type(error).__name__}: {_text_of(error)}"
        raise SnapshotError(run, cause, key=names.get(key), sequence_id=sequence_id) from error
    walk.record_key_names([], names, user=True)
    for name, type_name in walk.fallbacks:
        _warn_fallback(run, name, type_name)
    return EncodedState(join(fragments), items, fragments, walk.patches, int64=walk.int64)


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
    text = _fast(items)
    if text is not None:
        return text, True
    fragments: dict[str, bytes] = {}
    int64 = True
    try:
        names = Walk(serde_kwargs).key_names(items)
    except Exception:
        names = {key: f"{index}" for index, key in enumerate(items)}
    for key, item in items.items():
        fragments[names[key]], small = encode_value(
            item, serde_kwargs=serde_kwargs, run=run, what=f"{what} {names[key]!r}"
        )
        int64 = int64 and small
    return join(fragments), int64


def encode_value(
    value: Any, *, serde_kwargs: Mapping[str, Any], run: str, what: str
) -> tuple[bytes, bool]:
    """Encode one value as `encode_mapping` does."""
    text = _fast({"value": value})
    if text is not None:
        return text[len(b'{"value":') : -1], True
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


def _fast(items: dict[Any, Any]) -> bytes | None:
    """The JSON of a dict if that is also what Burr's serde makes of it, else None."""
    if _REGISTERED(serde.serialize.registry) != _STANDARD:
        return None  # somebody taught Burr another way to write lists or strings
    if FIELD_SERIALIZATION and not FIELD_SERIALIZATION.keys().isdisjoint(items):
        return None
    try:
        text = orjson.dumps(items, None, _OPTIONS)
    except orjson.JSONEncodeError:
        return None
    marked = _SERDE_KEY in text if len(text) < LONG_BYTES else _is_marked(text)
    return None if marked or not _is_plain(items, text) else text


def _is_marked(text: bytes) -> bool:
    """Whether Burr's mark of a serialised value occurs in a long text."""
    # A search for one character is twenty times as quick, and most texts have few of it.
    at = text.find(b"_")
    for _ in range(_MAX_TRIES):
        if at < 0:
            return False
        if text.startswith(_SERDE_KEY, at):
            return True
        at = text.find(b"_", at + 1)
    return _SERDE_KEY in text


def _is_plain(items: dict[str, Any], text: bytes) -> bool:
    """Whether only exact JSON types are reachable, to a depth that every reader takes.

    `orjson` also writes tuples, enums and UUIDs, and NaN as null; Burr does not. The garbage
    collector's own view of the containers finds them at C speed. There is no cycle, since
    `orjson` has been through.
    """
    level, depth, no_nan = list(items.values()), 0, False
    while level:
        depth += 1
        kinds = set(map(type, level))
        if depth > MAX_DEPTH or not kinds <= _PLAIN_TYPES:
            return False
        if float in kinds and not no_nan:
            if kinds <= _NUMBERS and isfinite(sum(level)):
                pass  # one NaN or infinity would be in the sum
            elif b"null" not in text:
                no_nan = True
            elif not all(isfinite(x) for x in level if type(x) is float):
                return False
        if kinds.isdisjoint(_CONTAINERS):
            return True
        # Of dicts with nothing but texts as keys, the collector sees the values alone.
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
    text, int64 = encode_tree(tree)
    walk.int64 = walk.int64 and int64
    return text


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
