"""The store on every engine: what is written is loaded."""

import asyncio
import json
import pickle

import pytest
from burr.common.types import ParentPointer
from burr.core import State
from store_support import (
    ENDED,
    begin,
    finish_step,
    graph,
    log_attribute,
    other,
    records_of,
    run_step,
    start_step,
    step,
    steps,
    values_of,
)

from burr_otel.errors import (
    ConfigError,
    InvalidIdentifierError,
    UnknownRunError,
    UnknownSequenceError,
)
from burr_otel.records import BeginInner, EndInner, StreamMark
from burr_otel.store import Store
from burr_otel.store.snapshot import AsyncStoreLoader

BAD_APP_IDS = [
    "", ".", "..", "../other", "a/b", "/etc", "a\0b", "x" * 256, "é" * 128, "\ud800", 7, b"a",
    ".burr-otel-new-1",
]  # fmt: skip


def test_the_latest_and_each_earlier_step_load_with_their_own_state(store):
    """Every finished step can be resumed from, and the last one is the default."""
    steps(store, 5)
    latest = store.load(None, "a")
    assert (latest["sequence_id"], latest["position"], latest["status"]) == (4, "step", "completed")
    assert latest["state"].get_all() == {"n": 4, "__SEQUENCE_ID": 4}
    assert (latest["app_id"], latest["partition_key"]) == ("a", None)
    for number in range(5):
        assert values_of(store.load(None, "a", number)) == {"n": number}


def test_nothing_is_loaded_of_an_unknown_run_or_one_without_a_finished_step(store):
    """A resume of either falls back to its defaults."""
    assert store.load(None, None) is None
    assert store.load(None, "a") is None
    session = begin(store)
    assert store.load(None, "a") is None
    start_step(session, 0)
    assert store.load(None, "a") is None


def test_a_sequence_id_that_no_finished_step_has_is_an_error(store):
    """As in Burr, and the message names run and step."""
    session = begin(store)
    run_step(session, 0)
    start_step(session, 1)
    said = "Sequence number 1 not found for proj/a: .* `burr-otel show a --project proj`"
    with pytest.raises(UnknownSequenceError, match=said):
        store.load(None, "a", 1)
    with pytest.raises(ValueError, match="-7"):
        store.load(None, "a", -7)


def test_a_failed_step_loads_as_failed(store):
    """Burr then runs it again."""
    session = begin(store)
    run_step(session, 0, exception="Traceback: boom")
    assert store.load(None, "a")["status"] == "failed"


def test_keys_that_begin_with_underscores_are_the_users(store):
    """Only Burr's two internal keys are stripped."""
    session = begin(store)
    run_step(session, 0, {"__mine": 1, "_x": 2, "__PRIOR": 3})
    assert values_of(store.load(None, "a")) == {"__mine": 1, "_x": 2, "__PRIOR": 3}


def test_a_rewound_run_loads_the_new_timeline(store):
    """Step 2 was run twice: what came later in the log counts, also for older ids."""
    session = begin(store)
    for number in range(5):
        run_step(session, number, {"timeline": 1, "n": number})
    again = begin(store)
    for number in range(2, 4):
        run_step(again, number, {"timeline": 2, "n": number})
    assert values_of(store.load(None, "a")) == {"timeline": 2, "n": 3}
    assert values_of(store.load(None, "a", 2)) == {"timeline": 2, "n": 2}
    assert values_of(store.load(None, "a", 1)) == {"timeline": 1, "n": 1}
    assert values_of(store.load(None, "a", 4)) == {"timeline": 1, "n": 4}


def test_one_app_id_in_two_partitions_is_two_runs(store):
    """As in Burr: each loads its own."""
    for number, key in enumerate(("alice", "bob", None)):
        session = begin(store, partition_key=key)
        run_step(session, 0, {"who": str(key), "n": number})
        session.end(ENDED)
    for key in ("alice", "bob", None):
        loaded = store.load(key, "a")
        assert (loaded["partition_key"], values_of(loaded)["who"]) == (key, str(key))
        assert store.read("a", key).partition_key == key
        assert store.history("a", key).last_step is not None
    assert store.load("carol", "a") is None
    assert not store.exists("a", "carol")
    assert store.load("", "a")["partition_key"] is None, "as Burr's client takes it"
    assert store.list_app_ids() == store.list_app_ids("bob") == ["a"]
    assert store.list_partition_keys() == [None, "alice", "bob"]
    assert values_of(store.load("alice", "a", 0))["who"] == "alice"
    for run in store.runs():
        metadata = json.loads(run.log.metadata())
        assert metadata["otel"]["app_id"] == "a"
    run_step(begin(store, partition_key="bob"), 1, {"who": "bob", "again": True})
    assert len(list(store.runs())) == 3
    store.delete("a", "alice", dead_before_ns=1)
    assert store.load("alice", "a") is None
    assert values_of(store.load("bob", "a"))["again"] is True
    assert store.read("a").partition_key in (None, "bob")


def test_the_longest_app_id_has_room_for_another_partition(store):
    """Each run is found by its own id."""
    for app_id in ("x" * 255, "\u00e9" * 127):
        for key in ("p", "q"):
            run_step(begin(store, app_id, partition_key=key), 0, {"who": key})
        assert values_of(store.load("q", app_id)) == {"who": "q"}
        assert app_id in store.list_app_ids("q")


def test_runs_are_listed_by_partition(store, storage_dir):
    """All, those of one key, or those of none."""
    for app_id, key in (("x", "p"), ("y", "q"), ("z", None)):
        begin(store, app_id, partition_key=key).close()
    assert store.list_app_ids() == ["x", "y", "z"]
    assert store.list_app_ids("p") == ["x"]
    assert store.list_app_ids(None) == ["z"]
    assert Store("nothing", storage_dir).list_app_ids() == []


def test_load_state_gives_plain_data(store):
    """Burr's deprecated interface: data and action."""
    session = begin(store)
    run_step(session, 0, {"n": 1, "x": float("inf")})
    run_step(session, 1, {"n": 2})
    assert store.load_state("a") == ({"n": 2, "__SEQUENCE_ID": 1}, "step")
    assert store.load_state("a", 0) == ({"n": 1, "x": float("inf"), "__SEQUENCE_ID": 0}, "step")
    with pytest.raises(UnknownRunError, match="Did you mean 'a'"):
        store.load_state("aa")
    with pytest.raises(UnknownSequenceError):
        store.load_state("a", 9)


def test_history_is_what_a_resume_links_to(store):
    """Newest root and newest finished step, with the ids that were given for them."""
    assert store.history("a") is None
    session = begin(store, session_id="s1")
    assert store.history("a").last_root["session"] == "s1"
    assert store.history("a").last_step is None
    run_step(session, 0)
    run_step(session, 1)
    history = store.history("a")
    assert history.last_root["span_id"] == "00f067aa0ba902b7"
    assert history.last_step["span_id"] == f"{2:016x}"


def test_a_step_is_found_while_it_runs_and_afterwards(store):
    """A spawned application looks for the span of the step that spawned it."""
    session = begin(store)
    run_step(session, 0)
    start_step(session, 1, span_id=0xB)
    assert store.find_step("a", 1)["otel"]["span_id"] == f"{0xB:016x}"
    assert store.find_step("a", None)["sequence_id"] == 0
    found = store.find_step("a", 0)
    assert found["type"] == "end_entry"
    assert "state" not in found
    assert store.find_step("a", 5) is None
    assert store.find_step("unknown", 5) is None


def test_a_fork_keeps_what_it_inherited_until_its_first_step(store):
    """Restarted before that, it still has the state, also from yet another resume."""
    inherited = {"n": 7, "__SEQUENCE_ID": 3, "__PRIOR_STEP": "step"}
    begin(store, "fork", state=inherited)
    loaded = store.load(None, "fork")
    assert (loaded["sequence_id"], loaded["position"], loaded["status"]) == (3, "step", "completed")
    assert values_of(loaded) == {"n": 7}
    begin(store, "fork", state=inherited)
    roots = [record for record in records_of(store, "fork") if record["type"] == "otel_root"]
    assert ["state" in record for record in roots] == [True, False], "written once"
    for _ in range(40):  # until the roots are in the index
        begin(store, "fork", state=inherited).close()
    roots = [record for record in records_of(store, "fork") if record["type"] == "otel_root"]
    assert sum("state" in record for record in roots) == 1
    begin(store, "fork", state={**inherited, "n": 8})
    assert values_of(store.load(None, "fork")) == {"n": 8}


def test_an_inherited_state_without_a_step_begins_at_the_entrypoint(store):
    """A fork of a failed step: Burr has wiped the prior step, and runs the entry point."""
    begin(store, "fork", state={"n": 7, "__SEQUENCE_ID": 3}, application_graph=graph(step, other))
    loaded = store.load(None, "fork")
    assert (loaded["position"], loaded["status"], loaded["sequence_id"]) == ("step", "failed", 3)


def test_a_fresh_run_has_no_state_of_its_own_yet(store):
    """Its defaults are in the code; a resume uses those."""
    begin(store, state={"n": 0})
    assert store.load(None, "a") is None


def test_building_a_run_again_from_an_older_state_does_not_hide_the_newest_step(store):
    """A server's request that only reads must not undo the step of another request."""
    session = begin(store)
    run_step(session, 0)
    older = {"n": 0, "__SEQUENCE_ID": 0, "__PRIOR_STEP": "step"}
    run_step(session, 1)
    begin(store, state=older)
    assert values_of(store.load(None, "a")) == {"n": 1}


def test_parents_list_their_children_once_for_each_step(store):
    """Forks and spawned applications appear in the parent's folder, as in Burr's layout."""
    begin(store, "parent")
    for sequence_id in (4, 4, 5):
        begin(
            store,
            "child",
            spawning_parent_pointer=ParentPointer("parent", None, sequence_id),
            parent_pointer=ParentPointer("not-in-this-store", None, 1),
        )
    begin(store, "resumed", parent_pointer=ParentPointer(None, None, None))
    children = store.read("parent").children
    assert [
        (each["child"]["app_id"], each["event_type"], each["sequence_id"]) for each in children
    ] == [("child", "spawn_start", 4), ("child", "spawn_start", 5)]
    run = store.read("child")
    assert run.spawning_parent_pointer.sequence_id == 4
    assert run.parent_pointer.app_id == "not-in-this-store"
    assert not store.exists("not-in-this-store")
    assert store.read("resumed").parent_pointer is None


def test_read_gives_everything_in_order(store):
    """What show and replay are made from."""
    session = begin(store, session_id="s")
    start_step(session, inputs={"a": 1})
    session.append(BeginInner(0, "0:0.0", "s", None, ["d"], 2))
    log_attribute(session, "k", [1], tags={"t": 1}, span_id="0:0.0")
    session.append(EndInner(0, "0:0.0", 4, "ok"))
    session.append(StreamMark("begin_stream", 0, 5))
    session.append(StreamMark("first_item_stream", 0, 6))
    session.append(StreamMark("end_stream", 0, 7, 2))
    finish_step(session, 0)
    session.end(ENDED)
    session.end(ENDED)
    run = store.read("a")
    records = list(run.records())
    assert [record["type"] for record in records] == [
        "otel_root", "begin_entry", "begin_span", "attribute", "end_span",
        "begin_stream", "first_item_stream", "end_stream", "end_entry", "otel_root_end",
    ]  # fmt: skip
    assert {record["otel"]["session"] for record in records} == {"s"}
    assert run.skipped == []
    assert run.graph["entrypoint"] == "step"
    assert (run.app_id, run.project, run.partition_key) == ("a", "proj", None)
    with pytest.raises(UnknownRunError, match="no run 'b'"):
        store.read("b")


def test_a_store_can_be_pickled(store):
    """Process pools and Ray send trackers to their workers."""
    steps(store, 1)
    again = pickle.loads(pickle.dumps(store))
    assert again.load(None, "a")["sequence_id"] == 0


@pytest.mark.parametrize("app_id", BAD_APP_IDS, ids=ascii)
def test_an_app_id_that_leads_elsewhere_is_refused_at_build(store, app_id):
    """By every operation, as a `ValueError` that says what is allowed."""
    for operation in (
        lambda: begin(store, app_id),
        lambda: store.load(None, app_id),
        lambda: store.exists(app_id),
        lambda: store.history(app_id),
        lambda: store.find_step(app_id, 1),
        lambda: store.read(app_id),
        lambda: store.load_state(app_id),
    ):
        with pytest.raises(InvalidIdentifierError, match="cannot be a folder name") as caught:
            operation()
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, ConfigError)
        assert "1 to 255 bytes" in str(caught.value)
    assert store.list_app_ids() == []


@pytest.mark.parametrize(
    "app_id", ["a b", "é" * 127, "x" * 255, ".hidden", "a:b", "-", "%2e", "a\nb", "日本", "~"]
)
def test_any_other_text_is_an_app_id(store, app_id):
    """Burr's own client takes it too."""
    run_step(begin(store, app_id), 0)
    assert store.load(None, app_id)["sequence_id"] == 0
    assert store.list_app_ids() == [app_id]


@pytest.mark.parametrize("key", ["\ud800", 5])
def test_a_partition_key_that_cannot_be_kept_is_refused(store, key):
    """The Burr UI could not show it."""
    with pytest.raises(InvalidIdentifierError, match="partition key"):
        begin(store, partition_key=key)


def test_parents_outside_of_the_store_are_left_alone(store):
    """Pointers come from the application and may name anything."""
    for app_id in ("../evil", "/tmp/evil", "nobody", "\ud800", 5):
        begin(
            store,
            "child",
            parent_pointer=ParentPointer(app_id, "k\ud800", "x"),
            spawning_parent_pointer=ParentPointer(app_id, None, 1),
        )
    assert store.list_app_ids() == ["child"]


async def test_the_async_loader_reads_off_the_event_loop(store, monkeypatch):
    """A load of megabytes must not stall other requests."""
    steps(store, 3)
    loader = AsyncStoreLoader(store)
    assert loader.is_async()
    threads = []
    original = State.deserialize

    def deserialize(*arguments, **more):
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        threads.append(True)
        return original(*arguments, **more)

    monkeypatch.setattr(State, "deserialize", deserialize)
    assert values_of(await loader.load(None, "a")) == {"n": 2}
    assert values_of(await loader.load(None, "a", 1)) == {"n": 1}
    assert await loader.load(None, None) is None
    assert await loader.load(None, "unknown") is None
    assert await loader.list_app_ids(None) == ["a"]
    assert threads == [True, True]


def test_hostile_values_come_back_equal(store):
    """NUL, infinities, lone surrogates, integers of any size, keys of every kind, megabytes."""
    session = begin(store)
    values = {
        "nul": "a\0b",
        "numbers": [float("inf"), -0.0, 2**90, -(2**63), 1e308],
        "surrogate": "\ud800 and \udfff",
        "keys": {"": 1, "\0": 2, "é": 3, "'": 4, "__burr_serde__": "os.system"},
        "text": "it's \\ \x7f \u2028 𝄞",
    }
    run_step(session, 0, values)
    run_step(session, 1, {**values, "large": "é" * 10_000_000})
    run_step(session, 2, {**values, "nan": float("nan")})
    assert values_of(store.load(None, "a", 0)) == values
    assert len(values_of(store.load(None, "a", 1))["large"]) == 10_000_000
    found = values_of(store.load(None, "a"))
    assert found.pop("nan") != found.get("nan")
    assert found == values


def test_a_changed_graph_is_recorded(store):
    """The current one is what readers see; the old one is kept for the records that name it."""
    begin(store)
    [first] = records_of(store)
    old = store.read("a").graph
    begin(store)
    begin(store, application_graph=graph(step, other))
    run = store.read("a")
    assert "other" in [each["name"] for each in run.graph["actions"]]
    assert run.graph_of(first["graph"]) == old
    assert [each.get("graph_changed") for each in records_of(store)] == [None, False, True]


def test_every_step_of_a_long_run_loads(store):
    """Whatever the engine indexes, and wherever a chain of differences begins."""
    session = begin(store)
    history = []
    for number in range(300):
        history.append({"content": f"message {number}: " + "x" * 300})
        run_step(session, number, {"history": history, "n": number})
    for number in (0, 1, 63, 64, 65, 200, 299):
        loaded = values_of(store.load(None, "a", number))
        assert loaded == {"history": history[: number + 1], "n": number}
    assert [r["state"]["n"] for r in store.read("a").records() if "state" in r] == list(range(300))
