"""An application whose result depends on every step, and a process that kills others running it.

``python crash_app.py FOLDER COUNT SEED`` forks COUNT of them, kills each with SIGKILL at a random
moment, and prints for each how many steps it had reported.
"""

import hashlib
import json
import os
import random
import select
import signal
import sys
import time

from burr.core import ApplicationBuilder, State, action, default, expr

from burr_otel import OtelTracker

STEPS = 30
AT_ONCE = 4


@action(reads=["n", "digest", "pad"], writes=["n", "digest", "history"])
def work(state: State) -> State:
    digest = hashlib.sha256(f"{state['digest']}{state['n']}".encode()).hexdigest()
    return state.update(n=state["n"] + 1, digest=digest).append(history=[digest] * state["pad"])


@action(reads=["digest"], writes=["result"])
def finish(state: State) -> State:
    return state.update(result=state["digest"])


def build(folder, app_id, pad=1):
    """The application: new, or continued from what the store holds; every second by differences."""
    kind = "delta" if app_id[-1] in "13579" else "full"
    tracker = OtelTracker("crash", folder, root_linger=None, snapshots=kind)
    app = (
        ApplicationBuilder()
        .with_actions(work=work, finish=finish)
        .with_transitions(("work", "work", expr(f"n < {STEPS}")), ("work", "finish", default))
        .with_identifiers(app_id=app_id)
        .with_tracker(tracker)
        .initialize_from(
            tracker,
            resume_at_next_action=True,
            default_state={"n": 0, "digest": "", "history": [], "pad": pad},
            default_entrypoint="work",
        )
        .build()
    )
    return app, tracker


def run_and_report(folder, app_id, pad, pipe):
    """Run to the end; one byte a finished step."""
    app, _ = build(folder, app_id, pad)
    for _ in range(STEPS):
        app.step()
        os.write(pipe, b".")
    signal.pause()


def victim(folder, number, chance):
    """Fork one; its pid and the pipe that it reports on."""
    # Large states, so that a write can be cut in its middle.
    pad = chance.choice([1, 10, 60])
    reports, pipe = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            run_and_report(folder, f"run{number:03}", pad, pipe)
        finally:
            os._exit(1)
    os.close(pipe)
    return pid, reports


def kill_somewhere(pid, reports, chance):
    """Kill it during a random step; steps that it reported."""
    seen, wanted = 0, chance.randrange(STEPS)
    while seen < wanted:
        seen += len(os.read(reports, wanted - seen))
    # A random part of a step; building the application takes longer than one.
    select.select([], [], [], chance.random() * (0.001 if wanted else 0.02))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    while rest := os.read(reports, 100):
        seen += len(rest)
    os.close(reports)
    return seen


def main(folder, count, seed):
    chance = random.Random(seed)
    build(folder, "warm")[0].run(halt_after=["finish"])
    told, started = {}, time.monotonic()
    for first in range(0, count, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, count))
        victims = [victim(folder, number, chance) for number in numbers]
        for number, (pid, reports) in zip(numbers, victims, strict=True):
            told[f"run{number:03}"] = kill_somewhere(pid, reports, chance)
    sys.stdout.write(json.dumps({"seconds": time.monotonic() - started, "steps": told}))


if __name__ == "__main__":
    # Whoever is left over by a test that was killed itself must not keep its output open for ever.
    os.register_at_fork(after_in_child=lambda: signal.alarm(300))
    signal.alarm(300)
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
