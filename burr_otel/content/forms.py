"""What reading any value needs: safe calls, the name of its class, its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

_LONGEST_NAME: Final = 128
_SIZED: Final = (str, bytes, bytearray, list, tuple, dict, set, frozenset)
_SHAPED: Final = frozenset(("numpy", "pandas", "torch", "jax", "jaxlib", "tensorflow", "cupy"))
_MOST_SIDES: Final = 8


class Parts(NamedTuple):
    """The items, or names and values, of an object; `size` counts all, or is 0 when unknown."""

    parts: Iterable[Any]
    size: int
    named: bool


class Failure(NamedTuple):
    """What was raised in place of a result."""

    error: BaseException


def call_safely(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """The result of code that is not ours, or a `Failure`; lets only `KeyboardInterrupt` out."""
    try:
        return function(*arguments, **named)
    except KeyboardInterrupt:  # someone pressed Ctrl-C meanwhile; that is not ours to swallow
        raise
    except BaseException as error:  # a SystemExit of a __repr__ must not end the step
        return Failure(error)


def titled(title: str, members: dict[Any, Any]) -> dict[Any, Any]:
    """Members below the name of what they belong to, unless they tell their own type."""
    return members if "type" in members else {"type": title, **members}


def type_name(value: Any) -> str:
    """The class of a value, with its module unless that is `builtins` or ``__main__``."""
    kind = type(value)
    name = call_safely(type.__dict__["__qualname__"].__get__, kind)
    module = call_safely(type.__dict__["__module__"].__get__, kind)
    if type(name) is not str:
        return "object"
    if type(module) is str and module not in ("builtins", "__main__"):
        name = f"{module}.{name}"
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."


def type_text(value: Any) -> str:
    """The type of a value with its size: ``str[12]``, ``list[3]``, ``numpy.ndarray[2, 3]``."""
    if value is None:
        return "None"
    name = type_name(value)
    for base in _SIZED:
        if issubclass(type(value), base):
            return f"{name}[{base.__len__(value)}]"
    if name.partition(".")[0] in _SHAPED:
        shape = call_safely(getattr, value, "shape")
        if isinstance(shape, tuple) and 0 < len(shape) <= _MOST_SIDES:
            return f"{name}[{', '.join(str(side) for side in shape if type(side) is int)}]"
    return name
