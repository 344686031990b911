"""Values that would not come back equal: named when written, and those that can do come back."""

import dataclasses
import datetime as dt
import decimal
import enum
import sys
import types
import uuid
import warnings

import pydantic
import pytest
from burr.core import serde
from burr.integrations.serde import pickle as burr_pickle
from burr.integrations.serde import pydantic as burr_pydantic
from store_support import begin, run_step, values_of
from test_store_values import alike

from burr_otel import printable
from burr_otel.errors import StateLoadError, StoreError
from burr_otel.store import Store

pytestmark = pytest.mark.filterwarnings(
    "ignore:Deserializing pydantic class:Warning",  # Burr's, when a test loads
    "ignore::pydantic.warnings.PydanticDeprecatedSince20",
)
assert burr_pydantic is not None  # importing it registers


@pytest.fixture
def store(tmp_path):
    return Store("proj", tmp_path)


@pytest.fixture(autouse=True)
def _warn_again():
    printable._warned.clear()


class Mood(enum.Enum):
    GOOD = "good"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Nested:
    """Holds another class."""

    class Mood(enum.Enum):
        """Of the same name."""

        BAD = 1


UTC2 = dt.timezone(dt.timedelta(hours=2))


@pytest.mark.parametrize(
    "value",
    [
        Mood.GOOD, Nested.Mood.BAD, Right.READ, {"a"}, frozenset({1, (2, 3)}), set(), (), (1,),
        (1, ["x", {"k": (2.5, None)}], b"\xff"), decimal.Decimal("1.10"), decimal.Decimal("NaN"),
        dt.datetime(2026, 1, 1, 12, 30, tzinfo=UTC2), dt.datetime(2026, 1, 1, 1, 1, 1, 7),  # noqa: DTZ001 - naive ones, too

        dt.date(2026, 1, 2), dt.time(1, 2, 3), dt.timedelta(days=-1, microseconds=5),
        uuid.UUID(int=5), 1 + 2j, b"raw", (float("inf"), 10**400, "\ud800"),
        {"deep": [{"x": (Mood.GOOD, {3})}]}, {1: (2, 3), "__burr_serde__": {"y"}},
    ],
    ids=repr,
)  # fmt: skip
def test_what_burr_would_keep_as_text_comes_back_equal(store, value, caplog):
    """Enumerations, sets, tuples, numbers, dates: as a typed state needs them, and in silence."""
    run_step(begin(store), 0, {"v": value, "list": [value], "plain": 1})
    found = values_of(store.load(None, "a"))
    expected = {"v": value, "list": [value], "plain": 1}
    assert alike(found, expected) or repr(found) == repr(expected), "NaN equals nothing"
    assert caplog.records == []
    state, _ = store.load_state("a")
    assert state["plain"] == 1


def test_the_text_that_burr_would_keep_stands_in_the_record(store):
    """For its UI and its own client."""
    run_step(begin(store), 0, {"mood": Mood.GOOD, "pair": (1, "x")})
    state, _ = store.load_state("a")
    assert (state["mood"], state["pair"]) == ("Mood.GOOD", "(1, 'x')")


class Message(pydantic.BaseModel):
    role: str


class ToolMessage(Message):
    call_id: str


class Chat(pydantic.BaseModel):
    messages: list[Message]


class Creds(pydantic.BaseModel):
    key: pydantic.SecretStr


class Hides(pydantic.BaseModel):
    a: int
    token: str = pydantic.Field(default="", exclude=True)


class Private(pydantic.BaseModel):
    a: int
    _n: int = pydantic.PrivateAttr(default=0)


class Alias(pydantic.BaseModel):
    a: int = pydantic.Field(alias="theA")


class Outer:
    """Holds another class."""

    class Memory(pydantic.BaseModel):
        """Burr names it by module and name alone."""

        facts: list[str]


def local_model():
    class Local(pydantic.BaseModel):
        a: int = 1

    return Local()


def with_private():
    made = Private(a=1)
    made._n = 7
    return made


@pytest.mark.parametrize(
    ("value", "named", "how"),
    [
        (Chat(messages=[Message(role="u"), ToolMessage(role="t", call_id="c")]),
         "ToolMessage", "messages.1 comes back as a"),
        (Creds(key="hunter2"), "SecretStr", "key"),
        (Hides(a=1, token="t"), "Hides", "token comes back changed"),
        (with_private(), "Private", "_n comes back changed"),
        (Alias(theA=3), "Alias", "ValidationError"),
        (Outer.Memory(facts=["x"]), "Outer.Memory", "AttributeError"),
        (local_model(), "Local", "AttributeError"),
        ([{"in": Creds(key="x")}], "SecretStr", "0.in.key"),
    ],
    ids=["subclass", "secret", "excluded", "private", "alias", "nested", "local", "in-a-list"],
)  # fmt: skip
def test_a_model_that_loses_something_is_named_once(store, caplog, value, named, how):
    """Run, key and type, with what to do; never the value."""
    session = begin(store)
    for number in range(3):
        run_step(session, number, {"v": value, "n": number})
    [message] = [record.getMessage() for record in caplog.records]
    assert "proj/a: state key 'v' holds a" in message
    assert named in message
    assert how in message
    assert "Register a serializer" in message
    assert "hunter2" not in message


def test_writing_a_model_brings_no_security_warning_of_burr(store, caplog):
    """What is read back to find losses was written in this process a moment ago."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_step(begin(store), 0, {"model": Message(role="user"), "list": [Chat(messages=[])]})
    assert caplog.records == []


def test_a_later_value_of_a_known_type_is_looked_at_too(store, caplog):
    """The first chat had nothing to lose."""
    session = begin(store)
    run_step(session, 0, {"v": Chat(messages=[Message(role="u")])})
    assert caplog.records == []
    run_step(session, 1, {"v": Chat(messages=[ToolMessage(role="u", call_id="1")])})
    assert "ToolMessage" in caplog.text


class Typed(pydantic.BaseModel):
    mood: Mood
    tags: set[str]
    price: decimal.Decimal
    at: dt.datetime
    by_id: dict[int, float]
    pair: tuple[int, str]


def test_a_model_with_values_of_any_type_comes_back_equal_and_in_silence(store, caplog):
    """Pydantic reads back what it wrote, NaN too."""
    value = Typed(
        mood=Mood.GOOD, tags={"a"}, price="1.10", at=dt.datetime(2026, 1, 1, tzinfo=UTC2),
        by_id={1: float("nan"), 2: float("inf")}, pair=(1, "x"),
    )  # fmt: skip
    run_step(begin(store), 0, {"v": value, "list": [value]})
    found = values_of(store.load(None, "a"))
    for back in (found["v"], *found["list"]):
        assert repr(back.by_id) == repr(value.by_id)
        assert back.model_copy(update={"by_id": {}}) == value.model_copy(update={"by_id": {}})
    assert caplog.records == []


class Opaque:
    """Without an equality of its own."""

    def __init__(self, value):
        self.value = value


@dataclasses.dataclass
class Point:
    x: int


class Unfaithful:
    def __init__(self, value):
        self.value = value


class Array:
    """Compares item by item, as arrays do."""

    def __eq__(self, other):
        return [True, False]

    def __bool__(self):
        raise ValueError("ambiguous")

    __hash__ = None


def test_other_serializers_are_believed_where_equality_says_nothing(store, caplog):
    """No false alarm for objects that compare by identity; one for those that really change."""
    for kind in (Opaque, Point, Unfaithful):
        burr_pickle.register_type_to_pickle(kind)

    @serde.serialize.register(Unfaithful)
    def write(value, **kwargs):
        return {serde.KEY: "unfaithful", "value": value.value}

    @serde.deserializer.register("unfaithful")
    def read(value, **kwargs):
        return Unfaithful(value["value"] + 1)

    session = begin(store)
    run_step(session, 0, {"o": Opaque({1, 2}), "p": Point(1)})
    assert caplog.records == []
    run_step(session, 1, {"u": Unfaithful(1)})
    assert "state key 'u' holds a test_store_lossless.Unfaithful" in caplog.text
    assert "value comes back changed" in caplog.text


@pytest.fixture
def models(monkeypatch):
    """A module whose classes can be taken away."""
    made = types.ModuleType("models_that_move")
    monkeypatch.setitem(sys.modules, "models_that_move", made)
    source = (
        "import enum, pydantic\n"
        "class Profile(pydantic.BaseModel):\n    name: str\n"
        "class Kind(enum.Enum):\n    A = 1\n"
    )
    exec(source, made.__dict__)
    for name in ("Profile", "Kind"):
        getattr(made, name).__module__ = "models_that_move"
    return made


@pytest.mark.parametrize(("name", "make"), [
    ("Profile", lambda m: m.Profile(name="Ann")),
    ("Kind", lambda m: m.Kind.A),
])  # fmt: skip
def test_a_class_that_is_gone_is_an_error_that_helps(store, models, name, make):
    """Run, step, key, class, cause, and the command that shows the state as it is stored."""
    run_step(begin(store), 3, {"fine": 1, "profile": make(models), "tuple": (1, 2)})
    assert repr(values_of(store.load(None, "a"))["profile"]) == repr(make(models))
    delattr(models, name)
    with pytest.raises(StateLoadError) as caught:
        store.load(None, "a")
    error = caught.value
    assert isinstance(error, StoreError)
    assert (error.run, error.sequence_id, error.key) == ("proj/a", 3, "profile")
    message = str(error)
    for told in ("proj/a", "'profile'", "step 3", f"models_that_move.{name}", "register",
                 "burr-otel show a --project proj --step 3 --unredacted"):  # fmt: skip
        assert told in message
    assert "Ann" not in message
    state, _ = store.load_state("a")
    assert state["fine"] == 1, "as it is stored, it can be looked at"


def test_a_state_whose_schema_changed_is_such_an_error_too(store, models):
    """The class is there and refuses the old data."""
    run_step(begin(store), 0, {"profile": models.Profile(name="Ann")})

    class Profile(pydantic.BaseModel):
        name: str
        age: int

    models.Profile = Profile
    with pytest.raises(StateLoadError, match="ValidationError") as caught:
        store.load(None, "a")
    assert caught.value.kind == "models_that_move.Profile"
