"""Twenty applications in one process, which run until they are told to stop.

    applications.py FOLDER ENDPOINT

Prints `running` when each has taken its first step. On `stop` at standard input it finishes them,
sends what there is, and prints as JSON the ids of all spans that it made, and its steps by action.
"""

from __future__ import annotations

import collections
import json
import logging
import sys
import threading

from burr.core import ApplicationBuilder, State, action
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import burr_otel
from burr_otel import OtelTracker
from burr_otel.spans import keeper

PROJECT = "outage"
APPLICATIONS = 20
PAUSE_S = 0.2
stopping = threading.Event()


@action(reads=["turns"], writes=["turns"])
def think(state: State) -> State:
    stopping.wait(PAUSE_S)
    return state.update(turns=state["turns"] + 1)


@action(reads=["turns"], writes=["said"])
def answer(state: State) -> State:
    return state.update(said=f"after {state['turns']} turns")


def converse(tracker: OtelTracker, number: int, first_step: threading.Barrier) -> None:
    app = (
        ApplicationBuilder()
        .with_actions(think, answer)
        .with_transitions(("think", "answer"), ("answer", "think"))
        .with_entrypoint("think")
        .with_state(turns=0)
        .with_identifiers(app_id=f"application-{number}")
        .with_tracker(tracker)
        .build()
    )
    app.step()
    first_step.wait(60)
    while not stopping.is_set():
        app.step()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(folder: str, endpoint: str) -> None:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    provider = burr_otel.configure(PROJECT, endpoint)
    made = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(made))
    first_step = threading.Barrier(APPLICATIONS + 1)
    with OtelTracker(PROJECT, folder) as tracker:
        threads = [
            threading.Thread(target=converse, args=(tracker, number, first_step))
            for number in range(APPLICATIONS)
        ]
        for thread in threads:
            thread.start()
        first_step.wait(60)
        say("running")
        sys.stdin.readline()
        stopping.set()
        for thread in threads:
            thread.join()
    keeper.keeper.finish_all()
    provider.force_flush()
    spans = made.get_finished_spans()
    steps = collections.Counter(span.name for span in spans if span.name in ("think", "answer"))
    ids = [f"{span.context.span_id:016x}" for span in spans]
    say(json.dumps({"ids": ids, "steps": steps}))


if __name__ == "__main__":
    main(*sys.argv[1:])
