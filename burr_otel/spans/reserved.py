"""Spans under ids that were reserved before, by a process that could not end them itself."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, Tracer
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

__all__ = ["emit"]

_RANDOM_FLAG = 0x02  # https://www.w3.org/TR/trace-context-2/#random-trace-id-flag


class _Reserved(IdGenerator):
    def __init__(self, context: SpanContext) -> None:
        self._context = context

    def generate_trace_id(self) -> int:
        return self._context.trace_id

    def generate_span_id(self) -> int:
        return self._context.span_id

    def is_trace_id_random(self) -> bool:
        return bool(self._context.trace_flags & _RANDOM_FLAG)


def emit(tracer: trace.Tracer, span: ReadableSpan) -> bool:
    """Start and end a span as `span` is, with its ids, times and resource.

    A tracer takes its ids from its provider's generator, so a copy of the tracer gets a generator
    of its own, and the decision that the first process made: sampled.

    Args:
        tracer: Of the provider that the span goes to.
        span: What to send.

    Returns:
        Whether it was sent: not when the provider makes no spans.
    """
    context = span.get_span_context()
    if not isinstance(tracer, Tracer) or context is None:
        return False
    twin: Any = copy.copy(tracer)
    twin.id_generator = _Reserved(context)
    twin.sampler = ALWAYS_ON
    twin.resource = span.resource
    over = trace.INVALID_SPAN if span.parent is None else trace.NonRecordingSpan(span.parent)
    made = twin.start_span(
        span.name,
        context=trace.set_span_in_context(over),
        kind=span.kind,
        links=span.links,
        attributes=span.attributes,
        start_time=span.start_time,
    )
    for event in span.events:
        made.add_event(event.name, event.attributes, event.timestamp)
    made.set_status(span.status)
    made.end(span.end_time)
    return True
