"""``capture="types"``: what kinds of values there were and how large, and none of them."""

from __future__ import annotations

from typing import Any, Final

from burr_otel.content.forms import type_name
from burr_otel.content.guard import call_safely

__all__ = ["type_text"]

_SIZED: Final = (str, bytes, bytearray, list, tuple, dict, set, frozenset)
_SHAPED: Final = frozenset(("numpy", "pandas", "torch", "jax", "jaxlib", "tensorflow", "cupy"))
_MOST_SIDES: Final = 8


def type_text(value: Any) -> str:
    """The type of a value with its size: ``str[12]``, ``list[3]``, ``numpy.ndarray[2, 3]``.

    Sizes are characters, bytes, items or the shape of an array; built-in ones are read past
    overridden methods.
    """
    if value is None:
        return "None"
    kind = type(value)
    name = type_name(value)
    for base in _SIZED:
        if issubclass(kind, base):
            return f"{name}[{base.__len__(value)}]"
    if name.partition(".")[0] in _SHAPED:
        shape = call_safely(getattr, value, "shape")
        if isinstance(shape, tuple) and 0 < len(shape) <= _MOST_SIDES:
            return f"{name}[{', '.join(str(side) for side in shape if type(side) is int)}]"
    return name
