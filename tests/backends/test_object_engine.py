"""The engine in an object store against a real S3 server: what only it can get wrong.

What every engine must hold is in tests/conformance.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter

import apps
import pytest
import store_support
from object_server import ACCESS_KEY, SECRET_KEY, Gateway
from processes import running, wait_for
from programs import in_child, start_child

from burr_otel import OtelTracker
from burr_otel.errors import ConfigError, RunLockedError, SnapshotError, StoreError
from burr_otel.store import Store
from burr_otel.store.objects import bucket, lease, writer
from burr_otel.store.objects.engine import ObjectEngine
from burr_otel.store.objects.run import ObjectRun
from burr_otel.store.port import ALL, BEGIN, END, ROOT, DisplacedError, NewRun
from burr_otel.store.process import Patience, this_owner

KEPT: list[object] = []  # claims of children that end without releasing them

pytestmark = pytest.mark.usefixtures("bucket_url")


def new_run(url: str, app_id: str = "a", key: str | None = None) -> ObjectRun:
    """A run, as a process that has done nothing yet opens it."""
    metadata = json.dumps({"partition_key": key, "otel": {"app_id": app_id}}).encode()
    engine = ObjectEngine(url)
    run, _ = engine.create(NewRun("p", app_id, key, metadata, b"{}"), durability="flush")
    assert isinstance(run, ObjectRun)
    return run


def line(number: int, kind: str = "end_entry") -> bytes:
    return b'{"type":"%b","sequence_id":%d,"otel":{"session":"s"}}\n' % (kind.encode(), number)


def append(run: ObjectRun, number: int, **more: object) -> tuple[int, int]:
    return run.append(line(number), (END, number), durability="flush", **more)


def begin(run: ObjectRun, number: int) -> tuple[int, int]:
    return run.append(line(number, "begin_entry"), (BEGIN, number), durability="flush")


def bodies(run: ObjectRun) -> list[bytes]:
    return [each.data for each in run.forward()]


@pytest.fixture
def requests(monkeypatch) -> Counter:
    """How many requests of each kind are made, but for what is done once a second (leases)."""
    made: Counter = Counter()
    real = bucket.library()

    class Counting:
        def __getattr__(self, name):
            every_second = threading.current_thread().name == "burr-otel store"
            if name in ("get", "put", "list", "list_with_delimiter", "delete") and not every_second:
                made[name] += 1
            return getattr(real, name)

    monkeypatch.setattr(bucket, "library", Counting)
    return made


# --- requests ------------------------------------------------------------------------------------


def test_the_latest_record_of_a_long_run_is_one_list_and_one_get(bucket_url, requests):
    """However many there are; a listing shows the newest first."""
    run = new_run(bucket_url)
    for number in range(30):
        begin(run, number)
        append(run, number)
    requests.clear()
    found = ObjectEngine(bucket_url).find("p", "a", None)
    assert next(found.newest((END,))).data == line(29)
    assert requests == {"list": 1, "get": 1}


def test_a_step_is_found_by_the_names_alone(bucket_url, requests):
    """Of a run with 100 objects, two are read: the newest, of which no name tells, and the step's."""
    run = new_run(bucket_url)
    for number in range(50):
        begin(run, number)
        append(run, number)
    requests.clear()
    found = ObjectEngine(bucket_url).find("p", "a", None)
    assert line(3) in [each.data for each in found.newest((END,), 3)]
    assert requests == {"list": 1, "get": 2}


def test_a_step_takes_two_requests_and_its_spans_none(bucket_url, requests, monkeypatch):
    """What nobody waits for goes with the record that is."""
    monkeypatch.setattr(writer.background, "add", lambda task: None)  # on a busy machine it is soon
    run = new_run(bucket_url)
    begin(run, 0)
    requests.clear()
    for _ in range(5):
        assert run.append(b'{"type":"begin_span"}\n', durability="flush") == (-1, -1)
    append(run, 0)
    begin(run, 1)
    assert requests == {"put": 2}
    assert len(bodies(run)) == 8


def test_what_nobody_waits_for_is_sent_within_a_second_or_so(bucket_url):
    """A step of minutes that is killed keeps the spans that it had."""
    run = new_run(bucket_url)
    begin(run, 0)
    run.append(b'{"type":"begin_span"}\n', durability="flush")
    other = new_run(bucket_url)
    wait_for("the span's record", lambda: len(bodies(other)) == 2 or None)


def test_runs_are_listed_by_their_names(bucket_url, requests):
    """Twenty runs take one request; the partition is told without another."""
    for number in range(20):
        new_run(bucket_url, f"app-{number}", f"user/{number % 3}")
    requests.clear()
    found = [(run.app_id, run.partition_key) for run in ObjectEngine(bucket_url).runs("p")]
    assert sorted(found) == sorted((f"app-{n}", f"user/{n % 3}") for n in range(20))
    assert requests == {"list": 1}


# --- writers -------------------------------------------------------------------------------------


def test_another_process_is_noticed_and_gone_around(bucket_url):
    """Records of two processes in one run are all there, each once, in the order of writing."""
    run = new_run(bucket_url)
    append(run, 0)

    def others() -> None:
        theirs = new_run(bucket_url)
        for number in range(1, 8):
            append(theirs, number)

    assert in_child(others) == 0
    start, end = append(run, 8)
    assert (start, end) == (8 * len(line(0)), 9 * len(line(0)))
    assert bodies(run) == [line(n) for n in range(9)]


def test_a_difference_is_not_written_behind_another_process(bucket_url):
    """Compare-and-append: after others wrote, a record that builds on ours is refused."""
    run, mark = new_run(bucket_url), object()
    append(run, 0, mark=mark)
    append(run, 1, after=mark, mark=mark)
    assert in_child(lambda: append(new_run(bucket_url), 2)) == 0
    with pytest.raises(DisplacedError):
        append(run, 3, after=mark)
    assert bodies(run) == [line(n) for n in range(3)]
    append(run, 3, mark=mark)
    append(run, 4, after=mark)
    assert bodies(run) == [line(n) for n in range(5)]


def test_eight_processes_write_into_one_run(bucket_url):
    """Every record of eight processes is there once, and each one's own order is kept."""
    new_run(bucket_url)

    def work(writer: int) -> None:
        run = new_run(bucket_url)
        for number in range(12):
            append(run, writer * 1000 + number)

    pids = [start_child(lambda writer=writer: work(writer)) for writer in range(8)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 8
    run = new_run(bucket_url)
    found = bodies(run)
    for which in range(8):
        mine = [line(which * 1000 + number) for number in range(12)]
        assert [each for each in found if each in set(mine)] == mine
    assert len(found) == 96
    assert run.extent().size_bytes == sum(map(len, found))


def test_a_forked_child_and_its_parent_both_go_on(bucket_url):
    """Also where the child ends in order, and a grandchild is forked: nothing hangs or crashes."""
    run = new_run(bucket_url)
    append(run, 0)
    run.append(b'{"of":"parent"}\n', durability="flush")

    def child() -> None:
        append(run, 1)
        assert in_child(lambda: append(run, 2)) == 0
        append(run, 3)

    assert in_child(child) == 0
    program = f"""
import os, sys
sys.path[:0] = {sys.path!r}
import obstore
from test_object_engine import append, bodies, new_run
run = new_run({bucket_url!r}, "b")
append(run, 0)
pid = os.fork()
if pid == 0:
    append(run, 1)
    assert obstore.exceptions is sys.modules["obstore.exceptions"]
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
append(run, 2)
print(len(bodies(run)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("3\n", 0), done.stderr
    append(run, 4)
    assert sorted(bodies(run)) == sorted([*map(line, range(5)), b'{"of":"parent"}\n'])


def test_a_run_that_was_deleted_meanwhile_is_not_written_to(bucket_url):
    """Neither its session nor a new run of its name gets a mixture."""
    run = new_run(bucket_url)
    for number in range(3):
        append(run, number)
    run.close()
    engine = ObjectEngine(bucket_url)
    engine.delete(engine.find("p", "a", None))
    with pytest.raises(FileNotFoundError, match="was deleted while the run was live"):
        append(run, 3)
    assert engine.find("p", "a", ALL) is None
    append(new_run(bucket_url), 0)
    with pytest.raises(FileNotFoundError, match="was deleted"):
        append(run, 3)


def test_a_run_may_be_deleted_as_soon_as_no_session_is_marked(bucket_url):
    """An application whose span has idled away goes on in no run that nothing lists."""
    run = new_run(bucket_url)
    run.mark_open("s", b"{}")
    append(run, 0)
    run.unmark("s")
    program = f"""
from burr_otel.store.objects.engine import ObjectEngine
engine = ObjectEngine({bucket_url!r})
engine.delete(engine.find("p", "a", None))
"""
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)
    with pytest.raises(FileNotFoundError, match="was deleted while the run was live"):
        append(run, 1)
    assert ObjectEngine(bucket_url).find("p", "a", None) is None


@pytest.mark.parametrize("is_done", [True, False])
def test_a_session_that_begins_as_its_run_is_deleted_makes_it_anew(
    bucket_url, monkeypatch, is_done
):
    """The deletion has looked for open sessions before: nobody else keeps the two apart."""
    store = Store("p", bucket_url)
    store_support.steps(store, 1)
    run, done, inner = store.read("a").log, [], ObjectRun.mark_open
    claim = run.claim("deletion of a")

    def delete() -> bool:
        done.append(store.engine.delete(run))
        claim.release()
        return True

    def mark_open(self, *told):
        if is_done and not done:
            delete()
        inner(self, *told)

    monkeypatch.setattr(ObjectRun, "mark_open", mark_open)
    with monkeypatch.context() as patch:
        patch.setattr(Patience, "pause", lambda self: bool(done) or delete())
        session = store_support.begin(store)
    store_support.run_step(session, 7)
    assert len(done) == 1
    assert store.list_app_ids() == ["a"]
    assert store.load(None, "a")["sequence_id"] == 7
    assert [name for name, _ in store.read("a").log.open_markers()] == [session.session_id]
    session.end(store_support.ENDED)


def test_what_is_cut_short_while_deleting_is_finished_by_the_next(bucket_url, monkeypatch):
    """A run whose records are gone is still listed, until all is."""
    run = new_run(bucket_url, key="k")
    append(run, 0)
    engine = ObjectEngine(bucket_url)
    with monkeypatch.context() as patch:
        real, calls = bucket.Bucket.delete, []

        def failing(self, paths):
            if calls:
                raise OSError("the server is gone")
            calls.append(paths)
            real(self, paths)

        patch.setattr(bucket.Bucket, "delete", failing)
        with pytest.raises(OSError):
            engine.delete(run)
    (left,) = engine.runs("p")
    assert engine.find("p", "a", ALL).partition_key == "k"
    engine.delete(left)
    assert list(engine.runs("p")) == []
    assert engine.find("p", "a", ALL) is None


@pytest.mark.parametrize("snapshots", ["full", "delta"])
async def test_no_step_waits_on_the_event_loop(bucket_url, monkeypatch, snapshots):
    """Every step's state is kept before the next step, and the loop's thread sends none of it."""
    real, threads = bucket.Bucket.create, []

    def create(self, path, *rest, **more):
        if "/log/" in path:
            threads.append(threading.current_thread())
        return real(self, path, *rest, **more)

    tracker = OtelTracker("p", bucket_url, snapshots=snapshots)

    @apps.action(reads=["count"], writes=["count"])
    async def step(state):
        return state.update(count=state["count"] + 1)

    app = apps.single(tracker, step)
    monkeypatch.setattr(bucket.Bucket, "create", create)
    for number in range(5):
        await app.astep()
        loaded = await tracker.async_loader().load(None, "a1")
        assert loaded["state"]["count"] == number + 1
    assert len(threads) == 10
    assert threading.current_thread() not in threads
    tracker.close()


# --- faults --------------------------------------------------------------------------------------


def test_after_a_lost_answer_it_is_looked_what_is_there(bucket_url, monkeypatch):
    """A record whose answer was lost on the way is written once."""
    run = new_run(bucket_url)
    append(run, 0)
    real, lost = bucket.library(), []

    class Losing:
        def __getattr__(self, name):
            return getattr(real, name)

        def put(self, *rest, **more):
            answer = real.put(*rest, **more)
            if len(lost) < 3:
                lost.append(rest[1])
                raise real.exceptions.GenericError("connection closed")
            return answer

    monkeypatch.setattr(bucket, "library", Losing)
    append(run, 1)
    run.claim("s").release()
    append(run, 2)
    assert len(lost) == 3
    assert bodies(run) == [line(0), line(1), line(2)]


def test_a_signal_during_a_request_writes_nothing_twice(bucket_url, monkeypatch):
    """What a signal handler raises comes as the request returns: nobody knows of its answer."""
    run = new_run(bucket_url)
    append(run, 0)
    held = run.put(line(1), (END, 1), soon=False, durability="flush")
    real, came = run.bucket.create, []

    def create(path: str, *rest: object, **more: object) -> bool:
        made = real(path, *rest, **more)
        if not came:
            came.append(path)
            raise KeyboardInterrupt
        return made

    monkeypatch.setattr(run.bucket, "create", create)
    with pytest.raises(KeyboardInterrupt):
        append(run, 2)
    append(run, 3)
    assert held.error() is None
    assert bodies(run) == [line(number) for number in range(4)]


def test_what_may_have_arrived_is_not_sent_twice(bucket_url, monkeypatch):
    """After an outage that was too long, spans that wait are sent once, whether they arrived or not."""
    run = new_run(bucket_url)
    append(run, 0)
    real = bucket.library()
    monkeypatch.setattr(bucket, "PATIENCE_S", 0.0)
    for number, arrives in ((1, True), (2, False)):

        class Away:
            def __getattr__(self, name):
                return getattr(real, name)

            def put(self, *rest, arrives=arrives, **more):
                if arrives:
                    real.put(*rest, **more)
                raise real.exceptions.GenericError("connection closed")

        run.append(b'{"span":%d}\n' % number, durability="flush")
        with monkeypatch.context() as patch:
            patch.setattr(bucket, "library", Away)
            with pytest.raises(StoreError, match="it cannot be used"):
                append(run, number)
        append(run, 10 + number)
    found = bodies(run)
    assert found.count(b'{"span":1}\n') == found.count(b'{"span":2}\n') == 1
    assert [each for each in found if each in (line(11), line(12))] == [line(11), line(12)]


def test_a_server_that_is_killed_and_comes_back_loses_and_doubles_nothing(tmp_path, monkeypatch):
    """Every acknowledged record is there once, after SIGKILL in the middle of turns."""
    from installed import installed

    gateway = Gateway(installed("versitygw", "bin/versitygw"), tmp_path)
    for name, value in gateway.settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(bucket, "PATIENCE_S", 60.0)  # a busy machine starts it slowly
    written = []
    with running(gateway.server):
        run = new_run(gateway.url())
        for number in range(100):
            if number in (20, 60):

                def restart() -> None:
                    gateway.server.kill()
                    gateway.server.start()

                restarter = threading.Thread(target=restart)
                restarter.start()
                while restarter.is_alive():
                    append(run, number)
                    written.append(number)
            append(run, number)
            written.append(number)
        assert bodies(run) == [line(number) for number in written]


def test_a_store_that_stays_away_is_a_snapshot_error(tmp_path, monkeypatch):
    """The step says so, with no key in it; what was acknowledged is there, and the run goes on later."""
    from installed import installed

    gateway = Gateway(installed("versitygw", "bin/versitygw"), tmp_path)
    for name, value in gateway.settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(bucket, "PATIENCE_S", 0.2)
    url = gateway.url()
    store = Store("proj", url)
    with running(gateway.server):
        session = store_support.begin(store)
        store_support.run_step(session, 0)
    with pytest.raises(SnapshotError) as caught:
        store_support.start_step(session, 1)
    with pytest.raises(SnapshotError, match="the state of step 1 could not be kept"):
        store_support.finish_step(session, 1)
    with pytest.raises(SnapshotError, match="the state of its creation could not be kept"):
        store_support.begin(store, "b")
    text = str(caught.value)
    assert text.startswith(
        f"proj/a: the state of step 1 could not be kept: {url}: it cannot be used"
    )
    assert not {ACCESS_KEY, SECRET_KEY} & set(text.split())
    with running(gateway.server):
        store_support.run_step(session, 1)
        session.close()
        assert store.load(None, "a")["sequence_id"] == 1
        assert len(store_support.records_of(store)) == 5


# --- leases --------------------------------------------------------------------------------------


def test_a_claim_of_a_dead_process_is_free(bucket_url):
    """On this machine it is known at once that the holder is dead."""
    new_run(bucket_url)
    assert in_child(lambda: KEPT.append(new_run(bucket_url).claim("theirs"))) == 0
    new_run(bucket_url).claim("ours").release()


def test_a_claim_of_another_machine_ends_with_its_lease(bucket_url, monkeypatch):
    """By the server's clock; until then the holder is named."""
    new_run(bucket_url)
    with monkeypatch.context() as patch:
        patch.setattr(lease, "this_owner", lambda: {**this_owner(), "host": "elsewhere"})
        assert in_child(lambda: KEPT.append(new_run(bucket_url).claim("theirs"))) == 0
    run = new_run(bucket_url)
    with pytest.raises(RunLockedError, match="held by session theirs of process"):
        run.claim("ours")
    monkeypatch.setattr(lease, "LEASE_S", -1.0)
    run.claim("ours").release()


def test_who_slept_through_its_lease_writes_nothing_more(bucket_url, monkeypatch):
    """A process that is stopped, loses its claim and wakes up is told so, and the run is not mixed."""
    monkeypatch.setattr(lease, "LEASE_S", 2.0)
    new_run(bucket_url)
    told_out, told_in = os.pipe()
    go_out, go_in = os.pipe()

    def holder() -> None:
        run = new_run(bucket_url)
        KEPT.append(run.claim("sleeper"))
        append(run, 0)
        os.write(told_in, b"held")
        os.read(go_out, 1)
        try:
            append(run, 1)
        except RunLockedError as error:
            os.write(told_in, str(error).encode())

    pid = start_child(holder)
    os.close(told_in)
    assert os.read(told_out, 100) == b"held"
    os.kill(pid, signal.SIGSTOP)
    run = new_run(bucket_url)

    def taken():
        try:
            return run.claim("next")
        except RunLockedError:
            return None

    claim = wait_for("the lease to end", taken)
    append(run, 7)
    os.kill(pid, signal.SIGCONT)
    os.write(go_in, b"x")
    assert os.waitpid(pid, 0)[1] == 0
    assert b"held by session next" in os.read(told_out, 1000)
    assert bodies(run) == [line(0), line(7)]
    claim.release()


@pytest.mark.parametrize("holder", ["released", "dead"])
def test_of_many_who_want_a_run_one_gets_it(bucket_url, holder):
    """Eight threads, each like a process of its own."""
    if holder == "released":
        new_run(bucket_url).claim("first").release()
    else:
        assert in_child(lambda: KEPT.append(new_run(bucket_url).claim("first"))) == 0
    barrier, got, refused = threading.Barrier(8), [], []

    def want(number: int) -> None:
        run = new_run(bucket_url)
        barrier.wait()
        try:
            got.append(run.claim(f"s{number}"))
        except RunLockedError:
            refused.append(number)

    threads = [threading.Thread(target=want, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)
    got[0].release()


def test_a_heart_that_beats_tells_other_machines_who_lives(bucket_url, monkeypatch):
    """By the server's clock, for as long as a lease; a process that left no sign cannot be told."""
    run, other = new_run(bucket_url), new_run(bucket_url, "b")
    owner = {**this_owner(), "host": "elsewhere"}
    assert other.owner_lives(owner) is None
    with monkeypatch.context() as patch:
        patch.setattr(lease, "this_owner", lambda: owner)
        run.mark_open("s", b"{}")
    assert other.owner_lives(owner) is True
    monkeypatch.setattr(lease, "LEASE_S", -1.0)
    assert other.owner_lives(owner) is False
    assert other.owner_lives(this_owner()) is True


def test_a_heart_beats_while_a_session_may_be_open(bucket_url, monkeypatch):
    """And once for many that are opened within seconds."""
    run = new_run(bucket_url)
    real, beats = bucket.Bucket.put, []

    def put(self, path, data):
        if path.startswith("writer/"):
            beats.append(path)
        return real(self, path, data)

    monkeypatch.setattr(bucket.Bucket, "put", put)
    monkeypatch.setattr(lease.background, "add", lambda task: None)
    for number in range(5):
        run.mark_open(f"s{number}", b"{}")
    heart = run._heartbeat
    assert len(beats) == 1
    assert heart.tick()
    monkeypatch.setattr(lease, "LEASE_S", 0.0)
    assert heart.tick()
    assert len(beats) == 2
    for number in range(5):
        run.unmark(f"s{number}")
    assert heart.tick()
    monkeypatch.setattr(lease, "_GOES_ON_S", 0.0)
    assert not heart.tick()


# --- store init ----------------------------------------------------------------------------------


def test_store_init_proves_that_the_store_is_fit(bucket_url):
    """It says what it found, and leaves nothing behind."""
    engine = ObjectEngine(bucket_url)
    assert engine.prepare(dry_run=True) == [
        f"Writes, lists, reads and deletes objects in {bucket_url}/probe."
    ]
    found = engine.prepare(dry_run=False)
    assert found[:2] == [
        f"{bucket_url} can keep runs:",
        "  a second create of an object is refused",
    ]
    assert engine._bucket.page("probe") == []


def test_store_init_is_a_command(bucket_url):
    """It exits with 0 when the bucket is fit, and with 1 and a sentence when there is none."""
    command = [sys.executable, "-m", "burr_otel.cli", "store", "init"]
    done = subprocess.run([*command, bucket_url], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, f"{bucket_url} can keep runs:")
    done = subprocess.run([*command, "s3://nobucket"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "s3://nobucket: there is no such bucket. Make it, or correct the URL." in done.stderr
    listing = [*command[:3], "list", "--project", "p", "--storage-dir", "s3://nobucket"]
    done = subprocess.run(listing, capture_output=True, text=True, check=False)
    expected = "s3://nobucket: there is no such bucket. Make it, or correct the URL."
    assert done.stderr.strip() == f"Error: {expected}"


@pytest.mark.parametrize(
    ("ignored", "expected"),
    [
        (lambda mode: mode == "create", "makes an object that is there already (If-None-Match)"),
        (lambda mode: isinstance(mode, dict), "replaces an older version of an object (If-Match)"),
    ],
)
def test_store_init_says_which_condition_a_store_ignores(
    bucket_url, monkeypatch, ignored, expected
):
    """A server that takes every write would lose records of two writers."""
    real = bucket.library()

    class Careless:
        def __getattr__(self, name):
            return getattr(real, name)

        def put(self, *rest, mode, **more):
            return real.put(*rest, mode="overwrite" if ignored(mode) else mode, **more)

    monkeypatch.setattr(bucket, "library", Careless)
    engine = ObjectEngine(bucket_url)
    with pytest.raises(StoreError) as caught:
        engine.prepare(dry_run=False)
    assert f"{bucket_url} cannot keep runs, because the store {expected}: " in str(caught.value)
    assert engine._bucket.page("probe") == []


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "url", "expected"),
    [
        ({}, "s3://nobucket", "s3://nobucket: there is no such bucket. Make it, or correct the URL."),
        ({"AWS_SECRET_ACCESS_KEY": "wr0ng"}, "s3://burr/x", "access is denied (403 SignatureDoesNotMatch). Set credentials (AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "who"}, "s3://burr/x", "access is denied (404 XAdminUserNotFound). Set credentials"),
        ({"AWS_REGION": "us-east-2"}, "s3://burr/x", "it cannot be used (400 AuthorizationHeaderMalformed, tried for 0 s). Look whether"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "s3://burr/x", "it cannot be used (ConnectionRefused, tried for 0 s). Look whether the server runs"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence(change, url, expected, monkeypatch):
    """It names the place and what to do, and no key, signature or address."""
    monkeypatch.setattr(bucket, "PATIENCE_S", 0.0)
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    for attempt in (
        lambda: new_run(url),
        lambda: ObjectEngine(url).projects(),
        lambda: ObjectEngine(url).find("p", "a", None),
        lambda: ObjectEngine(url).find("p", "a", ALL),
    ):
        with pytest.raises(StoreError) as caught:
            attempt()
        text = f"{caught.value}{caught.value!r}"
        assert expected in text
        assert caught.value.__suppress_context__
        for secret in (ACCESS_KEY, SECRET_KEY, "wr0ng", "Signature=", "StringToSign"):
            assert secret not in text


@pytest.mark.parametrize(
    "url",
    ["s3://AKIA:hush@burr/x", "s3://burr/x?AWS_SECRET_ACCESS_KEY=hush", "s3://", "s3:///x", "s3://burr#x"],
)  # fmt: skip
def test_credentials_in_a_url_are_refused_and_not_repeated(url):
    """They go into the environment."""
    with pytest.raises(
        ConfigError, match="put credentials and settings into the environment"
    ) as caught:
        ObjectEngine(url)
    assert "hush" not in str(caught.value)


def test_without_an_account_azure_says_what_to_set():
    """Before any request."""
    with pytest.raises(
        ConfigError, match="Set AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY"
    ):
        ObjectEngine("az://container/x").projects()


def test_without_obstore_the_extra_to_install_is_named():
    """The library is asked for when an engine is made."""
    program = """
import sys
sys.modules["obstore"] = None
from burr_otel.errors import ConfigError
from burr_otel.store.engines import open_engine
try:
    open_engine("s3://burr/x")
except ConfigError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert 'Run: pip install "burr-otel[objects]"' in done.stdout, done.stderr


def test_what_somebody_else_put_there_is_no_run(bucket_url):
    """Objects of other names and garbage in ours stop no listing, load or append."""
    run = new_run(bucket_url)
    append(run, 0)
    there = run.bucket
    there.put(f"{run.folder}/log/readme", b"hello")
    there.put("run/p/x", b"")
    there.put("run/p/a=h/b=h", b"\xff")
    there.put("run/p/=FF/b", b"\xff")
    there.put(f"{run.folder}/log/fffffffffffffff0.x", b"\0" * 300)
    engine = ObjectEngine(bucket_url)
    found = engine.find("p", "a", None)
    assert line(0) in [each.data for each in found.backward()]
    assert [each.app_id for each in engine.runs("p")] == ["a"]
    run.close()
    append(run, 1)
    assert line(1) in bodies(run)


def test_roots_and_steps_of_one_batch_are_found(bucket_url):
    """With durability "none" an object has many records, and its name their kinds and numbers."""
    run = new_run(bucket_url)
    run.append(b'{"type":"otel_root"}\n', (ROOT, -1), durability="none")
    for number in range(20):
        run.append(line(number), (END, number), durability="none")
    run.flush()
    for number in range(20, 40):
        run.append(line(number), (END, number), durability="none")
    run.close()
    append(run, 99)
    found = ObjectEngine(bucket_url).find("p", "a", None)
    assert len(list(found._batches())) == 3
    assert line(7) in [each.data for each in found.newest((END,), 7)]
    assert b'{"type":"otel_root"}\n' in [each.data for each in found.newest((ROOT,))]


@pytest.mark.parametrize("snapshots", ["full", "delta"])
def test_two_steps_of_a_run_share_an_object(bucket_url, snapshots):
    """The end of one and the begin of the next: a request a step, and one more."""
    tracker = OtelTracker("p", bucket_url, snapshots=snapshots)
    app = apps.telling(tracker)
    run = ObjectEngine(bucket_url).find("p", "a", None)
    before = len(list(run._batches()))
    app.run(halt_after=["finish"])
    batches = list(ObjectEngine(bucket_url).find("p", "a", None)._batches())
    assert len(batches) - before == 6
    names = [str(batch.before) for batch in batches[:5]]
    assert names == ["BE_3_4", "BE_2_3", "BE_1_2", "BE_0_1", "B_0_0"]
    tracker.close()


def test_a_state_that_was_held_back_and_is_lost_stops_the_next_step(bucket_url, monkeypatch):
    """The store goes away inside a step; nothing of it is sent later, when it is back."""
    ran: list[int] = []
    tracker = OtelTracker("p", bucket_url)
    app = apps.telling(tracker, ran.append)
    create, away = writer.BatchWriter._create, []

    def failing(self, head: bytes, *rest: object, **more: object) -> int:
        if b" BE_1_2" in head:
            away.append(head)
            raise OSError("gone")
        return create(self, head, *rest, **more)

    monkeypatch.setattr(writer.BatchWriter, "_create", failing)
    with pytest.raises(SnapshotError, match="p/a: the state of step 1 could not be kept: gone"):
        app.run(halt_after=["finish"])
    assert (ran, len(away)) == ([0, 1], 1)
    tracker.close()
    other = OtelTracker("p", bucket_url)
    assert other.load(None, "a")["sequence_id"] == 0
