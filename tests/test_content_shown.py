"""What a span shows of JSON bytes: shared room, what is new, and the same as of the values."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from burr_otel.content import ContentPolicy
from burr_otel.content import capture as capture_module
from burr_otel.content.prune import clip, scrub, share, window
from burr_otel.content.redact import MARKER

POLICY = ContentPolicy()
CANARY = "hunter2CANARYx"
THOROUGH = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def small(limit: int) -> ContentPolicy:
    return ContentPolicy(max_attribute_bytes=limit)


def parts_of(value: dict[str, Any]) -> dict[str, bytes]:
    return {key: orjson.dumps(item) for key, item in value.items()}


def grown_from(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """What the run tells of the keys whose value went on from the value before."""
    return {
        key: (len(orjson.dumps(before[key])) - 1, len(before[key]))
        for key, item in after.items()
        if isinstance(item, list | str)
        and orjson.dumps(item).startswith(orjson.dumps(before.get(key))[:-1])
    }


# --- the same, however it comes -------------------------------------------------------------------

KEYS = st.sampled_from(["a", "b", "role", "content", "password", "name", "value", "é", "x" * 70])
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(
        [f"password={CANARY}", "sk-" + "a1" * 10, "token", "--api-key", CANARY, "words " * 90]
    )
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(KEYS, inner, max_size=8),
    max_leaves=50,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=6)


@pytest.mark.one_python
@THOROUGH
@given(DOCUMENTS, st.sampled_from([64, 200, 1_000, 16_384]))
def test_json_is_shown_like_the_values_that_it_stands_for(value, limit):
    """The document, its parts and the values themselves give one text."""
    policy = small(limit)
    shown = policy.shown("state", orjson.dumps(value))
    assert shown == policy.document("state", value)
    assert shown == policy.shown("state", parts_of(value))
    assert len(shown.value.encode()) <= limit
    json.loads(shown.value)


@pytest.mark.one_python
@THOROUGH
@given(DOCUMENTS)
def test_what_holds_no_secret_and_fits_is_shown_as_it_is(value):
    """With room for all of it, and nothing to hide, the text is the JSON itself."""
    policy = ContentPolicy(redact=False, max_attribute_bytes=1_000_000)
    assert policy.shown("state", orjson.dumps(value)) == (orjson.dumps(value).decode(), False)


LARGE = [
    {"items": [{"id": n, "name": f"item {n}", "tags": ["a", "b"]} for n in range(3000)]},
    {"items": [[n, [n]] for n in range(9000)]},
    {"items": [f'text {n} , ],[ }},{{ \\ "' for n in range(5000)]},
    {"items": list(range(50_000))},
    {"items": [n if n % 2 else {"n": n, "x": [{"y": n}, {"z": n}]} for n in range(9000)]},
    {"items": [{"content": [{"type": "text", "text": "t" * 90}] * 9} for n in range(500)]},
    {"items": [{"text": "long words " * 5000, "score": 0.9, "n": n} for n in range(9)]},
    {"text": "long words " * 20_000, "n": 1},
    {"deep": {"er": {"items": list(range(50_000)), "n": 1}, "usage": 5}},
    {f"key {n}": {"n": n, "text": "words " * 30} for n in range(3000)},
    {"a": [{"password": CANARY, "n": n} for n in range(9000)], "b": {"token": CANARY * 4000}},
]


@pytest.mark.parametrize("value", LARGE, ids=range(len(LARGE)))
@pytest.mark.parametrize("limit", [100, 1_000, 16_384])
def test_large_documents_are_cut_to_valid_json(value, limit):
    """In budget, marked as cut, without secrets, and what is shown is what was there."""
    policy = small(limit)
    for shown in (
        policy.shown("state", orjson.dumps(value)),
        policy.shown("state", parts_of(value)),
        policy.document("state", value),
    ):
        assert shown.truncated
        assert len(shown.value.encode()) <= limit
        assert CANARY not in shown.value
        head = json.loads(shown.value)
        if limit > 100 and "items" in value:
            note = head["items"][-1]
            assert head["items"][0] == value["items"][0] or isinstance(head["items"][0], dict)
            assert isinstance(note, dict) or note.startswith("... ")


def test_only_the_head_of_a_long_list_is_parsed(monkeypatch):
    """Of a megabyte of objects no more is parsed than can be shown."""
    parsed = []
    loads = orjson.loads
    monkeypatch.setattr(
        capture_module.orjson, "loads", lambda data: parsed.append(len(data)) or loads(data)
    )
    items = [{"id": n, "name": f"item {n}"} for n in range(30_000)]
    shown = POLICY.shown("state", {"items": orjson.dumps(items), "n": b"1"})
    assert json.loads(shown.value)["n"] == 1
    assert sum(parsed) < 2 * 16_384


# --- shared room ------------------------------------------------------------------------------------


def test_small_facts_stay_beside_a_long_text_at_every_depth():
    """A 40 KB content costs neither the reason why it ended nor the usage, wherever it stands."""
    answer = {"content": "a long answer " * 3000, "finish_reason": "stop", "usage": {"input": 5}}
    for value in (answer, {"answer": answer}, {"choices": [{"message": answer}]}):
        text = POLICY.shown("results", orjson.dumps(value)).value
        assert '"finish_reason":"stop","usage":{"input":5}' in text
        assert len(text) > 15_000


def test_a_long_text_keeps_its_head_and_its_tail():
    """And says how many characters are missing between them."""
    text = "".join(f"{n} " for n in range(20_000))
    shown = json.loads(POLICY.shown("state", orjson.dumps({"t": text})).value)["t"]
    head, _, rest = shown.partition("... [")
    count, _, tail = rest.partition(" more characters] ...")
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len(head) + int(count) + len(tail) == len(text)
    assert len(tail) > 4_000


@given(st.lists(st.integers(0, 500), max_size=20), st.integers(0, 3000))
def test_the_share_of_scarce_room(sizes, room):
    """Parts cut to their share fit; no part is cut that a fair share would hold."""
    level = share(sizes, room)
    assert sum(min(size, level) for size in sizes) <= max(room, 0)
    assert all(size <= level for size in sizes) or level >= room // len(sizes)
    assert level == max(sizes, default=room) or sum(sizes) > room


# --- what went on -----------------------------------------------------------------------------------


def chat(turns: int) -> dict[str, Any]:
    return {
        "history": [{"role": "user", "content": f"turn {n} of many"} for n in range(turns)],
        "n": turns,
    }


def test_of_a_chat_that_went_on_the_new_turns_are_shown():
    """The turns of before are counted, those that came are whole."""
    before, after = chat(1000), chat(1002)
    shown = POLICY.shown("state", parts_of(after), grown_from(before, after))
    expected = {"history": ["... 1000 unchanged items", *after["history"][1000:]], "n": 1002}
    assert json.loads(shown.value) == expected
    assert shown.truncated


def test_only_what_is_new_of_a_chat_is_parsed(monkeypatch):
    """However long the chat is."""
    parsed = []
    loads = orjson.loads
    monkeypatch.setattr(
        capture_module.orjson, "loads", lambda data: parsed.append(len(data)) or loads(data)
    )
    before, after = chat(100_000), chat(100_001)
    POLICY.shown("state", parts_of(after), grown_from(before, after))
    assert sum(parsed) < 200


def test_a_small_value_that_went_on_is_shown_whole():
    """What has room needs no count."""
    before, after = chat(3), chat(4)
    shown = POLICY.shown("state", parts_of(after), grown_from(before, after))
    assert json.loads(shown.value) == after
    assert not shown.truncated
    large = {"doc": "words " * 9000}
    shown = POLICY.shown("state", parts_of(after | large), grown_from(before, after))
    assert json.loads(shown.value)["history"] == after["history"]


def test_what_is_unchanged_leaves_its_room_to_others():
    """A long text beside a chat that went on has nearly all of the room."""
    before, after = chat(1000), chat(1001)
    after["answer"] = "words " * 9000
    shown = POLICY.shown("state", parts_of(after), grown_from(before, after)).value
    assert len(json.loads(shown)["answer"]) > 15_000
    assert json.loads(shown)["history"] == ["... 1000 unchanged items", after["history"][-1]]


def test_the_newest_item_is_the_last_to_give_way():
    """Of more new items than fit, the last ones are shown; one that is too long keeps its ends."""
    before, after = chat(500), chat(900)
    shown = small(1000).shown("state", parts_of(after), grown_from(before, after))
    history = json.loads(shown.value)["history"]
    assert history[-1] == after["history"][-1]
    new = 400 - (len(history) - 1)
    assert history[0] == f"... 500 unchanged and {new} new items"
    after["history"].append({"role": "user", "content": "a b " * 9000})
    shown = small(1000).shown("state", parts_of(after), grown_from(before, after))
    history = json.loads(shown.value)["history"]
    assert history[-1]["role"] == "user"
    assert "more characters] ..." in history[-1]["content"]


def test_of_a_list_that_did_not_change_only_the_count_is_shown():
    """The step wrote it again as it was."""
    after = chat(1000)
    shown = POLICY.shown("state", parts_of(after), grown_from(after, after))
    assert json.loads(shown.value)["history"] == ["... 1000 unchanged items"]


def test_of_a_text_that_went_on_the_new_end_is_shown():
    """A text stays a text."""
    before, after = {"t": "words, " * 9000}, {"t": "words, " * 9000 + "and the end"}
    shown = POLICY.shown("state", parts_of(after), grown_from(before, after))
    assert json.loads(shown.value)["t"] == "... [63000 unchanged characters] ...and the end"
    after = {"t": "words, " * 9000 + "more, " * 9000 + "the end"}
    text = json.loads(POLICY.shown("state", parts_of(after), grown_from(before, after)).value)["t"]
    assert text.startswith("... [63000 unchanged and ")
    assert text.endswith("more, the end")
    assert len(text) > 16_000


@pytest.mark.parametrize("known", [(-5, 3), (10**9, 3), (7, 10**9), (0, 0), (40, 2)])
def test_a_wrong_account_of_what_is_unchanged_harms_nothing(known):
    """It never raises, and the whole value is looked at."""
    value = chat(2000) | {"t": "words, " * 9000}
    shown = POLICY.shown("state", parts_of(value), {"history": known, "t": known, "no": known})
    assert len(shown.value.encode()) <= 16_384
    json.loads(shown.value)


@pytest.mark.parametrize(
    ("before", "new"),
    [
        ("my password: ", f"{CANARY} is it"),
        ("the key is sk-proj-a1", f"b2c3d4{CANARY} ok"),
        (f'config {{"api_key": "{CANARY}', f'{CANARY}"}} done'),
    ],
)
def test_a_secret_across_the_end_of_the_unchanged_text_is_hidden(before, new):
    """Its name, or its beginning, stands in the part that is not shown."""
    before = "words, " * 4000 + before
    shown = POLICY.shown(
        "state", parts_of({"t": before + new}), grown_from({"t": before}, {"t": before + new})
    )
    assert CANARY not in shown.value


def test_the_value_of_an_option_that_was_there_before_is_hidden():
    """Arguments that went on after ``--password``."""
    before = {"argv": ["x y z"] * 4000 + ["--password"]}
    after = {"argv": [*before["argv"], CANARY, "-v"]}
    shown = POLICY.shown("state", parts_of(after), grown_from(before, after)).value
    assert CANARY not in shown
    assert json.loads(shown)["argv"] == ["... 4000 unchanged items", "--password", MARKER, "-v"]


ARGUMENTS = {"argv": ["x y z"] * 4000 + ["--password"]}
WENT_ON = [
    pytest.param(chat(1000), chat(1001), id="one-turn"),
    pytest.param(chat(1000), chat(1000), id="nothing-new"),
    pytest.param(chat(3), chat(1000), id="mostly-new"),
    pytest.param(chat(1), chat(1000), id="begins-at-once"),
    pytest.param(ARGUMENTS, {"argv": [*ARGUMENTS["argv"], CANARY, "-v"]}, id="option"),
    pytest.param({"t": "words, " * 9000}, {"t": "words, " * 9001}, id="text"),
]


@pytest.mark.parametrize("limit_bytes", [64, 500, 4000, 16 * 1024, 1024 * 1024])
@pytest.mark.parametrize(("before", "after"), WENT_ON)
def test_what_a_span_holds_of_a_state_shows_the_same_as_all_of_it(before, after, limit_bytes):
    """The beginning of a long list that went on is not looked at, so it is not held."""
    policy, parts, grown = small(limit_bytes), parts_of(after), grown_from(before, after)
    held = policy.needed(parts, grown)
    assert policy.shown("state", held, grown) == policy.shown("state", parts, grown)


def test_a_span_holds_the_new_turns_of_a_chat_alone():
    """A thousand turns that wait for their export do not fill the room for such bytes."""
    before, after = chat(1000), chat(1001)
    held = POLICY.needed(parts_of(after), grown_from(before, after))
    assert len(held["history"]) == len(parts_of(after)["history"])
    assert len(held["history"].text) < 200


# --- settings ---------------------------------------------------------------------------------------


def test_types_and_off_hold_for_json_too():
    """Names and sizes only, or nothing."""
    data = orjson.dumps({"text": "four", "list": [1, 2], "password": "x"})
    shown = ContentPolicy(inputs="types").shown("inputs", data)
    assert json.loads(shown.value) == {"text": "str[4]", "list": "list[2]", "password": MARKER}
    assert ContentPolicy(inputs="off").shown("inputs", data) is None
    assert ContentPolicy(state="off").shown("state", {"a": b"1"}) is None


def test_a_redactor_is_asked_about_json_too():
    """Where a reader of a log has one."""
    policy = ContentPolicy(redactor=lambda path, value: 0 if path == "state.a.b" else value)
    assert policy.asks_user
    assert not POLICY.asks_user
    assert policy.shown("state", b'{"a":{"b":5}}').value == '{"a":{"b":0}}'
    assert policy.shown("state", {"a": b'{"b":5}'}).value == '{"a":{"b":0}}'


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"nonsense", b'{"a":"\\ud800"}', b"\xff"])
def test_bytes_that_are_no_json_object_raise_nothing(data):
    """A damaged log is shown as unreadable, or as what it is."""
    assert isinstance(json.loads(POLICY.shown("state", data).value), str | list)
    shown = POLICY.shown("state", {"a": data})
    assert isinstance(json.loads(shown.value), str | dict)


# --- the policy as data -----------------------------------------------------------------------------


def test_a_policy_goes_through_json_and_is_kept_where_it_is_stricter():
    """A reader shows no more than the session would have, and no more than its own settings allow."""
    session = ContentPolicy(
        inputs="types", state="off", redact_keys=("mail",), max_attribute_bytes=2000,
        redactor=lambda path, value: value,
    )  # fmt: skip
    data = json.loads(json.dumps(session.to_data()))
    assert data["redactor"] is True
    reader = ContentPolicy(
        results="types", state="types", redact=False, redact_keys=("iban",), redact_values=("X+",)
    )
    both = reader.stricter(data)
    assert both == ContentPolicy(
        inputs="types", results="types", state="off", redact_keys=("iban", "mail"),
        redact_values=("X+",), max_attribute_bytes=2000, shown_only=True,
    )  # fmt: skip
    assert POLICY.stricter(POLICY.to_data()) == POLICY


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": "everything"},
        {"inputs": None},
        {"redact_keys": ["("]},
        {"redact_values": 5},
        {"redact": "no"},
        {"max_attribute_bytes": 0},
        {"max_attribute_bytes": "much"},
    ],
)
def test_of_bad_data_the_strictest_reading_counts(change):
    """Nothing is raised, and nothing is shown that might have been hidden."""
    strict = POLICY.stricter(POLICY.to_data() | change)
    assert strict.shown("inputs", b'{"a":1}') is None
    assert strict.redact
    for data in ({}, None, [], "text"):
        assert POLICY.stricter(data).exceptions == "off"


# --- texts ------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


def test_a_text_with_room_stays_as_it_is():
    """Nothing is added to a text that fits exactly, and nothing is reported missing."""
    assert clip("héllo", 6) == ("héllo", False)
    assert clip("abcdefghij", 3) == ("...", True)


@given(TEXTS, st.integers(3, 400), st.integers(1, 40))
def test_cut_texts_fit_and_count(text, limit, times):
    """Measured in bytes of UTF-8, head, count and tail give the whole length."""
    text *= times
    shown, cut = clip(text, limit)
    assert len(shown.encode()) <= limit
    if not cut:
        assert shown == text
    elif shown != "..." and "... [" not in text:
        head, _, rest = shown.partition("... [")
        count, _, tail = rest.partition(" more characters]")
        tail = tail.removeprefix(" ...")
        assert text.startswith(head)
        assert text.endswith(tail)
        assert len(head) + int(count) + len(tail) == len(text)


@given(TEXTS, st.integers(64, 400), st.integers(1, 40))
def test_a_cut_text_is_json_in_budget(text, limit, times):
    """No escape and no character is split."""
    shown = small(limit).shown("state", orjson.dumps({"t": text * times})).value
    assert len(shown.encode()) <= limit
    json.loads(shown)


def test_of_a_text_of_any_length_only_the_ends_are_kept():
    """With what the search for secrets needs beyond them."""
    cut = window("x" * 50_000_000, 900)
    assert len(cut.head) + len(cut.tail) < 4000
    assert cut.missing + 900 + 300 == 50_000_000


@given(st.text())
def test_scrubbed_text_can_be_written_as_utf8(text):
    """No lone surrogate survives, and everything else does."""
    scrubbed = scrub(text)
    scrubbed.encode()
    assert len(scrubbed) == len(text)
    assert all(
        a == b or (0xD800 <= ord(a) < 0xE000 and b == "\ufffd")
        for a, b in zip(text, scrubbed, strict=True)
    )
