"""Attribute values as strict JSON and back, and texts as what they add to other texts.

Attributes may hold what JSON cannot: NaN, bytes, integers beyond 64 bits, lone surrogates. Such a
value becomes an object whose one key says what it is; no other value becomes an object.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any, Final

import orjson

__all__ = ["UNKNOWN", "applied", "difference", "from_portable", "is_sound", "native", "portable"]

UNKNOWN: Final = object()
"""Equal to no value."""

_WORTH_SHARING_BYTES: Final = 64
_INT64: Final = 1 << 63
_CONTINUATION, _CONTINUATION_MASK = 0x80, 0xC0  # of the later bytes of a character in UTF-8


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
    if value is None or _is_scalar(value):
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
    """What `portable` was given, with tuples for lists.

    Raises:
        ValueError: It was not made by `portable`.
    """
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


def native(value: Any) -> Any:
    """A JSON value as an attribute: as it is where attributes can be that, else its JSON.

    Returns:
        `UNKNOWN` when it has no JSON of its own (an integer beyond 64 bits).
    """
    if _is_scalar(value):
        return value
    if type(value) is list and len(set(map(type, value))) == 1 and all(map(_is_scalar, value)):
        return tuple(value)
    try:
        return orjson.dumps(value).decode()
    except (TypeError, ValueError):
        return UNKNOWN


def difference(text: str, base: bytes | None) -> str | list[Any]:
    """`text` as what `base` lacks of it: what was cut or hidden is in one place mostly.

    Args:
        text: Valid Unicode.
        base: UTF-8.

    Returns:
        The whole text; or how many bytes of the base it begins with, what comes then, and how
        many bytes of the base's end it ends with.
    """
    if base is None:
        return text
    data = text.encode()
    head = _common(data, base)
    while 0 < head < len(data) and _inside_a_character(data[head]):
        head -= 1
    rest = min(len(data), len(base)) - head
    tail = _common(data[: -rest - 1 : -1], base[: -rest - 1 : -1])
    while tail and _inside_a_character(data[-tail]):
        tail -= 1
    if head + tail < _WORTH_SHARING_BYTES:
        return text
    return [head, data[head : len(data) - tail].decode(), tail]


def applied(change: Any, base: bytes | None) -> str | None:
    """The text that `difference` was given; `None` when the base is not what it was."""
    if isinstance(change, str):
        return change
    if not isinstance(change, list) or base is None:
        return None
    head, middle, tail = change
    if head + tail > len(base):
        return None
    data: bytes = base[:head] + middle.encode() + base[len(base) - tail :]
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _is_scalar(value: Any) -> bool:
    kind = type(value)
    return (
        kind is str
        or kind is bool
        or (kind is int and -_INT64 <= value < _INT64)
        or (kind is float and math.isfinite(value))
    )


def _common(one: bytes, other: bytes) -> int:
    """Length of the common beginning, by comparing slices, which C does."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _inside_a_character(byte: int) -> bool:
    return byte & _CONTINUATION_MASK == _CONTINUATION
