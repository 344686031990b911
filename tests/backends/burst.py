"""One action that makes many spans at once.

    burst.py FOLDER ENDPOINT SPANS

Prints how many spans ended and by how many MiB the process grew at most, then waits for a line at
standard input before it ends.
"""

from __future__ import annotations

import logging
import resource
import sys

from burr.core import ApplicationBuilder, State, action
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

import burr_otel
from burr_otel import OtelTracker
from burr_otel.spans import keeper


class Counter(SpanProcessor):
    """How many spans ended."""

    ended = 0

    def on_end(self, span: ReadableSpan) -> None:
        self.ended += 1


@action(reads=[], writes=["done"])
def burst(state: State, spans: int, __tracer) -> State:
    for _ in range(spans):
        with __tracer("piece"):
            pass
    return state.update(done=spans)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(folder: str, endpoint: str, spans: str) -> None:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    provider = burr_otel.configure("burst", endpoint)
    counter = Counter()
    provider.add_span_processor(counter)
    with OtelTracker("burst", folder, snapshots="off") as tracker:  # for speed
        app = (
            ApplicationBuilder()
            .with_actions(burst)
            .with_transitions(("burst", "burst"))
            .with_entrypoint("burst")
            .with_identifiers(app_id="burst")
            .with_tracker(tracker)
            .build()
        )
        app.step(inputs={"spans": 100})  # what is made once is made now
        before = peak_mib()
        app.step(inputs={"spans": int(spans)})
        keeper.keeper.finish_all()
        sys.stdout.write(f"{counter.ended} {peak_mib() - before:.1f}\n")
        sys.stdout.flush()
        sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
