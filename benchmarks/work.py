"""One measurement in a process of its own; prints what it found as JSON.

python benchmarks/work.py MEASUREMENT CONTENDER FOLDER JSON-ARGUMENTS
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import resource
import statistics
import sys
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from applications import build, state_of
from contenders import SILENT, Contender
from parts import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from burr.core import Application

WARM_STEPS = 50


def must_be(counted: int, meant: int) -> None:
    """A measurement that did less than it says is none."""
    if counted != meant:
        raise RuntimeError(f"Counted {counted} of {meant}.")


def added(work: Callable[[], Any], flush: Callable[[], Any], steps: int) -> dict[str, float]:
    """CPU time a step: of this thread, and of the process until the exporter is through."""
    gc.collect()
    whole, own = time.process_time(), time.thread_time()
    work()
    own = time.thread_time() - own
    flush()
    whole = time.process_time() - whole
    return {"own_us": own / steps * 1e6, "all_us": whole / steps * 1e6}


def output(contender: Contender, folder: str, steps: int) -> dict[str, float]:
    """What was written and exported, by each step."""
    exporter = contender.exporter
    if contender.name not in SILENT:  # the bridges have a span for each execute call, too
        must_be(min(exporter.spans, steps), steps)
    files = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {
        "disk_bytes": files / steps,
        "spans": exporter.spans / steps,
        "span_bytes": exporter.size_bytes / max(1, exporter.spans),
    }


def warmed(contender: Contender, arguments: dict[str, Any]) -> Application:
    """An application that has taken a few steps, and takes `steps` more in one `run`."""
    until = WARM_STEPS + arguments["steps"]
    app = build(contender, state_of(arguments["shape"]), arguments.get("action", "step"), until)
    for _ in range(WARM_STEPS):
        app.step()
    return app


def steps(contender: Contender, folder: str, arguments: dict[str, Any]) -> dict[str, float]:
    """A step, many of them in one execute call."""
    app = warmed(contender, arguments)
    found = added(lambda: app.run(halt_after=["result"]), contender.flush, arguments["steps"])
    must_be(app.state["count"], WARM_STEPS + arguments["steps"])
    return {**found, **output(contender, folder, app.state["count"])}


def chat(contender: Contender, folder: str, arguments: dict[str, Any]) -> dict[str, float]:
    """A turn of a conversation that grows by 1 KB a turn; each turn is an execute call."""
    app = build(contender, {"count": -1, "history": []}, "turn", until=0)
    turns = arguments["steps"]

    def talk() -> None:
        for number in range(turns):
            prompt = (f"{number} tell me more about this, please. " * 20)[:440]
            app.run(halt_after=["step"], inputs={"prompt": prompt})

    found = added(talk, contender.flush, turns)
    must_be(len(app.state["history"]), 2 * turns)
    return {**found, **output(contender, folder, turns)}


def stall(contender: Contender, _folder: str, arguments: dict[str, Any]) -> dict[str, float]:
    """The longest time (wall clock) for which a step and its export keep an event loop waiting."""
    app = build(contender, state_of(arguments["shape"]), "astep", until=arguments["steps"] + 2)

    async def longest_gap() -> float:
        gap, running = 0.0, True

        async def tick() -> None:
            nonlocal gap
            before = time.perf_counter()
            while running:
                await asyncio.sleep(0)
                now = time.perf_counter()
                gap, before = max(gap, now - before), now

        ticker = asyncio.create_task(tick())
        await asyncio.sleep(0)
        await app.astep()
        await asyncio.to_thread(contender.flush)
        running = False
        await ticker
        return gap * 1e6

    async def many() -> dict[str, float]:
        await app.astep()
        cpu = time.process_time()
        gaps = [await longest_gap() for _ in range(arguments["steps"])]
        found = {"all_us": (time.process_time() - cpu) / len(gaps) * 1e6}
        must_be(app.state["count"], len(gaps) + 1)
        if contender.name != "none":  # a longest gap is told as it is, not as a difference
            found["own_us"] = statistics.median(gaps)
        return found

    return asyncio.run(many())


def memory(contender: Contender, _folder: str, arguments: dict[str, Any]) -> dict[str, float]:
    """Bytes that a live application holds, as Python counts them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    values = state_of("1kb")

    def live(number: int) -> Application:
        app = build(contender, values, "step", until=3, app_id=f"run-{number}")
        app.step()
        app.step()
        return app

    def held(apps: int) -> int:
        contender.flush()
        deadline = time.monotonic() + 60
        while arguments["idle"] and contender.provider and contender.exporter.roots < apps:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{contender.exporter.roots} of {apps} application spans ended.")
            time.sleep(0.1)
            contender.flush()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    warm = [live(-number - 1) for number in range(20)]  # what is made once
    tracemalloc.start()
    before = held(len(warm))
    apps = [live(number) for number in range(arguments["apps"])]
    return {"bytes": (held(len(warm) + len(apps)) - before) / len(apps)}


def write(contender: Contender, _folder: str, arguments: dict[str, Any]) -> dict[str, float]:
    """A run to load, as the contender's own hooks write it."""
    app = build(contender, state_of(arguments["shape"]), "step", until=arguments["steps"])
    app.run(halt_after=["result"])
    return {}


def load(contender: Contender, _folder: str, arguments: dict[str, Any]) -> dict[str, float]:
    """Loading the latest state of a long run, and the memory that takes at its peak."""
    found = added(lambda: contender.load("run"), contender.flush, 1)
    tracemalloc.start()
    loaded = contender.load("run")
    peak = tracemalloc.get_traced_memory()[1]
    must_be(loaded["state"]["count"], arguments["steps"])
    return {**found, "bytes": peak}


def parts(contender: Contender, _folder: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A step part by part; see `parts.py`."""
    recorder = Recorder()
    contender.hooks.append(recorder)
    app = warmed(contender, arguments)
    gc.collect()
    recorder.start()
    app.run(halt_after=["result"])
    return recorder.finish(contender.flush)


def main() -> None:
    what, name, folder, arguments = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
    logging.disable(logging.CRITICAL)
    if what == "parts":  # the exporter rests until the steps are done
        os.environ["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"] = os.environ["OTEL_BSP_MAX_QUEUE_SIZE"]
        os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "600000"
    settings = {}
    if what == "memory" and name == "ours":  # seconds until an application counts as idle
        settings["root_linger"] = 1.0 if arguments["idle"] else 600.0
    found = globals()[what](Contender(name, folder, **settings), folder, arguments)
    print(json.dumps(found), flush=True)
    if what != "write":
        os._exit(0)  # what others do at exit is not measured


if __name__ == "__main__":
    main()
