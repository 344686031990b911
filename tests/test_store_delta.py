"""Snapshots that carry what changed: they load as whole ones do, and take little room."""

import json
import math
import os
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
from burr.tracking import LocalTrackingClient
from hypothesis import given, settings
from hypothesis import strategies as st
from store_support import (
    ENDED,
    begin,
    finish_step,
    folder_of,
    keep,
    log_records,
    read_by_burr,
    run_step,
    sealed,
    start_step,
    values_of,
)
from test_store_values import PROFILE, alike, documents, texts

from burr_otel.errors import StoreError, UnknownSequenceError
from burr_otel.store import Store, delta
from burr_otel.store.copying import write_plain
from burr_otel.store.values import encode_state


@pytest.fixture
def store(tmp_path):
    return Store("proj", tmp_path, delta=True)


def ends(store, app_id="a"):
    records = log_records(folder_of(store, app_id) / "log.jsonl")
    return [record for record in records if record["type"] == "end_entry"]


def is_whole(record):
    return "delta" not in record.get("otel", {})


def message(number):
    return {"role": "user", "content": f'Straße {number}: "quoted"\n' * 20, "at": 1e16}


def chat(store, turns, app_id="a"):
    """A conversation of so many messages of some 500 bytes, open."""
    session = begin(store, app_id)
    history = []
    for number in range(turns):
        history.append(message(number))  # in place, as users do
        run_step(session, number, {"history": history, "n": number, "same": "x" * 300})
    return session


def equal(left, right):
    """How many bytes both begin with."""
    pairs = zip(left, right, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


keys = st.sampled_from(["a", "b", "history", "é\ud800", ""])
changes = st.one_of(
    st.tuples(st.just("set"), keys, documents),
    st.tuples(st.just("grow"), keys, documents),
    st.tuples(st.just("text"), keys, texts),
    st.tuples(st.just("remove"), keys, st.none()),
    st.tuples(st.just("first"), keys, documents),
)


def changed(state, how, key, value):
    """A new state, or the old one with a value that was changed in place."""
    if how == "remove":
        return {k: v for k, v in state.items() if k != key}
    if how == "first":
        return {key: value, **{k: v for k, v in state.items() if k != key}}
    if how == "grow":
        state.setdefault(key, [])
        if isinstance(state[key], list):
            state[key].append(value)
            return state
    if how == "text" and isinstance(state.get(key), str):
        return {**state, key: state[key] + value}
    return {**state, key: value}


@pytest.mark.one_python
@settings(PROFILE, max_examples=60)
@given(st.lists(st.lists(changes, max_size=3), min_size=1, max_size=12))
def test_any_sequence_of_states_loads_as_whole_snapshots_do(tmp_path_factory, steps):
    """At every sequence id: values, types, order of keys, what JSON cannot carry."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        kept = Store("proj", folder / "delta", **keep("delta", patch))
        whole = Store("proj", folder / "full")
        sessions = begin(kept), begin(whole)
        state = {"long": "ä" * 100}
        for number, step in enumerate(steps):
            for change in step:
                state = changed(state, *change)
            for session in sessions:
                run_step(session, number, state)
    log = (folder_of(kept, "a") / "log.jsonl").read_bytes()
    assert log.count(b'"delta":{"number":') == len(steps) - 1
    for number in range(len(steps)):
        expected = whole.load(None, "a", number)["state"].get_all()
        assert alike(kept.load(None, "a", number)["state"].get_all(), expected)
    for one, other in zip(kept.read("a").records(), whole.read("a").records(), strict=True):
        if one["type"] != "end_entry":
            continue
        assert alike(one["state"], other["state"])
        assert one["otel"].get("exact") == other["otel"].get("exact")


@PROFILE
@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 3))
def test_what_two_values_share_is_found_whole(start, left, right, repeat):
    """The longest common beginning and end, whatever stands between."""
    one, other = start * repeat + left + start, start * repeat + right + start
    head = delta._shared_start(one, other)
    assert head == equal(one, other)
    most = min(len(one), len(other)) - head
    tail = delta._shared_end(one, other, most)
    assert tail == min(most, equal(one[::-1], other[::-1]))


@pytest.mark.parametrize("pair", ["äö", "äĤ", "😀😁", "😀🐀", "äa", "aä"])
def test_a_change_within_a_character_is_written_as_text(store, pair):
    """Characters that share bytes at one end are cut before or behind them, not in between."""
    session = begin(store)
    texts_ = [f"{'x' * 900}{character}{'é' * 90}" for character in pair]
    for number, text in enumerate(texts_):
        run_step(session, number, {"text": text})
    assert [is_whole(record) for record in ends(store)] == [True, False]
    for number, text in enumerate(texts_):
        assert values_of(store.load(None, "a", number)) == {"text": text}


def test_a_growing_conversation_takes_room_for_what_is_new(store):
    """A hundredth of what whole snapshots take, and every turn loads."""
    chat(store, 400).close()
    log = folder_of(store, "a") / "log.jsonl"
    whole = sum(len(json.dumps(r["state"])) for r in store.read("a").records() if "state" in r)
    assert log.stat().st_size < whole / 25
    for number in (0, 1, 63, 64, 65, 200, 399):
        loaded = values_of(store.load(None, "a", number))
        assert loaded["history"] == [message(n) for n in range(number + 1)]
        assert loaded["n"] == number


def test_a_load_replays_a_bounded_number_of_records_and_bytes(store):
    """At most 64 differences, which together are no longer than the state they begin with."""
    chat(store, 500)
    numbers = [r["otel"].get("delta", {"number": 0})["number"] for r in ends(store)]
    assert max(numbers) == delta._MAX_NUMBER
    whole, since = 0, 0
    for record in ends(store):
        length = len(json.dumps(record["state"], ensure_ascii=False).encode())
        if is_whole(record):
            whole, since = length, 0
        else:
            since += length
            assert since <= whole


def test_a_state_that_is_new_every_time_is_written_whole(store):
    """A difference as long as the state would only cost."""
    session = begin(store)
    for number in range(5):
        run_step(session, number, {"text": f"{number:08}" * 500})
    assert all(map(is_whole, ends(store)))


def test_every_session_begins_with_a_whole_state(store):
    """Also that of a forked child, and one that goes on after it had ended."""
    for _ in range(2):
        session = chat(store, 40)
    whole = [number for number, record in enumerate(ends(store)) if is_whole(record)]
    assert {0, 40} <= set(whole)
    session.end(ENDED)
    run_step(session, 40, {"history": [message(n) for n in range(41)]})
    assert is_whole(ends(store)[-1])


def test_a_session_that_others_came_between_goes_on_with_a_whole_state(store, caplog):
    """In this process or another one: what it would build on need not be what a reader finds."""
    first, second = begin(store), begin(store)
    stranger = Store("proj", Path(store.place).parent)
    state = {"history": [message(n) for n in range(20)]}
    for number in range(3):
        run_step(first, number, {**state, "n": number})
    assert [is_whole(r) for r in ends(store)] == [True, False, False]
    run_step(second, 3, {**state, "n": 3})
    run_step(first, 4, {**state, "n": 4})
    run_step(first, 5, {**state, "n": 5})
    assert [is_whole(r) for r in ends(store)][3:] == [True, True, False]
    with (folder_of(store, "a") / "log.jsonl").open("ab") as file:
        file.write(b'{"type":"note"}\n')
    run_step(first, 6, {**state, "n": 6})
    assert is_whole(ends(store)[-1])
    run_step(first, 7, {**state, "n": 7})
    assert not is_whole(ends(store)[-1])
    start_step(first, 8)
    with (folder_of(store, "a") / "log.jsonl").open("ab") as file:
        file.write(b'{"type":"note"}\n')
    finish_step(first, 8, {**state, "n": 8})
    assert is_whole(ends(store)[-1])
    for number in range(9):
        assert values_of(stranger.load(None, "a", number)) == {**state, "n": number}


def test_buffered_differences_that_land_behind_another_writers_step_load(tmp_path):
    """`durability="none"`: when they were made, nobody could know what they would follow."""
    store = Store("proj", tmp_path, durability="none", delta=True)
    session = begin(store)
    state = {"history": [message(n) for n in range(20)]}
    run_step(session, 0, {**state, "n": 0})
    assert values_of(store.load(None, "a"))["n"] == 0, "written out by being read"
    with (folder_of(store, "a") / "log.jsonl").open("ab") as file:
        file.write(
            b'{"type":"end_entry","sequence_id":9,"end_time":"2024-01-01T00:00:00","action":"step",'
            b'"result":null,"exception":null,"state":{"n":9}}\n'
        )
    for number in (1, 2):
        run_step(session, number, {**state, "n": number})
    assert values_of(store.load(None, "a", 9)) == {"n": 9}
    run_step(session, 3, {**state, "n": 3})
    session.close()
    assert [is_whole(r) for r in ends(store)] == [True, True, False, False, True]
    for number in range(4):
        assert values_of(store.load(None, "a", number)) == {**state, "n": number}
    run = store.read("a")
    assert [r["state"]["n"] for r in run.records() if r["type"] == "end_entry"] == [0, 9, 1, 2, 3]


def test_a_rewound_run_loads_the_new_timeline(store):
    """Differences build on their own session, whatever their sequence ids are."""
    chat(store, 30)
    again = begin(store)
    state = {"history": [message(n) for n in range(10)]}
    for number in range(10, 20):
        run_step(again, number, {**state, "again": number})
    assert not is_whole(ends(store)[-1])
    assert values_of(store.load(None, "a")) == {**state, "again": 19}
    assert values_of(store.load(None, "a", 12)) == {**state, "again": 12}
    assert values_of(store.load(None, "a", 9))["n"] == 9
    assert values_of(store.load(None, "a", 25))["n"] == 25


@pytest.mark.parametrize("field", ["number", "base_crc", "state_crc", "text", "joins", "session"])
def test_a_difference_that_does_not_add_up_gives_no_state(store, field):
    """Its base is another one than the writer saw, or a byte of it is: no state, never a wrong one.

    The next whole state is not affected.
    """
    session = chat(store, 20)
    run_step(session, 20, {"history": [], "pad": "y" * 500})
    log = folder_of(store, "a") / "log.jsonl"
    number = next(n for n in range(12, 20) if not is_whole(ends(store)[n]))
    lines = log.read_bytes().splitlines(keepends=True)
    at = next(
        i for i, line in enumerate(lines)
        if line.startswith(b'{"type":"end_entry","sequence_id":%d,' % number)
    )  # fmt: skip
    record = json.loads(lines[at])
    if field == "text":
        [item] = record["state"]["history"]
        item["content"] = item["content"].replace("quoted", "quotes", 1)
    elif field == "state_crc":
        record["otel"]["state_crc"] ^= 1
    elif field == "session":
        record["otel"]["session"] = "another"
    elif field == "joins":
        record["otel"]["delta"]["joins"]["history"][1] -= 1
    else:
        record["otel"]["delta"][field] ^= 1
    lines[at] = sealed(record)
    log.write_bytes(b"".join(lines))
    with pytest.raises(UnknownSequenceError):
        store.load(None, "a", number)
    assert values_of(store.load(None, "a", 20)) == {"history": [], "pad": "y" * 500}
    assert values_of(store.load(None, "a", 3))["n"] == 3
    run = store.read("a")
    states = {r["sequence_id"]: r["state"] for r in run.records() if r["type"] == "end_entry"}
    assert states[number] is None
    assert states[20]["pad"] == "y" * 500
    assert any("builds on is lost" in reason for _, _, reason in run.skipped)
    for found, state in states.items():
        assert state is None or state.get("n", found) == found


def test_a_step_within_the_writing_of_another_one_is_kept(store, monkeypatch):
    """A dropped stream is finalised inside any allocation, by the thread that is in an append."""
    session = begin(store)
    history = [message(n) for n in range(10)]
    for number in range(2):
        run_step(session, number, {"history": history, "n": number})
    original, inside = delta.difference, []

    def interrupted(base, new):
        if not inside:
            inside.append(True)
            finish_step(session, 7, {"history": history, "n": 7})
        return original(base, new)

    monkeypatch.setattr(delta, "difference", interrupted)
    for number in (2, 3, 4):
        run_step(session, number, {"history": history, "n": number})
    assert inside
    for number in (0, 1, 2, 3, 4, 7):
        assert values_of(store.load(None, "a", number)) == {"history": history, "n": number}


def test_a_snapshot_that_could_not_be_written_is_nothing_to_build_on(store, monkeypatch):
    """The step after a failed one is whole."""
    session = chat(store, 12)
    history = [message(n) for n in range(12)]
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(Exception, match="full"):
            finish_step(session, 12, {"history": history, "n": 12})
    run_step(session, 13, {"history": history, "n": 13})
    assert is_whole(ends(store)[-1])
    assert values_of(store.load(None, "a")) == {"history": history, "n": 13}


def test_the_held_state_goes_with_the_session(store):
    """An ended session holds no copy of its state."""
    session = chat(store, 12)
    assert session._chain.newest is not None
    session.end(ENDED)
    assert session._chain.newest is None


def test_burrs_own_client_refuses_a_part_of_a_state(store, tmp_path):
    """It would resume from the keys that changed; the error says what to do. The UI shows them."""
    chat(store, 11)
    with pytest.raises(ValueError, match="burr-otel materialize"):
        LocalTrackingClient("proj", str(tmp_path)).load(None, "a")
    steps, _ = read_by_burr(store)
    assert len(steps) == 11
    shown = dict(steps[10].step_end_log.state)
    assert "only what changed" in str(shown.pop(delta.STATE_KEY))
    assert shown == {"history": [message(10)], "n": 10, "__SEQUENCE_ID": 10}


@pytest.mark.parametrize(
    ("before", "after", "kind", "shown"),
    [
        ([message(0)] * 3, [message(0)] * 3 + [1, "x"], "items", [1, "x"]),
        ("é" * 200, "é" * 200 + ' "new"\n', "text", ' "new"\n'),
        ({"m": [message(0)], "k": 1}, {"m": [message(0), 2.5], "k": 1}, "items", [2.5]),
        ({"t": "x" * 200, "k": 1}, {"t": "x" * 200 + "yz", "k": 1}, "text", "yz"),
        ({"t": "x" * 200, "k": [1]}, {"t": "x" * 200, "k": {"a": 2}}, "json", '{"a":2}'),
        ([10**30] * 20, [10**30] * 20 + [10**31], "text", "," + str(10**31)),
    ],
    ids=["list", "text", "list-inside", "text-inside", "anything", "large-number"],
)
def test_what_is_new_of_a_value_is_written_for_people_too(store, before, after, kind, shown):
    """As plain JSON: new items of a list, the new part of a text; and it loads whole."""
    session = begin(store)
    for number, value in enumerate((before, after)):
        run_step(session, number, {"v": value, "same": "x" * 2000, "n": number})
    record = ends(store)[-1]
    assert record["otel"]["delta"]["joins"]["v"][0] == kind
    assert record["state"]["v"] == shown
    assert record["state"]["n"] == 1
    assert "same" not in record["state"]
    assert values_of(store.load(None, "a")) == {"v": after, "same": "x" * 2000, "n": 1}


def test_a_log_of_an_earlier_version_is_read_and_continued(tmp_path):
    """Its differences stood in one key, and its records have no checksum of their own."""
    shutil.copytree(Path(__file__).with_name("old_delta"), tmp_path / "old")
    store = Store("p", tmp_path / "old", delta=True)
    history = [{"role": "user", "content": f'Straße {n} "q" ' * 8, "at": 1e16} for n in range(6)]
    for number in range(6):
        found = store.load(None, "a", number)["state"].get_all()
        assert math.isnan(found.pop("nan"))
        assert found.pop("__SEQUENCE_ID") == number
        first = {"first": 1} if number == 4 else {}
        extra = {"extra": 10**30} if number == 3 else {}
        grown = history[: number + 1]
        assert found == {
            **first, "history": grown, "n": number, "same": "x" * 300,
            "nested": {"deep": grown, "k": 1}, **extra,
        }  # fmt: skip
    states = [r["state"] for r in store.read("a").records() if r["type"] == "end_entry"]
    assert [state["n"] for state in states] == list(range(6))
    assert store.read("a").skipped == []
    run_step(begin(store), 6, {"n": 6})
    assert values_of(store.load(None, "a")) == {"n": 6}


@pytest.mark.parametrize("exponent", [b"e", b"e+"])
def test_states_add_up_whichever_way_their_writer_wrote_exponents(exponent, monkeypatch):
    """`orjson` changed from 1e16 to 1e+16: a log outlives the library that it was written with."""
    number, text = b"1%b16" % exponent, b'"1e5, 1e+5 and \\"2e+5\\""'
    values = [b"[" + b",".join([number, text] * n) + b"]" for n in (3, 9)]
    first, second = (delta.DeltaState({"x": x, "n": number}, b"[]") for x in values)
    with monkeypatch.context() as writer:

        def its_dumps(value):
            text = orjson.dumps(value).replace(b"e+16", b"e16")
            return text.replace(b"e16", exponent + b"16")

        writer.setattr(delta, "orjson", SimpleNamespace(dumps=its_dumps, loads=orjson.loads))
        pieces, change, _ = delta.difference(first, second)
    assert b'"items"' in change
    whole = {"state": first.state(int64=True), "otel": {"state_crc": first.checksum}}
    grown = {
        "state": orjson.loads(b"".join(pieces)),
        "otel": {"state_crc": second.checksum, "delta": orjson.loads(b"{%b}" % change)},
    }
    assert delta.apply(delta.apply(None, whole), grown).parts == second.parts


@pytest.mark.parametrize(
    "join",
    [
        ["items", -1, 1], ["items", 10, -1], ["items", 10**9, 1], ["items", True, 1],
        ["items", 1.0, 1], ["later", 10, 1], ["text", 10, 1], ["items", 10], 7, None,
    ],
    ids=repr,
)  # fmt: skip
def test_a_join_out_of_bounds_gives_no_state(store, join):
    """Whatever a log says: no negative counts, nothing beyond the value that is joined to."""
    session = chat(store, 11)
    log = folder_of(store, "a") / "log.jsonl"
    records = log_records(log)
    records[-1]["otel"]["delta"]["joins"]["history"] = join
    log.write_bytes(b"".join(map(sealed, records)))
    with pytest.raises(UnknownSequenceError):
        store.load(None, "a", 10)
    assert values_of(store.load(None, "a"))["n"] == 9
    run = store.read("a")
    assert list(run.records())[-1]["state"] is None
    del session


@pytest.mark.parametrize("kind", ["full", "delta"])
def test_a_flipped_bit_costs_its_record_and_never_gives_another_state(tmp_path, kind):
    """Wherever it is; what loads is what was written, under its own number."""
    store = Store("proj", tmp_path, delta=kind == "delta")
    chat(store, 10).end(ENDED)
    log = folder_of(store, "a") / "log.jsonl"
    whole = log.read_bytes()
    written = {n: store.load(None, "a", n)["state"].get_all() for n in range(10)}
    chance = random.Random(7)
    for _ in range(120):
        at = chance.randrange(len(whole))
        damaged = bytearray(whole)
        damaged[at] ^= 1 << chance.randrange(8)
        log.write_bytes(damaged)
        log.with_name("log.index").unlink(missing_ok=True)
        for number in (None, 0, 5, 9):
            try:
                loaded = store.load(None, "a", number)
            except UnknownSequenceError:
                continue
            found = loaded["state"].get_all()
            assert found == written[loaded["sequence_id"]]
            assert loaded["position"] == "step"
            assert number in (None, loaded["sequence_id"])
        for record in store.read("a").records():
            if record["type"] == "end_entry" and record["state"] is not None:
                assert record["state"]["n"] == record["sequence_id"]


@pytest.mark.parametrize("line", range(1, 24))
def test_a_line_that_is_there_twice_costs_nothing(store, line):
    """As a copy or an editor leaves it, wherever in a chain of differences."""
    chat(store, 12).close()
    assert sum(map(is_whole, ends(store))) < 6
    log = folder_of(store, "a") / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:line] + lines[line - 1 :]))
    assert store.load(None, "a")["state"]["n"] == 11
    whole = [each for each in store.read("a").records() if each["type"] == "end_entry"]
    assert [each["state"]["n"] for each in whole] == [each["sequence_id"] for each in whole]


def test_a_users_key_of_the_same_name_is_the_users(store):
    """Records are told apart by what is beside the state."""
    session = begin(store)
    for number in range(4):
        run_step(session, number, {delta.STATE_KEY: {"set": {"a": number}}, "pad": "x" * 900})
    assert not all(map(is_whole, ends(store)))
    for number in range(4):
        loaded = values_of(store.load(None, "a", number))
        assert loaded == {delta.STATE_KEY: {"set": {"a": number}}, "pad": "x" * 900}


def test_a_copy_in_burrs_layout_is_read_by_everybody(store, tmp_path):
    """Burr's client and UI, and ourselves; exact values included."""
    session = chat(store, 20)
    run_step(session, 20, {"big": 10**30, "nan": float("inf"), "pad": "x" * 2_000})
    run_step(session, 21, {"big": 10**30 + 1, "nan": float("inf"), "pad": "x" * 2_000})
    copy = Store("proj", tmp_path / "copies")
    copied = write_plain(store.read("a"), folder_of(copy, "a"))
    assert (copied.steps, copied.lost) == (22, ())
    assert copied.log_bytes == (folder_of(copy, "a") / "log.jsonl").stat().st_size
    client = LocalTrackingClient("proj", str(tmp_path / "copies"))
    assert client.load(None, "a", 19)["state"]["history"][19] == message(19)
    assert len(read_by_burr(copy)[0]) == 22
    for number in range(22):
        ours = copy.load(None, "a", number)["state"].get_all()
        assert ours == store.load(None, "a", number)["state"].get_all()
    run_step(begin(copy), 22)
    assert copy.load(None, "a")["sequence_id"] == 22


def test_a_copy_never_replaces_what_it_should_not(store, tmp_path):
    """Neither the run itself, nor anything else without being asked."""
    chat(store, 3)
    run = store.read("a")
    with pytest.raises(StoreError, match="is the run itself"):
        write_plain(run, Path(run.place), replace=True)
    target = tmp_path / "copies" / "proj" / "a"
    write_plain(run, target)
    with pytest.raises(StoreError, match="exists already"):
        write_plain(run, target)
    begin(store).close()
    write_plain(run, target, replace=True)
    assert (target / "log.jsonl").read_bytes().count(b"otel_root") == 2
    assert [path.name for path in target.parent.iterdir()] == ["a"]


def test_the_checksum_of_a_value_that_grew_is_that_of_the_whole_value():
    """It is made of what is new alone, so it must not drift."""
    history, before = [], None
    for number in range(30):
        history.append(message(number))
        state = {"history": history, "n": number, "text": "ab" * number}
        encoded = encode_state(state, serde_kwargs={}, run="p/a", sequence_id=number)
        new, fresh = (delta.DeltaState(encoded.fragments, b"[]") for _ in range(2))
        if before is not None:
            new.inherit(before)
        assert new.checksum == fresh.checksum
        before = new


@pytest.mark.parametrize(("before", "after"), [(12, 1), (1, 12), ("ab", "a"), ([1], [1, 2])])
def test_the_checksum_of_a_value_that_shrank_is_that_of_the_whole_value(before, after):
    """Also where the shorter one is all that the longer one begins with."""
    old, new, fresh = (
        delta.DeltaState(
            encode_state({"n": value}, serde_kwargs={}, run="p/a", sequence_id=0).fragments, b"[]"
        )
        for value in (before, after, after)
    )
    new.inherit(old)
    assert new.checksum == fresh.checksum


def test_a_number_that_loses_its_last_digit_does_not_break_the_chain(store):
    """The first whole state after it is what later differences build on."""
    session = begin(store)
    history = [message(n) for n in range(10)]
    for number in range(80):
        run_step(session, number, {"history": history, "n": 12 if number % 2 else 1})
    for number in range(80):
        assert values_of(store.load(None, "a", number))["n"] == (12 if number % 2 else 1)
