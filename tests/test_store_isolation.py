"""Nothing is written or read outside a run's own folder, and only its owner may."""

import asyncio
import contextlib
import json
import os
import resource
import shutil
import stat
from pathlib import Path

import pytest
from burr.common.types import ParentPointer
from burr.core import State
from store_support import ENDED, begin, folder_of, run_step, steps, values_of

from burr_otel.errors import (
    ConfigError,
    InvalidIdentifierError,
    RunLockedError,
    SnapshotError,
    StoreError,
    UnknownRunError,
)
from burr_otel.store import AsyncStoreLoader, Store, projects
from burr_otel.store.materialize import write_plain

BAD_APP_IDS = [
    "", ".", "..", "../other", "a/b", "/etc", "a\0b", "x" * 256, "é" * 128, "\ud800", 7, b"a",
    ".burr-otel-new-1",
]  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return Store("proj", tmp_path / "store")


@pytest.mark.parametrize("app_id", BAD_APP_IDS, ids=ascii)
def test_an_app_id_that_leads_elsewhere_is_refused_at_build(store, tmp_path, app_id):
    """By every operation, as a `ValueError` that says what is allowed, and no file is made."""
    for operation in (
        lambda: begin(store, app_id),
        lambda: store.load(None, app_id),
        lambda: store.exists(app_id),
        lambda: store.history(app_id),
        lambda: store.find_step(app_id, 1),
        lambda: store.read(app_id),
        lambda: folder_of(store, app_id),
        lambda: store.load_state(app_id),
    ):
        with pytest.raises(InvalidIdentifierError, match="cannot be a folder name") as caught:
            operation()
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, ConfigError)
        assert "1 to 255 bytes" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("project", ["", ".", "../x", "a b", "a/b", "x" * 256, "é", "a\n", None])
def test_a_project_that_is_no_folder_name_is_refused(tmp_path, project):
    """With what is allowed."""
    with pytest.raises(InvalidIdentifierError, match="letters, digits, '_', '-' or ':'"):
        Store(project, tmp_path)


@pytest.mark.parametrize(
    "app_id", ["a b", "é" * 127, "x" * 255, ".hidden", "a:b", "-", "%2e", "a\nb", "日本", "~"]
)
def test_any_other_text_is_an_app_id(store, app_id):
    """Burr's own client takes it too."""
    run_step(begin(store, app_id), 0)
    assert store.load(None, app_id)["sequence_id"] == 0
    assert store.list_app_ids() == [app_id]
    assert [path.name for path in Path(store.place).iterdir()] == [app_id]


@pytest.mark.parametrize("key", ["\ud800", 5])
def test_a_partition_key_that_cannot_be_kept_is_refused(store, key):
    """The Burr UI could not show it."""
    with pytest.raises(InvalidIdentifierError, match="partition key"):
        begin(store, partition_key=key)


def test_a_run_folder_that_is_a_link_is_refused(store, tmp_path):
    """For writing and for reading: its files would be elsewhere."""
    steps(store, 1, "real")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (Path(store.place) / "link").symlink_to(elsewhere)
    for operation in (lambda: begin(store, "link"), lambda: store.load(None, "link")):
        with pytest.raises(InvalidIdentifierError, match="is a symbolic link"):
            operation()
    assert list(elsewhere.iterdir()) == []
    (Path(store.place) / "link").unlink()
    (Path(store.place) / "link").symlink_to(Path(store.place) / "real")
    with pytest.raises(InvalidIdentifierError):
        store.load(None, "link")
    assert store.list_app_ids() == ["real"]


@pytest.mark.parametrize("name", ["log.jsonl", "log.index", "run.lock", "children.jsonl"])
def test_a_file_that_is_a_link_is_not_followed(tmp_path, name):
    """Nothing of ours is written to where it leads."""
    store = Store("proj", tmp_path, exclusive=True)
    steps(store, 1)
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (folder_of(store, "a") / name).unlink(missing_ok=True)
    (folder_of(store, "a") / name).symlink_to(target)
    with contextlib.suppress(SnapshotError):  # or a warning: that depends on the file
        session = begin(store)
        for number in range(1, 40):
            run_step(session, number)
        begin(store, "child", parent_pointer=ParentPointer("a", None, 1))
    assert target.read_bytes() == b"precious"


def test_a_storage_directory_may_be_a_link(tmp_path):
    """People put it on another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    steps(Store("proj", tmp_path / "link"), 1)
    assert (tmp_path / "disk" / "proj" / "a" / "log.jsonl").exists()


def test_parents_outside_of_the_store_are_left_alone(store, tmp_path):
    """Pointers come from the application and may name anything."""
    for app_id in ("../evil", "/tmp/evil", "nobody", "\ud800", 5):
        begin(
            store,
            "child",
            parent_pointer=ParentPointer(app_id, "k\ud800", "x"),
            spawning_parent_pointer=ParentPointer(app_id, None, 1),
        )
    assert [path.name for path in Path(store.place).iterdir()] == ["child"]
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_files_and_folders_are_for_their_owner_alone(tmp_path):
    """States hold what users said; whatever the umask is."""
    before = os.umask(0)
    try:
        store = Store("proj", tmp_path / "x" / "store", exclusive=True)
        session = begin(store)
        for number in range(40):
            run_step(session, number)
        session.close()
        with (folder_of(store, "a") / "log.jsonl").open("ab") as file:
            file.write(b"torn")
        begin(store).close()
        begin(store, "b", parent_pointer=ParentPointer("a", None, 1)).close()
    finally:
        os.umask(before)
    seen = {}
    for path in [tmp_path / "x", *(tmp_path / "x").rglob("*")]:
        seen[path.name] = path.is_dir(), stat.S_IMODE(path.stat().st_mode)
    assert set(seen.values()) == {(True, 0o700), (False, 0o600)}
    assert {"log.jsonl.torn-1", "log.index", "run.lock", "children.jsonl", "graph.json"} <= set(
        seen
    )


def test_a_name_with_home_is_expanded(monkeypatch, tmp_path):
    """As in Burr: `~/.burr`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Path(Store("proj").place) == tmp_path / ".burr" / "proj"


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


def test_a_live_runs_folder_that_becomes_a_link_is_not_written_to(store, tmp_path):
    """Moved away and linked to from its old place: each step fails and says so."""
    session = begin(store)
    run_step(session, 0)
    run = folder_of(store, "a")
    run.rename(tmp_path / "moved")
    run.symlink_to(tmp_path / "moved")
    before = (tmp_path / "moved" / "log.jsonl").read_bytes()
    for closed in (False, True):
        if closed:
            session.close()
        with pytest.raises(SnapshotError, match="deleted or replaced"):
            run_step(session, 1)
    with pytest.raises(InvalidIdentifierError, match="symbolic link"):
        store.load(None, "a")
    assert (tmp_path / "moved" / "log.jsonl").read_bytes() == before


def test_a_project_that_is_a_link_is_not_followed(store, tmp_path):
    """Only the storage directory as a whole may be one."""
    steps(Store("proj", tmp_path / "elsewhere"), 1)
    Path(store.place).parent.mkdir()
    Path(store.place).symlink_to(tmp_path / "elsewhere" / "proj")
    for operation in (
        lambda: begin(store), lambda: store.load(None, "a"), lambda: store.read("a"),
        store.list_app_ids,
    ):  # fmt: skip
        with pytest.raises(InvalidIdentifierError, match="symbolic link"):
            operation()
    assert projects(tmp_path / "store") == []


SMALL = ["metadata.json", "graph.json", "children.jsonl", "log.index", "log.jsonl"]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("what", ["link", "pipe", "folder", "deep", "empty", "huge"])
def test_a_file_that_is_something_else_is_not_read_and_nothing_waits(store, tmp_path, name, what):
    """A link, a pipe without a writer, a folder, JSON that no parser takes: never a bare error."""
    steps(store, 40)
    (tmp_path / "secret").write_text('{"partition_key": "OUTSIDE"}\n')
    path = folder_of(store, "a") / name
    path.unlink(missing_ok=True)
    if what == "link":
        path.symlink_to(tmp_path / "secret")
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 32)
    else:
        path.write_text({"deep": '{"a":' + "[" * 100_000 + "\n", "empty": ""}[what])
    run = next(store.runs(), None)
    if run is not None:
        assert run.partition_key is None
        assert "OUTSIDE" not in str((run.graph, run.children, run.parent_pointer))
        assert list(run.left_open(now_ns=1, recover_after_s=1.0)) == []
    if name == "log.jsonl":
        assert store.load(None, "a") is None
        return
    for number in (None, 3, 39):
        assert store.load(None, "a", number)["sequence_id"] == (39 if number is None else number)
    copied = write_plain(store.read("a"), tmp_path / "copy")
    assert copied.steps == 40
    assert b"OUTSIDE" not in b"".join(p.read_bytes() for p in (tmp_path / "copy").iterdir())
    with contextlib.suppress(SnapshotError):  # or the file is made again
        run_step(begin(store), 40)


@pytest.mark.parametrize("nuls", [1, 5_000, 300_000, 1 << 28])
@pytest.mark.parametrize("ended", ["", "newline", "record"])
def test_nuls_at_the_end_cost_nothing(store, nuls, ended):
    """A file system that lost power leaves them, very many too: in linear time, in little memory."""
    log = steps(store, 3)
    size = log.stat().st_size
    last = log.read_bytes().splitlines(keepends=True)[-2]
    with log.open("r+b") as file:
        file.truncate(size + nuls)
        file.seek(size + nuls)
        file.write({"": b"", "newline": b"\n", "record": last}[ended])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert store.load(None, "a")["sequence_id"] == 2
    assert store.load(None, "a", 0)["sequence_id"] == 0
    run = store.read("a")
    kept = [record["type"] for record in run.records()]
    assert kept.count("end_entry") == 3 + (ended == "record")
    assert sum(length for _, length, _ in run.skipped) >= nuls
    run_step(begin(store), 3)
    assert store.load(None, "a")["sequence_id"] == 3
    assert store.load(None, "a", 1)["sequence_id"] == 1
    assert store.read("a").skipped == [] or list(store.read("a").records())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100 * 1024


def test_ids_that_share_a_folder_are_refused(store):
    """Where the file system ignores case or normalizes: the folder's own metadata tells."""
    for own, other in (("Stra\u00dfe", "STRASSE"), ("caf\u00e9", "cafe\u0301"), ("a", "A")):
        steps(store, 1, own)
        folder_of(store, own).rename(folder_of(store, other))  # what such a file system would show
        assert store.load(None, other) is None
        assert not store.exists(other)
        with pytest.raises(InvalidIdentifierError, match="would share a folder with the run"):
            begin(store, other)


def test_a_copied_folder_is_a_run_of_its_new_name(store):
    """Its metadata names another one, and yet they share nothing."""
    steps(store, 2)
    shutil.copytree(folder_of(store, "a"), folder_of(store, "b"))
    assert store.load(None, "b")["sequence_id"] == 1
    run_step(begin(store, "b"), 2)
    assert store.list_app_ids() == ["a", "b"]


@pytest.mark.parametrize("which", ["storage", "run"])
def test_a_folder_that_others_can_write_is_told_once(tmp_path, caplog, which):
    """With its owner and mode, and what to do."""
    store = Store("proj", tmp_path / "store")
    steps(store, 1)
    folder = tmp_path / "store" if which == "storage" else folder_of(store, "a")
    folder.chmod(0o777)
    for _ in range(2):
        store.load(None, "a")
        run_step(begin(store), 1)
    [message] = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"{folder} can be written by others (owner ")
    assert "mode 0777" in message
    assert "chmod go-w" in message


def test_without_a_home_directory_nothing_is_made(monkeypatch, tmp_path):
    """No folder named ``~``; the error says what to set."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="Set HOME or BURR_OTEL_STORAGE_DIR"):
        Store("proj")
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_deleted_unless_its_owner_lives(store, tmp_path):
    """By process here, by age where this host cannot tell; nothing else is touched."""
    steps(store, 1, "b")
    session = begin(store)
    run_step(session, 0)
    with pytest.raises(StoreError, match=f"open in process {os.getpid()}"):
        store.delete("a", now_ns=1 << 62)
    session.end(ENDED)
    store.delete("a", now_ns=1)
    with pytest.raises(UnknownRunError):
        store.delete("a", now_ns=1)
    assert [path.name for path in Path(store.place).iterdir()] == ["b"]
    elsewhere = {"host": "elsewhere", "pid": 1, "process_start": None}
    marker = {"owner": elsewhere, "otel": {}, "partition_key": None}
    (folder_of(store, "b") / "open-x").write_text(json.dumps(marker))
    changed_ns = (folder_of(store, "b") / "log.jsonl").stat().st_mtime_ns
    with pytest.raises(StoreError, match="on elsewhere"):
        store.delete("b", now_ns=changed_ns + 10**9, recover_after_s=10)
    store.delete("b", now_ns=changed_ns + 11 * 10**9, recover_after_s=10)
    held = begin(Store("proj", tmp_path / "store", exclusive=True), "c")
    held.unmark()
    with pytest.raises(RunLockedError):
        store.delete("c", now_ns=1)
