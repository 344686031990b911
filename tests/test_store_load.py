"""Writing a run and loading it again."""

import os

import pytest
from store_support import (
    SNAPSHOTS,
    begin,
    folder_of,
    graph,
    keep,
    log_attribute,
    log_records,
    other,
    run_step,
    start_step,
    step,
    steps,
)

from burr_otel.store import Store, delta


@pytest.fixture(params=SNAPSHOTS)
def store(tmp_path, request, monkeypatch):
    return Store("proj", tmp_path, **keep(request.param, monkeypatch))


def test_a_run_whose_metadata_is_lost_still_belongs_to_its_partition(store):
    """The log says whose it is."""
    run_step(begin(store, partition_key="alice"), 0)
    (folder_of(store, "a") / "metadata.json").unlink()
    assert store.load("bob", "a") is None
    assert store.load("alice", "a") is not None


def test_a_flipped_bit_in_its_metadata_gives_a_run_to_nobody_else(store):
    """Which would start another run, with nothing in it, in silence."""
    run_step(begin(store, partition_key="alice"), 0)
    path = folder_of(store, "a") / "metadata.json"
    sound = path.read_bytes()
    for bit in range(8 * len(sound)):
        damaged = bytearray(sound)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert store.load("alice", "a") is not None, bytes(damaged)


def test_exists_asks_for_a_log_with_something_in_it(store):
    """As Burr's `app_log_exists`."""
    assert not store.exists("a")
    begin(store)
    assert store.exists("a")
    (folder_of(store, "a") / "log.jsonl").write_bytes(b"")
    assert not store.exists("a")
    assert store.load(None, "a") is None


def test_a_changed_graph_is_recorded(store):
    """The UI shows the new one, and the old one is kept under the digest that its roots name."""
    begin(store)
    before = log_records(folder_of(store, "a") / "log.jsonl")[0]
    old = (folder_of(store, "a") / "graph.json").read_bytes()
    begin(store)
    seen = folder_of(store, "a") / "seen-by-a-reader"
    os.link(folder_of(store, "a") / "graph.json", seen)
    begin(store, application_graph=graph(step, other))
    assert seen.read_bytes() == old, "replaced as a whole, never written over"
    assert not list(folder_of(store, "a").glob("new-*"))
    assert b"amount" in (folder_of(store, "a") / "graph.json").read_bytes()
    assert (folder_of(store, "a") / f"graph-{before['graph']}.json").read_bytes() == old
    roots = log_records(folder_of(store, "a") / "log.jsonl")
    assert [record.get("graph_changed") for record in roots] == [None, False, True]


def test_a_fresh_store_makes_no_file(tmp_path):
    """Building a tracker, or asking it, leaves no trace."""
    store = Store("proj", tmp_path / "new")
    assert not store.exists("a")
    assert store.load(None, "a") is None
    assert store.list_app_ids() == []
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def bytes_read(monkeypatch):
    """Sizes of all positioned reads."""
    sizes = []
    original = os.pread

    def pread(fd, length, offset):
        data = original(fd, length, offset)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", pread)
    return sizes


def test_load_reads_a_bounded_part_of_a_long_log(store, bytes_read, monkeypatch):
    """The tail for the latest state; for any other what the writer has not indexed yet, and it."""
    monkeypatch.setattr(delta, "_RECORD_BYTES", 256)  # differences only where they pay
    session = begin(store)
    for number in range(400):
        run_step(session, number, {"n": number, "pad": f"{number:04}" * 5_000})
    log_bytes = (folder_of(store, "a") / "log.jsonl").stat().st_size
    assert log_bytes > 8_000_000
    for sequence_id in (None, 0, 200, 399):
        bytes_read.clear()
        loaded = store.load(None, "a", sequence_id)
        assert loaded["sequence_id"] == (399 if sequence_id is None else sequence_id)
        assert sum(bytes_read) < (100_000 if sequence_id is None else 600_000)
    bytes_read.clear()
    assert store.history("a").last_root is not None
    assert store.find_step("a", 3)["type"] == "end_entry"
    assert sum(bytes_read) < 1_200_000
    session.close()
    bytes_read.clear()
    store.load(None, "a", 200)
    assert sum(bytes_read) < 50_000, "a closed session has indexed everything"


def test_a_run_that_is_only_looked_at_stays_quick_to_load(store, bytes_read):
    """Many sessions without a step after the last one: a server that shows conversations."""
    steps(store, 3)
    for _ in range(600):
        begin(store).close()
    bytes_read.clear()
    assert store.load(None, "a")["sequence_id"] == 2
    assert store.find_step("a", None)["sequence_id"] == 2
    assert sum(bytes_read) < 100_000
    bytes_read.clear()
    begin(store, state={"n": 2, "__SEQUENCE_ID": 2, "__PRIOR_STEP": "step"})
    assert sum(bytes_read) < 100_000


def test_a_step_with_very_many_records_does_not_hide_the_one_before(store, bytes_read):
    """The latest finished step is megabytes away from the tail of the log."""
    session = begin(store)
    run_step(session, 0)
    start_step(session, 1)
    for number in range(300):
        log_attribute(session, value="x" * 10_000, sequence_id=1, time_ns=number + 1)
    start_step(session, 2)
    bytes_read.clear()
    assert store.load(None, "a")["sequence_id"] == 0
    first = sum(bytes_read)
    bytes_read.clear()
    assert store.load(None, "a")["sequence_id"] == 0
    assert sum(bytes_read) <= first < 1_000_000
