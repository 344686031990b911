"""Nothing is written or read outside a run's own folder, and only its owner may."""

import contextlib
import errno
import fcntl
import json
import os
import resource
import shutil
import stat
from pathlib import Path

import pytest
from burr.common.types import ParentPointer
from click.testing import CliRunner
from store_support import ENDED, begin, folder_of, keep, run_step, steps

from burr_otel.cli import keep as keep_commands
from burr_otel.errors import (
    ConfigError,
    InvalidIdentifierError,
    RunLockedError,
    SnapshotError,
    StoreError,
    UnknownRunError,
)
from burr_otel.store import Store
from burr_otel.store.copying import RunCopy, write_plain
from burr_otel.store.engines import open_engine
from burr_otel.store.files import run as files_run
from burr_otel.store.files.run import FileRun
from burr_otel.store.stored_run import runs_beyond


@pytest.fixture
def store(tmp_path):
    return Store("proj", tmp_path / "store")


@pytest.mark.parametrize("project", ["", ".", "../x", "a b", "a/b", "x" * 256, "é", "a\n", None])
def test_a_project_that_is_no_folder_name_is_refused(tmp_path, project):
    """With what is allowed."""
    with pytest.raises(InvalidIdentifierError, match="letters, digits, '_', '-' or ':'"):
        Store(project, tmp_path)


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
    assert Store("proj", tmp_path / "store").engine.projects() == []


SMALL = ["metadata.json", "graph.json", "children.jsonl", "log.index", "log.jsonl"]


@pytest.mark.one_python
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
            file.truncate(1 << 30)
    else:
        path.write_text({"deep": '{"a":' + "[" * 100_000 + "\n", "empty": ""}[what])
    run = next(store.runs(), None)
    if run is not None:
        assert run.partition_key is None
        assert "OUTSIDE" not in str((run.graph, run.children, run.parent_pointer))
        assert list(run.left_open(1)) == []
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


@pytest.mark.one_python
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


def test_a_run_whose_owner_is_elsewhere_is_deleted_when_it_is_old(store):
    """This host cannot tell whether a process of another one lives."""
    steps(store, 1)
    elsewhere = {"host": "elsewhere", "pid": 1, "process_start": None}
    marker = {"owner": elsewhere, "otel": {}, "partition_key": None}
    (folder_of(store, "a") / "open-x").write_text(json.dumps(marker))
    changed_ns = (folder_of(store, "a") / "log.jsonl").stat().st_mtime_ns
    with pytest.raises(StoreError, match="on elsewhere"):
        store.delete("a", dead_before_ns=changed_ns - 9 * 10**9)
    store.delete("a", dead_before_ns=changed_ns + 10**9)
    assert list(Path(store.place).iterdir()) == []


@pytest.mark.parametrize(
    ("bound", "left"),
    [
        (["--older-than", "1d"], ["a", "c"]),
        (["--keep", "1"], ["a", "c"]),
        (["--max-bytes", "4K"], ["a", "c"]),
        (["--keep", "0"], []),
    ],
)
def test_a_run_that_goes_on_while_others_are_pruned_is_the_newest(store, monkeypatch, bound, left):
    """It takes a while to delete many runs, of which each was old when they were listed."""
    for time_s, (app_id, count) in enumerate((("a", 1), ("b", 9)), 1):
        steps(store, count, app_id)
        os.utime(folder_of(store, app_id) / "log.jsonl", (time_s, time_s))
    steps(store, 1, "c")

    def listed(*told):
        found = runs_beyond(*told)
        monkeypatch.setattr(keep_commands, "runs_beyond", runs_beyond)
        steps(store, 1, "a")
        return found

    monkeypatch.setattr(keep_commands, "runs_beyond", listed)
    arguments = [*bound, "--storage-dir", str(Path(store.place).parent)]
    CliRunner().invoke(keep_commands.prune_command, arguments)
    assert store.list_app_ids() == left


def test_what_a_killed_deletion_left_goes_with_the_next_one(store, monkeypatch):
    """Nothing lists such a run any more, so nobody else could delete what it holds."""

    def killed(*_args, **_more):
        raise KeyboardInterrupt

    for app_id in ("a", "b", "c"):
        steps(store, 1, app_id)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", killed)
        store.delete("a", dead_before_ns=1)
    assert store.list_app_ids() == ["b", "c"]
    store.delete("b", dead_before_ns=1)
    assert [path.name for path in Path(store.place).iterdir()] == ["c"]


def test_a_deletion_at_the_same_time_takes_all_of_it_away(store, monkeypatch):
    """Two commands prune one project: what one of them has moved aside, the other deletes."""
    steps(store, 1)
    rename = Path.rename

    def renamed(path, target):
        rename(path, target)
        shutil.rmtree(target.parent)

    monkeypatch.setattr(Path, "rename", renamed)
    store.delete("a", dead_before_ns=1)
    assert list(Path(store.place).iterdir()) == []


def test_a_deletion_at_the_same_time_is_not_in_the_way(store, monkeypatch):
    """It has made the folder for what is deleted, and takes it away before it is used."""
    steps(store, 1)
    make, made = Path.mkdir, []

    def mkdir(path, *more):
        made.append(path)
        if len(made) == 1:
            raise FileExistsError(errno.EEXIST, "File exists", path)
        make(path, *more)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    store.delete("a", dead_before_ns=1)
    assert len(made) == 2
    assert list(Path(store.place).iterdir()) == []


def test_a_link_in_place_of_what_is_deleted_is_not_followed(store, tmp_path):
    """Whoever may write to the project must not choose what a deletion deletes."""
    steps(store, 2)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "kept").mkdir(parents=True)
    (Path(store.place) / ".burr-otel-new-deleted").symlink_to(elsewhere)
    with pytest.raises(InvalidIdentifierError, match="is a symbolic link"):
        store.delete("a", dead_before_ns=1)
    assert [path.name for path in elsewhere.iterdir()] == ["kept"]
    assert store.load(None, "a")["sequence_id"] == 1


def test_a_file_that_comes_into_a_folder_as_it_is_deleted_goes_with_it(store, monkeypatch):
    """Another process had looked up the folder before it was renamed."""
    steps(store, 1)
    remove, came = os.rmdir, []

    def late(path, **more):
        if not came:
            [found] = Path(store.place).glob(".*/.*")
            came.append(found / "late")
            came[0].touch()
        remove(path, **more)

    monkeypatch.setattr(os, "rmdir", late)
    store.delete("a", dead_before_ns=1)
    assert list(Path(store.place).iterdir()) == []


@pytest.mark.parametrize("moment", ["repair", "mark_open"])
def test_a_run_that_is_deleted_while_it_is_opened_is_made_anew(store, monkeypatch, moment):
    """A server resumes a run at the very moment at which it is pruned: nothing fails."""
    steps(store, 2)
    inner, places = getattr(FileRun, moment), []

    def deleted(run, *told):
        if not places:
            store.engine.delete(run)
        places.append(run.place)
        return inner(run, *told)

    monkeypatch.setattr(FileRun, moment, deleted)
    session = begin(store, state={"n": 1, "__SEQUENCE_ID": 1, "__PRIOR_STEP": "step"})
    assert len(places) == 2
    assert store.load(None, "a")["sequence_id"] == 1
    run_step(session, 2)
    assert store.load(None, "a")["sequence_id"] == 2


def test_a_run_that_is_made_anew_while_it_is_claimed_has_one_holder(store, monkeypatch):
    """The lock that was opened before the deletion is nobody's any more."""
    store.exclusive = True
    steps(store, 1)
    inner, others = fcntl.flock, []

    def made_anew(fd, how):
        if how & fcntl.LOCK_NB and not others:
            others.append(None)
            shutil.rmtree(folder_of(store, "a"))
            others[0] = begin(store)
        inner(fd, how)

    monkeypatch.setattr(fcntl, "flock", made_anew)
    with pytest.raises(RunLockedError):
        begin(store)
    others[0].end(ENDED)


def test_a_run_that_is_deleted_and_made_anew_while_it_is_opened_is_opened_again(store, monkeypatch):
    """The session's first record went with the deleted folder: its mark is in no other."""
    steps(store, 2)
    inner, runs = FileRun.mark_open, []

    def others_come_first(run, *told):
        if not runs:
            runs.append(run)
            with monkeypatch.context() as other_process:
                other_process.setattr(files_run, "_runs", {})
                store.engine.delete(store.read("a").log)
                run_step(begin(store), 7)
        inner(run, *told)

    monkeypatch.setattr(FileRun, "mark_open", others_come_first)
    session = begin(store)
    run_step(session, 2)
    assert store.load(None, "a")["sequence_id"] == 2


def test_a_run_that_is_deleted_once_it_was_found_has_nothing(store, monkeypatch):
    """For readers it is as if it had never been there."""
    steps(store, 2)
    log = store.read("a").log
    store.delete("a", dead_before_ns=1)
    monkeypatch.setattr(store.engine, "find", lambda *_: log)
    assert store.load(None, "a") is None
    assert store.load(None, "a", 1) is None
    assert not store.exists("a")
    assert list(store.read("a").records()) == []
    assert runs_beyond([store.read("a")], most_runs=0)
    with pytest.raises(UnknownRunError, match="no run 'a'"):
        store.delete("a", dead_before_ns=1)


def test_a_folder_that_may_not_be_read_keeps_back_no_other(store, monkeypatch, caplog):
    """It is another user's, who ran the program once with `sudo`; it is told once."""
    inner = os.lstat

    def denied(path, **more):
        if "/b/" in str(path):
            raise PermissionError(13, "Permission denied", path)
        return inner(path, **more)

    for app_id in ("a", "b", "c"):
        steps(store, 1, app_id)
    monkeypatch.setattr(os, "lstat", denied)
    assert store.list_app_ids() == store.list_app_ids(None) == ["a", "c"]
    assert caplog.text.count(f"{store.place}/b is passed over: it may not be read") == 1
    with pytest.raises(PermissionError, match=r"/b/log\.jsonl"):
        store.load(None, "b")


def test_the_first_run_of_an_app_id_keeps_the_plain_folder(store):
    """Whatever its partition; what is no run is not listed."""
    for key in ("alice", "bob", None):
        run_step(begin(store, partition_key=key), 0)
    folders = sorted(path.name for path in Path(store.place).iterdir())
    assert folders[0] == "a"
    assert all(name.startswith("a~p-") for name in folders[1:])
    (Path(store.place) / "annotations.jsonl").touch()
    (Path(store.place) / "only-children").mkdir()
    assert store.list_app_ids() == ["a"]
    assert store.read("a").partition_key == "alice"


def test_a_run_keeps_its_folder_when_the_first_of_its_app_id_is_deleted(store):
    """Else its next session would begin in the plain one: without its past, which came back later."""
    for key in (None, "k"):
        session = begin(store, partition_key=key)
        run_step(session, 0)
        session.end(ENDED)
    store.delete("a", None, dead_before_ns=1)
    session = begin(store, partition_key="k")
    run_step(session, 1)
    session.end(ENDED)
    assert [store.load("k", "a", number)["sequence_id"] for number in (0, 1)] == [0, 1]
    store.delete("a", "k", dead_before_ns=1)
    assert store.load("k", "a") is None
    assert list(Path(store.place).iterdir()) == []


def test_nothing_is_made_for_an_id_that_is_refused(store, tmp_path):
    """No folder, nowhere; and a name of any length has its folder."""
    for app_id in ("../other", "/etc", "a/b", ""):
        with pytest.raises(InvalidIdentifierError):
            begin(store, app_id)
    assert list(tmp_path.iterdir()) == []
    begin(store, "child", parent_pointer=ParentPointer("../evil", None, 1))
    assert [path.name for path in Path(store.place).iterdir()] == ["child"]
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("cut", ["in a record", "before a newline", "by NULs"])
def test_a_copy_that_lost_power_goes_on(store, tmp_path, cut):
    """What it had of its last record is mended as any log is: the copy is no other run."""
    log = steps(store, 3).read_bytes()
    target = open_engine(tmp_path / "copy")
    assert list(RunCopy(store.read("a").log, target).make(1))
    copied = folder_of(Store("proj", tmp_path / "copy"), "a") / "log.jsonl"
    kept = log[:-1] if cut == "before a newline" else log[:-90]
    copied.write_bytes(kept + (b"\0" * 90 if cut == "by NULs" else b""))
    again = RunCopy(store.read("a").log, target)
    assert list(again.make(1))
    assert again.added == (0 if cut == "before a newline" else 1)
    assert [each.data for each in target.find("proj", "a", None).forward()] == [
        each.data for each in store.read("a").forward()
    ]


def test_nothing_is_made_for_a_run_that_cannot_be_copied(store, tmp_path, monkeypatch):
    """Else it would be another run to whoever may read the original, and copies it later."""

    def denied(_run):
        raise PermissionError(13, "Permission denied")

    steps(store, 1)
    source, target = store.read("a").log, open_engine(tmp_path / "copy")
    with monkeypatch.context() as patched, pytest.raises(PermissionError):
        patched.setattr(FileRun, "forward", denied)
        patched.setattr(FileRun, "metadata", lambda _run: None)
        list(RunCopy(source, target).make(1))
    assert target.find("proj", "a", None) is None
    store.delete("a", dead_before_ns=1)
    with pytest.raises(StoreError, match="a has nothing that could be copied"):
        list(RunCopy(source, target).make(1))
    assert target.find("proj", "a", None) is None


def test_no_older_state_takes_the_place_of_one_that_is_deleted_meanwhile(tmp_path, monkeypatch):
    """The whole state that differences build on is still open to who has found the newest one."""
    store = Store("proj", tmp_path, **keep("delta", monkeypatch))
    steps(store, 3)
    inner = FileRun.newest

    def newest(run, kinds, sequence_id=None, before=None):
        if before is not None and store.exists("a"):
            store.delete("a", dead_before_ns=1)
        return inner(run, kinds, sequence_id, before)

    monkeypatch.setattr(FileRun, "newest", newest)
    assert store.load(None, "a") is None
