"""Another machine, for test_postgres_crashes.py: ``postgres_child.py URL MODE``.

FAKE_HOST gives the machine a name, CLOCK_SHIFT_NS its clock.
"""

# ruff: noqa: T201 - the test reads what it says

import os
import sys
import time

from burr.core import ApplicationBuilder, State, action

import burr_otel.store.process
from burr_otel import OtelTracker

url, mode = sys.argv[1:]
HOST = os.environ.get("FAKE_HOST")
if HOST:
    burr_otel.store.process.host = lambda: HOST


def clock() -> int:
    return time.time_ns() + int(os.environ.get("CLOCK_SHIFT_NS", "0"))


@action(reads=["n"], writes=["n"])
def count(state: State) -> State:
    if mode == "hang-in-a-step" and state.get("stepped"):
        print("inside", flush=True)
        time.sleep(600)
    return state.update(n=state["n"] + 1)


tracker = OtelTracker("p", url, clock=clock, exclusive=mode == "exclusive-steps", root_linger=None)
app = (
    ApplicationBuilder()
    .with_actions(count=count)
    .with_transitions(("count", "count"))
    .initialize_from(
        tracker,
        resume_at_next_action=True,
        default_state={"n": 0},
        default_entrypoint="count",
    )
    .with_tracker(tracker)
    .with_identifiers(app_id="a")
    .build()
)


def step() -> None:
    app.step()
    print(app.state["n"], flush=True)


if mode in ("three-steps", "ten-steps"):
    for _ in range(3 if mode == "three-steps" else 10):
        step()
    tracker.close()
elif mode == "hang-in-a-step":
    step()
    app.update_state(app.state.update(stepped=True))
    step()
else:
    step()
    sys.stdin.readline()
    try:
        step()
    except Exception as error:
        print(type(error).__name__, flush=True)
    time.sleep(600)
