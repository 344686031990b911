"""Damage: what a killed writer, a full disk or a stray editor leaves behind is read and mended."""

import errno
import fcntl
import json
import os
import random
import shutil
import struct

import pytest
from burr.common.types import ParentPointer
from burr.core import State
from burr.tracking import LocalTrackingClient
from store_support import (
    GRAPH,
    SNAPSHOTS,
    begin,
    folder_of,
    keep,
    log_records,
    memory_folder,
    read_by_burr,
    run_step,
    sealed,
    steps,
    values_of,
)

from burr_otel.errors import UnknownRunError, UnknownSequenceError
from burr_otel.store import Store
from burr_otel.store.files import disk
from burr_otel.store.files import scan as store_scan


@pytest.fixture(params=SNAPSHOTS)
def keeping(request, monkeypatch):
    return keep(request.param, monkeypatch)


@pytest.fixture
def store(tmp_path, keeping):
    return Store("proj", tmp_path, **keeping)


def torn_files(store, app_id="a"):
    return sorted(path.name for path in folder_of(store, app_id).glob("log.jsonl.torn-*"))


@pytest.fixture
def memory_store(monkeypatch, keeping):
    """Each repair syncs twice, and waits for a torn line to go on."""
    monkeypatch.setattr(store_scan, "_SETTLE_S", 0)
    with memory_folder() as folder:
        yield Store("proj", folder, **keeping)


@pytest.mark.one_python
def test_a_log_cut_at_any_byte_loses_at_most_the_record_in_flight(memory_store, keeping):
    """Every offset of the last 4 KB (differences: three records): the state that loads, before and after the repair."""
    store = memory_store
    log = steps(store, 14)
    whole = log.read_bytes()
    assert len(whole) > 5000
    ends = []  # offset after each end_entry, and its sequence id
    offset = 0
    for line in whole.splitlines(keepends=True):
        offset += len(line)
        record = json.loads(line)
        if record["type"] == "end_entry":
            ends.append((offset, record["sequence_id"]))
    for cut in range(len(whole) - (1400 if keeping["delta"] else 4096), len(whole)):
        log.write_bytes(whole[:cut])
        # The record is complete without its newline too.
        expected = max(number for end, number in ends if end - 1 <= cut)
        assert values_of(store.load(None, "a")) == {"n": expected}
        session = begin(store)
        lines = log.read_bytes().splitlines(keepends=True)
        finished = [json.loads(line) for line in lines]
        assert [r["sequence_id"] for r in finished if r["type"] == "end_entry"][-1] == expected
        assert finished[-1]["type"] == "otel_root"
        torn = folder_of(store, "a") / "log.jsonl.torn-1"
        kept = torn.read_bytes() if torn.exists() else b""
        before = b"".join(lines[:-1])
        assert whole[:cut] in (before + kept, before[:-1]), "no byte is gone"
        torn.unlink(missing_ok=True)
        session.close()
    read_by_burr(store)


def middle(log, data):
    """Insert bytes between two records in the middle of a log."""
    lines = log.read_bytes().splitlines(keepends=True)
    lines.insert(len(lines) // 2, data)
    log.write_bytes(b"".join(lines))


GARBAGE = {
    "nul": b"\0" * 700,
    "nul-line": b"\0" * 700 + b"\n",
    "blank-lines": b"\n\n  \n",
    "text": b"no json at all\n",
    "half-record": b'{"type":"end_entry","sequence_id":3,"end_ti\n',
    "no-type": b'{"sequence_id":3}\n',
    "list": b"[1,2]\n",
    "number": b"7\n",
    "record-without-state": b'{"type":"end_entry","sequence_id":99,"action":"x"}\n',
    "state-of-wrong-type": (
        b'{"type":"end_entry","sequence_id":99,"end_time":"2024-01-01T00:00:00","action":"x",'
        b'"result":null,"exception":null,"state":[1]}\n'
    ),
    "not-utf8": b'{"type":"note","text":"\xff\xfe"}\n',
    "deep": b"[" * 100_000 + b"\n",
    "long": b"x" * 300_000 + b"\n",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("place", ["middle", "end", "start"])
def test_garbage_is_passed_over_by_reads_and_mended_by_the_next_session(store, garbage, place):
    """All states still load; after the repair Burr's readers work too, and no byte is gone."""
    log = steps(store, 8)
    clean = log.read_bytes()
    if place == "middle":
        middle(log, garbage)
    elif place == "end":
        log.write_bytes(clean + garbage)
    else:
        log.write_bytes(garbage + clean)
    damaged = log.read_bytes()
    for number in range(8):
        assert values_of(store.load(None, "a", number)) == {"n": number}
    begin(store).close()
    mended = log.read_bytes()
    assert mended.startswith(damaged[: damaged.index(garbage)])
    steps_seen, loaded = read_by_burr(store)
    assert [step.step_start_log.sequence_id for step in steps_seen] == list(range(8))
    assert loaded["sequence_id"] == 7
    for number in range(8):
        assert values_of(store.load(None, "a", number)) == {"n": number}
    if garbage.strip():
        kept = (folder_of(store, "a") / "log.jsonl.torn-1").read_bytes()
        assert garbage.rstrip(b"\n") in kept
    session = begin(store)
    run_step(session, 8)
    assert torn_files(store) == (["log.jsonl.torn-1"] if garbage.strip() else []), "mended once"
    assert store.load(None, "a")["sequence_id"] == 8


def test_a_record_that_follows_a_torn_one_on_its_line_is_saved(store):
    """Burr's client takes no lock and mends nothing: it appends to the torn line."""
    log = steps(store, 3)
    with log.open("ab") as file:
        file.write(
            b'{"type":"end_entry","sequence_id":9,"state":{"a":"'
            b'{"type":"end_entry","sequence_id":3,"end_time":"2024-01-01T00:00:00","action":"step",'
            b'"result":null,"exception":null,"state":{"n":3}}\n'
        )
    assert values_of(store.load(None, "a")) == {"n": 3}
    assert values_of(store.load(None, "a", 3)) == {"n": 3}
    begin(store).close()
    assert read_by_burr(store)[1]["sequence_id"] == 3
    assert values_of(store.load(None, "a", 3)) == {"n": 3}
    assert (log.parent / "log.jsonl.torn-1").read_bytes().endswith(b'"state":{"a":"')


def test_damage_is_reported_with_its_place(store, caplog):
    """`show` says what it skipped; a repair says what it did."""
    log = steps(store, 2)
    offset = len(log.read_bytes())
    with log.open("ab") as file:
        file.write(b"garbage\n" + b'{"type":"end_en')
    run = store.read("a")
    assert [record["type"] for record in run.records()][-1] == "otel_root_end"
    assert [(start, length) for start, length, _ in run.skipped] == [(offset, 8), (offset + 8, 15)]
    assert "not JSON" in run.skipped[0][2]
    begin(store)
    assert f"23 damaged bytes at offset {offset}" in caplog.text
    assert "log.jsonl.torn-1" in caplog.text


def test_a_writer_that_finds_a_torn_tail_mends_it_before_it_appends(store):
    """Another process was killed while ours has the run open."""
    session = begin(store)
    run_step(session, 0)
    log = folder_of(store, "a") / "log.jsonl"
    with log.open("ab") as file:
        file.write(b'{"type":"begin_entry","sequ')
    run_step(session, 1)
    log_records(log)
    assert store.load(None, "a")["sequence_id"] == 1
    torn = folder_of(store, "a") / "log.jsonl.torn-1"
    assert torn.read_bytes() == b'{"type":"begin_entry","sequ'


BURRS_LINE = b'{"type":"begin_entry","start_time":"2026-01-01T00:00:00","action":"a","inputs":{},"sequence_id":7}\n'


def test_a_line_that_is_being_written_is_not_torn(store, monkeypatch):
    """Burr's own client takes no lock and writes a large line in pieces: its rest is waited for."""
    path = steps(store, 2)
    pieces = [BURRS_LINE[:40], BURRS_LINE[40:80], BURRS_LINE[80:]]

    def write_on(seconds):
        with path.open("ab") as file:
            file.write(pieces.pop(0))

    write_on(0)
    with monkeypatch.context() as patched:
        patched.setattr(store_scan.time, "sleep", write_on)
        run_step(begin(store), 2, {"n": 2})
    assert torn_files(store) == []
    assert [r["sequence_id"] for r in log_records(path) if r["type"] == "begin_entry"] == [
        0,
        1,
        7,
        2,
    ]


def test_what_a_writer_without_locks_adds_to_a_repair_is_checked_by_the_next(store, monkeypatch):
    """Between our cutting off a torn tail and our noting how far the log is sound."""
    path = steps(store, 2)
    with path.open("ab") as file:
        file.write(BURRS_LINE[:50])
    cut = os.ftruncate

    def cut_and_be_overtaken(fd, size):
        cut(fd, size)
        with path.open("ab") as file:
            file.write(BURRS_LINE[50:70])

    with monkeypatch.context() as patched:
        patched.setattr(store_scan, "_SETTLE_S", 0)
        patched.setattr(os, "ftruncate", cut_and_be_overtaken)
        session = begin(store)
    run_step(session, 2, {"n": 2})
    session.close()
    begin(store).close()
    log_records(path)  # every line is strict JSON again
    assert [values_of(store.load(None, "a", number))["n"] for number in range(3)] == [0, 1, 2]
    read_by_burr(store)


def test_what_a_writer_without_locks_adds_during_a_repair_is_not_cut_off(store, monkeypatch):
    """Whole records of it came behind the torn tail while that was being saved."""
    path = steps(store, 2)
    with path.open("ab") as file:
        file.write(BURRS_LINE[:50])
    sync = os.fsync

    def be_overtaken(fd):
        sync(fd)
        if torn_files(store) and BURRS_LINE not in path.read_bytes():
            with path.open("ab") as file:
                file.write(BURRS_LINE[50:] + BURRS_LINE * 3)

    with monkeypatch.context() as patched:
        patched.setattr(store_scan, "_SETTLE_S", 0)
        patched.setattr(os, "fsync", be_overtaken)
        session = begin(store)
    run_step(session, 2, {"n": 2})
    session.close()
    begin(store).close()
    assert [r["sequence_id"] for r in log_records(path) if r["type"] == "begin_entry"] == [
        0, 1, 7, 7, 7, 2,
    ]  # fmt: skip
    assert [values_of(store.load(None, "a", number))["n"] for number in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("overtaken", [40, 63, 64, 65])
def test_the_index_says_nothing_of_an_append_that_was_overtaken(store, monkeypatch, overtaken):
    """A writer without locks adds a line between our look at the length and our own line."""
    path = folder_of(store, "a") / "log.jsonl"
    write, count = os.write, 0

    def be_overtaken(fd, data):
        nonlocal count
        if data.startswith((b'{"type":"end_entry"', b'{"type":"begin_entry"')):
            count += 1
            if count == overtaken:
                with path.open("ab", buffering=0) as file:
                    file.write(BURRS_LINE)
        return write(fd, data)

    session = begin(store)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", be_overtaken)
        for number in range(40):
            run_step(session, number, {"n": number})
    assert count > overtaken
    session.close()
    begin(store).close()
    assert torn_files(store) == []
    assert all(line[:1] == b"{" for line in path.read_bytes().splitlines()), "nothing was blanked"
    for number in range(40):
        assert values_of(store.load(None, "a", number))["n"] == number


def test_torn_bytes_never_overwrite_earlier_ones(store):
    """Each repair has a file of its own."""
    log = steps(store, 1)
    for number in range(3):
        with log.open("ab") as file:
            file.write(b"torn %d" % number)
        begin(store).close()
    assert torn_files(store) == [f"log.jsonl.torn-{number}" for number in (1, 2, 3)]
    assert (folder_of(store, "a") / "log.jsonl.torn-3").read_bytes() == b"torn 2"


def test_an_empty_log_and_lost_small_files_are_made_again(store):
    """A run is its log; everything else can be made from the application."""
    log = steps(store, 2)
    folder = log.parent
    for name in ("graph.json", "metadata.json", "log.index"):
        (folder / name).unlink()
    assert store.load(None, "a")["sequence_id"] == 1
    assert store.read("a").graph is None
    begin(store).close()
    assert read_by_burr(store)[1]["sequence_id"] == 1
    for name in ("graph.json", "metadata.json"):
        (folder / name).write_bytes(b'{"typ')
    assert store.load(None, "a")["sequence_id"] == 1
    begin(store).close()
    assert read_by_burr(store)[1]["sequence_id"] == 1
    log.write_bytes(b"")
    assert store.load(None, "a") is None
    assert store.history("a") == (None, None)
    run_step(begin(store), 0)
    assert read_by_burr(store)[1]["sequence_id"] == 0
    log.unlink()
    assert store.load(None, "a") is None
    run_step(begin(store), 0)
    assert read_by_burr(store)[1]["sequence_id"] == 0


def test_a_session_whose_process_is_killed_while_it_is_marked_has_no_empty_marker(
    store, monkeypatch
):
    """An empty one names no owner, so that the session would count as alive for an hour."""

    class KilledError(BaseException):
        pass

    def die(*_arguments):
        raise KilledError

    session = begin(store)
    session.unmark()
    monkeypatch.setattr(disk, "write_all", die)
    with pytest.raises(KilledError):
        session.mark_open(None, 1)
    assert not list(session._log.open_markers())


def test_a_torn_children_file_is_mended_when_the_next_child_is_added(store):
    """One torn line there makes the Burr UI fail on the parent."""
    steps(store, 1, "parent")
    begin(store, "c1", parent_pointer=ParentPointer("parent", None, 0))
    children = folder_of(store, "parent") / "children.jsonl"
    children.write_bytes(children.read_bytes()[:-9])
    assert store.read("parent").children == []
    begin(store, "c2", parent_pointer=ParentPointer("parent", None, 0))
    assert [each["child"]["app_id"] for each in store.read("parent").children] == ["c2"]
    assert list(folder_of(store, "parent").glob("children.jsonl.torn-1"))
    read_by_burr(store, "parent")


def test_a_session_that_opens_a_parent_mends_its_children_file(store):
    """Without a further child too."""
    steps(store, 1, "parent")
    begin(store, "c1", parent_pointer=ParentPointer("parent", None, 0))
    with (folder_of(store, "parent") / "children.jsonl").open("ab") as file:
        file.write(b'{"type":"child_app')
    begin(store, "parent")
    read_by_burr(store, "parent")


# --- the index ---------------------------------------------------------------------------------


def spoil_header(data):
    return b"\xff" * 8 + data[8:]


def spoil_entries(data):
    """A sound header over entries that point nowhere."""
    entry = struct.Struct("<qQQIB3x")
    out = data[:64]
    for at in range(64, len(data), entry.size):
        fields = list(entry.unpack(data[at : at + entry.size]))
        fields[1] += 5
        out += entry.pack(*fields)
    return out


SPOILT = {
    "missing": None,
    "empty": lambda data: b"",
    "torn-header": lambda data: data[:40],
    "torn-entries": lambda data: data[:-50],
    "noise": lambda data: random.Random(1).randbytes(len(data)),
    "bad-header": spoil_header,
    "wrong-entries": spoil_entries,
    "zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_an_index_that_does_not_fit_is_made_again(store, spoil):
    """It is a cache: every step loads, whatever is in it, and it is of use again afterwards."""
    log = steps(store, 60)
    index = log.with_name("log.index")
    if spoil is None:
        index.unlink()
    else:
        index.write_bytes(spoil(index.read_bytes()))
    for number in (0, 31, 59, 30):
        assert values_of(store.load(None, "a", number)) == {"n": number}
    with pytest.raises(UnknownSequenceError):
        store.load(None, "a", 60)
    assert store.find_step("a", None)["sequence_id"] == 59
    session = begin(store)
    for number in range(60, 130):
        run_step(session, number)
    session.close()
    for number in (0, 59, 60, 129):
        assert values_of(store.load(None, "a", number)) == {"n": number}
    assert index.stat().st_size > 64


def test_an_index_of_another_log_is_not_believed(store):
    """A folder was copied over another one."""
    log = steps(store, 40)
    other_log = steps(store, 50, "other")
    shutil.copy(other_log.with_name("log.index"), log.with_name("log.index"))
    for number in (0, 20, 39):
        assert values_of(store.load(None, "a", number)) == {"n": number}
    with pytest.raises(UnknownSequenceError):
        store.load(None, "a", 45)


def test_a_log_that_was_cut_short_and_went_on_differently_is_indexed_anew(store):
    """The index is longer than the log, then the log grows beyond it with other records."""
    log = steps(store, 40)
    whole = log.read_bytes()
    log.write_bytes(whole[: len(whole) // 2])
    session = begin(store)
    last = store.load(None, "a")["sequence_id"]
    assert last < 39
    for number in range(last + 1, 60):
        run_step(session, number, {"n": -number})
    session.close()
    assert values_of(store.load(None, "a", 3)) == {"n": 3}
    assert values_of(store.load(None, "a", 35)) == {"n": -35}


def test_a_longer_log_in_the_place_of_an_indexed_one_is_indexed_anew(store):
    """What the index covers of the old log says nothing of the new one's steps."""
    log = steps(store, 40)
    old = log.stat().st_size
    other_log = steps(store, 120, "other")
    assert other_log.stat().st_size > 2 * old
    records = log_records(other_log)
    for record in records:
        if "sequence_id" in record:
            record["sequence_id"] += 100
    log.write_bytes(b"".join(map(sealed, records)))
    assert values_of(store.load(None, "a", 110)) == {"n": 10}
    begin(store).close()
    assert len(read_by_burr(store)[0]) == 120


@pytest.mark.parametrize("first", ["load", "session"])
def test_damage_of_the_same_length_in_a_checked_part_is_found(store, keeping, first):
    """Somebody wrote NULs over a record without changing the file's length.

    Differences that build on it give no state any more, and never a wrong one.
    """
    log = steps(store, 40)
    before = log.stat()
    data = log.read_bytes()
    at = data.index(b'{"type":"end_entry","sequence_id":20')
    end = data.index(b"\n", at)
    with log.open("r+b") as file:
        file.seek(at)
        file.write(b"\0" * (end - at))
    os.utime(log, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    lost = range(21, 40) if keeping["delta"] else ()
    if first == "load":
        for number in (20, *lost):
            with pytest.raises(UnknownSequenceError):
                store.load(None, "a", number)
        assert values_of(store.load(None, "a", 19)) == {"n": 19}
        assert values_of(store.load(None, "a")) == {"n": 19 if lost else 39}
        if not lost:
            assert values_of(store.load(None, "a", 21)) == {"n": 21}
    session = begin(store)
    ends = [r for r in store.read("a").records() if r["type"] == "end_entry"]
    assert [r["sequence_id"] for r in ends if r["state"] is None] == list(lost)
    run_step(session, 40)
    assert values_of(store.load(None, "a")) == {"n": 40}
    assert len(read_by_burr(store, lost=lost)[0]) == 41


def test_a_log_that_burrs_own_client_extended_is_indexed_as_it_is(store, tmp_path):
    """Both trackers may write one run, one after the other."""
    log = steps(store, 40)
    client = LocalTrackingClient("proj", str(tmp_path))
    client.post_application_create(
        app_id="a", partition_key=None, state=None, application_graph=GRAPH,
        parent_pointer=None, spawning_parent_pointer=None,
    )  # fmt: skip

    class Action:
        name = "step"

    for number in range(40, 90):
        client.pre_run_step(State(), Action, {}, number)
        client.post_run_step(
            State({"n": number, "__SEQUENCE_ID": number}), Action, None, number, None
        )
    client.f.close()
    for number in (0, 39, 40, 65, 89):
        assert values_of(store.load(None, "a", number)) == {"n": number}
    assert store.load(None, "a")["sequence_id"] == 89
    assert store.history("a").last_step is None
    assert store.history("a").last_root is not None
    session = begin(store)
    run_step(session, 90)
    session.close()
    assert [r["sequence_id"] for r in log_records(log) if r["type"] == "end_entry"] == list(
        range(91)
    )
    assert read_by_burr(store)[1]["sequence_id"] == 90


def test_a_long_log_without_an_index_gets_one_from_the_first_read(store):
    """From then on a middle step costs a bounded read; in a read-only folder it still loads."""
    log = steps(store, 300)
    filler = b'{"type":"note","text":"%b"}\n' % (b"x" * 20_000)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(line + filler for line in lines))
    index = log.with_name("log.index")
    index.unlink()
    assert values_of(store.load(None, "a", 150)) == {"n": 150}
    assert index.stat().st_size == 64 + 32 * 601
    index.unlink()
    index.mkdir()  # an index that cannot be opened, even by root
    assert values_of(store.load(None, "a", 150)) == {"n": 150}
    session = begin(store)
    run_step(session, 300)
    session.close()
    assert values_of(store.load(None, "a", 300)) == {"n": 300}


@pytest.mark.parametrize("why", ["full disk", "a bit of room", "no locks"])
def test_a_long_log_is_read_where_no_index_can_be_kept(store, monkeypatch, why):
    """A full disk, and a file system without locks, cost time and no state."""
    log = steps(store, 300)
    filler = b'{"type":"note","text":"%b"}\n' % (b"x" * 20_000)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(line + filler for line in lines))
    index, pwrite = log.with_name("log.index"), os.pwrite
    index.unlink()

    def full(fd, data, offset):
        if not index.exists() or not os.path.samestat(os.fstat(fd), index.stat()):
            return pwrite(fd, data, offset)
        if why == "a bit of room":
            return pwrite(fd, data[: len(data) // 2], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def unlocked(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if why == "no locks":
        monkeypatch.setattr(fcntl, "flock", unlocked)
    else:
        monkeypatch.setattr(os, "pwrite", full)
    assert values_of(store.load(None, "a", 150)) == {"n": 150}
    assert values_of(store.load(None, "a", 150)) == {"n": 150}


def test_a_reader_indexes_what_a_live_writer_lost_track_of(store):
    """Another tracker appended in between, so that the writer cannot tell what lies before."""
    session = begin(store)
    run_step(session, 0)
    log = folder_of(store, "a") / "log.jsonl"
    with log.open("ab") as file:
        file.write(b'{"type":"note"}\n')
    for number in range(1, 101):
        run_step(session, number, {"n": number, "pad": f"{number:04}" * 5_000})
    index = log.with_name("log.index")
    assert not index.exists()
    assert store.load(None, "a", 40)["state"]["n"] == 40
    assert index.stat().st_size > 32 * 100
    for number in range(101, 201):
        run_step(session, number, {"n": number, "pad": f"{number:04}" * 5_000})
    for number in (1, 100, 101, 200):
        assert store.load(None, "a", number)["state"]["n"] == number
    session.close()
    begin(store).close()
    assert store.load(None, "a", 150)["state"]["n"] == 150


def test_a_torn_run_can_be_mended_without_opening_it(store):
    """Until then the Burr UI cannot list the project; `mend` says what it did."""
    log = steps(store, 3)
    with log.open("ab") as file:
        file.write(b"\0\0torn")
    with pytest.raises(json.JSONDecodeError):
        read_by_burr(store)
    [told] = store.read("a").log.repair()
    assert "6 damaged bytes" in told
    assert "log.jsonl.torn-1" in told
    assert read_by_burr(store)[1]["sequence_id"] == 2
    assert store.read("a").log.repair() == []
    with pytest.raises(UnknownRunError):
        store.read("b").log.repair()
