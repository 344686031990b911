"""A disk that fails: what is lost is told, and what was told is not lost."""

import errno
import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from store_support import (
    ENDED,
    SNAPSHOTS,
    begin,
    folder_of,
    keep,
    log_attribute,
    log_records,
    memory_folder,
    read_by_burr,
    run_step,
    start_step,
    steps,
    values_of,
)

from burr_otel.errors import SnapshotError
from burr_otel.records import BeginInner, StreamMark
from burr_otel.store import Store
from burr_otel.store.files import log_file

CHILD = Path(__file__).with_name("store_child.py")
CALLS = ("open", "write", "pwrite", "fsync", "fdatasync", "ftruncate", "rename", "replace", "mkdir")


@pytest.fixture(params=SNAPSHOTS)
def kind(request):
    return request.param


@pytest.fixture
def keeping(kind, monkeypatch):
    return keep(kind, monkeypatch)


def environment(kind):
    """Of a process that keeps snapshots of that kind."""
    return {**os.environ, "STORE_CHILD_SNAPSHOTS": kind}


class Faults:
    """Counts calls of the operating system and lets one of them fail."""

    def __init__(self, monkeypatch):
        self.calls, self.fail_at, self.error = [], None, errno.EIO
        for name in CALLS:
            monkeypatch.setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name, original):
        def call(*arguments, **more):
            self.calls.append(name)
            if len(self.calls) - 1 == self.fail_at:
                if name == "write" and self.error == errno.ENOSPC:
                    original(arguments[0], arguments[1][: len(arguments[1]) // 2])
                raise OSError(self.error, os.strerror(self.error))
            return original(*arguments, **more)

        return call


def scenario(store, acknowledged):
    """A session with three steps; ids of those whose snapshot was acknowledged."""
    session = begin(store)
    for number in range(3):
        run_step(session, number, {"n": number, "pad": "x" * 100})
        acknowledged.append(number)
        log_attribute(session, sequence_id=0)
    session.end(ENDED)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EMFILE], ids=errno.errorcode.get)
@pytest.mark.parametrize("fresh", [True, False], ids=["new-run", "known-run"])
@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")
def test_whichever_call_fails_the_run_stays_whole(monkeypatch, caplog, error, fresh, keeping):
    """Each open, write, sync, rename and truncate of a session in turn.

    Either the step's writer raised `SnapshotError`, or its state loads; the next session works,
    and every reader reads.
    """
    caplog.set_level(logging.CRITICAL)
    with memory_folder() as folder, monkeypatch.context() as patched:
        faults = Faults(patched)
        clean = Store("proj", folder / "clean", durability="fsync", **keeping)
        if not fresh:
            steps(clean, 2)
            faults.calls.clear()
        scenario(clean, [])
        total = len(faults.calls)
        assert total > 12
        assert {"write", "fdatasync", "pwrite", "open"} <= set(faults.calls)
        failures = []
        for index in range(total):
            store = Store("proj", folder / f"{index}", durability="fsync", **keeping)
            faults.fail_at = None
            if not fresh:
                steps(store, 2)
            faults.calls.clear()
            faults.fail_at, faults.error = index, error
            acknowledged = []
            try:
                scenario(store, acknowledged)
            except SnapshotError as problem:
                failures.append((problem.run, os.strerror(error) in str(problem)))
            faults.fail_at = None
            loaded = store.load(None, "a")
            if acknowledged:
                assert loaded["sequence_id"] in (acknowledged[-1], acknowledged[-1] + 1)
            elif not fresh:
                assert loaded is not None
            session = begin(store)
            run_step(session, 9, {"n": 9})
            session.close()
            assert store.load(None, "a")["sequence_id"] == 9
            for number in acknowledged:
                assert values_of(store.load(None, "a", number))["n"] == number
            log_records(folder_of(store, "a") / "log.jsonl")
            read_by_burr(store)
            assert not list(Path(store.place).glob("*new*")), "no unfinished folder is left"
            shutil.rmtree(folder / f"{index}")
        assert len(failures) > 3
        assert set(failures) == {("proj/a", True)}, "run and cause are named"


def in_small_tmpfs(command, kind):
    """Run a command of `store_child` with a folder of 512 KB, where that can be mounted."""
    inner = 'mount -t tmpfs -o size=512k tmpfs "$0" && shift 0 && exec "$@"'
    with memory_folder() as folder:
        reasons = []
        for unshare in (["unshare", "-m"], ["unshare", "-rm"]):
            try:
                probe = subprocess.run(
                    [*unshare, "sh", "-c", inner, folder, "true"],
                    check=False, timeout=60, stderr=subprocess.PIPE,
                )  # fmt: skip
            except FileNotFoundError as error:
                pytest.skip(f"no small file system can be mounted: {error}")
            if probe.returncode == 0:
                done = subprocess.run(
                    [*unshare, "sh", "-c", inner, folder, sys.executable, CHILD, command, folder],
                    env=environment(kind),
                    check=True, timeout=120, stdout=subprocess.PIPE,
                )  # fmt: skip
                return json.loads(done.stdout)
            reasons.append(probe.stderr.decode().strip())
    return pytest.skip(f"no small file system can be mounted here: {'; '.join(reasons)}")


def test_a_full_disk_fails_the_step_and_nothing_else(kind):
    """A real tmpfs of 512 KB: the writer is told, earlier steps load, and it goes on when freed."""
    told = in_small_tmpfs("full_disk", kind)
    assert told["error"].startswith("proj/a: the state of step")
    assert "No space left on device" in told["error"]
    assert told["written"] > 10
    assert told["loaded_when_full"] == told["written"] - 1
    assert told["torn"] == 0
    assert told["loaded_after"] == told["written"] + 5
    assert told["new_run_when_full"] == "SnapshotError"


def test_a_read_only_file_system_is_told_and_still_read(kind):
    """Mounted read-only under a live run, and under a new one."""
    told = in_small_tmpfs("read_only", kind)
    assert told == {
        "step": "SnapshotError: Read-only file system",
        "open": "SnapshotError: Read-only file system",
        "loaded": 2,
        "middle": 1,
        "after": 3,
    }


def test_a_file_size_limit_cuts_a_record_short_and_the_log_stays_whole(tmp_path, kind):
    """The kernel takes half of a record and refuses the rest: no mount is needed for that."""
    done = subprocess.run(
        [sys.executable, CHILD, "size_limit", tmp_path],
        env=environment(kind),
        check=True, timeout=60, stdout=subprocess.PIPE,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert "File too large" in told["error"]
    assert told["loaded"] == told["written"] - 1 > 5
    store = Store("proj", tmp_path)
    log_records(folder_of(store, "a") / "log.jsonl")
    run_step(begin(store), told["written"])
    assert store.load(None, "a")["sequence_id"] == told["written"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs to become nobody"
)
def test_another_user_cannot_write_and_is_told(tmp_path):
    """As an unprivileged user in somebody else's folder."""
    with memory_folder() as folder:
        folder.chmod(0o755)
        steps(Store("proj", folder), 3)
        for path in (folder / "proj", folder / "proj" / "a"):
            path.chmod(0o755)
        for path in (folder / "proj" / "a").iterdir():
            path.chmod(0o644)
        done = subprocess.run(
            [sys.executable, CHILD, "nobody", folder],
            check=True, timeout=60, stdout=subprocess.PIPE,
        )  # fmt: skip
    assert json.loads(done.stdout) == {
        "open": "SnapshotError: Permission denied",
        "new": "SnapshotError: Permission denied",
        "loaded": 2,
        "middle": 1,
    }


def test_a_folder_deleted_under_a_live_run_is_told(tmp_path, keeping):
    """Data would go nowhere: each step fails until the folder is back or the run built again."""
    store = Store("proj", tmp_path, **keeping)
    session = begin(store)
    run_step(session, 0)
    shutil.rmtree(Path(store.place))
    for _ in range(2):
        with pytest.raises(SnapshotError, match="deleted or replaced while the run was live"):
            run_step(session, 1)
    again = begin(store)
    run_step(again, 0)
    assert store.load(None, "a")["sequence_id"] == 0


def test_a_folder_that_was_replaced_is_not_written_to_in_the_dark(tmp_path, keeping):
    """Moved away, and another one put in its place."""
    store = Store("proj", tmp_path, **keeping)
    session = begin(store)
    run_step(session, 0)
    folder_of(store, "a").rename(tmp_path / "moved")
    begin(Store("proj", tmp_path / "elsewhere"))
    shutil.copytree(tmp_path / "elsewhere" / "proj" / "a", folder_of(store, "a"))
    with pytest.raises(SnapshotError, match="deleted or replaced"):
        run_step(session, 1)
    assert (tmp_path / "moved" / "log.jsonl").read_bytes().count(b"begin_entry") == 1


def test_spans_and_attributes_that_cannot_be_written_warn_once_and_never_raise(tmp_path, caplog):
    """No resume needs them."""
    store = Store("proj", tmp_path)
    session = begin(store)
    shutil.rmtree(Path(store.place))
    for number in range(3):
        session.append(BeginInner(0, f"{number}", "s", None, [], 1))
        session.append(StreamMark("end_stream", 0, 1, 1))
    session.end(ENDED)
    assert len(caplog.records) == 1
    assert "proj/a: records of spans, attributes or streams are dropped" in caplog.text


def synced(monkeypatch):
    """Which paths are synced, and how."""
    seen = []
    for name in ("fsync", "fdatasync"):
        original = getattr(os, name)

        def call(fd, name=name, original=original):
            seen.append((name, Path(f"/proc/self/fd/{fd}").readlink().name))
            return original(fd)

        monkeypatch.setattr(os, name, call)
    return seen


def test_fsync_reaches_the_disk_before_a_step_counts(tmp_path, monkeypatch):
    """Every record, and the names of all new folders and files."""
    seen = synced(monkeypatch)
    store = Store("proj", tmp_path / "new", durability="fsync")
    session = begin(store)
    made = [name for _, name in seen]
    assert made[:2] == [tmp_path.name, "new"], "the storage directory and the project are new"
    assert made[2:4] == ["graph.json", "metadata.json"]
    assert made[4].startswith(".burr-otel-new-")
    assert made[5:] == ["proj", "log.jsonl"]
    seen.clear()
    start_step(session, 0)
    assert seen == [("fdatasync", "log.jsonl")]
    run_step(session, 1)
    assert seen == [("fdatasync", "log.jsonl")] * 3


def test_flush_leaves_records_to_the_system_and_syncs_only_what_is_renamed(tmp_path, monkeypatch):
    """The death of the process loses nothing; graph and metadata are never half there."""
    seen = synced(monkeypatch)
    store = Store("proj", tmp_path)
    session = begin(store)
    run_step(session, 0)
    assert seen == [("fsync", "graph.json"), ("fsync", "metadata.json")]
    assert b"end_entry" in (folder_of(store, "a") / "log.jsonl").read_bytes()


def test_none_buffers_and_this_process_still_sees_everything(tmp_path, monkeypatch, keeping):
    """Few writes; a load in the process, and a close, write out what is there."""
    seen = synced(monkeypatch)
    store = Store("proj", tmp_path, durability="none", **keeping)
    log = folder_of(store, "a") / "log.jsonl"
    session = begin(store)
    assert store.exists("a")
    run_step(session, 0)
    assert b"end_entry" not in log.read_bytes()
    assert store.load(None, "a")["sequence_id"] == 0
    for number in range(1, 2000):
        run_step(session, number)
    on_disk = log.stat().st_size
    assert on_disk > 100_000, "the buffer is bounded"
    session.close()
    assert log.stat().st_size > on_disk
    assert values_of(store.load(None, "a", 1000)) == {"n": 1000}
    assert seen == []


def test_a_flushed_step_survives_the_death_of_the_process(tmp_path, kind):
    """SIGKILL right after the step was acknowledged, for both levels that promise it."""
    for durability in ("flush", "fsync"):
        worker = subprocess.Popen(
            [sys.executable, CHILD, "step_and_wait", tmp_path, durability],
            env=environment(kind),
            stdout=subprocess.PIPE,
        )
        said = json.loads(worker.stdout.readline())
        worker.kill()
        worker.wait()
        worker.stdout.close()
        assert Store("proj", tmp_path).load(None, durability)["sequence_id"] == said == 4


@pytest.mark.parametrize("short", [1, 100, 70_000])
def test_a_large_record_that_is_written_in_part_is_completed_or_taken_back(
    tmp_path, monkeypatch, short
):
    """Large states go to the system in pieces: what it does not take at once is written after."""
    store = Store("proj", tmp_path)
    session = begin(store)
    large, log = "x" * 100_000, folder_of(store, "a") / "log.jsonl"

    def partly(fd, parts):
        return os.write(fd, b"".join(parts)[:short])

    def full(fd, parts):
        partly(fd, parts)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", partly)
        run_step(session, 0, {"large": large})
        assert log_records(log)[-1]["state"]["large"] == large
        patch.setattr(os, "writev", full)
        with pytest.raises(SnapshotError, match="No space left"):
            run_step(session, 1, {"large": large})
        assert log_records(log)[-1]["type"] == "begin_entry"
    for number in range(2, 40):
        run_step(session, number, {"large": large, "n": number})
    session.close()
    for number in (0, *range(2, 40)):
        assert store.load(None, "a", number)["state"]["large"] == large


def test_a_cause_that_is_a_sentence_stays_one():
    """What a shared store says ends with a full stop of its own."""
    said = str(SnapshotError("p/a", "postgresql://db: it is closed.", sequence_id=1))
    assert "it is closed. A resume" in said


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    """By whoever writes: with what to do, and without a file that stays open."""

    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    store = Store("proj", tmp_path)
    steps(store, 1)
    monkeypatch.setattr(fcntl, "flock", flock)
    opened = list(map(str, Path("/proc/self/fd").iterdir()))
    with pytest.raises(SnapshotError, match=r"a: .* its file system has no file locks: mount it"):
        begin(store)
    with pytest.raises(OSError, match="its file system has no file locks: mount it"):
        store.delete("a", dead_before_ns=1 << 62)
    store.exclusive = True
    with pytest.raises(SnapshotError, match="its file system has no file locks: mount it"):
        begin(store)
    assert list(map(str, Path("/proc/self/fd").iterdir())) == opened


def test_a_run_on_a_full_disk_can_be_deleted(tmp_path, monkeypatch):
    """It is what makes room; only who holds the run meanwhile is not told to others."""

    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = Store("proj", tmp_path)
    steps(store, 1)
    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(Path, "mkdir", full)
    store.delete("a", dead_before_ns=1)
    assert list(Path(store.place).iterdir()) == []


def test_a_file_that_cannot_be_closed_costs_no_other_run(tmp_path, monkeypatch, caplog):
    """A network file system may tell only then what became of a write; its run is named."""
    store, close = Store("proj", tmp_path), os.close
    monkeypatch.setattr(log_file, "_MOST_OPEN", 1)
    run_step(begin(store, "a"), 0)
    failing = (folder_of(store, "a") / "log.jsonl").stat()

    def fail(fd):
        is_one = os.path.samestat(os.fstat(fd), failing)
        close(fd)
        if is_one:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "close", fail)
    run_step(begin(store, "b"), 0)
    assert store.load(None, "b")["sequence_id"] == 0
    assert f"{store.place}/a/log.jsonl: its last records may be lost" in caplog.text
