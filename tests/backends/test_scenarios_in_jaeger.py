"""The scenario table, through a real collector into a real Jaeger."""

from __future__ import annotations

import pathlib

import pytest
from collector_api import Collector
from jaeger_api import Jaeger
from opentelemetry.sdk.trace import ReadableSpan
from scenarios import SCENARIOS
from sending import content, sending_provider

from burr_otel import OtelTracker
from burr_otel.spans import keeper
from burr_otel.testing import manual_roots, span_tree


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_in_jaeger(
    name: str, collector: Collector, jaeger: Jaeger, tmp_path: pathlib.Path
) -> None:
    """Jaeger has the same traces as memory, span for span, and warns of nothing."""
    scenario = SCENARIOS[name]
    with manual_roots(), sending_provider("proj", "grpc", collector.grpc_endpoint) as (made, kept):
        scenario.run(
            lambda **settings: OtelTracker("proj", tmp_path, tracer_provider=made, **settings),
            made.get_tracer("service", "1.0"),
        )
        keeper.keeper.finish_all()
    sent = kept.get_finished_spans()
    read: list[ReadableSpan] = []
    for trace_id in {span.context.trace_id for span in sent}:
        expected = sum(span.context.trace_id == trace_id for span in sent)
        trace = jaeger.trace(trace_id, spans=expected)
        assert trace.warnings == {}
        assert len(trace.roots) == 1
        read.extend(trace.spans)

    def by_id(span: ReadableSpan) -> int:
        return span.context.span_id

    assert [content(s) for s in sorted(read, key=by_id)] == [
        content(s) for s in sorted(sent, key=by_id)
    ]
    assert f"\n{span_tree(read)}\n" == scenario.tree
