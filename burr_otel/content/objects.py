"""What a person would want to read of an object that JSON has no form for.

`describe` turns any object into a text, a list of items or pairs of names and values, by looking at
a bounded part of it. Nothing is consumed (generators, iterators, files), nothing is imported, and
values are read past overridden methods wherever Python allows it.
"""

from __future__ import annotations

import array
import collections
import datetime
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
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

__all__ = ["Items", "Pairs", "Text", "call_safely", "describe", "type_name"]

_HEAD_ITEMS: Final = 8  # of an array or a table
_HEAD_COLUMNS: Final = 24
_SORTED_SET: Final = 256
_HEAVY: Final = 4096  # items or characters that a repr should not be asked to write
_LONGEST_NAME: Final = 128
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+| id='\d+'")
_ADDRESS_WINDOW = 4096


class Text(NamedTuple):
    """An object that reads best as a text."""

    text: str


class Items(NamedTuple):
    """An object that reads best as a list; `size` counts all items, also those not in `items`."""

    items: Iterable[Any]
    size: int


class Pairs(NamedTuple):
    """An object that reads best as names with values; `size` counts all pairs."""

    pairs: Iterable[tuple[Any, Any]]
    size: int


Form = Text | Items | Pairs


def call_safely(function: Any, *arguments: Any) -> Any:
    """Call code that is not ours.

    Returns:
        What it returned, or the exception that it raised (any but `KeyboardInterrupt`).
    """
    try:
        return function(*arguments)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  a SystemExit of a __repr__ must not end the step
        return error


def type_name(value: Any) -> str:
    """The class of a value, with its module unless that is `builtins`."""
    kind = type(value)
    name = call_safely(type.__dict__["__qualname__"].__get__, kind)
    module = call_safely(type.__dict__["__module__"].__get__, kind)
    name = name if type(name) is str else "object"
    if type(module) is str and module not in ("builtins", "__main__"):
        name = f"{module}.{name}"
    return name[:_LONGEST_NAME]


def describe(value: Any) -> Form:
    """Describe an object that is neither ``None`` nor a bool, number, str, dict, list or tuple.

    Raises:
        BaseException: Whatever the object's own code raises.
    """
    kind = type(value)
    for known, form in _FORMS:
        if issubclass(kind, known):
            return form(value)
    module = kind.__module__.partition(".")[0] if type(kind.__module__) is str else ""
    foreign = _FOREIGN.get(module)
    if foreign is not None:
        described = foreign(value)
        if described is not None:
            return described
    return _structured(value, kind) or _printed(value, kind)


def _printed(value: Any, kind: type) -> Form:
    """An object with its own repr as that, another by its public attributes or its type's name."""
    own = _instance_dict(value)
    public = {key: item for key, item in own.items() if type(key) is str and key[:1] != "_"}
    if kind.__repr__ is object.__repr__ or any(map(_is_heavy, own.values())):
        if public:
            return _named(kind, public.items(), len(public))
        return Text(f"<{type_name(value)}>")
    printed = repr(value)
    if not isinstance(printed, str):  # pragma: no cover  Python itself raises TypeError
        return Text(f"<{type_name(value)}>")
    printed = str.__str__(printed)
    head = _ADDRESS.sub("", printed[:_ADDRESS_WINDOW])  # differs from run to run
    return Text(head + printed[_ADDRESS_WINDOW:])


def _named(kind: type, pairs: Iterable[tuple[Any, Any]], size: int) -> Pairs:
    return Pairs(itertools.chain((("type", kind.__qualname__),), pairs), size + 1)


def _is_heavy(value: Any) -> bool:
    if type(value) in (str, bytes, bytearray, list, tuple, dict, set, frozenset):
        return len(value) > _HEAVY
    return type(value) in (array.array, collections.deque)


def _instance_dict(value: Any) -> dict[Any, Any]:
    found = call_safely(object.__getattribute__, value, "__dict__")
    return found if type(found) is dict and len(found) <= _HEAVY else {}


def _structured(value: Any, kind: type) -> Form | None:
    """Dataclasses, pydantic models and attrs classes by their fields; those that their authors
    keep out of the repr stay out."""
    fields = _field_names(kind)
    if fields is None:
        return None
    own = _instance_dict(value)
    pairs = [
        (name, own[name] if name in own else call_safely(getattr, value, name)) for name in fields
    ]
    extra = call_safely(object.__getattribute__, value, "__pydantic_extra__")
    if type(extra) is dict:
        return Pairs(itertools.chain(pairs, extra.items()), len(pairs) + len(extra))
    return Pairs(pairs, len(pairs))


def _field_names(kind: type) -> list[str] | None:
    for attribute in ("__dataclass_fields__", "__pydantic_fields__", "model_fields", "__fields__"):
        fields = getattr(kind, attribute, None)
        if type(fields) is dict:
            return [name for name, field in fields.items() if type(name) is str and _shown(field)]
    attrs = getattr(kind, "__attrs_attrs__", None)
    if isinstance(attrs, tuple):
        return [field.name for field in attrs if _shown(field)]
    return None


def _shown(field: Any) -> bool:
    """Whether a field's author lets it be seen (pydantic v1 keeps its settings in `field_info`)."""
    field = getattr(field, "field_info", field)
    if getattr(field, "exclude", None) is True:
        return False
    # A dataclass keeps its class variables among its fields, with a kind of their own.
    if getattr(getattr(field, "_field_type", None), "name", "_FIELD") != "_FIELD":
        return False
    return getattr(field, "repr", True) is not False


# --- types of the standard library ------------------------------------------------------------


def _enum(value: enum.Enum) -> Form:
    plain = value._value_
    if isinstance(value, str | int | float) and type(plain) in (str, int, float):
        return Text(str(plain))
    return Text(f"{type(value).__qualname__}.{value._name_}")


def _bytes(value: bytes | bytearray) -> Form:
    size = type(value).__mro__ and (
        bytes.__len__(value) if isinstance(value, bytes) else bytearray.__len__(value)
    )
    slice_of = bytes.__getitem__ if isinstance(value, bytes) else bytearray.__getitem__
    head = bytes(slice_of(value, slice(0, _BYTES_HEAD)))  # type: ignore[operator]
    try:
        # A sequence that the cut has split is no sign of binary data.
        text = head.decode("utf-8") if size <= _BYTES_HEAD else _decode_cut(head)
    except UnicodeDecodeError:
        return Text(f"<{size} bytes>")
    return Text(text if size <= _BYTES_HEAD else f"{text}... <{size} bytes>")


_BYTES_HEAD = 4096


def _decode_cut(head: bytes) -> str:
    for back in range(4):
        try:
            return head[: len(head) - back].decode("utf-8")
        except UnicodeDecodeError:
            if back == 3:
                raise
    raise AssertionError  # pragma: no cover  the loop returns or raises


def _memory(value: memoryview) -> Form:
    return Text(f"<memoryview of {value.nbytes} bytes>")


def _set(value: set[Any] | frozenset[Any]) -> Form:
    base: Any = set if isinstance(value, set) else frozenset
    size = base.__len__(value)
    if size > _SORTED_SET:
        return Items(base.__iter__(value), size)
    return Items(sorted(base.__iter__(value), key=_order), size)


def _order(item: Any) -> tuple[str, Any, str]:
    """Sorts a set's items the same in every process, without calling their own comparison."""
    kind = type(item)
    number = item if kind in (int, float) else 0
    text = item[:64] if kind is str else ""
    return kind.__name__, number, text


def _deque(value: collections.deque[Any]) -> Form:
    return Items(collections.deque.__iter__(value), collections.deque.__len__(value))


def _range(value: range) -> Form:
    return Text(f"range({value.start}, {value.stop}, {value.step})")


def _array(value: array.array[Any]) -> Form:
    size = len(value)
    return _named(type(value), [("size", size), ("head", value[:_HEAD_ITEMS].tolist())], 2)


def _mapping(value: Mapping[Any, Any]) -> Form:
    size = operator.length_hint(value, 0)
    return Pairs(((key, value[key]) for key in value), size)


def _keys(value: Any) -> Form:
    return Items(iter(value), len(value))


def _wrapped(value: Any) -> Form:
    return Items(iter(value.data), len(value.data))


def _user_string(value: collections.UserString) -> Form:
    return Text(str(value.data))


def _namespace(value: types.SimpleNamespace) -> Form:
    own = _instance_dict(value)
    return Pairs(own.items(), len(own))


def _function(value: Any) -> Form:
    name = call_safely(getattr, value, "__qualname__")
    module = call_safely(getattr, value, "__module__")
    name = name if type(name) is str else type_name(value)
    prefix = f"{module}." if type(module) is str and module != "builtins" else ""
    return Text(f"<{type(value).__name__} {prefix}{name}>"[: 2 * _LONGEST_NAME])


def _partial(value: functools.partial[Any]) -> Form:
    inner = value.func
    name = call_safely(getattr, inner, "__qualname__")
    return Text(f"<partial of {name if type(name) is str else type_name(inner)}>")


def _by_type(value: Any) -> Form:
    return Text(f"<{type_name(value)}>")


def _exception(value: BaseException) -> Form:
    text = call_safely(str, value)
    return Text(f"{type_name(value)}: {text}" if type(text) is str else type_name(value))


def _isoformat(value: datetime.date | datetime.time) -> Form:
    return Text(value.isoformat())


def _plain_text(value: Any) -> Form:
    return Text(str(value))


_FORMS: Final[tuple[tuple[Any, Any], ...]] = (
    (enum.Enum, _enum),
    ((bytes, bytearray), _bytes),
    ((set, frozenset), _set),
    ((datetime.date, datetime.time), _isoformat),
    ((decimal.Decimal, uuid.UUID, fractions.Fraction, complex), _plain_text),
    ((datetime.timedelta, pathlib.PurePath), _plain_text),
    (collections.deque, _deque),
    (range, _range),
    (memoryview, _memory),
    (array.array, _array),
    (
        (types.FunctionType, types.BuiltinFunctionType, types.MethodType, type, types.ModuleType),
        _function,
    ),
    (functools.partial, _partial),
    (collections.UserList, _wrapped),
    (collections.UserString, _user_string),
    (types.SimpleNamespace, _namespace),
    (BaseException, _exception),
    (
        (
            types.GeneratorType,
            types.CoroutineType,
            types.AsyncGeneratorType,
            types.FrameType,
            types.TracebackType,
            types.CodeType,
            map,
            filter,
            zip,
            enumerate,
            reversed,
            itertools.repeat,
        ),
        _by_type,
    ),
    ((type({}.keys()), type({}.values()), type({}.items())), _keys),
    (Mapping, _mapping),
)


# --- libraries that are looked at only when they have made the value ----------------------------


def _numpy(value: Any) -> Form | None:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(value, numpy.generic):
        plain = value.item()
        if type(plain) in (bool, int, float, str, bytes):
            return Items((plain,), -1)  # a scalar: encoded as its only item
        return Text(str(plain)) if not isinstance(plain, numpy.generic | tuple) else None
    if not isinstance(value, numpy.ndarray):
        return None
    head = numpy.ndarray.flat.__get__(value)[:_HEAD_ITEMS].tolist()
    shape = list(value.shape)
    pairs = [("type", "ndarray"), ("dtype", str(value.dtype)), ("shape", shape), ("head", head)]
    return Pairs(pairs, len(pairs))


def _pandas(value: Any) -> Form | None:
    pandas = sys.modules.get("pandas")
    if pandas is None:
        return None
    if isinstance(value, pandas.DataFrame):
        rows = value.iloc[:_HEAD_ITEMS, :_HEAD_COLUMNS]
        head = [dict(zip(rows.columns, row, strict=True)) for row in rows.itertuples(index=False)]
        return Pairs(
            [("type", "DataFrame"), ("shape", list(value.shape)), ("head", head)],
            3,
        )
    if isinstance(value, pandas.Series):
        name = value.name if isinstance(value.name, str) else "head"
        pairs = [
            ("type", "Series"),
            ("dtype", str(value.dtype)),
            ("size", int(value.size)),
            (name, value.iloc[:_HEAD_ITEMS].tolist()),
        ]
        return Pairs(pairs, len(pairs))
    return None


def _tensor(value: Any) -> Form | None:
    """A tensor by its shape only: its values may live on a device."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        return None
    return Text(f"<{type(value).__qualname__} {dtype} {list(shape)}>")


_FOREIGN: Final[dict[str, Any]] = {
    "numpy": _numpy,
    "pandas": _pandas,
    "torch": _tensor,
    "jax": _tensor,
    "jaxlib": _tensor,
    "tensorflow": _tensor,
    "cupy": _tensor,
}
