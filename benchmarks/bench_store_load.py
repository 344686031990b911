"""Time and memory of loading a state, against Burr's `LocalTrackingClient` in the same run.

    python benchmarks/bench_store_load.py [--quick] [--out FILE]

Each measurement is a fresh process: it loads the latest or the middle step of a run of so many
steps of so many bytes, and reports the median time of its loads and the memory that one needs at
its peak, as Python counts it. Both clients read logs that they wrote, with warm caches
of the operating system.
"""

# ruff: noqa: PLC0415 - each process imports only what it measures
from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from importlib.metadata import version
from pathlib import Path

SIZES = {"1 KB": 1_000, "50 KB": 50_000}
STEPS = (100, 1_000, 10_000)
WHICH = ("latest", "middle")


def state_of(number: int, size: int) -> dict:
    """A conversation of about `size` bytes."""
    message = {"role": "user", "content": "What do you know about snapshots? " * 3, "n": 1}
    return {"n": number, "history": [message] * (size // 140)}


def write(client: str, folder: str, steps: int, size: int) -> None:
    """A run of so many steps."""
    from burr.core import State

    if client == "ours":
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        from store_support import begin, run_step

        from burr_otel.store import Store

        session = begin(Store("bench", folder), "run")
        for number in range(steps):
            run_step(session, number, state_of(number, size))
        session.close()
        return
    from burr.tracking import LocalTrackingClient

    class Action:
        name = "step"

    tracker = LocalTrackingClient("bench", folder)
    path = Path(folder, "bench", "run")
    path.mkdir(parents=True)
    tracker.f = (path / "log.jsonl").open("a")
    for number in range(steps):
        state = State({**state_of(number, size), "__SEQUENCE_ID": number, "__PRIOR_STEP": "step"})
        tracker.pre_run_step(state, Action, {}, number)
        tracker.post_run_step(state, Action, {"n": number}, number, None)
    tracker.f.close()


def measure(client: str, folder: str, which: str, steps: int) -> dict:
    """Median seconds of a load, and bytes of peak memory beyond the imports."""
    if client == "ours":
        from burr_otel.store import Store

        loader = Store("bench", folder)
    else:
        from burr.tracking import LocalTrackingClient

        loader = LocalTrackingClient("bench", folder)
    sequence_id = None if which == "latest" else steps // 2
    times = []
    stop = time.perf_counter() + 1.5
    while len(times) < 200 and (time.perf_counter() < stop or not times):
        start = time.perf_counter()
        loaded = loader.load(None, "run", sequence_id)
        times.append(time.perf_counter() - start)
    assert loaded["state"]["n"] == (steps - 1 if sequence_id is None else sequence_id)
    del loaded
    tracemalloc.start()
    loader.load(None, "run", sequence_id)
    return {"seconds": statistics.median(times), "bytes": tracemalloc.get_traced_memory()[1]}


def in_fresh_process(*arguments: object) -> str:
    """Run this file again."""
    done = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def table(results: dict) -> str:
    """The numbers, as Markdown."""
    lines = [
        "| load | state | steps | burr-otel | memory | `LocalTrackingClient` | memory | faster |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for which in WHICH:
        for size in SIZES:
            for steps in STEPS:
                ours = results.get(("ours", which, size, steps))
                theirs = results.get(("burr", which, size, steps))
                if ours is None or theirs is None:
                    continue
                faster = theirs["seconds"] / ours["seconds"]
                lines.append(
                    f"| {which} | {size} | {steps:,} | {ours['seconds'] * 1e3:.2f} ms | "
                    f"{ours['bytes'] / 1e6:.2f} MB | {theirs['seconds'] * 1e3:,.1f} ms | "
                    f"{theirs['bytes'] / 1e6:,.1f} MB | {faster:,.0f}x |"
                )
    return "\n".join(lines)


def growth(results: dict) -> str:
    """How a load grows from the shortest to the longest run."""
    lines = []
    for which in WHICH:
        for size in SIZES:
            short = results.get(("ours", which, size, STEPS[0]))
            long = results.get(("ours", which, size, STEPS[-1]))
            if short and long:
                ratio = long["seconds"] / short["seconds"]
                memory = f"{long['bytes'] / 1e6:.2f} against {short['bytes'] / 1e6:.2f} MB"
                lines.append(
                    f"- {which}, {size}, {STEPS[-1]:,} against {STEPS[0]} steps: "
                    f"time x{ratio:.2f}, memory {memory}"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter runs only")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes a measurement")
    parser.add_argument("--out", type=Path, help="file for the tables")
    options = parser.parse_args()
    lengths = STEPS[:2] if options.quick else STEPS
    results: dict = {}
    for size, size_bytes in SIZES.items():
        for steps in lengths:
            with tempfile.TemporaryDirectory() as top:
                for client in ("ours", "burr"):
                    in_fresh_process("write", client, f"{top}/{client}", steps, size_bytes)
                samples: dict = {}
                for _ in range(options.rounds):  # interleaved, so that noise hits both
                    for which in WHICH:
                        for client in ("ours", "burr"):
                            told = in_fresh_process("load", client, f"{top}/{client}", which, steps)
                            samples.setdefault((client, which), []).append(json.loads(told))
                for (client, which), found in samples.items():
                    results[client, which, size, steps] = {
                        key: statistics.median(each[key] for each in found)
                        for key in ("seconds", "bytes")
                    }
            print(f"done: {size} x {steps:,}", file=sys.stderr)
    uname = platform.uname()
    machine = (
        f"Python {platform.python_version()}, apache-burr {version('apache-burr')}, "
        f"orjson {version('orjson')}, {uname.system} {uname.release}, {os.cpu_count()} cores; "
        f"median of {options.rounds} fresh processes. Memory is the peak of one load."
    )
    text = "\n\n".join(("# Loading a state", machine, table(results), growth(results)))
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    elif sys.argv[1:2] == ["load"]:
        print(json.dumps(measure(*sys.argv[2:5], int(sys.argv[5]))))
    else:
        main()
