"""What tests run in other processes: ``python store_child.py COMMAND ARGUMENT...``.

One warm process forks the others, so that each test pays for the imports once.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from store_support import ENDED, begin, folder_of, keep, log_attribute, run_step, start_step

from burr_otel.errors import RunLockedError, SnapshotError
from burr_otel.store import Store

KEEPING = keep(os.environ.get("STORE_CHILD_SNAPSHOTS", "full"))


def say(what):
    """Tell the test."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def in_children(count, work):
    """Run `work(number)` in so many forked processes at once; exit codes."""
    gate_out, gate_in = os.pipe()
    pids = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(gate_in)
                os.read(gate_out, 1)  # until all are there
                work(number)
                code = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(code)
        pids.append(pid)
    os.close(gate_out)
    os.close(gate_in)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def own_runs(storage_dir, count):
    """Processes, each with its own run of one project."""

    def work(number):
        session = begin(
            Store("proj", storage_dir, **KEEPING), f"run{number}", session_id=f"s{number}"
        )
        for step in range(int(count)):
            run_step(session, step, {"who": number, "n": step})
        session.end(ENDED)

    return in_children(8, work)


def one_run(storage_dir, count):
    """Processes and threads, all in one run: each thread its own session."""

    def work(number):
        store = Store("proj", storage_dir, **KEEPING)

        def thread(which):
            session = begin(store, "shared", session_id=f"s{number}.{which}")
            for step in range(int(count)):
                # Records of every size, also larger than any buffer.
                run_step(
                    session, step, {"who": session.session_id, "pad": "x" * (step * 997 % 9000)}
                )
            session.close()

        threads = [threading.Thread(target=thread, args=(which,)) for which in range(2)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    return in_children(8, work)


def hold(storage_dir):
    """Claim a run exclusively, say so, and wait to be killed; a forked child lives on."""
    session = begin(Store("proj", storage_dir, exclusive=True), session_id="holder")
    child = os.fork()
    if child == 0:
        signal.pause()
    say({"pid": os.getpid(), "child": child})
    signal.pause()
    session.close()


def many_sessions(storage_dir, count):
    """So many live sessions with few file descriptors, each stepped twice in turn."""
    store = Store("proj", storage_dir)
    sessions = [begin(store, f"r{number:05}") for number in range(int(count))]
    for step in range(2):
        for session in sessions:
            run_step(session, step)
    used = len(list(Path("/proc/self/fd").iterdir()))
    wrong = sum(
        store.load(None, f"r{number:05}")["sequence_id"] != 1 for number in range(0, int(count), 97)
    )
    for session in sessions:
        session.close()
    return {"fds": used, "wrong": wrong, "listed": len(store.list_app_ids())}


def contend(storage_dir):
    """Processes that all claim one run: exactly one gets it while it lives."""
    store = Store("proj", storage_dir, exclusive=True)
    ready_out, ready_in = os.pipe()

    def work(number):
        try:
            session = begin(store, session_id=f"s{number}")
        except RunLockedError:
            os.write(ready_in, b"-")
            return
        os.write(ready_in, b"+")
        for _ in range(7):  # hold it until all others have been refused
            os.read(turn_out, 1)
        session.close()

    turn_out, turn_in = os.pipe()
    pids = []
    for number in range(8):
        pid = os.fork()
        if pid == 0:
            work(number)
            os._exit(0)
        pids.append(pid)
    answers = b""
    while len(answers) < 8:
        answers += os.read(ready_out, 8)
    os.write(turn_in, b"x" * 7)
    for pid in pids:
        os.waitpid(pid, 0)
    return {"got": answers.count(b"+"), "refused": answers.count(b"-")}


def parents_session(storage_dir):
    """A forked child that goes on with its parent's session."""
    store = Store("proj", storage_dir, **KEEPING)
    session = begin(store, session_id="parent")
    run_step(session, 0)
    start_step(session, 1)

    def work(_):
        log_attribute(session, sequence_id=1)
        session.end(ENDED)
        session.close()
        with pytest.raises(SnapshotError, match="forked"):
            start_step(session, 2)
        mine = session.fork("child")
        run_step(mine, 2, {"by": "child"})
        mine.close()

    code = in_children(1, work)
    run_step(session, 3, {"by": "parent"})
    session.close()
    return code


def attempt(work, *arguments):
    """What an operation raises, as text."""
    try:
        work(*arguments)
    except SnapshotError as error:
        return f"SnapshotError: {error.__cause__.strerror}"
    return "done"


def full_disk(storage_dir):
    """Fill the disk with steps, look, make room, go on."""
    filler = Path(storage_dir, "filler")
    filler.write_bytes(b"x" * 100_000)
    store = Store("proj", storage_dir, **KEEPING)
    session = begin(store)
    number = 0
    try:
        while True:
            run_step(session, number, {"n": number, "pad": f"{number:05}" * 1_000})
            number += 1
    except SnapshotError as error:
        message = str(error)
    told = {
        "written": number,
        "error": message,
        "loaded_when_full": store.load(None, "a")["sequence_id"],
        "new_run_when_full": attempt(lambda: begin(store, "new")).partition(":")[0],
        "torn": len(list(folder_of(store, "a").glob("*.torn-*"))),
    }
    filler.unlink()
    for more in range(number, number + 6):
        run_step(session, more)
    session.close()
    for line in (folder_of(store, "a") / "log.jsonl").read_bytes().splitlines():
        json.loads(line)
    return {**told, "loaded_after": store.load(None, "a")["sequence_id"]}


def read_only(storage_dir):
    """The file system becomes read-only under a live run, and writable again."""
    store = Store("proj", storage_dir, **KEEPING)
    session = begin(store)
    for number in range(3):
        run_step(session, number)
    session.close()  # the file is opened anew, as by another process
    (folder_of(store, "a") / "log.index").unlink()
    remount = ["mount", "-o", "remount", storage_dir]
    subprocess.run([*remount[:2], "remount,ro", storage_dir], check=True)
    told = {
        "step": attempt(run_step, session, 3),
        "open": attempt(begin, store, "new"),
        "loaded": store.load(None, "a")["sequence_id"],
        "middle": store.load(None, "a", 1)["sequence_id"],
    }
    subprocess.run([*remount[:2], "remount,rw", storage_dir], check=True)
    run_step(session, 3)
    return {**told, "after": store.load(None, "a")["sequence_id"]}


def size_limit(storage_dir):
    """The kernel writes a record up to the limit and refuses the rest."""
    store = Store("proj", storage_dir, **KEEPING)
    session = begin(store)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
    number = 0
    try:
        while True:
            run_step(session, number, {"n": number, "pad": f"{number:05}" * 600})
            number += 1
    except SnapshotError as error:
        message = str(error)
    return {"written": number, "error": message, "loaded": store.load(None, "a")["sequence_id"]}


def nobody(storage_dir):
    """Somebody else's runs."""
    begin(Store("proj", storage_dir), "warm")  # loads modules that nobody may not read
    os.setgid(65534)
    os.setuid(65534)
    store = Store("proj", storage_dir, **KEEPING)
    return {
        "open": attempt(begin, store),
        "new": attempt(begin, store, "new"),
        "loaded": store.load(None, "a")["sequence_id"],
        "middle": store.load(None, "a", 1)["sequence_id"],
    }


def step_and_wait(storage_dir, durability):
    """Five steps, then wait to be killed."""
    session = begin(Store("proj", storage_dir, durability=durability, **KEEPING), durability)
    for number in range(5):
        run_step(session, number)
    say(number)
    signal.pause()


if __name__ == "__main__":
    # Whoever is left over by a test that was killed itself must not keep its output open for ever.
    os.register_at_fork(after_in_child=lambda: signal.alarm(300))
    signal.alarm(300)
    command, *arguments = sys.argv[1:]
    say(globals()[command](*arguments))
