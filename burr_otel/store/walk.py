"""The slow walk: Burr's serde and strict JSON at once, value by value."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from typing import Any

from burr.core import serde

from burr_otel.store import exact

# Readers recurse: pydantic and the Burr UI give up at about 250 levels, of which the record
# itself takes some.
MAX_DEPTH = 200

# Python refuses to print longer integers in decimal where `int_max_str_digits` is at its minimum.
_MAX_DECIMAL_BITS = 2_000

_FALLBACK = serde.serialize.dispatch(object)


class Walk:
    """Turns values into strict JSON values and collects patches for what that loses.

    `patches` are ``[path, kind, payload]`` in the order in which they must be applied; `fallbacks`
    has state key and type name of each value that can only be kept as text; `serialized` the state
    keys in which a registered serializer wrote something. Whether all integers fit in 64 bits is
    found out by the caller. What is only looked at, and never loaded, needs no `exact` objects.
    """

    def __init__(self, serde_kwargs: Mapping[str, Any], *, exact: bool = True) -> None:
        self.serde_kwargs, self._exact = serde_kwargs, exact
        self.patches: list[Any] = []
        self.fallbacks: list[tuple[str, str]] = []
        self.serialized: set[str] = set()
        self.int64 = True
        self._path: list[str | int] = []
        self._handlers: dict[type, Callable[..., Any]] = {}

    def start(self, name: str) -> None:
        """Begin the value of one top-level key."""
        self._path = [name]

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
            if atom is None:
                self.fallbacks.append(
                    (str((path or [name])[0]), f"key of type {exact.class_name(type(key))}")
                )
            else:
                renamed.append([name, *atom])
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
        names = self.key_names(value) if user else self._plain_key_names(value)
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

    def _plain_key_names(self, value: Mapping[Any, Any]) -> dict[Any, str]:
        names = self.key_names(value)
        if serde.KEY in names:
            names[serde.KEY] = serde.KEY  # a serializer's own mark must stay readable
        return names

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
