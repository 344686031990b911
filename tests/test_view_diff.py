"""Differences of JSON values."""

import copy
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burr_otel.view.diff import MISSING, Change, as_text, changes, path_text, same

values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(width=16) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", max_size=1), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, [Change(("a",), 1, 2)]),
        ({"a": 1}, {"a": None}, [Change(("a",), 1, None)]),
        ({}, {"a": None}, [Change(("a",), MISSING, None)]),
        ({"a": 1}, {}, [Change(("a",), 1, MISSING)]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, [Change(("a", "c"), 2, 3)]),
        ({"a": [1, 2]}, {"a": [1, 2, 3]}, [Change(("a", 2), MISSING, 3)]),
        ({"a": [1, 2]}, {"a": [0, 1, 2]}, [Change(("a", 0), MISSING, 0)]),
        ({"a": [1, 2, 3]}, {"a": [1, 9, 3]}, [Change(("a", 1), 2, 9)]),
        ({"a": [1, 2, 3]}, {"a": [1]}, [Change(("a", 1), 2, MISSING), Change(("a", 2), 3, MISSING)]),
        ({"a": [1]}, {"a": {"0": 1}}, [Change(("a",), [1], {"0": 1})]),
        (1, 2, [Change((), 1, 2)]),
        ({"a": True}, {"a": 1}, [Change(("a",), True, 1)]),
        ({"a": 1}, {"a": 1.0}, [Change(("a",), 1, 1.0)]),
        ({"a": 0.0}, {"a": -0.0}, [Change(("a",), 0.0, -0.0)]),
        ({"a": math.nan}, {"a": math.nan}, []),
    ],
)  # fmt: skip
def test_changes(before, after, expected):
    """Each difference once, at the deepest place where it can be named."""
    found = list(changes(before, after))
    assert found == expected or repr(found) == repr(expected)


@given(values, values)
def test_no_changes_means_the_same(before, after):
    """An empty diff says that the values are equal, and the other way round."""
    assert (not list(changes(before, after))) == same(before, after)


@given(values)
def test_a_value_does_not_differ_from_its_copy(value):
    """Also with NaN in it."""
    assert not list(changes(value, copy.deepcopy(value)))


@given(values, values)
def test_swapped_sides_give_mirrored_changes(before, after):
    """What was added on one side was removed on the other."""
    there = {(c.path, as_text(c.before), as_text(c.after)) for c in changes(before, after)}
    back = {(c.path, as_text(c.after), as_text(c.before)) for c in changes(after, before)}
    assert there == back


def test_deep_values_do_not_recurse():
    """A state may be nested as deep as JSON readers allow."""
    left, right = [1], [2]
    for _ in range(900):
        left, right = [left], [right]
    (change,) = changes(left, right)
    assert len(change.path) == 901


def test_paths_read_like_code():
    """Keys that are no names are quoted."""
    assert path_text(("chat", 2, "role")) == "chat[2].role"
    assert path_text(("odd key", "x.y")) == '["odd key"]["x.y"]'
    assert path_text(()) == ""


def test_anything_has_a_text():
    """Values that JSON has no form for are shown as Python shows them."""
    assert as_text({"a": float("nan")}) == '{"a": NaN}'
    assert as_text({1: (1, 2)}) == '{"1": [1, 2]}'
    assert as_text(b"x") == "\"b'x'\""
    assert as_text({(1, 2): 1}).startswith("<class")


def test_a_list_that_keeps_its_newest_items_tells_what_went_and_what_came():
    """A chat that keeps its last messages does not change in each of them."""
    left = {"chat": [{"n": n} for n in range(5)]}
    right = {"chat": [{"n": n} for n in range(2, 7)]}
    assert list(changes(left, right)) == [
        Change(("chat", 0), {"n": 0}, MISSING),
        Change(("chat", 1), {"n": 1}, MISSING),
        Change(("chat", 3), MISSING, {"n": 5}),
        Change(("chat", 4), MISSING, {"n": 6}),
    ]
