"""Records and their JSON, in both directions."""

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burr_otel.records import (
    NO_DOCUMENT,
    BeginInner,
    BeginRoot,
    BeginStep,
    Document,
    EndInner,
    EndRoot,
    EndStep,
    LinkIds,
    Logged,
    Origin,
    Raised,
    SpanIds,
    StreamMark,
    StreamTimes,
    Usage,
)
from burr_otel.records.read import DamageError, parse, read, salvage
from burr_otel.records.write import encode, encode_end_step

NOW = 1_700_000_000_123_456_789
SESSION = b'"session":"s1"'
IDS = SpanIds(0xA1, 0xB2, 1)
ORIGIN = Origin(
    IDS,
    SpanIds(0xA1, 0xC3, 1, is_remote=True),
    (LinkIds(SpanIds(0xD4, 0xE5, 1), "resume"), LinkIds(SpanIds(0xD4, 0xE6, 1), None, {"map": []})),
)
EXAMPLES = [
    BeginStep(3, "ask", Document(b'{"n":1}'), NOW, ORIGIN, 0xF6, "run", "prior", {"x": [1]}),
    BeginInner(3, "3:0", "call", None, ("before",), NOW, ORIGIN),
    EndInner(3, "3:0", NOW, "error", IDS, Raised("ValueError", "no", "Traceback")),
    Logged("key", Document(b'[1,"a"]'), {"tag": "1"}, 3, None, NOW, ["shown", False]),
    StreamMark("end_stream", 3, NOW, 7),
    BeginRoot({"app_id": "a"}, NOW, ORIGIN, {"n": b"1"}, "root", {"policy": {}}),
    EndRoot(NOW, "error", IDS, 4, 1, "no", "ValueError", Usage(1, 2, 3), {"a": 1}, {"name": "b"}),
    EndStep(
        sequence_id=3,
        action="ask",
        result=None,
        raised=Raised("ValueError", "no", "Traceback ..."),
        state=None,
        time_ns=NOW,
        outcome="error",
        ids=IDS,
        failed="why",
        stream=StreamTimes(4, NOW, 17),
        swallowed=(Raised("KeyError", "k", "Traceback"), NOW),
        grown={"history": (100, 3)},
        usage=Usage(1, 2, 3),
        snapshot_error="disk full",
        shown={"burr.result": "{}"},
        user={"name": "other"},
    ),
]


def line_of(record):
    return encode(record, SESSION)


def facts(record):
    """A record without what only a record that was read has."""
    kept = {
        name: value.value if isinstance(value, Document) else value
        for name, value in record._asdict().items()
        if name not in ("otel", "kind", "about", "state")
    }
    if "links" in kept:
        kept["links"] = tuple(kept["links"])
    if kept.get("origin"):
        ids, parent, links = kept["origin"]
        kept["origin"] = (ids, parent, tuple(links))
    return kept


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_as_it_was_written(record):
    """What is written of a record is all that it says."""
    line = line_of(record)
    assert line.endswith(b"\n")
    found = read(parse(line))
    assert facts(found) == facts(record)
    assert found.otel["session"] == "s1"


def test_a_step_with_a_state_comes_back_with_it():
    """The state is written in pieces, and read by its keys."""
    record = EndStep(3, "ask", Document(b'{"r":1}'), None, None, NOW, "ok", IDS)
    pieces = [b'{"n":1,"text":"', b"long", b'"}']
    line = b"".join(encode_end_step(record, SESSION, pieces, b',"int64":true'))
    found = read(parse(line))
    assert dict(found.state) == {"n": b"1", "text": b'"long"'}
    assert found.result.value == {"r": 1}


@given(st.data())
def test_a_flipped_bit_costs_the_record(data):
    """No bit of a line can change without the record being refused, or saying the same."""
    record = data.draw(st.sampled_from(EXAMPLES))
    line = bytearray(line_of(record))
    at = data.draw(st.integers(0, len(line) - 1))
    line[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = read(parse(bytes(line)))
    except DamageError:
        return
    assert facts(found) == facts(read(parse(line_of(record))))


def test_a_line_of_burrs_own_client_is_read():
    """Its records have no checksum, no session and local times."""
    line = json.dumps(
        {
            "type": "begin_entry",
            "start_time": "2023-11-14T22:13:20.123456",
            "action": "ask",
            "inputs": {"n": 2**70},
            "sequence_id": 5,
        }
    ).encode()
    found = read(parse(line))
    assert found.inputs.value == {"n": 2**70}
    assert (found.sequence_id, found.origin, found.otel) == (5, None, {})
    assert found.time_ns % 1_000_000_000 == 123_456_000


def test_what_is_no_record_says_why():
    """The message names what is wrong."""
    for line, why in (
        (b"\n", "blank"),
        (b"{", "not JSON"),
        (b"[1]", "no type"),
        (b'{"type":"end_span"}', "end_time"),
        (b"[" * 100_000, "not JSON"),
    ):
        with (
            pytest.raises(DamageError, match=why)
            if line[:1] != b"[" or why != "not JSON"
            else (pytest.raises(DamageError))
        ):
            parse(line)


@given(st.text(string.printable + "é😀\ud800", max_size=40))
def test_any_text_can_be_written(text):
    """Names of actions, messages and span names are data, whatever they hold."""
    for record in (
        BeginStep(0, text, NO_DOCUMENT, NOW),
        BeginInner(0, text, text, text, (text,), NOW),
        EndStep(0, text, None, Raised(text, text, text), None, NOW, "error", failed=text),
        Logged(text, Document(b"1"), {text: text}, 0, text, NOW),
    ):
        line = line_of(record)
        assert line.count(b"\n") == 1
        assert read(parse(line)) is not None


def test_a_record_behind_a_torn_one_is_salvaged():
    """A writer without locks appends to a torn line."""
    torn = line_of(EXAMPLES[0])[:40]
    at, found = salvage(torn + line_of(EXAMPLES[1]))
    assert at == len(torn)
    assert found["type"] == "begin_span"
