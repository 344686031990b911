"""Records of a log -> spans."""

import json
import pathlib

import burr
import pytest

from burr_otel.history.fold import Fold
from burr_otel.history.tree import SpanNode, session_of

DEMO_DATA = pathlib.Path(burr.__file__).parent / "tracking" / "server" / "demo_data"
T0 = 1_700_000_000_000_000_000
TRACE = "ab" * 16


def at(ms, **otel):
    times = dict.fromkeys(("start_time", "end_time", "stream_init_time", "first_item_time"), "")
    return {**times, "otel": {"session": "s1", "time_unix_nano": T0 + ms * 10**6, **otel}}


def root(ms=0, session="s1"):
    return {"type": "otel_root", **at(ms, session=session, trace_id=TRACE, span_id="f" * 16)}


def root_end(ms, outcome="ok", session="s1"):
    return {"type": "otel_root_end", **at(ms, session=session, outcome=outcome)}


def begin(ms, seq, action="act", session="s1"):
    otel = at(ms, session=session, trace_id=TRACE, span_id=f"{seq + 1:016x}")
    return {"type": "begin_entry", "sequence_id": seq, "action": action, "inputs": {}, **otel}


def end(ms, seq, action="act", exception=None, session="s1", **otel):
    return {
        "type": "end_entry",
        "sequence_id": seq,
        "action": action,
        "result": {"r": 1},
        "exception": exception,
        "state": {"a": 1, "b": 2},
        **at(ms, session=session, **otel),
    }


def begin_span(ms, seq, span_id, parent=None, name="inner"):
    return {
        "type": "begin_span",
        "action_sequence_id": seq,
        "span_id": span_id,
        "span_name": name,
        "parent_span_id": parent,
        "span_dependencies": [],
        **at(ms),
    }


def end_span(ms, seq, span_id):
    return {"type": "end_span", "action_sequence_id": seq, "span_id": span_id, **at(ms)}


def attribute(key, value, span_id=None):
    own = {"key": key, "value": value, "tags": {}, "span_id": span_id}
    return {"type": "attribute", "action_sequence_id": 0, "time_logged": "", **own}


def build(*records, alive=False, **options):
    fold = Fold("proj", "app", **options)
    for record in records:
        fold.add(record)
    fold.finish(lambda fields, last_ns: alive)
    return fold, fold.sessions


def tree(sessions):
    """The spans as indented text: name, start and end in ms, outcome."""
    lines = []
    for session in sessions:
        for span, depth in session.walk():
            end_ms = None if span.end_ns is None else round((span.end_ns - T0) / 1e6)
            start_ms = round((span.start_ns - T0) / 1e6)
            lines.append(f"{'  ' * depth}{span.name} {start_ms}..{end_ms} {span.outcome}")
    return lines


def test_steps_and_inner_spans_nest():
    """An ordinary run: a session, its steps, and the spans within them."""
    _, sessions = build(
        root(0),
        begin(1, 0, "first"),
        begin_span(2, 0, "0:0", name="outer"),
        begin_span(3, 0, "0:0.0", "0:0"),
        end_span(4, 0, "0:0.0"),
        end_span(5, 0, "0:0"),
        end(6, 0, "first"),
        begin(7, 1, "second"),
        end(8, 1, "second"),
        root_end(9),
    )
    assert tree(sessions) == [
        "invoke_workflow proj 0..9 ok",
        "  first 1..6 ok",
        "    outer 2..5 ok",
        "      inner 3..4 ok",
        "  second 7..8 ok",
    ]
    assert sessions[0].trace_id == TRACE
    assert sessions[0].children[1].span_id == f"{2:016x}"


def test_a_killed_run_is_crashed_and_a_live_one_is_running():
    """A begin without an end is told apart by whether its writer lives."""
    records = root(0), begin(1, 0), begin_span(2, 0, "0:0")
    _, dead = build(*records)
    assert tree(dead) == [
        "invoke_workflow proj 0..None crashed",
        "  act 1..None crashed",
        "    inner 2..None crashed",
    ]
    _, live = build(*records, alive=True)
    assert [line.split()[-1] for line in tree(live)] == ["running"] * 3
    assert live[0].last_ns == T0 + 2 * 10**6


def test_an_inner_span_that_never_ended_is_abandoned():
    """Its step ended, so it is neither running nor crashed; it is drawn to its step's end."""
    _, sessions = build(root(0), begin(1, 0), begin_span(2, 0, "0:0"), end(5, 0), root_end(6))
    assert tree(sessions)[2] == "    inner 2..5 abandoned"


def test_an_end_without_a_begin_is_kept():
    """A torn log may have lost a step's begin; its outcome is still worth showing."""
    _, sessions = build(root(0), end(5, 3, "lost", exception="ValueError: x"), root_end(6))
    assert tree(sessions)[1] == "  lost 5..5 error"
    assert not sessions[0].children[0].begun


def test_spans_of_a_lost_step_find_a_stand_in():
    """Records of a step whose begin is gone are shown below it nevertheless."""
    _, sessions = build(
        root(0),
        begin_span(1, 4, "4:0"),
        end_span(2, 4, "4:0"),
        end(3, 4, "found"),
        root_end(4),
    )
    assert tree(sessions)[1:] == ["  found 1..3 ok", "    inner 1..2 ok"]


def test_a_step_run_again_after_a_crash_is_two_steps():
    """A resume runs the killed step again under the same sequence id, in a new session."""
    _, sessions = build(
        root(0),
        begin(1, 0, "again"),
        root(100, "s2"),
        begin(101, 0, "again", "s2"),
        end(102, 0, "again", session="s2"),
        root_end(103, session="s2"),
    )
    assert tree(sessions) == [
        "invoke_workflow proj 0..None crashed",
        "  again 1..None crashed",
        "invoke_workflow proj 100..103 ok",
        "  again 101..102 ok",
    ]


def test_interleaved_sessions_stay_apart():
    """Two workers that write one run at once do not end each other's steps."""
    _, sessions = build(
        root(0),
        root(1, "s2"),
        begin(2, 0, "one"),
        begin(3, 0, "two", "s2"),
        end(4, 0, "one", exception="E: boom"),
        end(5, 0, "two", session="s2"),
        root_end(6, "error"),
        root_end(7, session="s2"),
    )
    assert tree(sessions) == [
        "invoke_workflow proj 0..6 error",
        "  one 2..4 error",
        "invoke_workflow proj 1..7 ok",
        "  two 3..5 ok",
    ]


def test_sessions_that_say_they_were_forked_from_each_other_end():
    """In a log that was tampered with; each has the application span of only one of them."""
    _, sessions = build(
        begin(0, 0, session="s2"),
        {**root(1), "forked_from": "s2"},
        {**root(2, "s2"), "forked_from": "s1"},
    )
    assert {session.top.session for session in sessions} == {"s2"}


def test_recorded_outcome_wins_over_the_exception():
    """A cancelled step carries an exception and is not an error."""
    _, sessions = build(
        root(0), begin(1, 0), end(2, 0, exception="asyncio.CancelledError", outcome="cancelled")
    )
    assert sessions[0].children[0].outcome == "cancelled"
    assert sessions[0].children[0].end.raised.traceback == "asyncio.CancelledError"


def test_attributes_and_stream_marks_land_on_their_span():
    """An attribute goes to its inner span or step, a mark to its step."""
    _, sessions = build(
        root(0),
        begin(1, 0),
        begin_span(2, 0, "0:0"),
        attribute("k", 1, "0:0"),
        attribute("s", 2),
        {"type": "first_item_stream", "action_sequence_id": 0, **at(3)},
        {"type": "end_stream", "action_sequence_id": 0, "items_streamed": 7, **at(4)},
        end(5, 0),
    )
    step = sessions[0].children[0]
    assert [(each.key, each.value.value) for each in step.logged] == [("s", 2)]
    assert [(each.key, each.value.value) for each in step.children[0].logged] == [("k", 1)]
    assert [(mark.kind, mark.items, mark.time_ns - T0) for mark in step.marks] == [
        ("first_item_stream", None, 3 * 10**6),
        ("end_stream", 7, 4 * 10**6),
    ]


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"type": None},
        {"type": "of_tomorrow", "sequence_id": 0},
        {"type": "begin_entry"},
        {"type": "begin_entry", "sequence_id": "x", "action": 5, "otel": "text"},
        {"type": "end_entry", "sequence_id": None, "exception": 5, "state": []},
        {"type": "begin_span", "span_id": 7, "span_name": None},
        {"type": "end_span"},
        {"type": "attribute"},
        {"type": "end_stream", "items_streamed": "many"},
        {"type": "otel_root", "otel": {"session": ["x"], "time_unix_nano": "now"}},
        {"type": "otel_root_end"},
    ],
)
def test_damaged_records_do_not_stop_the_reading(record):
    """Whatever one record lacks, the rest of the run is shown."""
    _, sessions = build(record, root(0), begin(1, 0, "good"), end(2, 0, "good"), root_end(3))
    assert "  good 1..2 ok" in tree(sessions)


def test_deep_nesting_does_not_recurse():
    """User code may nest spans deeper than Python recurses."""
    uids = [".".join(["0:0", *["0"] * n]) for n in range(3000)]
    spans = [
        begin_span(2, 0, uid, parent) for uid, parent in zip(uids, [None, *uids], strict=False)
    ]
    _, sessions = build(root(0), begin(1, 0), *spans)
    assert max(depth for _, depth in sessions[0].walk()) == 3001


RECORDED_RUNS = sorted(DEMO_DATA.glob("*/*/log.jsonl"))


@pytest.mark.parametrize("log", RECORDED_RUNS, ids=lambda p: f"{p.parts[-3]}/{p.parts[-2]}")
def test_recorded_runs_of_plain_burr_are_complete(log):
    """Each real run that ships with Burr: every step and begun span is there, once, in bounds."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    fold, sessions = build(*records)
    kinds = [record["type"] for record in records]
    spans = [span for span, _ in sessions[0].walk()]
    assert len(sessions) == 1
    assert [s.name for s in sessions[0].children] == [
        record["action"] for record in records if record["type"] == "begin_entry"
    ]
    assert sum(span.kind == "span" for span in spans) == kinds.count("begin_span")
    matched = kinds.count("end_span") - fold.stray_ends
    abandoned = sum(span.outcome == "abandoned" for span in spans)
    assert matched == kinds.count("begin_span") - abandoned
    assert all(span.end_ns is None or span.end_ns >= span.start_ns for span in spans)
    assert sum(len(span.logged) for span in spans) == kinds.count("attribute")


def test_there_are_recorded_runs():
    """The test above would pass on nothing."""
    assert len(RECORDED_RUNS) == 21


def test_spans_nested_by_the_thousand_cost_no_more_than_their_number(monkeypatch):
    """Ends and sessions of spans in one another are found without walking the chain for each."""
    depth, visits = 1_000, 0
    fold = Fold("p", "a")
    for record in (root(), begin(0, 0)):
        fold.add(record)
    for number in range(depth):
        fold.add(begin_span(number, 0, f"s{number}", f"s{number - 1}" if number else None))
    fold.finish(lambda _fields, _last_ns: False)
    walk, above = SpanNode.walk, SpanNode.above

    def counted_walk(span):
        nonlocal visits
        for each in walk(span):
            visits += 1
            yield each

    def counted_above(span):
        nonlocal visits
        visits += 1
        return above.__get__(span)

    spans = [span for span, _ in fold.sessions[0].walk()]
    monkeypatch.setattr(SpanNode, "walk", counted_walk)
    monkeypatch.setattr(SpanNode, "above", property(counted_above, above.__set__))
    assert {span.last_ns for span in spans} == {T0 + (depth - 1) * 10**6}
    assert {session_of(span) for span in spans} == {fold.sessions[0]}
    assert visits < 4 * depth


def test_the_last_time_of_an_open_step_is_asked_anew_when_something_joins_it():
    """A run that a step spawned may outlast everything else in the step."""
    fold = Fold("p", "a")
    for record in (root(), begin(0, 0), begin_span(5, 0, "inner")):
        fold.add(record)
    session = fold.sessions[0]
    (step,) = session.children
    assert (session.last_ns, step.last_ns) == (T0 + 5 * 10**6,) * 2
    step.adopt(SpanNode("application", "other", T0 + 6 * 10**6, T0 + 9 * 10**6))
    assert (session.last_ns, step.last_ns) == (T0 + 9 * 10**6,) * 2
