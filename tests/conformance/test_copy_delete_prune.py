"""Runs that are copied, deleted and pruned by the commands, on every engine."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import apps
import pytest
from burr.common.types import ParentPointer
from cli_support import run as run_command
from store_support import (
    ENDED,
    begin,
    folder_of,
    graph,
    other,
    records_of,
    run_step,
    start_step,
    step,
    values_of,
)

from burr_otel import OtelTracker
from burr_otel.errors import RunInUseError, RunLockedError, StoreError
from burr_otel.replay.read import opened
from burr_otel.store import Store
from burr_otel.store import store as store_module
from burr_otel.store.copying import RunCopy
from burr_otel.store.engines import open_engine
from burr_otel.store.port import ALL, NewRun

CHILD = Path(__file__).parents[1] / "store_child.py"


@pytest.fixture
def source(tmp_path):
    """Local files."""
    return Store("proj", tmp_path / "source", delta=True)


@pytest.fixture
def target(storage_dir):
    return Store("proj", storage_dir)


def copy(source_dir, to, *arguments, code=0):
    """What the command says, as data."""
    done = run_command(
        "copy", *arguments, "--to", to, "--storage-dir", source_dir, "--json"
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if done.stdout else done.stderr


def filled(store):
    """A run with everything that a run may have."""
    session = begin(store)
    for number in range(30):
        run_step(session, number, {"history": ["x" * 400] * number, "nan": float("inf")})
    session.end(ENDED)
    begin(store, application_graph=graph(step, other)).end(ENDED)
    begin(store, "child", spawning_parent_pointer=ParentPointer("a", None, 3)).end(ENDED)
    begin(store, "fork", parent_pointer=ParentPointer("a", None, 3)).end(ENDED)
    for key in ("p", "q\0q"):
        session = begin(store, "shared", partition_key=key)
        run_step(session, 0, {"who": key})
        session.end(ENDED)


def whole(store, app_id="a", key=ALL):
    """All bytes that are stored of a run."""
    log = store.read(app_id, key).log
    earlier = {digest: log.graph(digest) for digest in log.earlier_graphs()}
    children = [line.rstrip(b"\n") for line in log.children()]
    data = [line.data for line in log.forward()]
    return data, log.graph(), earlier, children, log.metadata(), log.partition_key


def test_a_copied_run_is_the_run(source, target, tmp_path, storage_dir):
    """There and back again: every byte, and it loads, resumes and is listed like the original."""
    filled(source)
    told = copy(tmp_path / "source", storage_dir, "--project", "proj")
    assert {each["app_id"] for each in told} == {"a", "child", "fork", "shared"}
    assert all(each["problem"] is None for each in told)
    back = Store("proj", tmp_path / "back")
    copy(storage_dir, tmp_path / "back", "--project", "proj")
    for app_id, key in (("a", None), ("child", None), ("shared", "p"), ("shared", "q\0q")):
        assert whole(source, app_id, key) == whole(target, app_id, key) == whole(back, app_id, key)
    for number in (None, 0, 17, 29):
        assert target.load(None, "a", number) is not None
        values = [values_of(store.load(None, "a", number)) for store in (source, target, back)]
        assert values[0] == values[1] == values[2]
    assert target.list_app_ids(None) == ["a", "child", "fork"]
    assert values_of(target.load("p", "shared")) == {"who": "p"}
    session = begin(target)
    run_step(session, 30)
    session.end(ENDED)
    assert values_of(target.load(None, "a")) == {"n": 30}


def replayed(storage_dir):
    """All spans that a replay sends of a store's runs, as text."""
    found = Store("proj", storage_dir).runs()
    found = sorted(found, key=lambda run: (run.app_id, run.partition_key or ""))
    return [[span.to_json() for span in spans] for spans in opened(found, str(storage_dir))]


def shown(storage_dir, app_id):
    """What a person is shown of a run, but for where it is."""
    done = run_command("show", app_id, "--storage-dir", storage_dir, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    del told["place"]
    return told


def test_a_copied_run_is_shown_and_replayed_like_the_original(source, tmp_path, storage_dir):
    """The same spans, to the last byte."""
    filled(source)
    copy(tmp_path / "source", storage_dir, "--project", "proj")
    assert replayed(tmp_path / "source") == replayed(storage_dir)
    assert any(map(len, replayed(storage_dir)))
    assert shown(tmp_path / "source", "a") == shown(storage_dir, "a")


def test_a_named_run_is_copied_with_those_that_it_spawned(source, target, tmp_path, storage_dir):
    """They are one trace; a fork is another."""
    filled(source)
    told = copy(tmp_path / "source", storage_dir, "a")
    assert {each["app_id"] for each in told} == {"a", "child"}
    assert target.list_app_ids() == ["a", "child"]
    told = copy(tmp_path / "source", storage_dir, "shared", "--partition", "p")
    assert [each["partition_key"] for each in told] == ["p"]
    told = copy(tmp_path / "source", storage_dir, "--project", "proj", "--partition", "")
    assert sorted(each["app_id"] for each in told) == ["a", "child", "fork"]
    assert target.list_partition_keys() == [None, "p"]


def test_a_copy_that_others_write_into_is_told(source, storage_dir):
    """What is there in the end is compared with what was copied."""
    filled(source)
    run, engine = source.read("a").log, open_engine(storage_dir)
    copied, records = RunCopy(run, engine), len(list(run.forward()))
    with pytest.raises(StoreError, match="is no true copy"):
        for _ in copied.make(2**62):
            if copied.records == records:
                there = engine.find("proj", "a", None)
                there.append(b'{"type":"other"}\n', durability="flush")
                records = -1


def test_a_copy_that_was_interrupted_goes_on(source, target, tmp_path, storage_dir):
    """It adds what is missing; a second call adds nothing, and one later what came since."""
    filled(source)
    run = source.read("a").log
    new = NewRun("proj", "a", None, run.metadata(), run.graph())
    log, _ = target.engine.create(new, durability="flush")
    for line in list(run.forward())[:7]:
        log.append(line.data, durability="flush")
    log.close()
    [first, *_] = [
        each for each in copy(tmp_path / "source", storage_dir, "a") if each["app_id"] == "a"
    ]
    assert first["added"] == first["records"] - 7
    again = copy(tmp_path / "source", storage_dir, "a")
    assert [each["added"] for each in again] == [0, 0]
    session = begin(source)
    run_step(session, 30)
    session.end(ENDED)
    later = copy(tmp_path / "source", storage_dir, "a")
    assert sorted(each["added"] for each in later) == [0, 4]
    assert records_of(source) == records_of(target)


def test_another_run_of_the_same_id_is_not_copied_over(source, target, tmp_path, storage_dir):
    """It stays as it is, and the command says so and goes on with the others."""
    filled(source)
    session = begin(target)
    run_step(session, 0, {"who": "target"})
    session.end(ENDED)
    before = whole(target)
    told = copy(tmp_path / "source", storage_dir, "--project", "proj", code=1)
    problems = {each["app_id"]: each["problem"] for each in told}
    assert "is another run of that id (its record 1 differs)" in problems["a"]
    assert problems["child"] is None
    assert whole(target) == before
    told = copy(tmp_path / "source", tmp_path / "source", "a", code=1)
    assert "is the run itself" in told[0]["problem"]


def test_a_live_run_is_neither_copied_nor_deleted_nor_pruned(target, tmp_path, storage_dir):
    """Its owner writes; once that was killed, everything can be done."""
    worker = subprocess.Popen(
        [sys.executable, CHILD, "step_and_wait", storage_dir, "flush"], stdout=subprocess.PIPE
    )
    try:
        assert json.loads(worker.stdout.readline()) == 4
        where = ("--storage-dir", storage_dir)
        told = copy(storage_dir, tmp_path / "copy", "flush", code=1)
        assert f"open in process {worker.pid}" in told[0]["problem"]
        done = run_command("delete", "flush", *where)
        assert done.returncode == 1
        assert "is in use" in done.stderr
        done = run_command("prune", "--keep", "0", *where)
        assert done.returncode == 0
        assert "in use" in done.stdout
        assert "Deleted 0 runs, 0 bytes." in done.stderr
        assert target.load(None, "flush")["sequence_id"] == 4
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        worker.stdout.close()


def test_a_session_that_begins_as_its_run_is_deleted_keeps_it(target, monkeypatch):
    """Between the look whether a run is in use and its deletion, a server may have resumed it."""
    session = begin(target)
    run_step(session, 0)
    session.end(ENDED)
    check, begun = store_module.check_unused, []

    def check_then_begin(*told):
        check(*told)
        begun.append(begin(target))

    monkeypatch.setattr(store_module, "check_unused", check_then_begin)
    with pytest.raises(RunInUseError, match="is in use"):
        target.delete("a", dead_before_ns=1)
    [session] = begun
    run_step(session, 1)
    assert target.load(None, "a")["sequence_id"] == 1


def test_a_run_that_is_being_deleted_is_waited_for(storage_dir, monkeypatch):
    """Who wants it exclusively finds the claim of the deletion, and then makes the run anew."""
    store = Store("proj", storage_dir, exclusive=True)
    session = begin(store)
    run_step(session, 0)
    session.end(ENDED)
    run, claims = store.read("a").log, []

    class Deleting:
        def __init__(self, patience_s):
            pass

        def pause(self):
            store.engine.delete(run)
            claims.pop().release()
            return True

    claims.append(run.claim("deletion of a"))
    monkeypatch.setattr(store_module, "Patience", Deleting)
    session = begin(store)
    assert claims == []
    assert store.load(None, "a") is None
    run_step(session, 0)
    assert store.list_app_ids() == ["a"]
    assert store.load(None, "a")["sequence_id"] == 0
    with pytest.raises(RunLockedError):
        begin(store)


def test_a_run_that_was_killed_is_completed_from_its_copy(source, storage_dir, spans, tmp_path):
    """Open sessions are copied, so that the next builder there ends their spans."""
    session = begin(source, "a")
    run_step(session, 0)
    start_step(session, 1, span_id=7)
    log = folder_of(source, "a")
    [marker] = log.glob("open-*")
    told = json.loads(marker.read_text())
    told["owner"]["process_start"] = "boot/1"
    marker.write_text(json.dumps(told))
    copy(tmp_path / "source", storage_dir, "a")
    tracker = OtelTracker("proj", storage_dir, tracer_provider=spans.provider)
    [recovered] = tracker.recover("a")
    assert recovered.sent
    assert list(Store("proj", storage_dir).read("a").log.open_markers()) == []


def three_runs(store):
    """Of different sizes, the newest last."""
    for number, (app_id, key) in enumerate((("x", "p"), ("y", "q"), ("z", "p"))):
        session = begin(store, app_id, partition_key=key)
        run_step(session, 0, {"pad": "x" * 1000 * (number + 1)})
        session.end(ENDED)
    store.engine.close()
    return {run.app_id: run.size_bytes for run in store.runs()}


def test_runs_are_deleted_by_their_whole_ids(store, storage_dir):
    """What was deleted is said; one wrong id and nothing is."""
    sizes = three_runs(store)
    where = ("--storage-dir", storage_dir)
    done = run_command("delete", "x", "nobody", *where)
    assert done.returncode == 3
    assert "no run 'nobody'" in done.stderr
    begin(store, "longer-id").end(ENDED)
    done = run_command("delete", "longer", *where)
    assert done.returncode == 3
    assert "Did you mean 'longer-id'" in done.stderr
    assert store.list_app_ids() == ["longer-id", "x", "y", "z"]
    done = run_command("delete", "x", "y", *where)
    assert done.returncode == 0
    assert f"proj/x (partition p)  {sizes['x']:,} bytes  deleted" in done.stdout
    assert store.list_app_ids() == ["longer-id", "z"]
    done = run_command("delete", "z", *where, "--json")
    assert json.loads(done.stdout)[0]["status"] == "deleted"


def test_a_run_that_is_gone_when_it_is_to_be_deleted_costs_no_other_partition_its_run(
    store, storage_dir
):
    """Two users' runs may have one id, and one of them may be deleted twice at once."""
    for key in (None, "p", "q"):
        begin(store, "a", partition_key=key).end(ENDED)
    store.engine.close()
    done = run_command("delete", "a", "a", "--partition", "q", "--storage-dir", storage_dir)
    assert done.returncode == 0
    assert "Deleted 1 run," in done.stderr
    assert store.list_partition_keys() == [None, "p"]


def test_what_is_out_of_bounds_is_pruned(store, storage_dir):
    """By number, size, age or user, oldest first; a rehearsal deletes nothing."""
    sizes = three_runs(store)
    where = ("--storage-dir", storage_dir)

    def prune(*arguments):
        done = run_command("prune", *arguments, *where, "--json")
        assert done.returncode == 0, done.stderr
        return [each["app_id"] for each in json.loads(done.stdout)]

    assert prune("--older-than", "1h", "--keep", "3", "--max-bytes", "1G") == []
    assert prune("--keep", "1", "--dry-run") == ["x", "y"]
    assert prune("--keep", "1", "--partition", "p", "--dry-run") == ["x"]
    assert prune("--max-bytes", str(sizes["z"] + sizes["y"]), "--dry-run") == ["x"]
    assert prune("--max-bytes", str(sizes["z"] + sizes["y"] - 1), "--dry-run") == ["x", "y"]
    assert prune("--older-than", "2100-01-01", "--dry-run") == ["x", "y", "z"]
    assert store.list_app_ids() == ["x", "y", "z"]
    assert prune("--partition", "p") == ["x", "z"]
    assert store.list_app_ids() == ["y"]
    done = run_command("prune", "--keep", "0", *where)
    assert "proj/y (partition q)" in done.stdout
    assert done.stderr.strip() == f"Deleted 1 run, {sizes['y']:,} bytes."
    assert store.list_app_ids() == []


def test_a_tracker_deletes_a_run(storage_dir, spans):
    """And it can be built again from nothing."""
    tracker = OtelTracker("proj", storage_dir, tracer_provider=spans.provider)
    app = apps.counter(tracker, "a1")
    app.run(halt_after=["finish"])
    tracker.close()
    tracker.delete("a1")
    assert tracker.load(None, "a1") is None
    assert apps.resumed(tracker, "a1").state["count"] == 0
    tracker.close()
