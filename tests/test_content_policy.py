"""The policy honours every setting for every kind of content, whatever it is given."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hostile import ZOO
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from burr_otel.content import Attribute, ContentPolicy, capture_exception
from burr_otel.content.redact import MARKER
from burr_otel.records import Raised

CANARY = "hunter2CANARYx"
POLICY = ContentPolicy()
KINDS = ("inputs", "results", "state")


def described(policy: ContentPolicy, error: BaseException) -> Raised:
    """What a span shows of an exception."""
    return policy.exception(capture_exception(error, policy.max_attribute_bytes))


# --- documents --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_capture_is_chosen_for_each_kind_alone(kind):
    """Turning one kind off leaves the others."""
    policy = ContentPolicy(**{kind: "off"})
    for other in KINDS:
        shown = policy.document(other, {"a": 1})
        assert shown is None if other == kind else shown == ('{"a":1}', False)
    assert ContentPolicy(**{kind: "off"}).document(kind, {}) is None
    assert policy.attribute("a", 1) == (1, False)


def test_types_tells_names_and_sizes():
    """Top-level keys with type names; sizes in characters, bytes, items or by shape."""
    value = {
        "text": "four",
        "binary": b"abc",
        "list": [1, 2, 3],
        "dict": {"a": 1},
        "none": None,
        "number": 5,
        "flag": True,
        "when": dt.date(2024, 1, 2),
        "object": POLICY,
    }
    shown = ContentPolicy(state="types").document("state", value)
    assert not shown.truncated
    assert json.loads(shown.value) == {
        "text": "str[4]",
        "binary": "bytes[3]",
        "list": "list[3]",
        "dict": "dict[1]",
        "none": "None",
        "number": "int",
        "flag": "bool",
        "when": "datetime.date",
        "object": "burr_otel.content.policy.ContentPolicy",
    }


def test_types_tells_the_shape_of_arrays():
    """An array by its shape, a scalar without one."""
    numpy = pytest.importorskip("numpy")
    shown = ContentPolicy(state="types").document(
        "state", {"a": numpy.zeros((2, 3)), "b": numpy.int64(1)}
    )
    assert json.loads(shown.value) == {"a": "numpy.ndarray[2, 3]", "b": "numpy.int64"}


def test_types_tells_nothing_of_values_or_of_what_redaction_hides():
    """No value, no size of a secret, no nested key, no secret inside of a key."""
    value = {
        "password": CANARY,
        f"Bearer {CANARY}": 1,
        "nested": {CANARY: CANARY},
        "text": CANARY,
        "list": [CANARY],
    }
    shown = ContentPolicy(state="types").document("state", value).value
    assert CANARY not in shown
    assert json.loads(shown)["password"] == MARKER
    assert json.loads(shown)["nested"] == "dict[1]"


def test_the_redactor_is_not_asked_for_types():
    """There is nothing for it to hide, and no value is handed out."""
    asked = []
    policy = ContentPolicy(state="types", attributes="types", redactor=lambda p, v: asked.append(p))
    policy.document("state", {"a": 1})
    policy.attribute("a", [1])
    assert asked == []


def test_a_cut_document_says_so():
    """`truncated` feeds ``burr.truncated``."""
    policy = ContentPolicy(max_attribute_bytes=100)
    shown = policy.document("state", {"a": "x" * 1000})
    assert shown.truncated
    assert len(shown.value) <= 100
    assert not policy.document("state", {"a": "x"}).truncated


def test_something_else_than_a_mapping_is_described_too():
    """A hook that passes None, a list or an object gets JSON as well."""
    for capture in ("full", "types"):
        policy = ContentPolicy(results=capture)
        for value in (None, [1], 5, "text", object()):
            json.loads(policy.document("results", value).value)


# --- attributes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("text", "text"),
        (True, True),
        (5, 5),
        (-(2**63), -(2**63)),
        (1.5, 1.5),
        (["a", "b"], ["a", "b"]),
        (("a", "b"), ["a", "b"]),
        ([1, 2], [1, 2]),
        ([True], [True]),
        ([1.5], [1.5]),
        ([], []),
        # no native form
        (2**63, "9223372036854775808"),
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (None, "null"),
        ([1, "a"], '[1,"a"]'),
        ([1, True], "[1,true]"),
        ([1.5, float("nan")], '[1.5,"NaN"]'),
        ([2**63], "[9223372036854775808]"),
        ([None], "[null]"),
        ({"a": [1]}, '{"a":[1]}'),
        ({1, 2}, "[1,2]"),
        (dt.date(2024, 1, 2), "2024-01-02"),
        (b"abc", "abc"),
        ([[1, 2]], "[[1,2]]"),
    ],
)
def test_attributes_stay_native_where_every_backend_takes_them(value, shown):
    """Strings, bools, 64-bit ints, finite floats and short lists of one of them; else a string."""
    made = POLICY.attribute("key", value)
    assert made == (shown, False)
    assert type(made.value) is type(shown)


def test_long_lists_become_one_string():
    """A list of more items than a backend shows well is JSON, cut like any other."""
    made = POLICY.attribute("key", list(range(1000)))
    assert json.loads(made.value) == list(range(1000))
    assert POLICY.attribute("key", ["x" * 1000] * 100).truncated


def test_attributes_named_like_secrets_are_hidden():
    """By key, as pair, by form, and nested; whether one is set may be seen."""
    assert POLICY.attribute("api_key", CANARY) == (MARKER, False)
    assert POLICY.attribute("user.password", [1, 2]) == (MARKER, False)
    assert POLICY.attribute("password", 1234) == (MARKER, False)
    assert POLICY.attribute("has_token", True) == (True, False)
    assert POLICY.attribute("note", f"password={CANARY}") == (f"password={MARKER}", False)
    assert POLICY.attribute("notes", [f"password={CANARY}", "b"]) == (
        [f"password={MARKER}", "b"],
        False,
    )
    assert POLICY.attribute("header", ["x-api-key", CANARY]).value == f'["x-api-key","{MARKER}"]'
    assert CANARY not in POLICY.attribute("data", {"a": {"token": CANARY}}).value


def test_attribute_capture():
    """``types`` tells the type as text, ``off`` drops the attribute; secrets do not tell their size."""
    types, off = ContentPolicy(attributes="types"), ContentPolicy(attributes="off")
    assert types.attribute("note", CANARY) == ("str[14]", False)
    assert types.attribute("note", {"a": CANARY}) == ("dict[1]", False)
    assert types.attribute("password", CANARY) == (MARKER, False)
    assert off.attribute("note", "x") is None


def test_the_redactor_sees_attributes():
    """By the path ``attributes.<key>``; numbers stay numbers, a failure hides the value."""

    def mask(path: str, value: Any) -> Any:
        if path == "attributes.age":
            return 0
        return value.replace("Alice", "<name>") if isinstance(value, str) else value

    policy = ContentPolicy(redactor=mask)
    assert policy.attribute("age", 42) == (0, False)
    assert policy.attribute("n", 42) == (42, False)
    assert policy.attribute("text", "I am Alice") == ("I am <name>", False)
    assert policy.attribute("texts", ["Alice"]).value == '["<name>"]'
    assert policy.attribute("data", {"who": "Alice"}).value == '{"who":"<name>"}'

    def broken(path: str, value: Any) -> Any:
        raise ValueError(value)

    for value in (CANARY, 5, [CANARY], {"a": CANARY}, object()):
        assert ContentPolicy(redactor=broken).attribute("k", value) == (MARKER, False)


# --- texts ------------------------------------------------------------------------------------------


def test_names_are_short_and_clean():
    """Span names lose secrets, surrogates and NULs, and are cut."""
    assert POLICY.name("call the model") == "call the model"
    assert POLICY.name(f"GET https://h/?token={CANARY}") == f"GET https://h/?token={MARKER}"
    assert POLICY.name("a\ud800\0b") == "a\ufffd\ufffdb"
    assert len(POLICY.name("x" * 10_000_000)) <= 256
    assert POLICY.name(5) == "5"
    assert POLICY.name(None) == "null"


def test_texts_are_clean_and_bounded():
    """Status descriptions likewise, within the budget of an attribute."""
    assert POLICY.text(f"Authorization: Bearer {CANARY}") == f"Authorization: {MARKER}"
    assert len(POLICY.text("é" * 10_000_000).encode()) <= 16_384
    assert ContentPolicy(redactor=lambda p, v: f"{p}!").text("x") == "text!"
    assert ContentPolicy(redactor=lambda p, v: f"{p}!").name("x") == "name!"


# --- all of it --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "make"), ZOO, ids=[name for name, _ in ZOO])
@pytest.mark.parametrize(
    "policy",
    [
        POLICY,
        ContentPolicy(max_attribute_bytes=64, inputs="types", attributes="types"),
        ContentPolicy(redactor=lambda _path, value: value, max_attribute_bytes=500),
    ],
    ids=["default", "types", "redactor"],
)
def test_no_value_makes_any_entry_point_raise(name, make, policy):
    """The zoo through documents, attributes, names and texts: right types, in budget, UTF-8."""
    value = make()
    limit = policy.max_attribute_bytes
    for made in (policy.document("inputs", {"v": value}), policy.document("state", value)):
        assert type(made.value) is str
        assert len(made.value.encode()) <= limit
        json.loads(made.value, parse_constant=pytest.fail)
    for key in ("key", value):
        made = policy.attribute(key, value)
        assert type(made.value) in (str, bool, int, float, list)
        if type(made.value) is str:
            assert len(made.value.encode()) <= limit
            assert "\0" not in made.value
    assert len(policy.name(value).encode()) <= 256
    assert len(policy.text(value).encode()) <= limit


def test_almost_no_stack_left_is_no_reason_to_fail():
    """Called at the bottom of a deep recursion, every method gives something."""
    error = ValueError("x")

    def dive(left: int) -> tuple[Any, ...]:
        if left:
            return dive(left - 1)
        return (
            POLICY.document("state", {"a": [object()]}),
            POLICY.attribute("a", {"b": [{}]}),
            POLICY.name("name"),
            POLICY.text(object()),
            described(POLICY, error),
        )

    results = []
    for left in range(sys.getrecursionlimit() - 100, sys.getrecursionlimit(), 2):
        try:
            results.append(dive(left))
        except RecursionError:  # noqa: PERF203  not even the call itself has room
            break
    assert len(results) > 5
    for document, *_ in results:
        json.loads(document.value)


def test_a_policy_is_a_value():
    """Policies with the same settings are equal; they cannot be changed, but copied and pickled."""
    policy = ContentPolicy(state="types", redact_keys=("mail",), redact_values=("X+",))
    assert policy == ContentPolicy(state="types", redact_keys=("mail",), redact_values=("X+",))
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.state = "full"
    policy.document("inputs", {"mail": 1, "b": "text"})
    for copied in (pickle.loads(pickle.dumps(policy)), dataclasses.replace(policy)):
        assert copied == policy
        assert (
            copied.document("inputs", {"mail": "a", "b": "XX"}).value
            == f'{{"mail":"{MARKER}","b":"{MARKER}"}}'
        )


def test_a_pattern_that_does_not_compile_is_refused_at_once():
    """The error comes when the policy is built, not when a span ends."""
    with pytest.raises(ValueError, match="redact_keys"):
        ContentPolicy(redact_keys=("(",))


def test_threads_share_one_policy():
    """Concurrent use gives each thread what it would get alone."""
    values = [
        {"n": number, "password": CANARY, "text": f"key{number}=x token={CANARY}"}
        for number in range(50)
    ]
    expected = [ContentPolicy().document("state", value) for value in values]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert list(pool.map(lambda value: POLICY.document("state", value), values)) == expected


# --- the canary -------------------------------------------------------------------------------------

SETTINGS = st.builds(
    ContentPolicy,
    inputs=st.sampled_from(["full", "types", "off"]),
    results=st.just("full"),
    state=st.sampled_from(["full", "types"]),
    attributes=st.sampled_from(["full", "types", "off"]),
    exceptions=st.sampled_from(["full", "types", "off"]),
    redact=st.booleans(),
    redact_keys=st.just(("^planted$",)),
    redact_values=st.just((CANARY,)),
    redactor=st.sampled_from([None, lambda _path, value: value]),
    max_attribute_bytes=st.integers(64, 1000),
)
INNER = st.recursive(
    st.just(CANARY)
    | st.text(max_size=20)
    | st.text(max_size=20).map(lambda text: text + CANARY)
    | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=5) | st.just("planted") | st.just(CANARY), inner, max_size=4
        )
        | st.builds(ValueError, inner)
        | inner.map(dataclasses.make_dataclass("Made", ["value"]))
        | inner.map(lambda value: repr(value).encode("utf-8", "replace"))
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(SETTINGS, INNER)
def test_a_canary_shows_nowhere(policy, value):
    """A text that the settings hide appears in no output of any entry point."""

    def fail() -> None:
        planted = value
        raise ValueError(planted) from KeyError(planted)

    try:
        fail()
    except ValueError as error:
        content = described(policy, error)
    shown = [
        policy.document("inputs", {"v": value}),
        policy.document("results", {"planted": value}),
        policy.document("state", {"v": value, CANARY: 1}),
        policy.attribute("k", value),
        policy.attribute(f"k{CANARY}", value),
        policy.name(value),
        policy.name(f"a span for {CANARY}"),
        policy.text(value),
        *content,
    ]
    assert CANARY not in repr(shown)
    assert CANARY[:9] not in repr(shown)
    assert all(isinstance(one, Attribute | str | bool | None) for one in shown)
