"""Spans under ids that were reserved before, by a process that could not end them itself."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.sdk.trace import Tracer
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Status, StatusCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.trace import Link, SpanContext
    from opentelemetry.util.types import AttributeValue

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


def emit(
    tracer: trace.Tracer,
    name: str,
    context: SpanContext,
    *,
    parent: SpanContext | None,
    links: Iterable[Link],
    attributes: Mapping[str, AttributeValue],
    start_ns: int,
    end_ns: int,
    error: str | None,
) -> bool:
    """Start and end a span of given ids and times.

    A tracer takes its ids from its provider's generator, so a copy of the tracer gets a generator
    of its own, and the decision that the first process made: sampled.

    Args:
        tracer: Of the provider that the span goes to.
        name: Of the span.
        context: Its ids.
        parent: Its parent's ids.
        links: Its links.
        attributes: Its attributes.
        start_ns: Unix time of its start.
        end_ns: Unix time of its end.
        error: Description of its ERROR status, if it has one.

    Returns:
        Whether it was sent: not when it was never sampled, or the provider makes no spans.
    """
    if not isinstance(tracer, Tracer) or not context.trace_flags.sampled:
        return False
    twin: Any = copy.copy(tracer)
    twin.id_generator = _Reserved(context)
    twin.sampler = ALWAYS_ON
    over = trace.INVALID_SPAN if parent is None else trace.NonRecordingSpan(parent)
    span = twin.start_span(
        name,
        context=trace.set_span_in_context(over),
        links=list(links),
        attributes=attributes,
        start_time=start_ns,
    )
    if error is not None:
        span.set_status(Status(StatusCode.ERROR, error))
    span.end(max(end_ns, start_ns + 1))
    return True
