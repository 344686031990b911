"""A span from its start to its end, as steps and inner spans share it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from burr_otel import semconv
from burr_otel.spans import parents, recorded
from burr_otel.spans.recorded import soonest_end
from burr_otel.spans.scope import SpanScope

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from opentelemetry.trace import Link, SpanContext
    from opentelemetry.util.types import AttributeValue

    from burr_otel.content import Attribute
    from burr_otel.spans.recorded import Bases
    from burr_otel.spans.scope import BurrStep

__all__ = ["OpenSpan", "outcome_of", "start_span"]


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
    """A span that is open.

    Attributes:
        span: The OpenTelemetry span.
        scope: Its place in the current context.
        start_ns: Unix time of its start.
        outer_error: The exception that was being handled when it started, which is not its own.
        known: Attributes as a reader of the log knows them before the record of the span's end.
        links: How many links it began with.
        readable: The span as it can be read; `None` for one that nobody will ever see.
    """

    __slots__ = (
        "_claimed",
        "_identity",
        "_lock",
        "_truncated",
        "known",
        "links",
        "outer_error",
        "readable",
        "scope",
        "span",
        "start_ns",
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
    ) -> None:
        self.span = span
        self.readable = recorded.readable(span)
        self.scope = SpanScope(span, parent, step)
        self.start_ns = start_ns
        self.outer_error = outer_error
        self.known: dict[str, Any] = dict(identity)
        self.links = 0
        self._identity = identity
        self._truncated: list[str] = []
        self._lock = threading.RLock()
        self._claimed = False

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
            claimed, self._claimed = self._claimed, True
            return not claimed

    def own_error(self, in_flight: BaseException | None) -> BaseException | None:
        """What `sys.exc_info` reports, unless that was being handled before the span began."""
        return None if in_flight is self.outer_error else in_flight

    def put(self, name: str, content: Attribute | None) -> None:
        """Set an attribute from encoded content and remember when it was cut."""
        if content is None or not self.recording:
            return
        self.span.set_attribute(name, content.value)
        if content.truncated:
            self.note_cut(name)

    def note_cut(self, name: str) -> None:
        """Remember that an attribute was cut."""
        if name not in self._truncated:
            self._truncated.append(name)

    def note_logged(self, key: Any, value: Any, written: bytes | None) -> None:
        """Note that the log has a logged attribute; see `recorded.logged_value`."""
        if self.recording:
            self.known[str(key)] = recorded.logged_value(value, written)

    def put_last(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Set the last attributes, and those of identity if they are not what they were.

        A span at its attribute limit drops the oldest, and user code may set any.
        """
        if not self.recording:
            return
        if self._truncated:
            attributes = {**attributes, semconv.TRUNCATED: self._truncated}
        self.span.set_attributes(attributes)
        held: Any = None if self.readable is None else self.readable.attributes
        if held is None or not self._identity.items() <= held.copy().items():
            self.span.set_attributes(self._identity)

    def end(self, end_ns: int) -> None:
        """End the span."""
        if self.recording:
            self.span.end(soonest_end(self.start_ns, end_ns))

    def end_record(
        self,
        begun: Mapping[str, Any],
        name: str,
        end_ns: int,
        outcome: str,
        bases: Bases,
        facts: Sequence[Mapping[str, Any]] = (),
    ) -> dict[str, Any]:
        """What the log's end record keeps of the span; see `recorded.end_record`.

        `begun` is what the begin record keeps of it, and `facts` what it said from its start.
        """
        return recorded.end_record(
            self.span,
            ids=parents.ids_of(begun),
            name=name,
            end_ns=end_ns,
            start_ns=self.start_ns,
            outcome=outcome,
            links=self.links,
            known=self.known,
            facts=facts,
            bases=bases,
        )
