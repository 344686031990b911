"""``capture="types"``: what kinds of values there were and how large, and none of them."""

from __future__ import annotations

from typing import Any

from burr_otel.content import objects

__all__ = ["type_text"]

_SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset)


def type_text(value: Any) -> str:
    """The type of a value with its size: ``str[12]``, ``list[3]``, ``numpy.ndarray[2, 3]``.

    Sizes are characters, bytes, items or the shape of an array; they are read past overridden
    methods, so the value's own code does not run.
    """
    kind = type(value)
    name = objects.type_name(value)
    for base in _SIZED:
        if issubclass(kind, base):
            return f"{name}[{base.__len__(value)}]"
    if kind.__module__ in ("numpy", "pandas", "pandas.core.frame", "pandas.core.series", "torch"):
        shape = objects.call_safely(getattr, value, "shape")
        if isinstance(shape, tuple) and all(type(side) is int for side in shape):
            return f"{name}[{', '.join(map(str, shape))}]"
    return name
