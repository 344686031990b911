"""The forms in which an object can be written, and the name of its class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from burr_otel.content.guard import call_safely

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Form", "Items", "Pairs", "Plain", "Text", "titled", "type_name"]

_LONGEST_NAME: Final = 128


class Text(NamedTuple):
    """An object that reads best as a text; `trusted` when no secret can be in it."""

    text: str
    trusted: bool = False


class Plain(NamedTuple):
    """An object that stands for a plain value, such as a numpy scalar."""

    value: Any


class Items(NamedTuple):
    """An object that reads best as a list; `size` counts all items, or is 0 when unknown."""

    items: Iterable[Any]
    size: int


class Pairs(NamedTuple):
    """An object that reads best as names with values; `size` counts all, or is 0 when unknown."""

    pairs: Iterable[tuple[Any, Any]]
    size: int


Form = Text | Plain | Items | Pairs


def titled(title: str, pairs: list[tuple[Any, Any]]) -> Pairs:
    """Names and values below the name of what they belong to, unless they tell their own type."""
    if not any(name == "type" for name, _ in pairs if type(name) is str):
        pairs = [("type", title), *pairs]
    return Pairs(pairs, len(pairs))


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
