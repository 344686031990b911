"""Attribute values as strict JSON and back.

Attributes may hold what JSON cannot: NaN, bytes, integers beyond 64 bits, lone surrogates. Such a
value becomes an object whose one key says what it is; no other value becomes an object.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any, Final

_INT64: Final = 1 << 63


def is_sound(text: str) -> bool:
    """Whether `text` is valid Unicode."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def portable(value: Any) -> Any:  # noqa: PLR0911 - one case each
    """An attribute's value as something that `orjson` writes and every JSON reader reads."""
    kind = type(value)
    if kind is str:
        if is_sound(value):
            return value
        return {"utf16": value.encode("utf-16-le", "surrogatepass").hex()}
    if value is None or is_scalar(value):
        return value
    if isinstance(value, list | tuple):
        return [portable(item) for item in value]
    if isinstance(value, Mapping):
        return {"map": [[portable(key), portable(item)] for key, item in value.items()]}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if kind is int or kind is float:
        return {kind.__name__: repr(value)}
    return portable(str(value))


def from_portable(value: Any) -> Any:
    """What `portable` was given, with tuples for lists."""
    if isinstance(value, list):
        return tuple(from_portable(item) for item in value)
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "utf16":
        return bytes.fromhex(held).decode("utf-16-le", "surrogatepass")
    if kind == "map":
        return {from_portable(key): from_portable(item) for key, item in held}
    if kind == "bytes":
        return base64.b64decode(held)
    if kind in ("int", "float"):
        return int(held) if kind == "int" else float(held)
    raise ValueError(f"a value of kind {kind!r} is not known; was a later version its writer?")


def is_scalar(value: Any) -> bool:
    """Whether JSON and attributes have a value in the same form."""
    kind = type(value)
    return (
        kind is str
        or kind is bool
        or (kind is int and -_INT64 <= value < _INT64)
        or (kind is float and math.isfinite(value))
    )
