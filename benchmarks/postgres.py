"""Runs in PostgreSQL against Burr's own `PostgreSQLPersister`, on one server, in one run.

    python benchmarks/postgres.py postgresql://postgres@127.0.0.1:5432/bench [--quick]

The database must be empty; tables are made in it. Both take turns at every step, and what is
compared is the time that they add to a step without them. Needs `pip install "burr-otel[postgres]"`
and `psycopg2-binary`, which Burr's persister uses.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import random
import statistics
import threading
import time
from collections.abc import Callable

import psycopg
from burr.core import Application, ApplicationBuilder, State, action
from burr.integrations.persisters.b_psycopg2 import PostgreSQLPersister
from opentelemetry.sdk.trace import TracerProvider

from burr_otel import OtelTracker
from burr_otel.store.engines import open_engine

PARTITION = "user"  # Burr's persister cannot save without one
PEERS = ("none", "burr", "ours")
TURN = 5  # steps of a `run`


@action(reads=["n"], writes=["n"])
def step(state: State) -> State:
    return state.update(n=state["n"] + 1)


@action(reads=["n"], writes=["n"])
async def astep(state: State) -> State:
    await asyncio.sleep(0.001)
    return state.update(n=state["n"] + 1)


@action(reads=["n"], writes=["n"])
async def quick(state: State) -> State:
    return state.update(n=state["n"] + 1)


def state_of(kilobytes: int) -> dict[str, object]:
    """A state of small dictionaries, as a conversation is."""
    return {"n": 0, "history": [{"id": n, "text": "x" * 75} for n in range(10 * kilobytes)]}


class Bench:
    def __init__(self, url: str) -> None:
        self.url = url
        where = psycopg.conninfo.conninfo_to_dict(url)
        self.persister = PostgreSQLPersister.from_values(
            where["dbname"],
            where.get("user", "postgres"),
            where.get("password", ""),
            where.get("host", "127.0.0.1"),
            int(where.get("port", 5432)),
        )
        self.persister.initialize()
        open_engine(url).prepare(dry_run=False)
        # Spans are made, and exported nowhere.
        self.tracker = OtelTracker("bench", url, tracer_provider=TracerProvider())

    def build(self, peer: str, app_id: str, kilobytes: int, one: object = step) -> Application:
        builder = (
            ApplicationBuilder()
            .with_actions(**{f"step{number}": one for number in range(TURN)})
            .with_transitions(*((f"step{n}", f"step{(n + 1) % TURN}") for n in range(TURN)))
            .with_state(**state_of(kilobytes))
            .with_entrypoint("step0")
            .with_identifiers(app_id=app_id, partition_key=PARTITION)
        )
        if peer == "burr":
            builder = builder.with_state_persister(self.persister)
        if peer == "ours":
            builder = builder.with_tracker(self.tracker)
        return builder.build()

    def steps(self, kilobytes: int, count: int, *, run: bool) -> tuple[float, float]:
        """Microseconds that each adds to a step, by itself or of a `run`."""
        name = f"step-{kilobytes}-{random.random()}"
        apps = {peer: self.build(peer, name, kilobytes) for peer in PEERS}
        times: dict[str, list[float]] = {peer: [] for peer in PEERS}
        for _ in range(count):
            for peer in random.sample(PEERS, len(PEERS)):
                times[peer].append(_seconds(functools.partial(_turn, apps[peer], run=run)))
        medians = {peer: statistics.median(each) * 1e6 for peer, each in times.items()}
        size = TURN if run else 1
        return tuple((medians[peer] - medians["none"]) / size for peer in ("burr", "ours"))

    def conversations(
        self, peer: str, count: int, seconds: float, kilobytes: int, *, run: bool
    ) -> float:
        """Steps a second of so many threads."""
        apps = [self.build(peer, f"talk-{n}-{random.random()}", kilobytes) for n in range(count)]
        done = [0] * count
        until = time.monotonic() + seconds

        def talk(which: int) -> None:
            while time.monotonic() < until:
                _turn(apps[which], run=run)
                done[which] += TURN if run else 1

        threads = [threading.Thread(target=talk, args=(which,)) for which in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(done) / seconds

    async def async_conversations(self, peer: str, count: int, seconds: float) -> float:
        """Steps a second of so many on one event loop, 10 KB each."""
        apps = [self.build(peer, f"async-{n}-{random.random()}", 10, quick) for n in range(count)]
        done, until = [0] * count, time.monotonic() + seconds

        async def talk(which: int) -> None:
            while time.monotonic() < until:
                await apps[which].astep()
                done[which] += 1
                await asyncio.sleep(0)  # else one without a store never lets others go on

        await asyncio.gather(*map(talk, range(count)))
        return sum(done) / seconds

    async def lateness(self, peer: str, count: int, seconds: float) -> float:
        """Milliseconds by which an event loop with so many conversations is late, median."""
        apps = [self.build(peer, f"loop-{n}-{random.random()}", 10, astep) for n in range(count)]
        until, late = time.monotonic() + seconds, []

        async def talk(app: Application) -> None:
            while time.monotonic() < until:
                await app.astep()

        async def tick() -> None:
            while (began := time.perf_counter()) and time.monotonic() < until:
                await asyncio.sleep(0.005)
                late.append(time.perf_counter() - began - 0.005)

        await asyncio.gather(tick(), *map(talk, apps))
        return statistics.median(late) * 1e3

    def loads(self, length: int, count: int) -> dict[str, tuple[float, float]]:
        """Microseconds of a load of the latest and of any step: `burr`, `ours`."""
        name = f"load-{length}-{random.random()}"
        for peer in ("burr", "ours"):
            app = self.build(peer, name, 10)
            for _ in range(length):
                app.step()
        found = {}
        for what, number in (("latest", lambda: None), ("any", lambda: random.randrange(length))):
            times: dict[str, list[float]] = {"burr": [], "ours": []}
            for _ in range(count):
                wanted = number()
                for peer, load in (("burr", self.persister.load), ("ours", self.tracker.load)):
                    times[peer].append(_seconds(lambda: load(PARTITION, name, wanted)))  # noqa: B023
            found[what] = tuple(statistics.median(times[peer]) * 1e6 for peer in times)
        return found

    def lists(self, runs: int, count: int) -> tuple[float, float]:
        """Milliseconds of a list of half of so many runs, of five steps each."""
        with psycopg.connect(self.url) as connection:
            connection.execute(
                "INSERT INTO burr_otel.run (project, partition_key, app_id, metadata, graphs) "
                "SELECT 'bench', 'half-' || n %% 2, 'app-' || n, '{}', '{g}' "
                "FROM generate_series(1, %s) AS n",
                (runs,),
            )
            connection.execute(
                "INSERT INTO burr_state (partition_key, app_id, sequence_id, position, status, "
                "state) SELECT 'half-' || n %% 2, 'app-' || n, s, 'step', 'completed', '{}' "
                "FROM generate_series(1, %s) AS n, generate_series(0, 4) AS s",
                (runs,),
            )
        self.persister.connection.commit()
        burr = [_seconds(lambda: self.persister.list_app_ids("half-1")) for _ in range(count)]
        ours = [_seconds(lambda: self.tracker.list_app_ids("half-1")) for _ in range(count)]
        assert len(self.tracker.list_app_ids("half-1")) == runs // 2
        return statistics.median(burr) * 1e3, statistics.median(ours) * 1e3


def _turn(app: Application, *, run: bool) -> None:
    """One step, or one run of a few."""
    if run:
        app.run(halt_after=[f"step{TURN - 1}"])
    else:
        app.step()


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--quick", action="store_true", help="small numbers")
    arguments = parser.parse_args()
    os.environ.setdefault("OTEL_TRACES_EXPORTER", "none")
    part = 10 if arguments.quick else 1
    bench = Bench(arguments.url)

    def say(what: str, burr: float, ours: float, unit: str, goal: str) -> None:
        ratio = f"{ours / burr:.2f}" if burr else ""
        print(f"{what:<42} {burr:>10,.1f} {ours:>10,.1f} {unit:<8} {ratio:>6}  {goal}", flush=True)

    print(f"{'':<42} {'Burr':>10} {'burr-otel':>10} {'':<8} {'ratio':>6}  goal")
    for run, how in ((True, f"of a run of {TURN}"), (False, "by itself")):
        for kilobytes, goal in ((1, "≤ 1.2"), (10, "≤ 0.8"), (100, "≤ 0.4")):
            burr, ours = bench.steps(kilobytes, (100 if run else 500) // part, run=run)
            say(f"a step of {kilobytes} KB {how} adds", burr, ours, "µs", goal)
        for kilobytes in (10, 100):
            none, *both = (
                bench.conversations(peer, 32, 10 / part, kilobytes, run=run) for peer in PEERS
            )
            what, goal = f"32 conversations of {kilobytes} KB, {how}", f"≥ 4 (none: {none:,.0f})"
            say(what, *both, "steps/s", goal)
    none, *both = (asyncio.run(bench.async_conversations(peer, 32, 10 / part)) for peer in PEERS)
    say("32 conversations of 10 KB, one event loop", *both, "steps/s", f"(none: {none:,.0f})")
    burr, ours = (asyncio.run(bench.lateness(peer, 20, 10 / part)) for peer in ("burr", "ours"))
    say("event loop late, 20 conversations", burr, ours, "ms", "≤ 2 ms")
    for length in (20, 2000 // part):
        for what, (burr, ours) in bench.loads(length, 300 // part).items():
            say(f"load of the {what} of {length} steps of 10 KB", burr, ours, "µs", "≤ 1.5")
    burr, ours = bench.lists(20_000 // part, 20)
    say(f"list half of {20_000 // part:,} runs", burr, ours, "ms", "≤ 0.2")
    bench.tracker.close()


if __name__ == "__main__":
    main()
