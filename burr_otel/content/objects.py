"""What a person would want to read of an object that JSON has no form for.

`describe` looks at a bounded part of an object. Nothing is consumed (generators, iterators, files),
built-in containers are read past overridden methods, and libraries such as numpy are looked at only
when they have made the object. A large array costs no more than its first values; the values of a
tensor are never read, they may live on a device.
"""

from __future__ import annotations

import array
import codecs
import collections
import contextlib
import contextvars
import datetime as dt
import decimal
import enum
import fractions
import functools
import itertools
import operator
import pathlib
import re
import sys
import types
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from burr_otel.interrupts import is_interrupt

_HEAD_ITEMS: Final = 8
_HEAD_COLUMNS: Final = 24
_HEAD_BYTES: Final = 4096
_LONGEST_NAME: Final = 128
_MOST_SIDES: Final = 8  # of the shape of an array
_COPIED: Final = 256  # items up to which a dict or set is copied before it is read
_SORTED_CHARACTERS: Final = 64
_HEAVY: Final = 4096  # items or characters that a repr had better not be asked to write
_MOST_BITS: Final = 1000  # of an int written as a number: every JSON reader holds it as a double
_CONTAINERS: Final[frozenset[type]] = frozenset(
    (dict, list, tuple, set, frozenset, collections.deque, array.array)
) | {type({}.keys()), type({}.values()), type({}.items())}
_SIZED: Final = _CONTAINERS | {str, bytes, bytearray}
_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class made by a class statement
_CALLABLES: Final = (
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType),
    *(type, types.ModuleType),
)
_ONLY_NAMED: Final = (contextvars.ContextVar, itertools.repeat, memoryview, types.FrameType)
_ARGS: Final = BaseException.__dict__["args"]  # past what a class overrides
_LAST_BREAK = re.compile(r"(?:[\s\S]*[\s\"'`,;])?")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+| id='\d+'")
_ADDRESS_WINDOW: Final = 4096


class Parts(NamedTuple):
    """The items, or names and values, of an object; `size` counts all, or is 0 when unknown."""

    parts: Iterable[Any]
    size: int
    named: bool


class Failure(NamedTuple):
    """What was raised in place of a result."""

    error: BaseException


def call_safely(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """The result of code that is not ours, or a `Failure`; lets only interrupts out."""
    try:
        return function(*arguments, **named)
    except BaseException as error:  # a SystemExit of a __repr__ must not end the step
        if is_interrupt(error):
            raise
        return Failure(error)


def text_safely(function: Callable[..., str], *arguments: Any, **named: Any) -> str:
    """The same for a text, or a word that stands for it."""
    text = call_safely(function, *arguments, **named)
    return "<unreadable>" if isinstance(text, Failure) else text


def titled(title: str, members: dict[Any, Any]) -> dict[Any, Any]:
    """Members below the name of what they belong to, unless they tell their own type."""
    return members if "type" in members else {"type": title, **members}


def type_name(value: Any) -> str:
    """The class of a value, with its module unless that is `builtins` or ``__main__``."""
    kind = type(value)
    name = call_safely(type.__dict__["__qualname__"].__get__, kind)
    if type(name) is not str:
        return "object"
    name = _in_module(name, call_safely(type.__dict__["__module__"].__get__, kind))
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."


def _in_module(name: str, module: Any) -> str:
    is_told = type(module) is str and module not in ("builtins", "__main__")
    return f"{module}.{name}" if is_told else name


def _mro(kind: type) -> tuple[type, ...]:
    return type.__dict__["__mro__"].__get__(kind)  # type: ignore[no-any-return]


def _base_of(kind: type, bases: frozenset[type]) -> Any:
    """The one of some built-in classes that a class is or inherits from, or None."""
    for base in _mro(kind):
        if base in bases:
            return base
    return None


def type_text(value: Any) -> str:
    """The type of a value with its size: ``str[12]``, ``list[3]``, ``numpy.ndarray[2, 3]``."""
    if value is None:
        return "None"
    name = type_name(value)
    base = _base_of(type(value), _SIZED)
    if base is not None:
        return f"{name}[{base.__len__(value)}]"
    if name.partition(".")[0] in _LIBRARIES:
        shape = call_safely(getattr, value, "shape")
        if isinstance(shape, tuple) and 0 < len(shape) <= _MOST_SIDES:
            return f"{name}[{', '.join(str(side) for side in shape if type(side) is int)}]"
    return name


def items_of(value: Any, kind: type) -> Parts | None:
    """The items of a built-in container, read past overridden methods."""
    base = _base_of(kind, _CONTAINERS)
    if base is None:
        return None
    size = base.__len__(value)
    items: Iterable[Any] = dict.items(value) if base is dict else base.__iter__(value)
    if base in (dict, set, frozenset) and size <= _COPIED:
        with contextlib.suppress(RuntimeError):  # another thread changes it
            items = list(items) if base is dict else sorted(items, key=_order)
    names = getattr(kind, "_fields", None) if base is tuple else None
    if type(names) is tuple and len(names) == size:
        return Parts(zip(names, items, strict=False), size, named=True)
    return Parts(items, size, named=base is dict)


def _order(item: Any) -> tuple[str, float, str]:
    """Puts the items of a set in the same order in every process, without their own comparison."""
    kind = type(item)
    text = item[:_SORTED_CHARACTERS] if kind is str else ""
    return kind.__name__, item if kind in (int, float) else 0, text


def _readable(made: Any) -> Any:
    return f"<unreadable: {type_name(made.error)}>" if isinstance(made, Failure) else made


def describe(value: Any) -> Any:
    """An object as a text, number, dict, list or `Parts`; raises what its own code raises."""
    kind = type(value)
    if issubclass(kind, enum.Enum):
        return _enum(value)
    for base in _mro(kind):
        read = _READERS.get(base)
        if read is not None:
            return read(value)
    module = kind.__module__
    library = _LIBRARIES.get(module.partition(".")[0]) if type(module) is str else None
    made = None if library is None else library(value)
    made = _fields(value) if made is None else made
    if made is not None:
        return made
    if issubclass(kind, Mapping):
        return Parts(_mapped(value), operator.length_hint(value, 0), named=True)
    return _printed(value, kind)


def _printed(value: Any, kind: type) -> Any:
    """An object with its own repr as that, another by its public attributes or its class."""
    own = _instance_dict(value)
    bases = _mro(kind)[:-1]  # all but `object`
    if any("__repr__" in base.__dict__ for base in bases) and not is_heavy(own):
        printed = str.__str__(repr(value))
        head = _ADDRESS.sub("", printed[:_ADDRESS_WINDOW])  # it differs from run to run
        return head + printed[_ADDRESS_WINDOW:]
    public = {name: item for name, item in own.items() if type(name) is str and name[:1] != "_"}
    return titled(type_name(value), public) if public else f"<{type_name(value)}>"


def is_heavy(value: Any) -> bool:
    """Whether a value holds more than its repr should be asked to write."""
    budget, seen = _HEAVY, set()
    waiting: list[Any] = [value]
    while waiting and budget > 0:
        value = waiting.pop()
        kind = type(value)
        base = _base_of(kind, _SIZED)
        if base is not None:  # as often as it stands there, because a repr repeats it
            budget -= base.__len__(value)
            if base in _CONTAINERS and budget > 0:
                waiting += base.__iter__(value)
                waiting += dict.values(value) if base is dict else ()
        elif type.__dict__["__flags__"].__get__(kind) & _HEAP_TYPE and id(value) not in seen:
            seen.add(id(value))
            waiting.append(_instance_dict(value))
    return budget <= 0


def _instance_dict(value: Any) -> dict[Any, Any]:
    found = call_safely(object.__getattribute__, value, "__dict__")
    return found if type(found) is dict and len(found) <= _HEAVY else {}


def _mapped(value: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """The pairs of a mapping by its own code, which may fail for each of them."""
    keys = iter(value)
    while not isinstance(key := call_safely(next, keys), Failure):
        yield key, _readable(call_safely(operator.getitem, value, key))
    if not isinstance(key.error, StopIteration):
        yield "...", _readable(key)


# --- classes made of fields ---------------------------------------------------------------------


def _fields(value: Any) -> Any:
    """A dataclass, pydantic model or attrs class by its fields, but those kept out of its repr."""
    kind: Any = type(value)
    names = _field_names(kind)
    if names is None:
        return None
    own = _instance_dict(value)
    members = {
        name: own[name] if name in own else _readable(call_safely(getattr, value, name))
        for name in names
    }
    extra = call_safely(object.__getattribute__, value, "__pydantic_extra__")
    if type(extra) is dict:
        members |= itertools.islice(extra.items(), _HEAVY)
    return members


@functools.lru_cache(256)
def _field_names(kind: type) -> list[str] | None:
    for attribute in ("__dataclass_fields__", "__pydantic_fields__", "model_fields", "__fields__"):
        fields = getattr(kind, attribute, None)
        if type(fields) is dict:
            return [name for name, field in fields.items() if type(name) is str and _shown(field)]
    fields = getattr(kind, "__attrs_attrs__", None)
    if isinstance(fields, tuple):
        return [field.name for field in fields if _shown(field)]
    return None


def _shown(field: Any) -> bool:
    field = getattr(field, "field_info", field)  # pydantic 1
    if getattr(field, "exclude", None) is True or getattr(field, "repr", True) is False:
        return False
    # A dataclass keeps its class variables among its fields, as fields of another kind.
    return getattr(getattr(field, "_field_type", None), "name", "_FIELD") == "_FIELD"


# --- built-in types and the standard library ------------------------------------------------------


def _enum(value: enum.Enum) -> Any:
    plain = value._value_
    if isinstance(value, str | int | float) and type(plain) in (str, int, float):
        return plain
    return f"{type(value).__qualname__}.{value._name_ or repr(plain)}"


def _int(value: int) -> Any:
    bits = int.bit_length(value)
    return f"<int of {bits} bits>" if bits > _MOST_BITS else int.__pos__(value)


def _bytes(value: bytes | bytearray) -> str:
    base: Any = bytes if isinstance(value, bytes) else bytearray
    size = base.__len__(value)
    head = bytes(base.__getitem__(value, slice(0, _HEAD_BYTES)))
    try:  # the cut may have split a character
        text = codecs.getincrementaldecoder("utf-8")().decode(head, final=size <= _HEAD_BYTES)
    except UnicodeDecodeError:
        return f"<{size} bytes>"
    if size <= _HEAD_BYTES:
        return text
    text = text[: _LAST_BREAK.match(text).end()]  # type: ignore[union-attr]  # no half of a token
    return f"{text}... [{size - len(text.encode())} more bytes]"


def _callable(value: Any) -> str:
    name = call_safely(getattr, value, "__qualname__")
    name = name if type(name) is str else getattr(value, "__name__", "")
    return f"<{type(value).__name__} {_in_module(name, getattr(value, '__module__', None))}>"


# How the instances of a class and its subclasses are read.
_READERS: Final[dict[Any, Callable[[Any], Any]]] = {
    str: str.__str__,
    int: _int,
    float: float.__pos__,
    **dict.fromkeys((bytes, bytearray), _bytes),
    range: repr,
    types.SimpleNamespace: lambda value: titled("SimpleNamespace", _instance_dict(value)),
    **dict.fromkeys((collections.UserList, collections.UserString), operator.attrgetter("data")),
    **dict.fromkeys((dt.date, dt.time), lambda value: str.__str__(value.isoformat())),
    **dict.fromkeys(
        (dt.timedelta, decimal.Decimal, fractions.Fraction, complex, uuid.UUID, pathlib.PurePath),
        lambda value: str.__str__(str(value)),
    ),
    functools.partial: lambda value: f"<partial of {_callable(value.func)}>",
    BaseException: lambda value: {"type": type_name(value), "args": _ARGS.__get__(value)},
    **dict.fromkeys(_CALLABLES, _callable),
    # Their repr prints all that they hold, or changes.
    **dict.fromkeys(_ONLY_NAMED, lambda value: f"<{type_name(value)}>"),
}


# --- libraries ------------------------------------------------------------------------------------


def _numpy(value: Any) -> Any:
    numpy = sys.modules["numpy"]
    if not isinstance(value, numpy.generic | numpy.ndarray):
        return None
    names = value.dtype.names
    if isinstance(value, numpy.void) and names is not None:
        return _record(value.dtype, value.tolist())
    if isinstance(value, numpy.ndarray) and (names is not None or value.ndim):
        head = numpy.ndarray.flat.__get__(value)[:_HEAD_ITEMS].tolist()
        if names is not None:  # below the names of the fields, as a data frame
            head = [_record(value.dtype, record) for record in head]
        about = {"dtype": str(value.dtype), "shape": list(value.shape), "head": head}
        return titled("ndarray", about)
    item = str(value) if value.dtype.kind in "mM" else value.item()
    if type(item) in (bool, int, float, str, bytes):
        return item
    return None if isinstance(item, numpy.generic | tuple) else str(item)


def _record(dtype: Any, values: tuple[Any, ...]) -> dict[str, Any]:
    """A record of a structured array by the names of its fields."""
    return {
        name: value if dtype[name].names is None else _record(dtype[name], value)
        for name, value in zip(dtype.names, values, strict=True)
    }


def _pandas(value: Any) -> Any:
    pandas = sys.modules["pandas"]
    if isinstance(value, pandas.DataFrame):
        rows = value.iloc[:_HEAD_ITEMS, :_HEAD_COLUMNS]
        head = [_row(rows.columns, row) for row in rows.itertuples(index=False)]
        return titled("DataFrame", {"shape": list(value.shape), "head": head})
    if isinstance(value, pandas.Series):
        # Below its own name, so that a column of passwords is hidden like a key of that name.
        name = value.name if isinstance(value.name, str) else "head"
        some = value.iloc[:_HEAD_ITEMS]
        labels, cells = some.index.tolist(), some.tolist()
        # A row of a data frame has the names of the columns for its index.
        shown = _row(labels, cells) if any(isinstance(one, str) for one in labels) else cells
        return titled("Series", {"dtype": str(value.dtype), "size": len(value), name: shown})
    return None


def _row(columns: Any, cells: Any) -> Parts:
    """The cells of a row by column; columns of one name stay apart."""
    return Parts(zip(columns, cells, strict=True), len(cells), named=True)


def _tensor(value: Any) -> Any:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        return None
    return f"<{type(value).__qualname__} {dtype} {list(shape)}>"


_LIBRARIES: Final[dict[str, Callable[[Any], Any]]] = {
    "numpy": _numpy,
    "pandas": _pandas,
    **dict.fromkeys(("torch", "jax", "jaxlib", "tensorflow", "cupy"), _tensor),
}
