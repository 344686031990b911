"""What the log keeps of a span, and that the same comes back."""

import itertools
import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from burr_otel import semconv
from burr_otel.spans import parents, recorded
from burr_otel.spans.portable import (
    UNKNOWN,
    applied,
    difference,
    from_portable,
    native,
    portable,
)
from burr_otel.testing import SpanCapture

SCALARS = (
    st.text(alphabet=st.characters(exclude_categories=()))
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary(max_size=20)
    | st.none()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
TEXTS = st.text(max_size=300)


def same(one, other):
    """Equality that takes NaN for NaN and tells 1, True and 1.0 apart."""
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    if isinstance(one, tuple):
        return (
            isinstance(other, tuple)
            and len(one) == len(other)
            and all(same(a, b) for a, b in zip(one, other, strict=True))
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


@given(VALUES)
def test_every_attribute_value_comes_back_from_strict_json(value):
    """NaN, bytes, integers of any size and lone surrogates are what they were."""
    assert same(from_portable(orjson.loads(orjson.dumps(portable(value)))), value)


def test_a_value_of_a_later_version_is_refused_by_name():
    """Who reads a log of a later version learns what is not known."""
    with pytest.raises(ValueError, match="decimal"):
        from_portable({"decimal": "1.5"})


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_a_text_comes_back_from_what_it_adds_to_another(head, mine, theirs, tail):
    """Whatever two texts share and wherever they differ, also within characters of many bytes."""
    text, base = head + mine + tail, (head + theirs + tail).encode()
    change = orjson.loads(orjson.dumps(difference(text, base)))
    assert applied(change, base) == text
    if isinstance(change, list):
        assert len(change[1]) <= len(mine) + 2


@given(TEXTS)
def test_a_text_comes_back_without_another(text):
    """Where nothing is known, the whole text is kept."""
    assert applied(difference(text, None), None) == text


@pytest.mark.parametrize("change", [[5, "x", 5], 7, {"as": "x"}, None])
def test_a_change_to_another_text_than_it_was_made_for_gives_nothing(change):
    """A damaged record gives no made-up content."""
    assert applied(change, b"short") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", "a"),
        (1 << 62, 1 << 62),
        ([1, 2], (1, 2)),
        ([1, "a"], '[1,"a"]'),
        ([], "[]"),
        ({"a": [None]}, '{"a":[null]}'),
        (None, "null"),
        (1 << 64, UNKNOWN),
    ],
)
def test_what_a_logged_json_value_is_as_an_attribute(value, expected):
    """Attributes hold scalars and lists of one type; all else is JSON."""
    assert native(value) == expected


KEYS = st.sampled_from(["a", "b", "c", "burr.result", "burr.state.written", "\ud800"])
ATTRIBUTES = st.dictionaries(KEYS, SCALARS | TEXTS | st.tuples(st.integers(), st.integers()))
BASES = st.dictionaries(
    st.sampled_from(["burr.result", "burr.state.written"]), st.none() | TEXTS.map(str.encode)
)


@given(ATTRIBUTES, ATTRIBUTES, BASES)
def test_a_spans_attributes_come_back_from_any_expectation(found, known, bases):
    """Whatever a reader expects of a span, the record corrects it: also what is not there."""
    known = {key: value for key, value in known.items() if key not in bases}
    members = orjson.loads(orjson.dumps(recorded._members(found, known, bases)))
    back = recorded.read_attributes(known, members, bases)
    assert same(dict(sorted(back.items())), dict(sorted(found.items())))


def ended(**changes):
    """A span of ours that has ended, and its end record."""
    capture = SpanCapture()
    tracer = capture.provider.get_tracer("t")
    span = tracer.start_span("name", start_time=1_000, attributes={"known": 1})
    changes.get("before", lambda _: None)(span)
    span.end(changes.get("ended_ns", 2_000))
    return span, recorded.end_record(
        span,
        ids=parents.record_of(span.get_span_context()),
        name="name",
        start_ns=1_000,
        end_ns=2_000,
        outcome="ok",
        links=0,
        known={"known": 1},
        bases=changes.get("bases", {}),
    )


def test_an_ordinary_span_costs_a_few_bytes():
    """A span that says just what its record does is kept as such, and no more."""
    _, record = ended()
    assert {key: record[key] for key in record if key not in ("trace_id", "span_id", "flags")} == {
        "time_unix_nano": 2_000,
        "outcome": "ok",
        "attributes": {},
    }


def test_what_user_code_did_to_a_span_is_kept():
    """Name, attributes, events, links, status and end that the action itself set come back."""
    other = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1))

    def change(span):
        span.update_name("renamed")
        span.set_attribute("own", (1.5, float("inf")))
        span.add_event("happened", {"n": 1}, timestamp=1_500)
        span.add_link(other, {"why": "because", "n": 2})
        span.set_status(Status(StatusCode.ERROR, "bad \ud800"))

    span, record = ended(before=change, ended_ns=1_900)
    record = orjson.loads(orjson.dumps(record))
    assert recorded.read_name(record, "name") == "renamed"
    assert recorded.read_attributes({"known": 1}, record, {}) == dict(span.attributes)
    [event] = recorded.read_events(record)
    assert (event.name, event.timestamp, event.attributes) == ("happened", 1_500, {"n": 1})
    [link] = parents.recorded_links(record)
    assert (link.context, dict(link.attributes)) == (other, {"why": "because", "n": 2})
    status = recorded.read_status(record)
    assert (status.status_code, status.description) == (StatusCode.ERROR, "bad \ud800")
    assert record["end_unix_nano"] == 1_900


def test_what_a_span_limit_dropped_stays_dropped():
    """An attribute that the record would give, but the span has not, is named."""
    _, record = ended(bases={semconv.RESULT: b'{"a":1}'})
    assert recorded.read_attributes({"known": 1}, record, {semconv.RESULT: b'{"a":1}'}) == {
        "known": 1
    }


def test_nothing_is_kept_of_a_span_that_nobody_sees():
    """Not of one that was not sampled, and not of one that does not record."""
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
    from opentelemetry.trace import INVALID_SPAN

    unsampled = SpanCapture(sampler=ALWAYS_OFF).provider.get_tracer("t").start_span("x")
    assert recorded.readable(unsampled) is None
    assert recorded.readable(INVALID_SPAN) is None


def test_an_action_is_described_again_after_some_steps():
    """So a reader of a long log finds each action's description within 256 steps."""
    described = recorded.Described()
    told = []
    for number in range(1000):
        if described.lacks("count"):
            told.append(number)
        described.note("count")
    assert told[0] == 0
    assert max(b - a for a, b in itertools.pairwise(told)) <= 257
    assert len(told) < 8


def test_the_facts_of_an_action_come_back():
    """Names that are the action's own are not kept twice."""
    facts = {
        semconv.ACTION_NAME: "ask",
        semconv.GRAPH_NODE_ID: "ask",
        semconv.ACTION_READS: ("a", "b"),
        semconv.CODE_LINE_NUMBER: 7,
        semconv.GEN_AI_TOOL_NAME: "ask",
    }
    member = recorded.facts_member("ask", facts)
    assert semconv.ACTION_NAME not in member
    assert recorded.read_facts("ask", orjson.loads(orjson.dumps(member))) == facts


def test_links_and_trace_state_come_back():
    """A link keeps its type, whether it was remote, and the trace state of its target."""
    from opentelemetry.trace import TraceState

    near = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1))
    far = SpanContext(
        3, 4, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("k", "v")])
    )
    links = parents.links((near, "fork"), (far, "ambient"))
    record = parents.origin_record(near, far, links)
    back = parents.recorded_links(orjson.loads(orjson.dumps(record)))
    assert [(link.context, link.context.is_remote, dict(link.attributes)) for link in back] == [
        (near, False, {"burr.link.type": "fork"}),
        (far, True, {"burr.link.type": "ambient"}),
    ]
    assert parents.recorded_parent({**record, "trace_id": "3".zfill(32)}).is_remote


def members_of(text):
    """Ready-made JSON members as the mapping that they are."""
    return orjson.loads(b"{%b}" % text)


CONTEXTS = st.builds(
    SpanContext,
    st.integers(1, (1 << 128) - 1),
    st.integers(1, (1 << 64) - 1),
    is_remote=st.booleans(),
    trace_flags=st.sampled_from([TraceFlags(0), TraceFlags(1), TraceFlags(3)]),
    trace_state=st.sampled_from([None, TraceState(), TraceState([("vendor", "1")])]),
)


@given(CONTEXTS, CONTEXTS, st.lists(CONTEXTS, max_size=2))
def test_ready_made_ids_are_those_of_the_record(context, parent, targets):
    """The bytes that a step writes say what the mapping says that other spans write."""
    ids = parents.id_members(context)
    assert members_of(ids) == parents.record_of(context)
    links = parents.links(*((target, "ambient") for target in targets))
    origin = parents.origin_members(ids, parent, links)
    assert members_of(origin) == parents.origin_record(context, parent, links)


def test_an_invalid_span_has_no_ids():
    """Nothing stands in the record of what is no span."""
    assert parents.id_members(INVALID_SPAN_CONTEXT) == b""


@given(
    st.sampled_from([None, "run", "astep"]), st.none() | st.text(max_size=80) | st.just("\ud800")
)
def test_the_usual_begin_is_what_any_begin_would_be(method, prior):
    """A step that bears its own name, with the record's inputs, is written from a cache."""
    said = {semconv.EXECUTE_METHOD: method, semconv.GRAPH_NODE_PARENT_ID: prior}
    said = {key: value for key, value in said.items() if value is not None}
    said[semconv.INPUTS] = "{}"
    expected = recorded.begin_members("ask", "ask", said, {semconv.INPUTS: b"{}"})
    assert members_of(recorded.usual_begin(method, prior)) == orjson.loads(orjson.dumps(expected))


@given(
    st.dictionaries(
        st.sampled_from([semconv.RESULT, semconv.STATE_WRITTEN]),
        st.tuples(st.text(), st.none() | st.text().map(str.encode))
        | st.text().map(lambda t: (t, t.encode())),
    ),
    st.sampled_from([(), (semconv.RESULT,)]),
)
def test_the_usual_end_is_what_any_end_would_be(contents, truncated):
    """Content that was cut or hidden is told as what the record lacks of it."""
    said = {name: text for name, (text, _) in contents.items()}
    bases = {name: base for name, (_, base) in contents.items()}
    found = {**said, semconv.TRUNCATED: truncated} if truncated else said
    back = recorded.read_attributes(
        {}, members_of(recorded.usual_end(said, bases, truncated)), bases
    )
    assert back == found


def test_content_without_its_counterpart_is_not_the_usual_end():
    """Neither a span that lacks what the record has, nor one that has more."""
    assert recorded.usual_end({}, {semconv.RESULT: b"{}"}, ()) is None
    assert recorded.usual_end({semconv.RESULT: "{}"}, {}, ()) is None
    assert recorded.usual_end({semconv.OUTPUT_VALUE: "{}"}, {semconv.RESULT: b"{}"}, ()) is None
