"""One step in full, from logs of real trackers and from made-up ones."""

import math
import sys
import types

import apps
import pytest
from burr.core import State, action
from store_support import SNAPSHOTS, keep

from burr_otel import OtelTracker
from burr_otel.content import ContentPolicy
from burr_otel.store import Store
from burr_otel.view.content import ShownContent
from burr_otel.view.diff import Change
from burr_otel.view.drawing import _change_lines, step_sheet, value_text
from burr_otel.view.find import NoSingleRunError
from burr_otel.view.steps import read_step


@action(reads=["chat"], writes=["chat", "odd"])
def talk(state: State, word: str) -> tuple[dict, State]:
    return {"word": word}, state.update(chat=[*state["chat"], word], odd=math.nan)


def talked(tracker, app_id="a1"):
    app = apps.single(tracker, talk, app_id, state={"chat": [], "kept": {"k": 1}})
    for word in ("one", "two"):
        app.step(inputs={"word": word})
    tracker.close()


def read_of(run, sequence_id):
    shown = ShownContent(run, ContentPolicy(), details=True)
    step = read_step(shown, sequence_id)
    return step.span, step


def read(tmp_path, sequence_id, app_id="a1"):
    return read_of(Store("proj", tmp_path).read(app_id), sequence_id)


@pytest.mark.parametrize("kind", SNAPSHOTS)
def test_a_step_in_full(spans, tmp_path, kind, monkeypatch):
    """Inputs, result, and the state before and after with its exact values."""
    keep(kind, monkeypatch)
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider, snapshots=kind)
    talked(tracker)
    span, step = read(tmp_path, 1)
    assert (span.name, step.times) == ("step", 1)
    assert (span.details["inputs"], span.details["result"]) == ({"word": "two"}, {"word": "two"})
    assert step.before["chat"] == ["one"]
    assert step.after["chat"] == ["one", "two"]
    assert math.isnan(step.before["odd"])
    assert [(change.path, change.after) for change in step.changes] == [(("chat", 1), "two")]


def test_the_first_step_starts_from_nothing_recorded(tracker, tmp_path):
    """A fresh run records no state at creation: what the step does not write is as it was."""
    talked(tracker)
    _, step = read(tmp_path, 0)
    assert step.before == {}
    assert {change.path for change in step.changes} == {("chat",), ("odd",)}


def test_burrs_own_keys_are_no_state(tracker, tmp_path):
    """Sequence id and prior step change in every step and mean nothing to a reader."""
    talked(tracker)
    _, step = read(tmp_path, 1)
    assert set(step.after) == {"chat", "kept", "odd"}


def test_a_fork_starts_from_what_it_inherited(tracker, tmp_path):
    """The state before a fork's first step is the parent's at the forked step."""
    app = apps.counter(tracker, upto=9)
    for _ in range(3):
        app.step()
    apps.resumed(tracker, "b1", fork_from_app_id="a1", fork_from_sequence_id=1).step()
    tracker.close()
    _, step = read(tmp_path, 2, "b1")
    assert step.before == {"count": 2}
    assert step.after == {"count": 3}


def test_a_failed_step_changed_nothing(tracker, tmp_path):
    """It has no result, and the state is what it was."""
    app = apps.single(tracker, apps.boom, state={"count": 5})
    with pytest.raises(ValueError, match="kaputt"):
        app.step()
    with pytest.raises(ValueError, match="kaputt"):
        app.step()
    tracker.close()
    span, step = read(tmp_path, 1)
    assert "result" not in span.details
    assert step.changes == []


def test_an_unknown_step_names_the_known_ones(tracker, tmp_path):
    """The message says which steps there are."""
    talked(tracker)
    with pytest.raises(NoSingleRunError, match="no step 9; it has steps 0 to 1"):
        read(tmp_path, 9)


class Lines:
    """A stored run of made-up records."""

    project, app_id, place = "proj", "a1", "here"
    partition_key = parent_pointer = spawning_parent_pointer = graph = None
    children = skipped = ()

    def __init__(self, *records):
        self._records = records

    def graph_of(self, digest):
        return None

    def records(self, ends=None):
        assert ends is None, "the whole log is read"
        return iter(self._records)


def root(session):
    return {"type": "otel_root", "otel": {"session": session}}


def begin(seq, session):
    return {
        "type": "begin_entry",
        "sequence_id": seq,
        "action": "act",
        "inputs": {"by": session},
        "start_time": "",
        "otel": {"session": session},
    }


def end(seq, session, **state):
    return {
        "type": "end_entry",
        "sequence_id": seq,
        "action": "act",
        "result": {},
        "exception": None,
        "state": state,
        "end_time": "",
        "otel": {"session": session},
    }


def test_the_last_run_of_a_repeated_step_counts():
    """A step that was killed and run again by a resume is the one of the resume."""
    run = Lines(
        *(root("one"), begin(0, "one"), end(0, "one", n=1), begin(1, "one")),
        *(root("two"), begin(1, "two"), end(1, "two", n=2)),
    )
    span, step = read_of(run, 1)
    assert (span.details["inputs"], step.times) == ({"by": "two"}, 2)
    assert (step.before, step.after) == ({"n": 1}, {"n": 2})


def test_sessions_do_not_see_each_others_states():
    """Of two sessions that run at once, each continues from its own last state."""
    run = Lines(
        root("one"),
        root("two"),
        begin(0, "one"),
        end(0, "one", n=1),
        begin(0, "two"),
        end(0, "two", n=100),
        begin(1, "one"),
        end(1, "one", n=2),
    )
    assert read_of(run, 1)[1].before == {"n": 1}


def test_a_step_that_never_ended_has_no_state_after():
    """What it would have done is not known."""
    _, step = read_of(Lines(begin(0, "one"), begin(1, "two"), end(1, "two", n=1)), 0)
    assert step.after is None
    assert step.changes == []


def test_long_values_are_cut_and_say_so():
    """Megabytes of state are not poured into the terminal."""
    text = value_text("x" * 100_000)
    assert len(text) < 2_100
    assert text.endswith("… (100,002 characters)")


def test_of_long_texts_the_difference_is_shown():
    """Not twice the same beginning, cut before the place where they differ."""
    old = "a" * 5000 + "one" + "z" * 5000
    new = old.replace("one", "two")
    [line] = map(str, _change_lines([Change(("text",), old, new)]))
    kept, left_out = 60, "... [4940 unchanged characters] ..."
    for middle in ("one", "two"):
        assert f'"{left_out}{"a" * kept}{middle}{"z" * kept}{left_out}"' in line
    [line] = map(str, _change_lines([Change(("text",), "short", "shorter")]))
    assert line == '  ~ text: "short" -> "shorter"'


def test_hostile_values_are_neutralised(tracker, tmp_path):
    """Keys and values of the state cannot act on the terminal."""

    @action(reads=[], writes=["\x1b[2J"])
    def attack(state: State) -> State:
        return state.update(**{"\x1b[2J": "\x1b]0;owned\x07\u202e"})

    apps.single(tracker, attack).step()
    tracker.close()
    _, step = read_of(Store("proj", tmp_path).read("a1"), 0)
    text = "\n".join(t.plain for t in step_sheet(step))
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert "␛[2J" in text or "\\u001b[2J" in text


def test_nothing_is_imported_that_a_log_names(tracker, tmp_path, monkeypatch):
    """An enumeration stays the text that stands for it, whether its module is there or not."""
    module = types.ModuleType("named_by_a_log")
    exec("import enum\nclass Colour(enum.Enum):\n    RED = 1", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)

    @action(reads=[], writes=["colour", "sizes"])
    def paint(state: State) -> State:
        return state.update(colour=module.Colour.RED, sizes=(1, 2))

    apps.single(tracker, paint).step()
    tracker.close()
    monkeypatch.delitem(sys.modules, module.__name__)
    (tmp_path / f"{module.__name__}.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    _, step = read(tmp_path, 0)
    assert step.after["colour"] == "Colour.RED"
    assert step.after["sizes"] == [1, 2]
    assert module.__name__ not in sys.modules
