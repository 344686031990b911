"""Several writers: processes, threads, sessions of one run, forks and exclusive claims."""

import fcntl
import gc
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from store_support import (
    ENDED,
    SNAPSHOTS,
    begin,
    finish_step,
    folder_of,
    keep,
    log_attribute,
    log_records,
    memory_folder,
    read_by_burr,
    run_step,
    settled,
    start_step,
    values_of,
)

from burr_otel.errors import RunLockedError
from burr_otel.store import Store, owner_is_alive
from burr_otel.store import overlap as overlap_module
from burr_otel.store import session as session_module
from burr_otel.store.files import log_file as log_module
from burr_otel.store.owner import this_owner

CHILD = Path(__file__).with_name("store_child.py")


@pytest.fixture(params=SNAPSHOTS)
def kind(request):
    return request.param


@pytest.fixture
def store(tmp_path, kind, monkeypatch):
    return Store("proj", tmp_path, **keep(kind, monkeypatch))


@pytest.fixture
def memory_store():
    with memory_folder() as folder:
        yield Store("proj", folder)


@pytest.fixture(autouse=True)
def _warn_again():
    overlap_module._warned.clear()


def child(*arguments, kind="full"):
    """What a command of `store_child` prints."""
    done = subprocess.run(
        [sys.executable, CHILD, *map(str, arguments)],
        env={**os.environ, "STORE_CHILD_SNAPSHOTS": kind},
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout)


def test_eight_processes_write_their_own_runs_of_one_project(store, kind, tmp_path):
    """No run sees anything of another."""
    assert child("own_runs", tmp_path, 50, kind=kind) == [0] * 8
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


def test_eight_processes_with_two_threads_each_write_one_run(store, kind, tmp_path):
    """No line is mixed, nothing is lost, and every session's records keep their order."""
    assert child("one_run", tmp_path, 40, kind=kind) == [0] * 8
    log = folder_of(store, "shared") / "log.jsonl"
    log_records(log)
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
    assert not list(log.parent.glob("*.torn-*"))
    read_by_burr(store, "shared")


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
    found = [r["key"] for r in log_records(folder_of(store, "a") / "log.jsonl") if "key" in r]
    assert sorted(found) == sorted(f"{a}.{b}" for a in range(8) for b in range(50))


def test_a_finaliser_may_write_while_its_thread_is_in_the_middle_of_an_append(store, monkeypatch):
    """The collector ends a dropped stream's step inside any allocation: no deadlock, no loss."""
    first, second = begin(store, "a", session_id="one"), begin(store, "a", session_id="two")
    original, nested = log_module.os.write, []

    def write_and_collect(fd, data):
        if not nested:
            nested.append(True)
            run_step(second, 7)
            second.close()
        return original(fd, data)

    monkeypatch.setattr(log_module.os, "write", write_and_collect)
    run_step(first, 0)
    monkeypatch.undo()
    records = log_records(folder_of(store, "a") / "log.jsonl")
    assert [(record["type"], record["otel"]["session"]) for record in records[2:]] == [
        ("begin_entry", "one"),
        ("begin_entry", "two"),
        ("end_entry", "two"),
        ("end_entry", "one"),
    ]
    assert store.load(None, "a", 7)["sequence_id"] == 7


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


def test_an_exclusive_run_refuses_a_second_session_and_names_the_holder(tmp_path):
    """Holder, host and pid; it is free again when the session ends."""
    store = Store("proj", tmp_path, exclusive=True)
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
    assert {r["otel"]["session"] for r in log_records(folder_of(store, "a") / "log.jsonl")} == {
        "first",
        "third",
    }, "the refused one left no record"


def test_a_session_that_ended_claims_the_run_again_for_a_later_step(tmp_path):
    """The root span ends when the application idles; its next step must not write unclaimed."""
    store = Store("proj", tmp_path, exclusive=True)
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


def test_a_claim_goes_with_its_session(tmp_path):
    """A session that was dropped without a word holds nothing."""
    store = Store("proj", tmp_path, exclusive=True)
    session = begin(store, session_id="dropped")
    del session
    gc.collect()
    begin(store, session_id="next").close()


def test_of_eight_processes_one_gets_the_run(tmp_path):
    """While it holds it, the others are refused at once."""
    assert child("contend", tmp_path) == {"got": 1, "refused": 7}


def test_a_claim_dies_with_its_holder(tmp_path):
    """SIGKILL, and a forked child of the holder lives on: the run is free."""
    store = Store("proj", tmp_path, exclusive=True)
    holder = subprocess.Popen([sys.executable, CHILD, "hold", tmp_path], stdout=subprocess.PIPE)
    try:
        said = json.loads(holder.stdout.readline())
        with pytest.raises(RunLockedError) as caught:
            begin(store)
        assert (caught.value.holder, caught.value.pid) == ("holder", said["pid"])
        holder.kill()
        holder.wait()
        begin(store).close()
        os.kill(said["child"], 0)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
        os.kill(said["child"], signal.SIGKILL)


def test_a_forked_child_never_writes_under_its_parents_session(store, kind, tmp_path):
    """Its own session begins with its first step; the parent's goes on undisturbed."""
    assert child("parents_session", tmp_path, kind=kind) == [0]
    records = log_records(folder_of(store, "a") / "log.jsonl")
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
    before = (folder_of(store, "a") / "log.jsonl").read_bytes()
    monkeypatch.setattr(session_module, "_generation", session_module._generation + 1)
    finish_step(session, 0, {"n": 1})
    log_attribute(session, sequence_id=0)
    session.settle_step(settled())
    session.end(ENDED)
    assert (folder_of(store, "a") / "log.jsonl").read_bytes() == before


def test_an_append_waits_for_whoever_mends_the_log(store, monkeypatch):
    """A lock of another process is respected: it may be about to cut off a torn line."""
    session = begin(store)
    path = folder_of(store, "a") / "log.jsonl"
    before = path.read_bytes()
    asked = threading.Event()
    lock = fcntl.flock

    def ask(fd, operation):
        if operation == fcntl.LOCK_EX:
            asked.set()
        return lock(fd, operation)

    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        monkeypatch.setattr(fcntl, "flock", ask)
        writer = threading.Thread(target=run_step, args=(session, 0, {"n": 0}))
        writer.start()
        assert asked.wait(30)
        assert path.read_bytes() == before
        lock(other, fcntl.LOCK_UN)
        writer.join(30)
    assert store.load(None, "a")["sequence_id"] == 0


def test_the_owner_of_a_session_is_known_to_live_or_not():
    """By host, pid and start time, so that a reused pid is nobody's."""
    owner = this_owner()
    assert owner_is_alive(owner) is True
    assert owner_is_alive({**owner, "process_start": "boot/1"}) is False
    assert owner_is_alive({**owner, "host": "elsewhere"}) is None
    assert owner_is_alive({}) is None
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert owner_is_alive({**owner, "pid": done.pid, "process_start": None}) is False


@pytest.mark.one_python
def test_ten_thousand_live_applications_need_few_file_descriptors(memory_store):
    """Under ``ulimit -n 256``, each stepped in turn."""
    told = child("many_sessions", Path(memory_store.place).parent, 10_000)
    assert told["wrong"] == 0
    assert told["listed"] == 10_000
    assert told["fds"] < 100


@pytest.mark.one_python
def test_a_hundred_thousand_runs_are_listed(memory_store, monkeypatch):
    """In time that grows with their number alone: one stat for each, and no file is read."""
    for number in range(100_000):
        folder = Path(memory_store.place) / f"r{number}"
        folder.mkdir(parents=True)
        os.close(os.open(folder / "log.jsonl", os.O_CREAT))
    stats = Counter()
    original = os.lstat

    def counting(path):
        stats["lstat"] += 1
        return original(path)

    with monkeypatch.context() as patch:  # undone before the folder is removed
        patch.setattr(os, "lstat", counting)
        patch.setattr(os, "open", None)
        listed = memory_store.list_app_ids()
    assert len(listed) == 100_000
    assert stats["lstat"] == 100_000 + 1, "and one for the project's folder"
