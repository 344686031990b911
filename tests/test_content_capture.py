"""Any value becomes readable JSON within its budget, at a cost that follows what is kept."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import gc
import json
import subprocess
import sys
import threading
import tracemalloc
from typing import Any

import pytest
from hostile import ZOO, EndlessMapping, HeavyRepr, PlainMessage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from burr_otel.content import ContentPolicy
from burr_otel.content.capture import capture

LIMIT = 16 * 1024


def describe(value: Any, limit: int = LIMIT) -> tuple[str, bool]:
    """What a span shows of a value, and whether it was cut."""
    return ContentPolicy(max_attribute_bytes=limit).document("state", value)


def encode(value: Any, limit: int = LIMIT) -> Any:
    """The value as a reader of the JSON gets it."""
    return json.loads(describe(value, limit)[0])


def cut(value: Any, limit: int = LIMIT) -> bool:
    return describe(value, limit)[1]


# --- plain values -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": None, "b": True, "c": 1, "d": -1.5, "e": "text", "f": [], "g": {}},
        {"nested": {"list": [1, [2, {"x": "y"}]]}},
        {"big": 2**63 - 1, "small": -(2**63), "unsigned": 2**64 - 1, "huge": 2**70},
        {"text": 'quotes " and \\ and \n and \0 and é and 👪'},
    ],
)
def test_json_values_come_out_as_they_are(value):
    """What JSON can carry is not changed."""
    assert encode(value) == value
    assert not cut(value)


def test_numbers_without_a_json_form_become_texts():
    """NaN and infinities, which strict JSON lacks, read as words; absurd ints as their size."""
    value = {"n": float("nan"), "p": float("inf"), "m": float("-inf"), "i": 10**5000}
    assert encode(value) == {
        "n": "NaN",
        "p": "Infinity",
        "m": "-Infinity",
        "i": "<int of 16610 bits>",
    }


def test_keys_that_are_no_text_read_well_and_stay_apart():
    """Keys of other types read as their JSON; two that read the same are numbered."""
    value = {None: 1, True: 2, 1.5: 3, (1, "a"): 4, 7: 5, "7": 6, dt.date(2024, 1, 2): 7}
    assert encode(value) == {
        "null": 1,
        "true": 2,
        "1.5": 3,
        '[1,"a"]': 4,
        "7": 5,
        "7 (2)": 6,
        "2024-01-02": 7,
    }


def test_the_keys_of_a_large_dict_stay_apart_too():
    """Keys written in portions and keys written one by one do not collide."""
    value: dict[Any, Any] = dict.fromkeys(map(str, range(40)), "text")
    value |= dict.fromkeys(range(40), "int")
    assert len(encode(value)) == 80


# --- objects that people have -------------------------------------------------------------------


class Shade(enum.Enum):
    DARK = 1


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Job:
    name: str
    when: dt.date
    counter: dataclasses.InitVar[int] = 0
    secret_note: str = dataclasses.field(default="not for repr", repr=False)


def test_objects_of_the_standard_library_read_like_a_person_would_write_them():
    """Dates, enums, sets, tuples with names, exceptions and functions."""
    point = collections.namedtuple("point", "x y")  # noqa: PYI024  the untyped kind is meant
    assert encode(
        {
            "enum": Shade.DARK,
            "int enum": Level.LOW,
            "job": Job("a", dt.date(2024, 1, 2)),
            "point": point(1, 2),
            "set": {"b", "a", "c"},
            "deque": collections.deque([1, 2]),
            "bytes": b"text",
            "binary": b"\xff\xfe",
            "error": ValueError("bad", 1),
            "function": encode,
            "class": int,
        }
    ) == {
        "enum": "Shade.DARK",
        "int enum": 1,
        "job": {"name": "a", "when": "2024-01-02"},
        "point": {"x": 1, "y": 2},
        "set": ["a", "b", "c"],
        "deque": [1, 2],
        "bytes": "text",
        "binary": "<2 bytes>",
        "error": {"type": "ValueError", "args": ["bad", 1]},
        "function": "<function test_content_capture.encode>",
        "class": "<type int>",
    }


def test_models_are_written_by_their_fields():
    """Pydantic models show their fields, extras too, but neither secrets nor excluded ones."""
    pydantic = pytest.importorskip("pydantic")

    class Message(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")
        role: str
        inner: Any = None
        masked: pydantic.SecretStr = pydantic.SecretStr("kept by pydantic")
        excluded: str = pydantic.Field("not for export", exclude=True)

    message = Message(role="user", inner=Message(role="system"), extra_field=[1])
    assert encode({"m": message})["m"] == {
        "role": "user",
        "inner": {"role": "system", "inner": None, "masked": "SecretStr('**********')"},
        "masked": "SecretStr('**********')",
        "extra_field": [1],
    }


def test_a_message_without_a_repr_is_written_by_its_public_attributes():
    """Objects like a chat library's messages are readable, their private parts stay out."""
    assert encode({"m": PlainMessage()})["m"] == {"type": "human", "content": "hello"}


def test_a_repr_loses_the_address_in_it():
    """The same object gives the same text in every process."""

    class Thing:
        def __repr__(self) -> str:
            return f"<Thing at 0x{id(self):x} of 3>"

    assert encode({"t": Thing()})["t"] == "<Thing of 3>"
    assert encode({"t": object()})["t"] == "<object>"


def test_an_object_that_holds_much_is_not_asked_for_its_repr():
    """A repr that would write out a million items is not called; the attributes are written."""
    shown = encode({"v": HeavyRepr()}, 300)["v"]
    assert shown["type"] == "hostile.HeavyRepr"
    assert shown["rows"][:3] == [0, 0, 0]


def test_arrays_and_tables_show_shape_and_head():
    """Values of numpy and pandas tell their shape and first values, whatever their size."""
    numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    shown = encode(
        {
            "array": numpy.arange(1_000_000).reshape(1000, 1000),
            "scalar": numpy.float32(0.5),
            "frame": pandas.DataFrame({"a": [1, 2], "password": ["x", "y"]}),
            "series": pandas.Series([1, 2], name="token"),
        }
    )
    assert shown == {
        "array": {
            "type": "ndarray",
            "dtype": "int64",
            "shape": [1000, 1000],
            "head": [0, 1, 2, 3, 4, 5, 6, 7],
        },
        "scalar": 0.5,
        "frame": {
            "type": "DataFrame",
            "shape": [2, 2],
            "head": [{"a": 1, "password": "[redacted]"}, {"a": 2, "password": "[redacted]"}],
        },
        "series": {"type": "Series", "dtype": "int64", "size": 2, "token": "[redacted]"},
    }


def test_records_are_shown_below_the_names_of_their_fields():
    """A structured array and a row of a data frame hide what their fields name as secret."""
    numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    inner = numpy.dtype([("password", "U9"), ("n", "i4")])
    records = numpy.array([("u", ("hunter2", 1))], dtype=[("user", "U9"), ("db", inner)])
    row = pandas.DataFrame({"user": ["u"], "password": ["hunter2"]}).iloc[0]
    shown = encode({"array": records, "scalar": records[0], "row": row})
    record = {"user": "u", "db": {"password": "[redacted]", "n": 1}}
    assert shown["array"]["head"] == [record]
    assert shown["scalar"] == record
    assert next(reversed(shown["row"].values())) == {"user": "u", "password": "[redacted]"}


# --- cutting --------------------------------------------------------------------------------------


def test_a_long_list_keeps_its_first_items_and_counts_the_rest():
    """The last item says how many are missing."""
    shown = encode({"v": list(range(100_000))}, 200)["v"]
    assert shown[:-1] == list(range(len(shown) - 1))
    assert shown[-1] == f"... {100_000 - len(shown) + 1} more items"


def test_a_long_dict_keeps_its_first_keys_and_counts_the_rest():
    """A last key says how many are missing; it yields to a key of that name."""
    shown = encode({"v": {f"k{n}": n for n in range(1000)}}, 300)["v"]
    assert list(shown.items())[:-1] == [(f"k{n}", n) for n in range(len(shown) - 1)]
    assert shown["..."] == f"{1000 - len(shown) + 1} more keys"
    shown = encode({"v": {"...": 1} | {f"k{n}": n for n in range(1000)}}, 300)["v"]
    assert shown["..."] == 1
    assert shown["... (2)"].endswith("more keys")


def test_large_values_give_way_before_small_ones():
    """One huge state key does not push the others out of the attribute."""
    shown = encode({"history": ["x" * 1000] * 1000, "answer": "42", "text": "y" * 100_000}, 4000)
    assert shown["answer"] == "42"
    assert 1000 < len(shown["text"]) < 3000
    assert len(json.dumps(shown["history"])) > 1000


def test_deep_nesting_is_cut_with_a_note():
    """Beyond the depth limit a container is only named."""
    value: Any = "leaf"
    for _ in range(40):
        value = [value]
    assert "<list of 1>" in json.dumps(encode({"v": value}))
    assert cut({"v": value})


def test_a_container_without_room_is_named_with_its_size():
    """Where not even its first items have room, a list or dict says what it is; else they share."""
    assert encode({"a": {"b": list(range(1000)), "c": 1}}, 120) == {"a": "<dict of 2>"}
    shown = encode({"a": {"b": list(range(1000)), "c": 1}}, 200)
    assert shown["a"]["b"][:2] == [0, 1]
    assert shown["a"]["c"] == 1


def test_cycles_are_named():
    """A container inside of itself is named where it comes again, and not counted as a cut."""
    value: dict[str, Any] = {"a": 1}
    value["me"] = value
    value["also"] = [value]
    assert encode(value) == {"a": 1, "me": "<cycle: dict>", "also": ["<cycle: dict>"]}
    shared = [1]
    assert encode({"a": shared, "b": shared}) == {"a": [1], "b": [1]}


@pytest.mark.parametrize(("name", "make"), ZOO, ids=[name for name, _ in ZOO])
def test_every_value_gives_json_within_every_budget(name, make, monkeypatch):
    """The zoo: strict JSON, in budget, the same twice, for a value alone and inside of others."""
    monkeypatch.setattr(
        "burr_otel.content.capture._SECONDS", 5
    )  # a busy machine must not decide what is read
    value = make()
    for limit in (64, 65, 100, 200, LIMIT):
        for whole in ({"v": value, "x": 1}, value, {"a": {"b": [value, value]}}):
            data, _ = describe(whole, limit)
            assert len(data.encode()) <= limit
            json.loads(data, parse_constant=pytest.fail)
    if "that grows" not in name and name != "repr recurses":  # which takes its time
        assert describe(whole, limit)[0] == data


@pytest.mark.parametrize(
    "make",
    [
        lambda: "x" * 100_000_000,
        lambda: [0] * 10_000_000,
        lambda: [{"k": "v" * 100}] * 3_000_000,
        lambda: dict.fromkeys(range(2_000_000), 1),
        lambda: {"big": b"\xff" * 100_000_000},
        lambda: [["x" * 1_000_000] * 100] * 100,
        lambda: pytest.importorskip("numpy").zeros(125_000_000),
    ],
    ids=["text", "list", "dicts", "dict", "bytes", "texts", "array"],
)
def test_memory_follows_what_is_kept(make):
    """A value of hundreds of megabytes costs less than two megabytes to describe."""
    value = {"v": make(), "w": 1}
    policy = ContentPolicy()
    policy.document("state", {"warm": "up"})
    gc.collect()
    tracemalloc.start()
    try:
        policy.document("state", value)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


def test_work_follows_what_is_kept():
    """Ten million items cause no more calls than twenty thousand, which overflow the budget too."""

    def calls(count: int) -> int:
        value = {"v": [{"n": 1, "text": "abc"}] * count, "w": dict.fromkeys(range(count), "x")}
        policy, seen = ContentPolicy(), 0

        def note(*_: Any) -> None:
            nonlocal seen
            seen += 1

        sys.setprofile(note)
        try:
            policy.document("state", value)
        finally:
            sys.setprofile(None)
        return seen

    assert calls(2_000_000) <= calls(20_000) * 1.1


def test_an_endless_mapping_is_asked_for_no_more_than_fits():
    """Iteration stops as soon as the room is used up."""
    endless = EndlessMapping()
    encode({"v": endless}, 1000)
    assert endless.asked < 1000


def test_iterators_are_left_alone():
    """A generator in a state still yields everything after it was encoded."""
    numbers = iter([1, 2, 3])
    squares = (number**2 for number in range(3))
    encode({"a": numbers, "b": squares, "c": map(str, numbers)})
    assert list(numbers) == [1, 2, 3]
    assert list(squares) == [0, 1, 4]


def test_a_keyboard_interrupt_is_not_swallowed():
    """Ctrl-C while a repr runs still stops the program."""

    class Slow:
        def __repr__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode({"v": Slow()})


def test_a_value_that_others_change_meanwhile_is_still_written():
    """Threads that add to the containers do not disturb the encoding."""
    value: dict[str, Any] = {"list": [], "dict": {}, "set": set(), "deque": collections.deque()}
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            value["list"].append(number)
            value["dict"][number % 5000] = number
            value["set"].add(number % 5000)
            value["deque"].append(number % 100)
            if number % 1000 == 0:
                value["list"].clear()
                value["dict"].clear()
                value["set"].clear()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(30):
            shown = encode(value)
            assert set(shown) == set(value)
            assert isinstance(shown["list"], list)
            assert isinstance(shown["dict"], dict)
    finally:
        stop.set()
        thread.join()


def test_almost_no_stack_left_is_no_reason_to_fail():
    """Called at the bottom of a deep recursion, the encoder gives a stand-in."""
    policy = ContentPolicy()
    value: Any = {"a": [{"b": {1: object()}}]}

    def dive(left: int) -> str:
        if left:
            return dive(left - 1)
        return policy.document("state", value).value

    limit = sys.getrecursionlimit()
    results = []
    for left in range(limit - 60, limit):
        try:
            results.append(dive(left))
        except RecursionError:  # noqa: PERF203  of dive itself
            break
    assert results
    for data in results:
        json.loads(data)


def test_sets_read_the_same_under_any_hash_seed():
    """Two processes with different hash seeds write a set alike."""
    program = (
        "from burr_otel.content import ContentPolicy\n"
        "value = {'s': {'b', 'a', 'c', 1, 2.5, None}, 'f': frozenset('xyz')}\n"
        "print(ContentPolicy().document('state', value).value)"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(seen) == 1


# --- values of all kinds ----------------------------------------------------------------------------

KEYS = st.sampled_from(
    ["a", "b", "role", "content", "n", "password", "name", "value", "é", "x" * 70]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=True)
    | st.text(max_size=20)
    | st.sampled_from(
        ["password=hunter2", "sk-" + "a1" * 10, "token", "plain words", "https://u:p@h/"]
    )
)
JSON_VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=40)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=8)
        | st.lists(st.fixed_dictionaries({"a": inner, "role": inner}), max_size=30)
    ),
    max_leaves=60,
)
THOROUGH = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.one_python
@THOROUGH
@given(st.dictionaries(KEYS, JSON_VALUES, max_size=6), st.integers(64, 600))
def test_small_budgets_hold_for_json_values(value, limit):
    """Cut anywhere, the result is strict JSON in budget, and an uncut one is the whole value."""
    data, was_cut = describe(value, limit)
    assert len(data.encode()) <= limit
    json.loads(data, parse_constant=pytest.fail)
    if not was_cut:
        assert data == describe(value, 10_000_000)[0]


@THOROUGH
@given(
    st.recursive(
        LEAVES
        | st.binary(max_size=9)
        | st.dates()
        | st.decimals()
        | st.uuids()
        | st.complex_numbers()
        | st.sampled_from([Shade.DARK, Level.LOW, int, len, ...]),
        lambda inner: (
            st.lists(inner, max_size=6)
            | st.dictionaries(
                st.one_of(KEYS, st.integers(), st.none(), st.text()), inner, max_size=6
            )
            | st.frozensets(st.integers() | st.text(), max_size=5)
            | st.builds(Job, inner, inner)
        ),
        max_leaves=20,
    ),
    st.integers(64, 2000),
)
def test_any_value_gives_json_within_budget(value, limit):
    """The same for values of all kinds."""
    data, _ = describe(value, limit)
    assert len(data.encode()) <= limit
    json.loads(data, parse_constant=pytest.fail)


# --- time -------------------------------------------------------------------------------------------


class Slow:
    """Its repr takes a second of the clock below."""

    clock = 0.0

    def __repr__(self) -> str:
        Slow.clock += 1
        return "slow but there"


def test_code_of_the_values_has_a_budget_of_time(monkeypatch):
    """When it is used up, further objects are only named; what is plain is shown all the same."""
    monkeypatch.setattr("burr_otel.content.capture.monotonic", lambda: Slow.clock)
    Slow.clock = 0.0
    value = {"slow": [Slow() for _ in range(100)], "plain": {"n": [1, 2]}, "text": "words"}
    tree, was_cut = capture(value, LIMIT)
    assert was_cut
    assert tree["slow"] == ["slow but there"] + ["<test_content_capture.Slow>"] * 99
    assert tree["plain"] == {"n": [1, 2]}
    assert tree["text"] == "words"


def test_a_mapping_that_takes_its_time_is_left(monkeypatch):
    """What it gave until then is kept."""
    monkeypatch.setattr("burr_otel.content.capture.monotonic", lambda: Slow.clock)

    class Sluggish(EndlessMapping):
        def __getitem__(self, key: Any) -> Any:
            Slow.clock += 0.1
            return key

    Slow.clock = 0.0
    tree, was_cut = capture({"v": Sluggish()}, LIMIT)
    assert was_cut
    assert 1 <= len(tree["v"]) < 10


# --- numbers ----------------------------------------------------------------------------------------


class Whole(int):
    pass


class Real(float):
    pass


class Stop(str, enum.Enum):
    NOW = "stop"


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (lambda numpy: numpy.int64(5), 5),
        (lambda numpy: numpy.uint8(5), 5),
        (lambda numpy: numpy.float64(0.5), 0.5),
        (lambda numpy: numpy.float32(0.5), 0.5),
        (lambda numpy: numpy.bool_(True), True),
        (lambda numpy: numpy.str_("a"), "a"),
        (lambda numpy: numpy.array(5), 5),
        (lambda numpy: [numpy.float32(0.5), numpy.float32(0.25)], [0.5, 0.25]),
        (lambda numpy: [numpy.int64(1)], [1]),
        (lambda _: Level.LOW, 1),
        (lambda _: Whole(7), 7),
        (lambda _: Real(0.5), 0.5),
        (lambda _: Stop.NOW, "stop"),
        (lambda _: [Stop.NOW], ["stop"]),
    ],
)
def test_numbers_of_any_class_stay_numbers(make, shown):
    """In documents and as attributes, alone and in lists."""
    value = make(pytest.importorskip("numpy"))
    assert encode({"v": value}) == {"v": shown}
    made = ContentPolicy().attribute("v", value)
    assert made == (shown, False)
    assert type(made.value) is type(shown)
