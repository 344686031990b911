"""A span from its start to its end, as steps and inner spans share it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import TraceFlags

from burr_otel import semconv
from burr_otel.spans import recorded
from burr_otel.spans.recorded import soonest_end
from burr_otel.spans.scope import SpanScope

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanContext
    from opentelemetry.util.types import AttributeValue

    from burr_otel.content import Attribute
    from burr_otel.spans.scope import BurrStep

__all__ = ["OpenSpan", "outcome_of", "sampled", "start_span"]


def outcome_of(error: BaseException | None) -> str:
    """The ``burr.outcome`` of something that ended with `error`."""
    if error is None:
        return semconv.OK
    if isinstance(error, asyncio.CancelledError):
        return semconv.CANCELLED
    if isinstance(error, GeneratorExit):
        return semconv.ABANDONED
    return semconv.ERROR


def sampled(context: SpanContext) -> bool:
    """Whether a span of this context was sampled."""
    _, _, _, flags, _, _ = context
    return bool(flags & TraceFlags.SAMPLED)


def start_span(
    tracer: trace.Tracer,
    name: str,
    *,
    parent: SpanContext | None,
    links: Sequence[Link],
    attributes: Mapping[str, AttributeValue],
    start_ns: int,
) -> trace.Span:
    """Start a span under `parent`, or, when that was not sampled, one that costs nothing.

    One decision a trace: the children of an unsampled parent are never offered to the sampler,
    so that a sampler which does not look at parents cannot make half a trace.
    """
    over = trace.INVALID_SPAN if parent is None else trace.NonRecordingSpan(parent)
    if parent is not None and not sampled(parent):
        return over
    context = trace.set_span_in_context(over)
    return tracer.start_span(
        name, context=context, links=links, attributes=attributes, start_time=start_ns
    )


class OpenSpan:
    """A span that is open.

    Attributes:
        span: The OpenTelemetry span.
        context: Its context.
        recording: Whether what is set on it was to be seen when it began.
        readable: The span as it can be read; `None` for one that nobody will ever see.
        scope: Its place in the current context.
        start_ns: Unix time of its start.
        outer_error: The exception that was being handled when it started, which is not its own.
        logged: Attributes that the user logged, as a reader of the log knows them.
        truncated: Names of attributes that were cut.
    """

    __slots__ = (
        "_claims",
        "_identity",
        "context",
        "logged",
        "outer_error",
        "readable",
        "recording",
        "scope",
        "span",
        "start_ns",
        "truncated",
    )

    def __init__(
        self,
        span: trace.Span,
        *,
        start_ns: int,
        identity: Mapping[str, AttributeValue],
        outer_error: BaseException | None,
        parent: SpanScope | None = None,
        step: BurrStep | None = None,
        outer: Context | None = None,
    ) -> None:
        self.span = span
        self.context: SpanContext = span.get_span_context()
        self.recording = span.is_recording()
        self.readable = recorded.readable(span) if self.recording else None
        self.scope = SpanScope(span, parent, step, outer)
        self.start_ns = start_ns
        self.outer_error = outer_error
        self.logged: dict[str, Any] = {}
        self.truncated: tuple[str, ...] = ()
        self._identity = identity
        self._claims = [True]

    def claim_end(self) -> bool:
        """Whether the caller is the one to end the span: true once."""
        try:
            return self._claims.pop()  # by one thread: a list's pop is atomic
        except IndexError:
            return False

    def own_error(self, in_flight: BaseException | None) -> BaseException | None:
        """What `sys.exc_info` reports, unless that was being handled before the span began."""
        return None if in_flight is self.outer_error else in_flight

    def put(self, name: str, content: Attribute | None) -> None:
        """Set an attribute from encoded content and remember when it was cut."""
        if content is None or not self.span.is_recording():
            return
        self.span.set_attribute(name, content.value)
        if content.truncated:
            self.note_cut(name)

    def note_cut(self, name: str) -> None:
        """Remember that an attribute was cut."""
        if name not in self.truncated:
            self.truncated += (name,)

    def note_logged(self, key: Any, value: Any, written: bytes | None) -> None:
        """Note that the log has a logged attribute; see `recorded.logged_value`."""
        if self.span.is_recording():
            self.logged[str(key)] = recorded.logged_value(value, written)

    def put_last(
        self,
        attributes: Mapping[str, AttributeValue],
        expected: Mapping[str, AttributeValue] | None = None,
    ) -> bool:
        """Set the last attributes, and those of identity if they are not what they were.

        A span at its attribute limit drops the oldest, and user code may set any.

        Args:
            attributes: The last ones.
            expected: All that the span should say then, but for what was cut.

        Returns:
            Whether it says just that.
        """
        if not self.span.is_recording():
            return False
        if self.truncated:
            cut: dict[str, AttributeValue] = {semconv.TRUNCATED: self.truncated}
            attributes, expected = {**attributes, **cut}, {**(expected or {}), **cut}
        self.span.set_attributes(attributes)
        found: Any = None if self.readable is None else self.readable.attributes
        held: dict[str, Any] | None = None if found is None else found.copy()
        if held is not None and held == expected:
            return True
        if held is None or not self._identity.items() <= held.items():
            self.span.set_attributes(self._identity)
        return False

    def end(self, end_ns: int) -> None:
        """End the span."""
        if self.span.is_recording():
            self.span.end(soonest_end(self.start_ns, end_ns))
