"""One measurement, in a process of its own; prints what it found as JSON.

python benchmarks/measure.py MEASUREMENT CONTENDER[,CONTENDER...] FOLDER JSON-ARGUMENTS
"""

# ruff: noqa: PLC0415, ARG001 - each process imports only what it measures; one signature for all
from __future__ import annotations

import contextlib
import gc
import json
import os
import statistics
import sys
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Stopwatch:
    """Wall time and CPU time, of the process with all its threads, of many laps.

    The time of a lap is the lower quartile over all: what the work takes when nobody else on the
    machine is in its way.
    """

    def __init__(self) -> None:
        self._laps: list[tuple[float, float]] = []

    def lap(self, work: Callable[[], Any], steps: int) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        self._laps.append((wall / steps * 1e6, cpu / steps * 1e6))

    def result(self) -> dict[str, float]:
        wall, cpu = (statistics.quantiles(column)[0] for column in zip(*self._laps, strict=True))
        return {"wall_us": wall, "cpu_us": cpu}


def bytes_below(folder: str) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def values_of(shape: str, size_bytes: int) -> dict[str, Any]:
    import workloads

    return (workloads.text_state if shape == "text" else workloads.list_state)(size_bytes)


def steps(apps: dict[str, Any], arguments: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Time of a step, many of them in each `run` call."""
    import workloads

    def some(app: Any) -> None:
        app.run(halt_after=["done"])

    return in_turn(apps, some, arguments["steps"] // workloads.CHUNK, workloads.CHUNK)


def calls(apps: dict[str, Any], arguments: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Time of a step that is an execute call of its own."""
    import workloads

    def some(app: Any) -> None:
        for _ in range(workloads.CHUNK):
            app.step()

    return in_turn(apps, some, arguments["steps"] // workloads.CHUNK, workloads.CHUNK)


def in_turn(
    apps: dict[str, Any], work: Callable[[Any], None], laps: int, steps_a_lap: int
) -> dict[str, dict[str, float]]:
    """Laps of all contenders in turn, so that a slow moment of the machine hits each of them."""
    watches = {name: Stopwatch() for name in apps}
    for app in apps.values():
        work(app)
    for _ in range(laps):
        for name, app in apps.items():
            watches[name].lap(lambda app=app: work(app), steps_a_lap)
    return {name: watch.result() for name, watch in watches.items()}


def chat(apps: dict[str, Any], arguments: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Time of a whole conversation that grows by 1 KB a turn."""
    turns = arguments["turns"]
    spent = dict.fromkeys(apps, (0.0, 0.0))
    for first in range(0, turns, 10):
        for name, app in apps.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for number in range(first, first + 10):
                prompt = (f"{number} tell me more about this, please. " * 20)[:440]
                app.run(halt_after=["advance"], inputs={"prompt": prompt})
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            spent[name] = spent[name][0] + wall, spent[name][1] + cpu
    return {
        name: {"wall_us": wall / turns * 1e6, "cpu_us": cpu / turns * 1e6}
        for name, (wall, cpu) in spent.items()
    }


def stall(apps: dict[str, Any], arguments: dict[str, Any]) -> dict[str, dict[str, float]]:
    """How long one step keeps the event loop from its other work."""
    import asyncio

    async def longest_gap(app: Any) -> tuple[float, float]:
        gaps = [0.0]
        running = True

        async def tick() -> None:
            before = time.perf_counter()
            while running:
                await asyncio.sleep(0)
                now = time.perf_counter()
                gaps[0] = max(gaps[0], now - before)
                before = now

        ticker = asyncio.create_task(tick())
        await asyncio.sleep(0)
        cpu = time.process_time()
        await app.astep()
        cpu = time.process_time() - cpu
        running = False
        await ticker
        return gaps[0] * 1e6, cpu * 1e6

    async def many() -> dict[str, list[tuple[float, float]]]:
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in apps}
        for app in apps.values():
            await app.astep()
        for _ in range(arguments["steps"]):
            for name, app in apps.items():
                found[name].append(await longest_gap(app))
        return found

    return {
        name: {
            "wall_us": statistics.median(wall for wall, _ in pairs),
            "cpu_us": statistics.median(cpu for _, cpu in pairs),
        }
        for name, pairs in asyncio.run(many()).items()
    }


def paired(what: str, names: str, folder: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What is measured of several contenders in one process, in turn."""
    import workloads
    from contenders import Contender

    from burr_otel import ConfigError

    single = workloads.single
    makes: dict[str, Callable[[Any], Any]] = {
        "steps": lambda one: workloads.loop(one, values_of(**shape)),
        "calls": lambda one: single(one, values_of(**shape), "run", workloads.advance),
        "stall": lambda one: single(one, values_of(**shape), "run", workloads.aadvance),
        "chat": lambda one: single(one, {"history": []}, "run", workloads.turn),
    }
    shape = {key: arguments[key] for key in ("shape", "size_bytes") if key in arguments}
    apps = {}
    for name in names.split(","):
        with contextlib.suppress(ConfigError):  # a setting that this version does not have
            apps[name] = makes[what](Contender(name, f"{folder}/{name}"))
    found = PAIRED[what](apps, arguments)
    for name, figures in found.items():
        figures["bytes"] = bytes_below(f"{folder}/{name}")
    return found


PAIRED = {"steps": steps, "calls": calls, "chat": chat, "stall": stall}


def importing(name: str) -> dict[str, float]:
    """Time of an import."""
    import importlib

    wall, cpu = time.perf_counter(), time.process_time()
    importlib.import_module(name)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"wall_us": wall * 1e6, "cpu_us": cpu * 1e6}


def memory(contender: Any, folder: str, arguments: dict[str, Any]) -> dict[str, float]:
    """Bytes that a live application holds, as Python counts them: in use, and idle."""
    import workloads

    values = values_of("list", 1000)

    def build(number: int) -> Any:
        app = workloads.single(contender, values, f"run-{number}", workloads.advance)
        app.step()
        app.step()
        return app

    warm = [build(-number - 1) for number in range(20)]  # what is made once
    tracemalloc.start()

    def held() -> int:
        contender.flush()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    before = held()
    apps = [build(number) for number in range(arguments["apps"])]
    open_bytes = (held() - before) / len(apps)
    contender.end_spans()
    idle_bytes = (held() - before) / len(apps)
    assert warm
    return {"open_bytes": open_bytes, "idle_bytes": idle_bytes}


def growth(contender: Any, folder: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Time, disk and memory of a step, early and late in one run."""
    import workloads

    app = workloads.loop(contender, values_of("list", 1000))
    found = {}
    taken = 0
    page = os.sysconf("SC_PAGE_SIZE")
    for length in arguments["lengths"]:
        watch = Stopwatch()
        before = bytes_below(folder)
        first = taken
        while taken < length:
            left = min(workloads.CHUNK, length - taken)
            if left == workloads.CHUNK:
                watch.lap(lambda: app.run(halt_after=["done"]), left)
            else:

                def few(left: int = left) -> None:
                    for _ in range(left):
                        app.step()

                watch.lap(few, left)
                watch.lap(few, left)
                taken += left
            taken += left
        contender.flush()
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * page
        found[length] = {
            **watch.result(),
            "bytes_per_step": (bytes_below(folder) - before) / (taken - first),
            "resident_bytes": resident,
        }
    return found


def live(contender: Any, folder: str, arguments: dict[str, Any]) -> dict[str, float]:
    """Time and disk of a step when so many applications are alive and take turns."""
    import workloads

    apps = [
        workloads.single(contender, values_of("list", 1000), f"run-{number}", workloads.advance)
        for number in range(arguments["apps"])
    ]
    for app in apps:
        app.step()
    before = bytes_below(folder)
    watch = Stopwatch()
    rounds = max(3, arguments["steps"] // len(apps))
    portion = min(len(apps), 100)

    def some(first: int) -> None:
        for app in apps[first : first + portion]:
            app.step()

    for _ in range(rounds):
        for first in range(0, len(apps), portion):
            watch.lap(lambda first=first: some(first), portion)
    return {
        **watch.result(),
        "bytes_per_step": (bytes_below(folder) - before) / (rounds * len(apps)),
    }


def load(name: str, folder: str, arguments: dict[str, Any]) -> dict[str, float]:
    """Time of loading a step of a long run, and the memory that takes at its peak."""
    loader = _loader(name, folder)
    steps = arguments["steps"]
    sequence_id = None if arguments["which"] == "latest" else steps // 2
    walls, cpus = [], []
    stop = time.perf_counter() + 1.5
    while len(walls) < 200 and (time.perf_counter() < stop or not walls):
        wall, cpu = time.perf_counter(), time.process_time()
        loaded = loader.load(None, "run", sequence_id)
        cpus.append(time.process_time() - cpu)
        walls.append(time.perf_counter() - wall)
    assert loaded["state"]["n"] == (steps - 1 if sequence_id is None else sequence_id)
    del loaded
    tracemalloc.start()
    loader.load(None, "run", sequence_id)
    return {
        "wall_us": statistics.median(walls) * 1e6,
        "cpu_us": statistics.median(cpus) * 1e6,
        "peak_bytes": tracemalloc.get_traced_memory()[1],
    }


def _loader(name: str, folder: str) -> Any:
    if name == "ours":
        from burr_otel.store import Store

        return Store("bench", folder)
    from burr.tracking import LocalTrackingClient

    return LocalTrackingClient("bench", folder)


def write(contender: Any, folder: str, arguments: dict[str, Any]) -> dict[str, float]:
    """A run to load, as the contender's own hooks write it."""
    import workloads

    values = values_of("list", arguments["size_bytes"])
    app = workloads.single(contender, {**values, "n": -1}, "run", workloads.advance)
    for _ in range(arguments["steps"]):
        app.step()
    return {"bytes": bytes_below(folder)}


def main() -> None:
    what, name, folder, arguments = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
    if what in PAIRED:
        found = paired(what, name, folder, arguments)
    elif what == "import":
        found = importing(name)
    elif what == "load":
        found = load(name, folder, arguments)
    else:
        from contenders import Contender

        if what == "memory":
            os.environ["BURR_OTEL_ROOT_LINGER"] = "600"  # in use until we say otherwise
        contender = Contender(name, folder, keeps_spans=False)
        found = globals()[what](contender, folder, arguments)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
