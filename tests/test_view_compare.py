"""Where two runs part."""

import contextlib

import apps
import pytest
from burr.core import State, action
from store_support import keep

from burr_otel import OtelTracker
from burr_otel.content import ContentPolicy
from burr_otel.store import Store
from burr_otel.view.content import ShownContent
from burr_otel.view.diff import Change
from burr_otel.view.drawing import comparison_lines
from burr_otel.view.steps import compare


@action(reads=["sum"], writes=["sum", "at"])
def add(state: State, x: int) -> tuple[dict, State]:
    if x < 0:
        raise ValueError("negative")
    return {"x": x}, state.update(sum=state["sum"] + x, at=object())


@action(reads=["sum"], writes=["sum", "noise"])
def noisy(state: State, x: int, noise: int) -> State:
    return state.update(sum=state["sum"] + x, noise=noise)


def compare_runs(folder, one, other, ignore=()):
    store = Store("proj", folder)
    left, right = (
        ShownContent(store.read(each), ContentPolicy(), details=True) for each in (one, other)
    )
    return compare(left, right, ignore)


@pytest.fixture
def made(spans, clock, tmp_path, monkeypatch):
    """Makes runs from lists of inputs, and compares two of them; b holds what changed."""
    keep("delta", monkeypatch)

    def make(app_id, inputs, step=noisy):
        tracker = OtelTracker(
            "proj",
            tmp_path,
            tracer_provider=spans.provider,
            clock=clock,
            snapshots="delta" if app_id == "b" else "full",
        )
        app = apps.single(tracker, step, app_id, state={"sum": 0})
        with contextlib.suppress(ValueError):
            for given in inputs:
                app.step(inputs=given)
        tracker.close()

    def compared(one, other, *ignore):
        return compare_runs(tmp_path, one, other, ignore)

    make.compared = compared
    return make


def xs(*values, noise=0):
    return [{"x": x, "noise": noise} for x in values]


def text_of(found):
    return [line.plain for line in comparison_lines(found)]


def test_a_float_is_not_the_integer_of_its_value(made):
    """A run loads what it kept, so what differs is named."""
    made("a", xs(1))
    made("c", xs(1.0))
    found = made.compared("a", "c")
    assert found.differs == ("inputs", "state")
    assert Change(("sum",), 1, 1.0) in found.changes["state"]


def test_equal_runs(made):
    """Ids and times do not count."""
    made("a", xs(1, 2, 3))
    made("b", xs(1, 2, 3))
    found = made.compared("a", "b")
    assert (found.shared, found.parts_at, found.changes) == (3, None, {})
    assert text_of(found) == ["proj/a and proj/b are the same: 3 steps."]


def test_the_first_difference_is_found(made):
    """Later differences follow from it and are not listed."""
    made("a", xs(1, 2, 3, 4))
    made("b", xs(1, 5, 3, 4))
    found = made.compared("a", "b")
    assert (found.shared, found.parts_at, found.differs) == (1, 1, ("inputs", "state"))
    assert found.changes == {
        "inputs": [Change(("x",), 2, 5)],
        "state": [Change(("sum",), 3, 6)],
    }
    assert text_of(found) == [
        "proj/a and proj/b part after 1 equal step, at step 1.",
        "",
        "- proj/a  1 step, 2 step, 3 step",
        "+ proj/b  1 step, 2 step, 3 step",
        "",
        "inputs of step 1",
        "  ~ x: 2 -> 5",
        "",
        "state of step 1",
        "  ~ sum: 3 -> 6",
    ]


def test_ignored_keys_do_not_count(made):
    """A time stamp in the state need not hide that two runs did the same."""
    made("a", xs(1, 2, noise=1))
    made("b", xs(1, 2, noise=2))
    assert made.compared("a", "b").changes["state"] == [Change(("noise",), 1, 2)]
    found = made.compared("a", "b", "noise")
    assert found.differs == ("inputs",)
    assert "state" not in found.changes


def test_one_run_may_end_before_the_other(made):
    """What the longer one did then is named."""
    made("a", xs(1, 2))
    made("b", xs(1, 2, 3))
    found = made.compared("a", "b")
    assert (found.shared, found.parts_at) == (2, 2)
    assert text_of(found)[2:] == ["- proj/a  ends before", "+ proj/b  2 step"]


def test_a_failure_is_a_difference(made):
    """Even when inputs and state are the same."""
    made("a", [{"x": -1}], step=add)
    made("b", [{"x": 1}], step=add)
    found = made.compared("a", "b")
    assert found.parts_at == 0
    assert {"outcome", "inputs", "result"} <= set(found.differs)
    assert "- proj/a  0 step (error)" in text_of(found)


def test_a_run_and_its_fork(tracker, tmp_path):
    """The fork's first step is compared with the parent's step of the same number."""
    app = apps.counter(tracker, upto=9)
    for _ in range(4):
        app.step()
    fork = apps.resumed(tracker, "b1", upto=3, fork_from_app_id="a1", fork_from_sequence_id=1)
    fork.run(halt_after=["finish"])
    tracker.close()
    found = compare_runs(tmp_path, "a1", "b1")
    assert (found.shared, found.parts_at) == (1, 3)
    assert "action" in found.differs
    assert [line.plain for line in comparison_lines(found)][2:4] == [
        "- proj/a1  3 count",
        "+ proj/b1  3 finish",
    ]


def test_a_run_without_steps(made, tracker, tmp_path):
    """Nothing is equal to nothing; something is not."""
    apps.single(tracker, noisy, "empty")
    apps.single(tracker, noisy, "empty2")
    made("a", xs(1))
    assert made.compared("empty", "empty2").parts_at is None
    found = made.compared("empty", "a")
    assert (found.shared, found.parts_at) == (0, 0)
