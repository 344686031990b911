"""Several writers: processes, threads, sessions of one run, forks and exclusive claims."""

import fcntl
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from store_support import (
    SNAPSHOTS,
    begin,
    child,
    folder_of,
    keep,
    log_records,
    memory_folder,
    run_step,
)

from burr_otel.store import Store, owner_is_alive
from burr_otel.store import session as session_module
from burr_otel.store.files import disk
from burr_otel.store.files import log_file as log_module
from burr_otel.store.files import run as run_module
from burr_otel.store.files.index import Index
from burr_otel.store.process import this_owner


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
    session_module._mixed_runs.clear()


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


def test_a_finaliser_may_write_while_its_thread_indexes_the_log(store, monkeypatch):
    """Likewise of a reader, which holds the file's lock on a descriptor of its own."""
    session = begin(store)
    for number in range(3):
        run_step(session, number)
    session.close()
    (folder_of(store) / disk.INDEX).unlink()
    monkeypatch.setattr(run_module, "_MAX_SCAN_BYTES", 0)
    original, nested = Index.extend, []

    def extend_and_collect(self, noted, covered):
        if not nested:
            nested.append(True)
            run_step(session, 7)
            session.close()
        original(self, noted, covered)

    monkeypatch.setattr(Index, "extend", extend_and_collect)
    reader = threading.Thread(target=store.load, args=(None, "a", 1), daemon=True)
    reader.start()
    reader.join(60)
    assert not reader.is_alive()
    assert nested
    monkeypatch.undo()
    assert store.load(None, "a")["sequence_id"] == 7


@pytest.mark.parametrize("moment", ["close", "load"])
def test_what_a_finaliser_writes_during_indexing_reaches_the_disk(store, monkeypatch, moment):
    """With `fsync`, whoever indexes the log at that moment, and before that is done."""
    store.durability = "fsync"
    session, other = begin(store, session_id="one"), begin(store, session_id="two")
    for number in range(3):
        run_step(session, number)
    monkeypatch.setattr(run_module, "_MAX_SCAN_BYTES", 0)
    original, nested, synced = Index.extend, [], []
    sync = os.fdatasync

    def extend_and_collect(self, noted, covered):
        if not nested:
            nested.append(True)
            run_step(other, 7)
            monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(fd) or sync(fd))
        original(self, noted, covered)

    monkeypatch.setattr(Index, "extend", extend_and_collect)
    session.close() if moment == "close" else store.load(None, "a", 1)
    assert nested
    assert synced
    assert b'"two"' in (folder_of(store) / "log.jsonl").read_bytes().splitlines()[-1]


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
@pytest.mark.parametrize(("limit", "count"), [(256, 10_000), (64, 200)])
def test_ten_thousand_live_applications_need_few_file_descriptors(memory_store, limit, count):
    """Each stepped in turn; under a low ``ulimit -n`` most of it is left to the user."""
    folder = Path(memory_store.place).parent
    told = child("many_sessions", folder, count, most_files=limit)
    assert told["wrong"] == 0
    assert told["listed"] == count
    assert told["fds"] < min(100, limit / 2)


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
