"""The test trace: an application and a step, as the tracker names them, marked as a check."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from burr_otel import semconv
from burr_otel.spans.provider import tracer
from burr_otel.spans.shared import identity, root_attributes, root_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.util.types import AttributeValue

__all__ = ["make_trace", "trace_id"]

_PROJECT = "burr-otel-check"
_STEP = "check"


def make_trace(
    resource: Resource, contents: Sequence[str]
) -> tuple[list[ReadableSpan], list[ReadableSpan]]:
    """A root with its step, and more steps of that trace, each with one of these texts.

    Whatever the sampler says: it is the way that is tried, not the luck.
    """
    provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
    kept = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    ours, app_id = tracer(provider), f"check-{uuid.uuid4().hex[:8]}"
    done: dict[str, AttributeValue] = {semconv.OUTCOME: semconv.OK, semconv.CHECK: True}
    root = ours.start_span(
        root_name(_PROJECT),
        attributes={**root_attributes(_PROJECT, app_id, None), **done},
    )
    for number, content in enumerate(["", *contents]):
        attributes: dict[str, AttributeValue] = {
            semconv.ACTION_NAME: _STEP,
            semconv.SEQUENCE_ID: number,
            semconv.OPENINFERENCE_SPAN_KIND: "CHAIN",
            semconv.GRAPH_NODE_ID: _STEP,
            **identity(_PROJECT, app_id, None),
            **done,
        }
        if content:
            attributes[semconv.STATE_WRITTEN] = f'{{"text":"{content}"}}'
        ours.start_span(_STEP, trace.set_span_in_context(root), attributes=attributes).end()
    root.end()
    first, *large, last = kept.get_finished_spans()
    return [first, last], large


def trace_id(spans: Sequence[ReadableSpan]) -> str:
    """The trace that spans belong to, as backends write it."""
    return f"{spans[0].context.trace_id:032x}"
