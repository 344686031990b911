"""Values that must go through every entry point: odd, huge, broken and malicious ones.

`ZOO` is a list of ``(name, make)``; ``make()`` builds the value anew. Optional libraries are imported
by the factories, which call `pytest.importorskip`. Values that know when they were consumed or
asked too often say so through `ConsumedError`.
"""

from __future__ import annotations

import array
import asyncio
import collections
import contextvars
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import io
import itertools
import pathlib
import re
import socket
import sys
import threading
import types
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from unittest import mock

import pytest


class ConsumedError(AssertionError):
    """A value was iterated that must be left alone, or far more often than can be kept."""


class Colour(enum.Enum):
    RED = "red"


class Role(str, enum.Enum):
    USER = "user"


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: str


@dataclasses.dataclass
class Order:
    id: int
    password: str = dataclasses.field(default="hidden by its repr setting", repr=False)
    items: list[Any] = dataclasses.field(default_factory=list)


class PlainMessage:
    """Like a chat message: public attributes, no repr of its own."""

    def __init__(self) -> None:
        self.type = "human"
        self.content = "hello"
        self._private = "not shown"


class PictureLike:
    """Like PIL's images: a repr with an address in it."""

    def __repr__(self) -> str:
        return f"<Picture mode=RGB size=640x480 at 0x{id(self):X}>"


class TextSubclass(str):
    __slots__ = ()

    def __len__(self) -> int:
        raise RuntimeError("len of text")

    def __getitem__(self, _: Any) -> Any:
        raise RuntimeError("item of text")

    def __str__(self) -> Any:
        raise RuntimeError("str of text")

    def encode(self, *_: Any) -> Any:
        raise RuntimeError("encode of text")


class ListSubclass(list):
    def __iter__(self) -> Any:
        raise RuntimeError("iter of list")

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, _: Any) -> Any:
        raise RuntimeError("item of list")


class DictSubclass(dict):
    def items(self) -> Any:
        raise RuntimeError("items of dict")

    def __iter__(self) -> Any:
        raise RuntimeError("iter of dict")

    def __len__(self) -> int:
        return -1  # noqa: PLE0303  wrong on purpose


class IntSubclass(int):
    def __str__(self) -> str:
        raise RuntimeError("str of int")

    __repr__ = __str__

    def __lt__(self, _: Any) -> Any:
        raise RuntimeError("int compared")

    __le__ = __gt__ = __ge__ = __eq__ = __lt__
    __hash__ = int.__hash__


class FloatSubclass(float):
    def __repr__(self) -> str:
        raise RuntimeError("repr of float")


class EndlessMapping(Mapping):
    """Yields keys for ever; raises `ConsumedError` when far more are taken than fit anywhere."""

    def __init__(self) -> None:
        self.asked = 0

    def __getitem__(self, key: Any) -> Any:
        return key

    def __iter__(self) -> Any:
        for number in itertools.count():
            self.asked += 1
            if self.asked > 100_000:
                raise ConsumedError(self.asked)
            yield f"key {number}"

    def __len__(self) -> int:
        return 3


class BrokenMapping(Mapping):
    def __getitem__(self, key: Any) -> Any:
        raise LookupError(key)

    def __iter__(self) -> Any:
        yield "first"
        yield "second"
        raise OSError("the connection was lost")

    def __len__(self) -> int:
        raise TypeError("no length")


class WrongMapping(Mapping):
    def __getitem__(self, key: Any) -> Any:
        return None

    def __iter__(self) -> Any:
        return 5  # type: ignore[return-value]

    def __len__(self) -> Any:
        return "many"  # noqa: PLE0303  wrong on purpose


class EndlessSequence(Sequence):
    def __getitem__(self, index: Any) -> Any:
        return index

    def __len__(self) -> int:
        return sys.maxsize


class EndlessIterable:
    def __iter__(self) -> Any:
        raise ConsumedError("an iterable of unknown cost")


class RaisesEverywhere:
    """Whatever is asked of it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"attribute {name}")

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    __str__ = __repr__

    def __eq__(self, _: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        raise RuntimeError("hash")

    def __len__(self) -> int:
        raise RuntimeError("len")

    def __iter__(self) -> Any:
        raise RuntimeError("iter")

    def __bool__(self) -> bool:
        raise RuntimeError("bool")


class LyingClass:
    """Says that it is a dict."""

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return dict


class RaisingClass:
    @property
    def __class__(self) -> type:  # type: ignore[override]
        raise RuntimeError("class")


class Meta(type):
    """Classes whose own attributes raise."""

    def __getattribute__(cls, name: str) -> Any:
        if name in ("__module__", "__qualname__", "__name__", "__mro__"):
            raise RuntimeError(f"class attribute {name}")
        return super().__getattribute__(name)


class OfMeta(metaclass=Meta):
    pass


class AnswersAll:
    """Has every attribute, like a mock."""

    def __getattr__(self, name: str) -> Any:
        return AnswersAll()


class BadDict:
    """Its ``__dict__`` is no dict."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("dict")


class HugeRepr:
    def __repr__(self) -> str:
        return "x" * 10_000_000


class HeavyRepr:
    """Its repr would write out all that it holds."""

    def __init__(self) -> None:
        self.rows = [0] * 1_000_000

    def __repr__(self) -> str:
        raise ConsumedError("repr of a million items")


def _repr_that(action: Callable[[], Any]) -> Callable[[], Any]:
    """An object whose repr does something."""

    def make() -> Any:
        class Odd:
            def __repr__(self) -> Any:
                return action()

        return Odd()

    return make


def _raise(error: BaseException) -> Any:
    raise error


def _endless() -> str:
    """Runs out of stack."""
    return _endless()


def _cycle_list() -> Any:
    value: list[Any] = []
    value += [value, {"again": value}]
    return value


def _cycle_dict() -> Any:
    value: dict[str, Any] = {"name": "x"}
    value["self"] = value
    return value


def _cycle_object() -> Any:
    value = PlainMessage()
    value.content = {"me": value}  # type: ignore[assignment]
    return value


def _deep(levels: int, wrap: Callable[[Any], Any]) -> Callable[[], Any]:
    def make() -> Any:
        value: Any = 1
        for _ in range(levels):
            value = wrap(value)
        return value

    return make


def _bomb() -> Any:
    """Thirty levels that share their parts: 2**30 leaves in thirty lists."""
    value: Any = "boom"
    for _ in range(30):
        value = [value, value]
    return value


def _generator() -> Any:
    raise ConsumedError("a generator")
    yield


async def _async_generator() -> Any:
    raise ConsumedError("an async generator")
    yield


def _coroutine() -> Any:
    async def never() -> None:
        raise ConsumedError("a coroutine")

    coroutine = never()
    coroutine.close()
    return coroutine


def _counted(limit: int = 0) -> Any:
    def step(item: Any) -> Any:
        raise ConsumedError("an iterator")

    return map(step, range(10 + limit))


def _socket() -> Any:
    made = socket.socket()
    made.close()
    return made


def _growing() -> Any:
    """A dict whose value adds to it while it is read."""
    value: dict[Any, Any] = {}

    class Adds:
        def __repr__(self) -> str:
            value[len(value)] = 1
            return "added"

    value.update({"a": Adds(), "b": Adds(), "c": Adds()})
    return value


def _growing_list() -> Any:
    value: list[Any] = []

    class Adds:
        def __repr__(self) -> str:
            value.append(Adds())
            return "added"

    value += [Adds(), Adds()]
    return value


def _module(name: str) -> Any:
    return pytest.importorskip(name)


def _pydantic() -> Any:
    pydantic = _module("pydantic")

    class Message(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")
        role: str
        content: str
        key: pydantic.SecretStr = pydantic.SecretStr("kept by pydantic")
        left_out: str = pydantic.Field("left out", exclude=True)

    return Message(role="user", content="hello", more=[1, 2])


def _traceback() -> Any:
    try:
        raise ValueError("here")
    except ValueError as error:
        return error.__traceback__


def _state() -> Any:
    from burr.core import State

    return State({"a": 1, "nested": {"b": [1, 2]}})


def _object_array() -> Any:
    made = _module("numpy").empty(3, dtype=object)
    made[1], made[2] = RaisesEverywhere(), {"a": 1}
    return made


def _proxy() -> Any:
    class Target:
        pass

    target = Target()
    return weakref.proxy(target)  # its target is gone when it is looked at


class _Slotted:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 1


ZOO: list[tuple[str, Callable[[], Any]]] = [
    # --- numbers
    ("int beyond 64 bits", lambda: 2**70),
    ("negative int beyond 64 bits", lambda: -(2**80)),
    ("int beyond a double", lambda: 10**400),
    ("int beyond the str limit", lambda: 10**10_000),
    ("int of a million bits", lambda: 1 << 1_000_000),
    ("int subclass that raises", lambda: IntSubclass(7)),
    ("float subclass that raises", lambda: FloatSubclass(1.5)),
    ("nan", lambda: float("nan")),
    ("infinity", lambda: float("inf")),
    ("minus infinity", lambda: float("-inf")),
    ("minus zero", lambda: -0.0),
    ("complex", lambda: complex("nan+1j")),
    ("decimal", lambda: decimal.Decimal("1E+1000000")),
    ("decimal snan", lambda: decimal.Decimal("sNaN")),
    ("fraction of huge ints", lambda: fractions.Fraction(10**5000, 3)),
    # --- texts
    ("lone surrogate", lambda: "a\ud800b"),
    ("swapped surrogates", lambda: "\udc00\ud800"),
    ("NUL and controls", lambda: "\0\x01\x1f\x7f\x85\u2028"),
    ("emoji", lambda: "👩‍👩‍👧‍👦" * 50),
    ("long string", lambda: "x" * 10_000_000),
    ("long string of surrogates", lambda: "\ud800" * 1_000_000),
    ("long string of escapes", lambda: '"\\\x00' * 500_000),
    ("long string of emoji", lambda: "👪" * 1_000_000),
    ("text subclass that raises", lambda: TextSubclass("abc")),
    ("bytes", lambda: b"abc"),
    ("binary", lambda: bytes(range(256)) * 100),
    ("long bytes", lambda: b"\xff" * 10_000_000),
    ("long text bytes", lambda: "é".encode() * 5_000_000),
    ("bytearray", lambda: bytearray(b"\xf0\x9f")),
    ("memoryview", lambda: memoryview(b"abc" * 1000)[::2]),
    ("released memoryview", lambda: (view := memoryview(b"abc"), view.release())[0]),
    # --- containers
    ("ten million items", lambda: [0] * 10_000_000),
    ("tuple of a million", lambda: (None,) * 1_000_000),
    ("million keys", lambda: dict.fromkeys(range(1_000_000))),
    ("million text keys", lambda: {str(number): number for number in range(1_000_000)}),
    ("million item set", lambda: set(range(1_000_000))),
    ("million item deque", lambda: collections.deque([1], maxlen=5) + collections.deque([1] * 1_000_000)),
    ("million byte array", lambda: array.array("d", [0.0]) * 1_000_000),
    ("list of long strings", lambda: ["x" * 1_000_000] * 1_000),
    ("long keys", lambda: {"k" * 1_000_000 + str(number): number for number in range(5)}),
    ("list cycle", _cycle_list),
    ("dict cycle", _cycle_dict),
    ("object cycle", _cycle_object),
    ("list 100,000 deep", _deep(100_000, lambda value: [value])),
    ("dict 100,000 deep", _deep(100_000, lambda value: {"k": value})),
    ("tuple 1,000 deep", _deep(1_000, lambda value: (value, 1))),
    ("objects 5,000 deep", _deep(5_000, lambda value: types.SimpleNamespace(value=value))),
    ("shared parts, 2**30 leaves", _bomb),
    ("odd keys", lambda: {None: 1, True: 2, 1.5: 3, (1, "a"): 4, b"k": 5, Colour.RED: 6, "1.5": 7}),
    ("nan keys", lambda: {float("nan"): 1, float("nan"): 2, "NaN": 3}),
    ("keys that read the same", lambda: {1: "a", "1": "b", "1 (2)": "c"}),
    ("surrogate keys", lambda: {chr(0xD800): 1, chr(0xD801): 2, "\ufffd": 3}),
    ("huge int key", lambda: {10**10_000: 1}),
    ("set of texts", lambda: {"b", "a", "c"}),
    ("mixed set", lambda: {1, "a", None, (1, 2), 2.5, frozenset((1,))}),
    ("namedtuple", lambda: Point(1, "a")),
    ("counter", lambda: collections.Counter("hello")),
    ("chain map", lambda: collections.ChainMap({"a": 1}, {"b": 2})),
    ("ordered dict", lambda: collections.OrderedDict(a=1)),
    ("user dict", lambda: collections.UserDict(a=1)),
    ("user list", lambda: collections.UserList([1])),
    ("mapping proxy", lambda: types.MappingProxyType({"a": 1})),
    ("dict views", lambda: [{"a": 1}.keys(), {"a": 1}.values(), {"a": 1}.items()]),
    ("list subclass that raises", lambda: ListSubclass([1, 2])),
    ("dict subclass that raises", lambda: DictSubclass(a=1)),
    ("dict that grows", _growing),
    ("list that grows", _growing_list),
    ("endless mapping", EndlessMapping),
    ("broken mapping", BrokenMapping),
    ("wrong mapping", WrongMapping),
    ("endless sequence", EndlessSequence),
    ("endless iterable", EndlessIterable),
    ("huge range", lambda: range(10**100)),
    ("range beyond the str limit", lambda: range(10**5000)),
    # --- what must not be consumed
    ("generator", _generator),
    ("async generator", _async_generator),
    ("coroutine", _coroutine),
    ("map", _counted),
    ("count", itertools.count),
    ("repeat of much", lambda: itertools.repeat([0] * 1_000_000)),
    ("open file", lambda: io.StringIO("must stay unread")),
    # --- hostile objects
    ("raises everywhere", RaisesEverywhere),
    ("says it is a dict", LyingClass),
    ("raises for its class", RaisingClass),
    ("class attributes raise", OfMeta),
    ("answers all", AnswersAll),
    ("mock", lambda: mock.MagicMock(name="m")),
    ("no dict", BadDict),
    ("huge repr", HugeRepr),
    ("heavy repr", HeavyRepr),
    ("repr returns None", _repr_that(lambda: None)),
    ("repr returns bytes", _repr_that(lambda: b"abc")),
    ("repr returns a text subclass", _repr_that(lambda: TextSubclass("abc"))),
    ("repr returns surrogates", _repr_that(lambda: "\ud800")),
    ("repr raises", _repr_that(lambda: _raise(ValueError("no repr")))),
    ("repr exits", _repr_that(lambda: _raise(SystemExit(3)))),
    ("repr is cancelled", _repr_that(lambda: _raise(asyncio.CancelledError()))),
    ("repr closes", _repr_that(lambda: _raise(GeneratorExit()))),
    ("repr recurses", _repr_that(_endless)),
    # --- objects that people have
    ("enum", lambda: Colour.RED),
    ("text enum", lambda: Role.USER),
    ("flag", lambda: Permission.READ | Permission.WRITE),
    ("dataclass", lambda: Order(1, "hunter2", [1])),
    ("dataclass class", lambda: Order),
    ("pydantic", _pydantic),
    ("plain message", PlainMessage),
    ("picture", PictureLike),
    ("slots", _Slotted),
    ("namespace", lambda: types.SimpleNamespace(a=1)),
    ("datetime", lambda: dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc)),
    ("date", lambda: dt.date(2024, 1, 2)),
    ("time", lambda: dt.time(1, 2)),
    ("timedelta", lambda: dt.timedelta(days=1, seconds=1)),
    ("uuid", lambda: uuid.UUID(int=1)),
    ("path", lambda: pathlib.PurePosixPath("/tmp/\udcff")),
    ("pattern", lambda: re.compile("a+")),
    ("match", lambda: re.match("a+", "aaa")),
    ("lambda", lambda: lambda: 1),
    ("function", lambda: _raise),
    ("builtin", lambda: len),
    ("method", lambda: "abc".upper),
    ("partial of much", lambda: functools.partial(print, [0] * 1_000_000)),
    ("class", lambda: int),
    ("module", lambda: sys),
    ("exception", lambda: ValueError("bad")),
    ("traceback", _traceback),
    ("frame", sys._getframe),
    ("code", lambda: _raise.__code__),
    ("socket", _socket),
    ("lock", threading.Lock),
    ("thread", threading.current_thread),
    ("event", threading.Event),
    ("context variable", lambda: contextvars.ContextVar("v", default=[0] * 10)),
    ("dead weak proxy", _proxy),
    ("object", object),
    ("ellipsis", lambda: ...),
    ("not implemented", lambda: NotImplemented),
    ("burr state", _state),
    # --- numpy and pandas
    ("1 GB array", lambda: _module("numpy").zeros(125_000_000)),
    ("broadcast petabyte", lambda: _module("numpy").broadcast_to(_module("numpy").float64(1), (10**5, 10**5, 10**5))),
    ("array with nan", lambda: _module("numpy").array([float("nan"), 1.0])),
    ("array of objects", _object_array),
    ("scalar array", lambda: _module("numpy").array(5)),
    ("structured array", lambda: _module("numpy").zeros(2, dtype=[("a", "i4"), ("b", "f8")])),
    ("numpy int", lambda: _module("numpy").int64(5)),
    ("numpy float", lambda: _module("numpy").float32("nan")),
    ("numpy bool", lambda: _module("numpy").bool_(True)),
    ("numpy text", lambda: _module("numpy").str_("abc")),
    ("numpy time", lambda: _module("numpy").datetime64("2024-01-01T00:00:00.123456789")),
    ("numpy NaT", lambda: _module("numpy").array(["NaT"], "datetime64[s]")[0]),
    ("numpy void", lambda: _module("numpy").zeros(1, dtype=[("a", "i4")])[0]),
    ("frame of data", lambda: _module("pandas").DataFrame({"a": [1, 2], "b": ["x", None]})),
    ("wide frame", lambda: _module("pandas").DataFrame([range(2_000)] * 3)),
    ("frame with columns of one name", lambda: _module("pandas").DataFrame([[1, 2]], columns=["a", "a"])),
    ("series", lambda: _module("pandas").Series([1, 2], name="n")),
    ("index", lambda: _module("pandas").Index([1, 2])),
    ("timestamp", lambda: _module("pandas").Timestamp("2024-01-01")),
    ("NaT", lambda: _module("pandas").NaT),
    ("NA", lambda: _module("pandas").NA),
]  # fmt: skip
"""Name and factory of every value."""
