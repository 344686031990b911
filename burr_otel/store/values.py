"""State, inputs and results as strict JSON, with exactly the meaning of Burr's serde.

The usual state is plain JSON already: one `orjson` call a key writes it, and one sweep over the
types proves that Burr's recursive `serde.serialize` would have returned it unchanged. Only keys
that fail the proof take the slow walk.
"""

from __future__ import annotations

import base64
import gc
from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from operator import itemgetter
from typing import Any, Final

import orjson
from burr.core import serde
from burr.core.state import FIELD_SERIALIZATION

from burr_otel.errors import SnapshotError
from burr_otel.interrupts import is_interrupt
from burr_otel.printable import first_time, logger
from burr_otel.records import encode_json
from burr_otel.store import exact, snapshot
from burr_otel.store.encoded import EncodedState, object_pieces

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
    *[serde.serialize_primitive] * 4,
    serde.serialize_list,
    serde.serialize_dict,
)
_REGISTERED: Final = itemgetter(str, int, float, bool, list, dict)
# Readers recurse: pydantic and the Burr UI give up at about 250 levels, of which the record
# itself takes some.
MAX_DEPTH: Final = 200
# Python refuses to print longer integers in decimal where `int_max_str_digits` is at its minimum.
_MAX_DECIMAL_BITS: Final = 2_000
_FALLBACK: Final = serde.serialize.dispatch(object)
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
                proven = {name: walk.encode(key, name, value)}
            fragments |= proven
    except BaseException as error:  # of a `__str__` that Burr's serde calls
        if is_interrupt(error):
            raise
        cause = snapshot.brief(error)
        raise SnapshotError(run, cause, key=names.get(key), sequence_id=sequence_id) from error
    walk.record_key_names([], names, user=True)
    snapshot.warn_of_losses(run, walk, {names[key]: items[key] for key in items}, fragments)
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
    fragments = {}
    for key, name in names.items():
        told = f"{what} {name!r}"
        fragments[name], _ = encode_value(items[key], serde_kwargs=serde_kwargs, run=run, what=told)
    return b"".join(object_pieces(fragments)), False


def encode_value(
    value: Any, *, serde_kwargs: Mapping[str, Any], run: str, what: str
) -> tuple[bytes, bool]:
    """Encode one value as `encode_mapping` does."""
    plain = _plain_fragments({"value": value})
    if plain is not None:
        return plain["value"], True
    try:
        return Walk(serde_kwargs, exact=False).encode(None, "value", value), False
    except BaseException as error:
        if is_interrupt(error):
            raise
        type_name = type(value).__qualname__
        if first_time(run, what, type_name):
            logger.warning(
                "%s: %s (of type %s) cannot be written and is shown as a note instead: %s",
                run,
                what,
                type_name,
                type(error.__cause__ or error).__name__,  # its text may quote the value
            )
        return encode_json(f"<{type_name}: {snapshot.brief(error)}>"), False


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


class Walk:
    """Turns values into strict JSON values and collects patches for what that loses.

    `patches` are ``[path, kind, payload]`` in the order in which they must be applied; `fallbacks`
    has state key and type name of each value that can only be kept as text; `serialized` the state
    keys in which a registered serializer wrote something. `int64` is whether
    all integers fit in 64 bits. What is only looked at, and never loaded, needs no `exact` objects.
    """

    def __init__(self, serde_kwargs: Mapping[str, Any], *, exact: bool = True) -> None:
        self.serde_kwargs, self._exact = serde_kwargs, exact
        self.patches: list[Any] = []
        self.fallbacks: list[tuple[str, str]] = []
        self.serialized: set[str] = set()
        self.int64 = True
        self._path: list[str | int] = []
        self._handlers: dict[type, Callable[..., Any]] = {}

    def encode(self, key: Any, name: str, value: Any) -> bytes:
        """The JSON of the value of one top-level key; the key None has no serializer."""
        self._path = [name]
        if key is not None and key in FIELD_SERIALIZATION:
            result = FIELD_SERIALIZATION[key][0](value, **self.serde_kwargs)
            if not isinstance(result, dict):
                kind = type(result).__name__
                raise TypeError(f"its field serializer returned {kind}, not a dict")
            self.serialized.add(name)
            tree = self.plain(result)
        else:
            tree = self.user(value)
        try:
            return orjson.dumps(tree)
        except orjson.JSONEncodeError:  # an integer beyond 64 bits
            self.int64 = False
            return encode_json(tree)

    def user(self, value: Any) -> Any:  # noqa: PLR0911 - one case each
        """A value of the user's, as `burr.core.serde.serialize` writes it."""
        kind = type(value)
        handler = self._handlers.get(kind)
        if handler is None:
            handler = self._handlers[kind] = serde.serialize.dispatch(kind)
        if handler is serde.serialize_primitive:
            return self._scalar(value)
        if handler is serde.serialize_dict:
            return self._mapping(value, self.user, user=True)
        if handler is serde.serialize_list:
            return self._sequence(value, self.user)
        if handler is not _FALLBACK:
            # What a serializer returns is for its own deserializer: Burr looks no deeper.
            self.serialized.add(str(self._path[0]))
            return self.plain(handler(value, **self.serde_kwargs))
        if value is None:
            return None
        payload = exact.encode_object(value) if self._exact else None
        if payload is None:
            self.fallbacks.append((str(self._path[0]), exact.class_name(kind)))
            return self._scalar(str(value))
        stand_in = self._scalar(str(value))
        self._patch(exact.OBJECT, payload)
        return stand_in

    def plain(self, value: Any) -> Any:
        """Output of a registered serializer, as the JSON encoder of Burr's client writes it."""
        if value is None or isinstance(value, str | int | float):
            return self._scalar(value)
        if isinstance(value, dict):
            return self._mapping(value, self.plain, user=False)
        if isinstance(value, list | tuple):
            return self._sequence(value, self.plain)
        if isinstance(value, bytes):
            self._patch(*exact.encode_atom(value))  # type: ignore[misc]  # bytes always encode
            return value.decode("utf-8", "replace")
        from pydantic_core import to_jsonable_python  # noqa: PLC0415 - only rare values need it

        return self.plain(to_jsonable_python(value))

    def key_names(self, value: Mapping[Any, Any]) -> dict[Any, str]:
        """A distinct, harmless JSON key for each key of a dict; a key's ``__str__`` may raise."""
        taken = {key for key in value if type(key) is str}
        names: dict[Any, str] = {}
        for key in value:
            if type(key) is str and key != serde.KEY and is_clean(key):
                names[key] = key
                continue
            name = _stand_in_key(key)
            while name in taken:
                name += "~"
            taken.add(name)
            names[key] = name
        return names

    def record_key_names(self, path: list[str | int], names: dict[Any, str], *, user: bool) -> None:
        """Remember which keys are stand-ins, after the patches of the values below them."""
        renamed = []
        for key, name in names.items():
            if type(key) is str and key == name:
                continue
            atom = exact.encode_atom(key)
            if atom is not None:
                renamed.append([name, *atom])
            else:
                told = f"key of type {exact.class_name(type(key))}"
                self.fallbacks.append((str((path or [name])[0]), told))
        if renamed:
            kind = exact.USER_KEYS if user else exact.KEYS
            self.patches.append([path.copy(), kind, renamed])

    def _scalar(self, value: Any) -> Any:  # noqa: PLR0911 - one case each
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            text = str.__str__(value)
            if is_clean(text):
                return text
            self._patch(*exact.encode_atom(text))  # type: ignore[misc]  # str always encodes
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if isinstance(value, int):
            number = int.__int__(value)
            if number.bit_length() <= _MAX_DECIMAL_BITS:
                return number
            self._patch("int", hex(number))
            return hex(number)
        if isinstance(value, float):
            number_ = float.__float__(value)
            if isfinite(number_):
                return number_
            self._patch("float", float.hex(number_))
            return None
        # A serializer that was registered for a type is the only way to get here.
        raise TypeError(f"Burr treats a {type(value).__qualname__} as a plain value; JSON has none")

    def _mapping(
        self, value: Mapping[Any, Any], walk: Callable[[Any], Any], *, user: bool
    ) -> dict[str, Any]:
        self._check_depth()
        names = self.key_names(value)
        if not user and serde.KEY in names:  # a serializer's own mark must stay readable
            names[serde.KEY] = serde.KEY
        out, path = {}, self._path
        for key, item in value.items():
            name = names[key]
            path.append(name)
            out[name] = walk(item)
            path.pop()
        self.record_key_names(path, names, user=user)
        return out

    def _sequence(self, value: Iterable[Any], walk: Callable[[Any], Any]) -> list[Any]:
        self._check_depth()
        out, path = [], self._path
        for index, item in enumerate(value):
            path.append(index)
            out.append(walk(item))
            path.pop()
        return out

    def _check_depth(self) -> None:
        if len(self._path) > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} levels deep, or containing itself")

    def _patch(self, kind: str, payload: Any) -> None:
        self.patches.append([self._path.copy(), kind, payload])


def is_clean(text: str) -> bool:
    """Whether a text has no lone surrogates, so that it is UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _stand_in_key(key: Any) -> str:
    if key is None:
        return "null"
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, bytes):
        return base64.b64encode(key).decode()
    if isinstance(key, str):
        key = str.__str__(key)
    if isinstance(key, int) and key.bit_length() > _MAX_DECIMAL_BITS:
        return hex(key)
    if key == serde.KEY:
        return f"{serde.KEY} (state)"
    return str(key).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
