"""State, inputs and results as strict JSON, with exactly the meaning of Burr's serde.

The usual state is plain JSON already: one `orjson` call a key writes it, and one sweep over the
types proves that Burr's recursive `serde.serialize` would have returned it unchanged. Only keys
that fail the proof take the slow walk.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from math import isfinite
from operator import itemgetter
from typing import Any, Final

import orjson
from burr.core import serde
from burr.core.state import FIELD_SERIALIZATION

from burr_otel.errors import SnapshotError
from burr_otel.printable import logger_of_lines
from burr_otel.records import encode_json, encode_text
from burr_otel.store import lossless
from burr_otel.store.encoded import EncodedState, object_pieces
from burr_otel.store.walk import MAX_DEPTH, Walk, is_clean

logger = logger_of_lines(__name__)

_OPTIONS: Final = (
    orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)
_PLAIN_TYPES: Final = frozenset({str, int, float, bool, type(None), list, dict})
_CONTAINERS: Final = (list, dict)
_NUMBERS: Final = frozenset({int, float, bool})
_SERDE_KEY: Final = serde.KEY.encode()
_LONG_BYTES: Final = 8 * 1024
_UNDERSCORE: Final = ord("_")
_STANDARD: Final = (
    serde.serialize_primitive,
    serde.serialize_primitive,
    serde.serialize_primitive,
    serde.serialize_primitive,
    serde.serialize_list,
    serde.serialize_dict,
)
_REGISTERED: Final = itemgetter(str, int, float, bool, list, dict)
_MOST_TRIES: Final = 16
_MOST_KEYS: Final = 10_000
_sound_keys: set[str] = set()


def encode_state(
    state: Any, *, serde_kwargs: Mapping[str, Any], run: str, sequence_id: int | None
) -> EncodedState:
    """Encode a Burr state or a mapping as `State.serialize` means it."""
    items = state.get_all() if hasattr(state, "get_all") else dict(state)
    fragments = _plain_fragments(items)
    if fragments is not None:
        return EncodedState(fragments, items)
    walk, inexact = Walk(serde_kwargs), set()
    fragments, names = {}, {}
    key: Any = None
    try:
        names = walk.key_names(items)
        for key, value in items.items():
            name = names[key]
            proven = _plain_fragments({name: value}) if name == key else None
            if proven is None:
                inexact.add(name)
                fragments[name] = _walked(walk, key, name, value)
            else:
                fragments[name] = proven[name]
    except Exception as error:
        cause = f"{type(error).__name__}: {_text_of(error)}"
        raise SnapshotError(run, cause, key=names.get(key), sequence_id=sequence_id) from error
    walk.record_key_names([], names, user=True)
    lossless.warn_of_losses(run, walk, {names[key]: items[key] for key in items}, fragments)
    return EncodedState(fragments, items, walk.patches, inexact, int64=walk.int64)


def encode_mapping(
    value: Mapping[str, Any], *, serde_kwargs: Mapping[str, Any], run: str, what: str
) -> tuple[bytes, bool]:
    """A JSON object of inputs or results, and whether it is exact (plain JSON of 64 bits).

    They are looked at and never loaded back: what cannot be written becomes a text that says so,
    and a warning; nothing raises.
    """
    if not value:
        return b"{}", True
    items = dict(value)
    plain = _plain_fragments(items)
    if plain is not None:
        return b"".join(object_pieces(plain)), True
    try:
        names = Walk(serde_kwargs, exact=False).key_names(items)
    except Exception:
        names = {key: f"{index}" for index, key in enumerate(items)}
    members = []
    for key, item in items.items():
        name = names[key]
        fragment, _ = encode_value(
            item, serde_kwargs=serde_kwargs, run=run, what=f"{what} {name!r}"
        )
        members.append(b"%b:%b" % (encode_text(name), fragment))
    return b"{%b}" % b",".join(members), False


def encode_value(
    value: Any, *, serde_kwargs: Mapping[str, Any], run: str, what: str
) -> tuple[bytes, bool]:
    """Encode one value as `encode_mapping` does."""
    plain = _plain_fragments({"value": value})
    if plain is not None:
        return plain["value"], True
    try:
        return _walked(Walk(serde_kwargs, exact=False), None, "value", value), False
    except Exception as error:
        type_name = type(value).__qualname__
        if lossless.first_time(run, what, type_name):
            logger.warning(
                "%s: %s (of type %s) cannot be written and is shown as a note instead: %s",
                run,
                what,
                type_name,
                _text_of(error),
            )
        return encode_text(f"<{type_name}: {type(error).__name__}: {_text_of(error)}>"), False


def _plain_fragments(items: dict[Any, Any]) -> dict[str, bytes] | None:
    """The JSON of each value if that is also what Burr's serde makes of it, else None."""
    if _REGISTERED(serde.serialize.registry) != _STANDARD or (
        FIELD_SERIALIZATION and not FIELD_SERIALIZATION.keys().isdisjoint(items)
    ):
        return None  # somebody taught Burr another way to write plain values, or one of these keys
    # Loops, not comprehensions or helpers: each call of a function costs as much as a key.
    dumps, fragments = orjson.dumps, {}
    try:
        for key, value in items.items():
            text = fragments[key] = dumps(value, None, _OPTIONS)
            if _UNDERSCORE in text and _is_marked(text):
                return None
    except orjson.JSONEncodeError:
        return None
    if not _sound_keys.issuperset(items) and not _are_sound(items):
        return None
    return fragments if _is_plain(items, fragments.values()) else None


def _are_sound(keys: Iterable[Any]) -> bool:
    """Whether keys are plain texts that need no stand-in; they are remembered, as they are few."""
    if not all(type(key) is str and key != serde.KEY and is_clean(key) for key in keys):
        return False
    if len(_sound_keys) > _MOST_KEYS:
        _sound_keys.clear()
    _sound_keys.update(keys)
    return True


def _is_marked(text: bytes) -> bool:
    """Whether Burr's mark of a serialized value occurs."""
    if len(text) < _LONG_BYTES:
        return _SERDE_KEY in text
    # A search for one character is twenty times as quick, and most texts have few of it.
    at = text.find(b"_")
    for _ in range(_MOST_TRIES):
        if at < 0:
            return False
        if text.startswith(_SERDE_KEY, at):
            return True
        at = text.find(b"_", at + 1)
    return _SERDE_KEY in text


def _is_plain(items: dict[str, Any], texts: Iterable[bytes]) -> bool:
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
            elif not any(b"null" in text for text in texts):
                no_nan = True
            elif not all(isfinite(x) for x in level if type(x) is float):
                return False
        if kinds.isdisjoint(_CONTAINERS):
            return True
        # Of dicts with nothing but texts as keys, the collector sees the values alone.
        level = gc.get_referents(*level)
    return True


def _walked(walk: Walk, key: Any, name: str, value: Any) -> bytes:
    walk.start(name)
    if key is not None and key in FIELD_SERIALIZATION:
        result = FIELD_SERIALIZATION[key][0](value, **walk.serde_kwargs)
        if not isinstance(result, dict):
            raise TypeError(f"its field serializer returned {type(result).__name__}, not a dict")
        walk.serialized.add(name)
        tree = walk.plain(result)
    else:
        tree = walk.user(value)
    try:
        return orjson.dumps(tree)
    except orjson.JSONEncodeError:  # an integer beyond 64 bits
        walk.int64 = False
        return encode_json(tree)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)[:500]
    except Exception:
        return "its message cannot be read"
