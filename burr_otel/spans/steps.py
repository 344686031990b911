"""The span of one step, of one inner span, and what both say when they end."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry import trace
from opentelemetry.trace import Link, SpanContext

from burr_otel import semconv
from burr_otel.spans.scope import SpanScope

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from burr_otel.content import Attribute

__all__ = ["ActionFacts", "OpenSpan", "action_facts", "outcome_of", "start_span"]


class ActionFacts(NamedTuple):
    """What every step of an action says of it."""

    name: str
    writes: tuple[str, ...]
    attributes: dict[str, AttributeValue]


def action_facts(action: Any) -> ActionFacts:
    """Name, reads, writes, tags and place of definition of a Burr action."""
    attributes: dict[str, AttributeValue] = {
        semconv.ACTION_NAME: action.name,
        semconv.ACTION_READS: list(action.reads),
        semconv.ACTION_WRITES: list(action.writes),
        semconv.OPENINFERENCE_SPAN_KIND: "CHAIN",
        semconv.GRAPH_NODE_ID: action.name,
    }
    if action.tags:
        attributes[semconv.ACTION_TAGS] = list(action.tags)
    attributes.update(_code_attributes(action))
    return ActionFacts(action.name, tuple(action.writes), attributes)


def _code_attributes(action: Any) -> dict[str, AttributeValue]:
    function = getattr(action, "fn", None)
    if function is None:
        name = "run_and_update" if action.single_step else "run"
        function = getattr(type(action), name, None)
    function = inspect.unwrap(function) if callable(function) else None
    code = getattr(function, "__code__", None)
    if code is None:
        return {}
    return {
        semconv.CODE_FUNCTION_NAME: f"{function.__module__}.{function.__qualname__}",
        semconv.CODE_FILE_PATH: code.co_filename,
        semconv.CODE_LINE_NUMBER: code.co_firstlineno,
    }


def outcome_of(error: BaseException | None) -> str:
    """The ``burr.outcome`` of something that ended with `error`."""
    if error is None:
        return semconv.OK
    if isinstance(error, asyncio.CancelledError):
        return semconv.CANCELLED
    if isinstance(error, GeneratorExit):
        return semconv.ABANDONED
    return semconv.ERROR


def start_span(
    tracer: trace.Tracer,
    name: str,
    *,
    parent: SpanContext | None,
    links: Iterable[Link],
    attributes: Mapping[str, AttributeValue],
    start_ns: int,
) -> trace.Span:
    """Start a span under `parent`, or, when that was not sampled, one that costs nothing.

    One decision a trace: the children of an unsampled parent are never offered to the sampler,
    so that a sampler which does not look at parents cannot make half a trace.
    """
    if parent is None:
        context = trace.set_span_in_context(trace.INVALID_SPAN)
    elif parent.trace_flags.sampled:
        context = trace.set_span_in_context(trace.NonRecordingSpan(parent))
    else:
        return trace.NonRecordingSpan(parent)
    return tracer.start_span(
        name, context=context, links=list(links), attributes=attributes, start_time=start_ns
    )


class OpenSpan:
    """A step's or an inner span from its start to its end.

    Attributes:
        span: The OpenTelemetry span.
        scope: Its place in the current context.
        start_ns: Unix time of its start.
        outer_error: The exception that was being handled when it started, which is not its own.
        identity: Attributes that are set again last, because a span at its attribute limit drops
            the oldest.
    """

    def __init__(
        self,
        span: trace.Span,
        *,
        start_ns: int,
        identity: Mapping[str, AttributeValue],
        outer_error: BaseException | None,
        parent: SpanScope | None = None,
    ) -> None:
        self.span = span
        self.scope = SpanScope(span, parent)
        self.start_ns = start_ns
        self.outer_error = outer_error
        self.identity = identity
        self._truncated: list[str] = []
        self._lock = threading.RLock()
        self._finished = False

    @property
    def context(self) -> SpanContext:
        """The span's context."""
        return self.span.get_span_context()

    @property
    def recording(self) -> bool:
        """Whether anything set on the span will be seen."""
        return self.span.is_recording()

    def claim_end(self) -> bool:
        """Whether the caller is the one to end the span: true once."""
        with self._lock:
            if self._finished:
                return False
            self._finished = True
            return True

    def put(self, name: str, content: Attribute | None) -> None:
        """Set an attribute from encoded content and remember that it was cut."""
        if content is None or not self.recording:
            return
        self.span.set_attribute(name, content.value)
        if content.truncated and name not in self._truncated:
            self._truncated.append(name)

    def end(self, end_ns: int, attributes: Mapping[str, AttributeValue]) -> None:
        """Set the last attributes, identity after all others, and end the span."""
        if self.recording:
            cut = {semconv.TRUNCATED: self._truncated} if self._truncated else {}
            self.span.set_attributes({**attributes, **cut, **self.identity})
            # Jaeger warns of a duration that is not positive.
            self.span.end(max(end_ns, self.start_ns + 1))
