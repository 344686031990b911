"""Values: what is written is strict JSON with Burr's meaning, and comes back equal."""

import dataclasses
import datetime as dt
import decimal
import enum
import importlib
import json
import logging
import math
import sys
import uuid

import numpy as np
import orjson
import pydantic
import pytest
from burr.core import State, serde
from burr.core.state import FIELD_SERIALIZATION, register_field_serde
from burr.integrations.serde import pickle as burr_pickle
from burr.integrations.serde import pydantic as burr_pydantic
from burr.tracking import LocalTrackingClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_support import (
    begin,
    finish_step,
    folder_of,
    log_attribute,
    log_records,
    run_step,
    start_step,
    values_of,
)

from burr_otel import printable
from burr_otel.errors import SnapshotError
from burr_otel.records import BeginInner
from burr_otel.store import Store, exact, values
from burr_otel.store.encoded import object_pieces
from burr_otel.store.values import encode_state

PROFILE = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def store(tmp_path):
    return Store("proj", tmp_path)


@pytest.fixture(autouse=True)
def _warn_again():
    printable._warned.clear()


def encode(items, **serde_kwargs):
    return encode_state(State(items), serde_kwargs=serde_kwargs, run="p/a", sequence_id=3)


def alike(left, right):
    """Equal in value and type, with NaN equal to NaN and -0.0 different from 0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return (left == right and math.copysign(1, left) == math.copysign(1, right)) or (
            math.isnan(left) and math.isnan(right)
        )
    if isinstance(left, dict):
        if len(left) != len(right):
            return False
        pairs = zip(left.items(), right.items(), strict=True)
        return all(alike(a, c) and alike(b, d) for (a, b), (c, d) in pairs)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(alike, left, right))
    return left == right


def strict(text: bytes):
    """Parse as a browser would: no NaN, no lone surrogates, UTF-8."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    parsed = json.loads(text.decode(), parse_constant=refuse)
    json.dumps(parsed, ensure_ascii=False).encode()
    return parsed


# Characters include lone surrogates; integers go far beyond 64 bits.
texts = st.text(st.characters(codec=None, exclude_categories=())) | st.sampled_from(
    ["", serde.KEY, "\ud800", "\ud83d\ude00", "__SEQ", "null", "1", "1~", "\x00\n\r\u2028"]
)
integers = st.integers() | st.sampled_from([2**63, -(2**64), 10**400, 10**700, -(10**4200)])
scalars = st.none() | st.booleans() | integers | st.floats() | texts
keys = st.recursive(texts | scalars, lambda key: st.tuples(key) | st.tuples(key, key), max_leaves=3)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
states = st.dictionaries(texts.filter(lambda key: not key.startswith("__")), documents, max_size=4)


@PROFILE
@given(states)
def test_any_json_like_state_comes_back_equal_and_is_strict_json(tmp_path_factory, items):
    """NaN, infinities, huge integers, lone surrogates, empty and non-string keys included."""
    store = Store("proj", tmp_path_factory.mktemp("store"))
    run_step(begin(store), 0, items)
    assert alike(values_of(store.load(None, "a")), items)
    log = folder_of(store, "a") / "log.jsonl"
    for line in log.read_bytes().splitlines():
        strict(line)
    assert LocalTrackingClient("proj", str(log.parents[2])).load(None, "a") is not None


@pytest.mark.parametrize("number", [-(2**63) - 1, -(10**19) + 1, 2**64, 10**19])
def test_an_integer_just_beyond_64_bits_comes_back(store, number):
    """The quick JSON parser makes a float of it, without an error."""
    run_step(begin(store), 0, {"n": number})
    assert values_of(store.load(None, "a")) == {"n": number}
    assert type(values_of(store.load(None, "a"))["n"]) is int


def test_an_integer_that_python_refuses_to_print_comes_back(store):
    """Beyond `sys.int_max_str_digits` no JSON parser in Python reads it, so it is kept in hex."""
    items = {"n": 10**5000, "deep": [{-(10**6000): 1}]}
    run_step(begin(store), 0, items)
    assert values_of(store.load(None, "a")) == items
    strict((folder_of(store, "a") / "log.jsonl").read_bytes().splitlines()[-1])


class Colour(enum.Enum):
    RED = 1


class Word(str):
    __slots__ = ()


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Point:
    x: int


odd = st.sampled_from(
    [
        (1, 2), {3}, b"raw", Colour.RED, Level.LOW, Word("w"), Point(1), uuid.UUID(int=5),
        decimal.Decimal("1.5"), dt.date(2024, 1, 2), np.float64(2.5), np.int64(3),
        1 + 2j, range(3), len, Colour, object, ...,
    ]
)  # fmt: skip
odd_documents = st.recursive(
    scalars | odd,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@PROFILE
@given(st.dictionaries(texts, odd_documents, max_size=4))
def test_the_encoding_is_exactly_burrs_serialize(items):
    """Whatever the fast path skips: the result is what `State.serialize` gives."""
    encoded = encode(items)
    text = json_of(encoded)
    document = json.loads(text) if not encoded.int64 else orjson.loads(text)
    exact.restore(document, [patch for patch in encoded.exact if patch[1] != exact.OBJECT])
    expected = State(items).serialize()
    assert alike(document, _plain(expected))


def _plain(value):
    """Burr's result without subclasses of the JSON types."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind.__str__(value) if kind is str else kind(value)
    return value


def json_of(encoded):
    return b"".join(object_pieces(encoded.fragments))


def is_plain(encoded):
    return all(map(encoded.is_exact, encoded.fragments))


@pytest.mark.parametrize("value", [1, float("nan")], ids=["fast", "slow"])
def test_the_json_of_one_key_can_be_had(value):
    """Spans reuse it, so that a value is encoded once."""
    encoded = encode({"a": [1], "b": {"c": value}})
    inner = b"1" if value == 1 else b"null"
    assert encoded.fragments == {"a": b"[1]", "b": b'{"c":%b}' % inner}
    assert json_of(encoded) == b'{"a":[1],"b":{"c":%b}}' % inner
    assert encoded.is_exact("a"), "a key is not to blame for its neighbours"
    assert encoded.is_exact("b") is (value == 1)
    assert not encoded.is_exact("unknown")


@pytest.mark.parametrize(
    "items",
    [
        {},
        {"a": 1},
        {"é": [1], "b": {"c": ["largest", 2, 3]}, "d": None},
        {"largest": "x" * 99, "b": [1]},
        {"b": [], "a": "y" * 70_000, "largest": [{}] * 90_000},
        {"a": "y" * 70_000, "b": "é\n"},
        {"__SEQUENCE_ID": 3, "h": "x" * 70_000, "__PRIOR_STEP": "step"},
        {str(number): "x" * 70_000 for number in range(600)},
    ],
    ids=lambda items: "-".join(list(items)[:4]) or "empty",
)
def test_the_pieces_of_a_state_are_its_json(items):
    """Large values stand uncopied between the others, and never too many for one system call."""
    encoded = encode(items)
    pieces = object_pieces(encoded.fragments)
    assert json_of(encoded) == orjson.dumps(items)
    large = [text for text in encoded.fragments.values() if len(text) >= 64 * 1024]
    if len(items) < 500:
        assert [piece for piece in pieces if any(piece is text for text in large)] == large
    assert len(pieces) <= 1024


def test_plain_json_takes_the_fast_path(monkeypatch):
    """The speed of the store depends on it."""
    monkeypatch.setattr(values, "Walk", None)
    encode({"a": [1, None, {"b": [True, "x", 1.5]}], "c": "é", "d": None, "e": 2**63})
    with pytest.raises(TypeError):
        encode({"a": (1,)})


def test_a_user_dict_with_burrs_key_comes_back_and_imports_nothing(store, tmp_path, monkeypatch):
    """State values are data: they never choose what a load imports, with us or with Burr."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "burr_otel_evil.py").write_text("class Evil: pass\n")
    evil = {serde.KEY: "pydantic", "__pydantic_class": "burr_otel_evil.Evil", "x": 1}
    items = {"top": evil, "deep": [{"list": [evil, {serde.KEY: None}]}], serde.KEY: "pickle"}
    run_step(begin(store), 0, items)
    assert values_of(store.load(None, "a")) == items
    LocalTrackingClient("proj", str(tmp_path)).load(None, "a")
    assert "burr_otel_evil" not in sys.modules
    importlib.import_module("burr_otel_evil")  # it could have been
    del sys.modules["burr_otel_evil"]


class Model(pydantic.BaseModel):
    name: str
    numbers: dict[int, float]
    when: dt.datetime
    pair: tuple[int, str]


@pytest.mark.filterwarnings("ignore::Warning")  # Burr 0.43 warns of importing what a log names
def test_registered_serializers_round_trip(store):
    """Pydantic models come back as models, with what is not JSON inside them."""
    assert burr_pydantic is not None  # importing it registers
    model = Model(
        name="\ud800x".encode("utf-8", "replace").decode(),
        numbers={1: float("inf"), -2: 0.5},
        when=dt.datetime(2024, 5, 6, 7, 8, 9, tzinfo=dt.timezone.utc),
        pair=(1, "b"),
    )
    run_step(begin(store), 0, {"m": model, "list": [model]})
    assert values_of(store.load(None, "a")) == {"m": model, "list": [model]}


class Opaque:
    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return self.value == other.value

    __hash__ = None


def test_pickled_values_round_trip(store):
    """Burr's pickle serde returns bytes, which Burr's own client cannot write."""
    burr_pickle.register_type_to_pickle(Opaque)
    run_step(begin(store), 0, {"o": Opaque({1, 2})})
    assert values_of(store.load(None, "a")) == {"o": Opaque({1, 2})}


def test_field_serde_and_serde_kwargs_are_used(tmp_path, monkeypatch):
    """Burr's per-field serializers win over the type's, and get the keyword arguments."""
    monkeypatch.delitem(FIELD_SERIALIZATION, "secret", raising=False)
    register_field_serde(
        "secret",
        lambda value, factor=1, **kwargs: {"v": value * factor},
        lambda value, factor=1, **kwargs: value["v"] // factor,
    )
    try:
        store = Store("proj", tmp_path, serde_kwargs={"factor": 3})
        run_step(begin(store), 0, {"secret": 5, "n": 1}, serde_kwargs={"factor": 3})
        assert values_of(store.load(None, "a")) == {"secret": 5, "n": 1}
        end = log_records(folder_of(store, "a") / "log.jsonl")[-1]
        assert end["state"]["secret"] == {"v": 15}
        register_field_serde("secret", lambda value, **kw: value, lambda value, **kw: value)
        with pytest.raises(SnapshotError, match="not a dict"):
            encode({"secret": 5})
    finally:
        del FIELD_SERIALIZATION["secret"]


def test_a_serializer_registered_for_str_is_respected():
    """The fast path steps aside when somebody changes what a plain value means."""
    original = serde.serialize.registry[str]
    serde.serialize.register(str, lambda value, **kwargs: value.upper())
    try:
        assert json_of(encode({"a": "x"})) == b'{"a":"X"}'
    finally:
        serde.serialize.register(str, original)
    assert json_of(encode({"a": "x"})) == b'{"a":"x"}'


def test_what_burr_can_only_turn_into_text_is_named_once(store, caplog):
    """Key and type, once a run."""
    session = begin(store)
    for number in range(3):
        run_step(session, number, {"span": range(3), "deep": {"x": [bytearray(b"1")]}, "ok": 1})
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "proj/a: state key 'span' holds a builtins.range" in messages[0]
    assert "state key 'deep' holds a builtins.bytearray" in messages[1]
    assert values_of(store.load(None, "a")) == {
        "span": "range(0, 3)", "deep": {"x": ["bytearray(b'1')"]}, "ok": 1,
    }  # fmt: skip


class Hostile:
    def __str__(self):
        raise RuntimeError("no text for you")

    __repr__ = __str__


def cyclic():
    value = {"a": []}
    value["a"].append(value)
    return value


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (Hostile(), "no text for you"),
        ({Hostile(): 1}, "no text for you"),
        (cyclic(), "containing itself"),
        (nested(5000), "nested more than 200 levels"),
        ({"x": [nested(300)]}, "nested more than 200 levels"),
    ],
    ids=["str-raises", "key-str-raises", "cycle", "very-deep", "deep"],
)
def test_what_cannot_be_written_is_a_snapshot_error_that_names_the_key(value, why):
    """With run, key, step and cause; the state is not partly written."""
    with pytest.raises(SnapshotError, match=why) as caught:
        encode({"fine": 1, "guilty": value})
    error = caught.value
    assert (error.run, error.key, error.sequence_id) == ("p/a", "guilty", 3)
    assert "p/a: state key 'guilty' of step 3" in str(error)


def test_the_deepest_value_that_is_written_is_read_by_everybody(store, tmp_path):
    """The limit is below that of every reader."""
    items = {"fast": nested(values.MAX_DEPTH), "slow": [nested(values.MAX_DEPTH - 2), math.inf]}
    run_step(begin(store), 0, items)
    assert values_of(store.load(None, "a")) == items
    LocalTrackingClient("proj", str(tmp_path)).load(None, "a")


@pytest.mark.parametrize(
    "value",
    [
        Hostile(), cyclic(), nested(5000), float("nan"), 10**5000, "\ud800", b"\xff",
        {("a", 1): 2}, {1: 1, "1": 2}, np.arange(3), open, "x" * 10_000_000, {serde.KEY: "pickle"},
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_inputs_results_and_attributes_never_raise(store, value, caplog):
    """They are only looked at; whatever they are, the log stays strict JSON and the step counts."""
    session = begin(store)
    caplog.set_level(logging.ERROR)
    start_step(session, inputs={"i": value})
    log_attribute(session, value=value)
    finish_step(session, 0, {"n": 1}, result={"r": value})
    found = [
        strict(line) for line in (folder_of(store, "a") / "log.jsonl").read_bytes().splitlines()
    ]
    assert [record["type"] for record in found] == [
        "otel_root",
        "begin_entry",
        "attribute",
        "end_entry",
    ]
    assert set(found[1]["inputs"]) == {"i"}
    assert store.load(None, "a")["sequence_id"] == 0


def test_hostile_texts_everywhere_are_scrubbed(store):
    """Names, tags and tracebacks come from user code too."""
    session = begin(store)
    bad = "\ud800\u2028\r\n\x00"
    start_step(session, action=bad, inputs={bad: bad})
    session.append(BeginInner(0, bad, bad, bad, [bad], 1))
    log_attribute(session, bad, bad, tags={bad: bad, 1: 2}, span_id=bad)
    finish_step(session, 0, {bad: bad}, exception=bad)
    lines = (folder_of(store, "a") / "log.jsonl").read_bytes().split(b"\n")
    assert len(lines) == 6
    for line in lines[:-1]:
        strict(line)
    assert values_of(store.load(None, "a")) == {bad: bad}


def test_a_patch_that_cannot_be_read_leaves_its_stand_in(caplog):
    """A record of a later version, or a damaged one, still loads."""
    document = {"a": None, "b": "x"}
    exact.restore(
        document, [[["a"], "later", 1], "junk", [["c", 0], "float", "nan"], [["b"], "int", "0x7"]]
    )
    assert document == {"a": None, "b": 7}
    assert len(caplog.records) == 3


@pytest.mark.parametrize("underscores", [0, 1, 15, 16, 17, 500])
def test_burrs_mark_is_found_in_a_long_state(underscores):
    """Behind any number of other underscores; the user's own text of that name comes back."""
    text = "x" * 10_000 + "_ " * underscores
    assert not is_plain(encode({"text": text, "marked": {serde.KEY: "pickle"}}))
    assert is_plain(encode({"text": text, "marked": None}))


class Tone(str, enum.Enum):
    LOUD = "loud"


@pytest.mark.parametrize("rows", [1, 300], ids=["few", "many"])
@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Tone.LOUD, False), (Level.LOW, False), (Word("w"), False), (uuid.UUID(int=5), False),
        ((), False), ((1, 2), False), (orjson.Fragment(b"1"), False), ({"d": (1,)}, False),
        ([1.5, math.nan], False), ([math.inf, -math.inf, 1], False), ([None, math.nan], False),
        ([None, 1.5], True), ([1e308, 1e308], True), ([2**64 - 1, 0.5, True], True), ({}, True),
        ({"[": "null"}, True), ([], True),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_the_proof_is_exact_in_the_midst_of_plain_values(value, plain, rows):
    """What `orjson` writes and Burr writes otherwise is seen in a list of many small dicts, too."""
    items = {"n": 0, "rows": [{"a": "text", "n": 1} for _ in range(rows)]}
    for at in (0, rows // 2, rows - 1):
        items["rows"][at]["odd"] = value
        encoded = encode(items)
        assert is_plain(encoded) is plain
        if plain:
            assert json_of(encoded) == orjson.dumps(State(items).serialize())


@pytest.mark.parametrize("depth", [198, 199, 200, 201, 202, 253])
@pytest.mark.parametrize("leaf", [[], {}, 1, [1.5], {"a": None}], ids=repr)
def test_depths_about_the_limit_are_written_by_both_ways_alike(depth, leaf):
    """Whether a value is refused does not depend on the way that it takes."""
    value = leaf
    for _ in range(depth):
        value = [value]

    def outcome(items):
        try:
            return orjson.loads(json_of(encode(items)))["deep"]
        except SnapshotError:
            return "refused"

    assert outcome({"deep": value}) == outcome({"deep": value, "slow": (1,)})
