"""Runs of odd shapes in real backends: long, large, failing and parallel ones."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from apps import boom, builder, counter, single
from burr.core import State, action, default
from collector_api import Collector
from jaeger_api import Jaeger
from phoenix_api import Phoenix
from scenarios import Squares
from sending import sending_provider

from burr_otel import OtelTracker
from burr_otel.spans import keeper
from burr_otel.testing import manual_roots

JSON_ATTRIBUTES = ("burr.inputs", "burr.result", "burr.state.written", "burr.graph")
MIB = 1024 * 1024


@action(reads=["count"], writes=["rows"])
def large(state: State) -> State:
    """Write 1 MiB of state in small pieces."""
    return state.update(rows=[{"id": n, "text": "x" * 100} for n in range(MIB // 100)])


def long_run(tracker: OtelTracker) -> None:
    """200 steps."""
    counter(tracker, upto=199).run(halt_after=["finish"])


def large_run(tracker: OtelTracker) -> None:
    """Two steps with 1 MiB of state."""
    app = single(tracker, large)
    app.step()
    app.step()


def failing_run(tracker: OtelTracker) -> None:
    """A step that fails."""
    with contextlib.suppress(ValueError):
        single(tracker, boom).step()


def parallel_run(tracker: OtelTracker) -> None:
    """A step with eight applications inside."""
    app = (
        builder(tracker, "a1", step=Squares())
        .with_transitions(("step", "step", default))
        .with_state(numbers=list(range(8)))
        .with_entrypoint("step")
        .build()
    )
    app.step()


SHAPES: dict[str, tuple[Callable[[OtelTracker], None], int]] = {
    "long": (long_run, 201),
    "large": (large_run, 3),
    "failing": (failing_run, 2),
    "parallel": (parallel_run, 18),
}


def send(shape: str, endpoint: str, folder: pathlib.Path) -> list[Any]:
    """Run and send; the spans that were sent."""
    with manual_roots(), sending_provider(shape, "grpc", endpoint) as (made, kept):
        tracker = OtelTracker(shape, folder, tracer_provider=made, openinference_content=True)
        SHAPES[shape][0](tracker)
        keeper.keeper.finish_all()
    sent = list(kept.get_finished_spans())
    assert len(sent) == SHAPES[shape][1]
    assert len({span.context.trace_id for span in sent}) == 1
    return sent


@pytest.mark.parametrize("shape", SHAPES)
def test_jaeger_has_it_whole_and_warns_of_nothing(
    shape: str, collector: Collector, jaeger: Jaeger, tmp_path: pathlib.Path
) -> None:
    """Every span with one root; JSON attributes parse, however large the state was."""
    sent = send(shape, collector.grpc_endpoint, tmp_path)
    read = jaeger.trace(sent[0].context.trace_id, spans=len(sent))
    assert read.warnings == {}
    assert len(read.roots) == 1
    for span in read.spans:
        for name in JSON_ATTRIBUTES:
            text = span.attributes.get(name, "null")
            assert len(text.encode()) <= 16 * 1024
            json.loads(text)
    cut = [s.name for s in read.spans if "burr.truncated" in s.attributes]
    assert cut == (["step", "step"] if shape == "large" else [])


@pytest.mark.parametrize("shape", SHAPES)
def test_phoenix_has_it_whole(shape: str, phoenix: Phoenix, tmp_path: pathlib.Path) -> None:
    """Phoenix takes every span, as chains with their input and output."""
    sent = send(shape, phoenix.grpc_endpoint, tmp_path)
    read = phoenix.spans(sent[0].context.trace_id, count=len(sent))
    assert {span["span_kind"] for span in read} == {"CHAIN"}
    failed = [span["name"] for span in read if span["status_code"] == "ERROR"]
    assert len(failed) == (2 if shape == "failing" else 0)
