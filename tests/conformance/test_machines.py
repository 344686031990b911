"""One conversation on several machines: processes that share nothing but the store."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from programs import run_program

from burr_otel import OtelTracker
from burr_otel.store import Store

pytestmark = pytest.mark.one_python

POD = Path(__file__).with_name("pod.py")


@pytest.fixture
def pod(storage_dir, tmp_path):
    """Starts a machine, with an empty home."""
    started = []

    def start(turns, how="plain"):
        home = tmp_path / f"home-{len(started)}"
        home.mkdir()
        started.append(
            subprocess.Popen(
                [sys.executable, POD, storage_dir, str(turns), how],
                env={**os.environ, "HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)},
                cwd=home,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def done(process):
    """What a machine said, when it has ended in order."""
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    found = {}
    for said in map(json.loads, out.splitlines()):
        found |= said
    return found


def wait_for_its_lease(run):
    """Until the killed owner is known to be dead, or cannot be known to live."""
    [(_, data)] = run.log.open_markers()
    deadline = time.monotonic() + 180
    while run.owner_lives(json.loads(data)["owner"]):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_conversation_goes_from_machine_to_machine(pod, storage_dir):
    """The second is killed inside a turn: the third finds its last whole state and ends its spans once."""
    first = done(pod(2))
    killed = pod(3, "killed")
    assert killed.wait(60) == -signal.SIGKILL, killed.stderr.read()
    wait_for_its_lease(Store("proj", storage_dir).read("chat"))
    third = done(pod(1))
    fourth = done(pod(1))
    assert [(each["found"], each["left"]) for each in (first, third, fourth)] == [
        (0, 2),
        (4, 5),
        (5, 6),
    ]
    crashed = [
        sorted(name for name, outcome, _ in each["spans"] if outcome == "crashed")
        for each in (first, third, fourth)
    ]
    assert crashed == [[], ["invoke_workflow proj", "turn"], []]
    store = Store("proj", storage_dir)
    assert not any(store.read("chat").log.open_markers())
    records = list(store.read("chat").records())
    begun = {record["otel"]["span_id"] for record in records if record["type"] == "begin_entry"}
    sent = Counter(span for each in (first, third, fourth) for _, _, span in each["spans"])
    # Finished steps of the killed one may have been sent before, and are sent again.
    assert begun <= set(sent)
    assert set(sent.values()) == {1}


def test_two_machines_continue_one_conversation_at_once(pod, storage_dir):
    """Both go on to their end; every step of both is kept, and the newest state loads."""
    both = [pod(20), pod(20)]
    found = [done(each) for each in both]
    assert all(each["left"] == each["found"] + 20 for each in found)
    store = Store("proj", storage_dir)
    ended = [record for record in store.read("chat").records() if record["type"] == "end_entry"]
    assert len(ended) == 40
    assert store.load(None, "chat")["state"]["count"] == ended[-1]["state"]["count"]
    assert done(pod(1))["left"] == ended[-1]["state"]["count"] + 1


def test_an_exclusive_conversation_is_one_machines(pod):
    """The second is refused and told who has it; when the first has ended, the next goes on."""
    first = pod(2, "exclusive")
    assert json.loads(first.stdout.readline()) == {"found": 0, "left": 2}
    second = pod(1, "exclusive")
    _, error = second.communicate(timeout=60)
    assert second.returncode == 1
    assert "RunLockedError: proj/chat is held by session" in error
    assert f"of process {first.pid} on" in error
    first.stdin.write("\n")
    done(first)
    third = pod(1, "exclusive")
    third.stdin.write("\n")
    assert done(third)["left"] == 3


def test_a_thread_goes_on_when_the_main_one_is_over(storage_dir, tmp_path):
    """Python then starts no other thread (3.12 and later) and gives pools no more work."""
    run_program(
        f"""
        import asyncio, threading
        import apps
        from burr_otel import OtelTracker

        def refuse(thread):
            raise RuntimeError("can't create new thread at interpreter shutdown")

        def work():
            threading.main_thread().join()
            threading.Thread.start = refuse  # as Python 3.12 does
            tracker = OtelTracker("proj", {storage_dir!r})
            apps.counter(tracker, "sync").run(halt_after=["finish"])
            app = apps.counter(tracker, "async", step=apps.acount)
            asyncio.run(app.arun(halt_after=["finish"]))

        threading.Thread(target=work).start()
        """,
        tmp_path,
        OTEL_TRACES_EXPORTER="none",
    )
    tracker = OtelTracker("proj", storage_dir)
    assert [tracker.load(None, each)["state"]["answer"] for each in ("sync", "async")] == [30, 30]
