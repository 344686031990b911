"""Several writers on every engine: processes, threads, sessions, forks and exclusive claims."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from store_support import (
    CHILD,
    ENDED,
    begin,
    child,
    finish_step,
    log_attribute,
    records_of,
    run_step,
    settled,
    start_step,
    steps,
    values_of,
)

from burr_otel.errors import RunLockedError, StoreError, UnknownRunError
from burr_otel.store import Store
from burr_otel.store import session as session_module

pytestmark = pytest.mark.one_python


@pytest.fixture(autouse=True)
def _warn_again():
    session_module._mixed_runs.clear()


def wait_for_claim(store):
    """A session, as soon as the run is free: a lease takes its time to run out."""
    deadline = time.monotonic() + 90
    while True:
        try:
            return begin(store)
        except RunLockedError:  # noqa: PERF203 - it is to be retried
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def test_eight_processes_write_their_own_runs_of_one_project(store, kind, storage_dir):
    """No run sees anything of another."""
    assert child("own_runs", storage_dir, 50, kind=kind) == [0] * 8
    assert store.list_app_ids() == [f"run{number}" for number in range(8)]
    for number in range(8):
        ends = [
            record
            for record in store.read(f"run{number}").records()
            if record["type"] == "end_entry"
        ]
        assert [record["state"]["n"] for record in ends] == list(range(50))
        assert {record["state"]["who"] for record in ends} == {number}
        for step in (0, 25, 49):
            loaded = store.load(None, f"run{number}", step)
            assert values_of(loaded) == {"who": number, "n": step}


def test_eight_processes_with_two_threads_each_write_one_run(store, kind, storage_dir):
    """No line is mixed, nothing is lost, and every session's records keep their order."""
    assert child("one_run", storage_dir, 40, kind=kind) == [0] * 8
    assert len(records_of(store, "shared")) == 16 * 81
    records = list(store.read("shared").records())
    sessions = {f"s{number}.{which}" for number in range(8) for which in range(2)}
    for session in sessions:
        own = [record for record in records if record["otel"]["session"] == session]
        ends = [record for record in own if record["type"] == "end_entry"]
        assert [record["sequence_id"] for record in ends] == list(range(40))
        assert {record["state"]["who"] for record in ends} == {session}
        assert [len(record["state"]["pad"]) for record in ends] == [
            step * 997 % 9000 for step in range(40)
        ]
        assert Counter(record["type"] for record in own) == {
            "otel_root": 1,
            "begin_entry": 40,
            "end_entry": 40,
        }
    assert len(records) == 16 * 81
    last = [record for record in records if record["type"] == "end_entry"][-1]
    assert store.load(None, "shared")["state"]["who"] == last["state"]["who"]
    newest = [r for r in records if r["type"] == "end_entry" and r["sequence_id"] == 17][-1]
    assert store.load(None, "shared", 17)["state"]["who"] == newest["state"]["who"]


def test_threads_of_one_process_share_a_session(store):
    """Parallel spans of one step are logged from several threads."""
    session = begin(store)
    start_step(session, 0)
    barrier = threading.Barrier(8)

    def work(number):
        barrier.wait()
        for which in range(50):
            log_attribute(session, f"{number}.{which}", "v" * 500)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    finish_step(session, 0)
    found = [r["key"] for r in records_of(store) if "key" in r]
    assert sorted(found) == sorted(f"{a}.{b}" for a in range(8) for b in range(50))


def test_a_server_builds_the_run_again_for_each_request_in_silence(store, caplog):
    """Sessions that follow one another are normal, also while earlier ones are not collected."""
    alive = []
    for number in range(10):
        session = begin(store, session_id=f"request{number}")
        alive.append(session)
        loaded = store.load(None, "a")
        run_step(session, 0 if loaded is None else loaded["sequence_id"] + 1)
    for session in alive:
        session.end(ENDED)
    assert store.load(None, "a")["sequence_id"] == 9
    assert caplog.records == []


def test_sessions_that_really_overlap_warn_once_a_run(store, caplog):
    """A, then B, then A again: each step counts, and the user learns that histories mix."""
    one, two = begin(store, session_id="one"), begin(store, session_id="two")
    run_step(one, 0)
    run_step(two, 0)
    assert caplog.records == []
    run_step(one, 1)
    run_step(two, 1)
    run_step(one, 2)
    assert len(caplog.records) == 1
    assert "proj/a: sessions one and two run steps of it at once" in caplog.text


def test_records_of_another_session_that_are_no_steps_are_no_overlap(store, caplog):
    """An application that the collector frees late only ends its root."""
    one, two = begin(store, session_id="one"), begin(store, session_id="two")
    run_step(one, 0)
    two.end(ENDED)
    run_step(one, 1)
    begin(store, session_id="three").close()
    run_step(one, 2)
    assert caplog.records == []


def test_an_exclusive_run_refuses_a_second_session_and_names_the_holder(storage_dir):
    """Holder, host and pid; it is free again when the session ends."""
    store = Store("proj", storage_dir, exclusive=True)
    session = begin(store, session_id="first")
    with pytest.raises(RunLockedError) as caught:
        begin(store, session_id="second")
    error = caught.value
    assert (error.run, error.holder, error.pid) == ("proj/a", "first", os.getpid())
    assert error.host == os.uname().nodename
    assert str(error.pid) in str(error)
    begin(store, "b", session_id="other run")
    session.end(ENDED)
    third = begin(store, session_id="third")
    run_step(third, 0)
    assert {r["otel"]["session"] for r in records_of(store)} == {
        "first",
        "third",
    }, "the refused one left no record"


def test_a_session_that_ended_claims_the_run_again_for_a_later_step(storage_dir):
    """The root span ends when the application idles; its next step must not write unclaimed."""
    store = Store("proj", storage_dir, exclusive=True)
    one = begin(store, session_id="one")
    one.end(ENDED)
    run_step(one, 0)
    with pytest.raises(RunLockedError, match="session one"):
        begin(store, session_id="two")
    one.close()
    two = begin(store, session_id="two")
    with pytest.raises(RunLockedError, match="session two"):
        run_step(one, 1)
    two.close()


def test_a_claim_goes_with_its_session(storage_dir):
    """A session that was dropped without a word holds nothing."""
    store = Store("proj", storage_dir, exclusive=True)
    session = begin(store, session_id="dropped")
    del session
    gc.collect()
    begin(store, session_id="next").close()


def test_of_eight_processes_one_gets_the_run(storage_dir):
    """While it holds it, the others are refused at once."""
    assert child("contend", storage_dir) == {"got": 1, "refused": 7}


def test_a_claim_dies_with_its_holder(storage_dir):
    """SIGKILL, and a forked child of the holder lives on: the run is free, at once or soon."""
    store = Store("proj", storage_dir, exclusive=True)
    holder = subprocess.Popen([sys.executable, CHILD, "hold", storage_dir], stdout=subprocess.PIPE)
    try:
        said = json.loads(holder.stdout.readline())
        with pytest.raises(RunLockedError) as caught:
            begin(store)
        assert (caught.value.holder, caught.value.pid) == ("holder", said["pid"])
        holder.kill()
        holder.wait()
        wait_for_claim(store).close()
        os.kill(said["child"], 0)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
        os.kill(said["child"], signal.SIGKILL)


def test_a_forked_child_never_writes_under_its_parents_session(store, kind, storage_dir):
    """Its own session begins with its first step; the parent's goes on undisturbed."""
    assert child("parents_session", storage_dir, kind=kind) == [0]
    records = records_of(store)
    told = [(r["type"], r.get("sequence_id"), r["otel"]["session"]) for r in records]
    assert told == [
        ("otel_root", None, "parent"),
        ("begin_entry", 0, "parent"),
        ("end_entry", 0, "parent"),
        ("begin_entry", 1, "parent"),
        ("otel_root", None, "child"),
        ("begin_entry", 2, "child"),
        ("end_entry", 2, "child"),
        ("begin_entry", 3, "parent"),
        ("end_entry", 3, "parent"),
    ]
    assert records[4]["forked_from"] == "parent"
    assert records[4]["owner"]["pid"] != records[0]["owner"]["pid"]
    assert store.load(None, "a")["state"]["by"] == "parent"


def test_a_forked_child_does_not_end_the_step_that_its_parent_began(store, monkeypatch):
    """Neither the step nor the spans, attributes and root that it was forked inside of."""
    session = begin(store)
    start_step(session, 0)
    before = records_of(store)
    monkeypatch.setattr(session_module, "_generation", session_module._generation + 1)
    finish_step(session, 0, {"n": 1})
    log_attribute(session, sequence_id=0)
    session.append(settled())
    session.end(ENDED)
    assert records_of(store) == before


def test_steps_of_several_threads_in_one_session_all_load(store):
    """Whoever comes while another thread writes writes a whole state."""
    session = begin(store)
    history = [{"content": f"message {n}" * 40} for n in range(10)]

    def work(first):
        for number in range(first, first + 20):
            run_step(session, number, {"history": history, "n": number})

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for first in (0, 100, 200, 300):
        for number in range(first, first + 20):
            assert values_of(store.load(None, "a", number)) == {"history": history, "n": number}


def test_a_run_is_deleted_unless_its_owner_lives(store, storage_dir):
    """Nor one that is claimed; nothing else is touched."""
    steps(store, 1, "b")
    session = begin(store)
    run_step(session, 0)
    with pytest.raises(StoreError, match=f"open in process {os.getpid()}"):
        store.delete("a", dead_before_ns=1 << 62)
    session.end(ENDED)
    store.delete("a", dead_before_ns=1)
    with pytest.raises(UnknownRunError):
        store.delete("a", dead_before_ns=1)
    assert store.list_app_ids() == ["b"]
    assert store.load(None, "b")["sequence_id"] == 0
    held = begin(Store("proj", storage_dir, exclusive=True), "c")
    held.append(ENDED)  # its span has idled away, and the claim is still there
    held.unmark()
    with pytest.raises(RunLockedError):
        store.delete("c", dead_before_ns=1)


def test_two_sessions_that_wait_for_nothing_lose_no_difference(storage_dir, caplog):
    """A difference that others came between is written anew, whole, with `durability="none"` too."""
    store = Store("proj", storage_dir, durability="none", delta=True)
    first, second = begin(store), begin(store)
    for number in range(8):
        session, text = ((first, "x"), (second, "y"))[number % 2]
        run_step(session, number, {"history": [text * 500] * (number + 1), "n": number})
    store.engine.close()
    for number in range(8):
        assert values_of(store.load(None, "a", number))["n"] == number
    assert "could not be kept" not in caplog.text
    first.close()
    second.close()
