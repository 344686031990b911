"""Starting spans: with the SDK's tracer as `BurrSpan`, with any other through its public API."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, sampling
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.util.types import AttributeValue

from burr_otel.content import ContentPolicy
from burr_otel.spans.burr_span import BurrSpan, SpanSource, content_of, sdk_status
from burr_otel.spans.describe import SpanContent
from burr_otel.spans.ids import id_generator
from burr_otel.spans.scope import BurrStep, context_under

Describe = Callable[[], SpanContent]

_ALWAYS_ON: Final = sampling.ALWAYS_ON.get_description()
_FLAGS: Final = 3  # in a span context, a tuple: its properties cost a call
_RANDOM_TRACE_ID: Final = 2  # a flag of W3C Trace Context level 2


class NoSpan(trace.NonRecordingSpan):
    """Stands for a span that nobody will ever see; it has a context all the same, if any."""

    burr_step = None

    def begin(self, describe: Describe, parent: trace.Span | None, outer: Context) -> None:
        """Nothing begins."""

    def user_data(self) -> dict[str, Any]:
        """Nothing: it keeps nothing."""
        return {}

    def finish(self, describe: Describe, end_ns: int, size_bytes: int = 0) -> None:
        """Nothing ends."""


NO_SPAN: Final = NoSpan(trace.INVALID_SPAN_CONTEXT)


class ApiSpan:
    """A span of a tracer that is not the SDK's, described at its end through the public API."""

    __slots__ = ("_ended", "burr_step", "current")

    def __init__(self, span: trace.Span, burr_step: BurrStep | None) -> None:
        self.current, self.burr_step = span, burr_step
        self._ended = False
        with contextlib.suppress(Exception):  # spans of others need not take attributes
            span.burr_step = burr_step  # type: ignore[attr-defined]

    def get_span_context(self) -> SpanContext:
        """Its context."""
        return self.current.get_span_context()

    def is_recording(self) -> bool:
        """Whether what is set on it is kept."""
        return not self._ended and self.current.is_recording()

    def begin(self, describe: Describe, parent: trace.Span | None, outer: Context) -> None:
        """Nothing: it has begun, and is described at its end."""

    def user_data(self) -> dict[str, Any]:
        """Nothing: what other code set on the span is not ours to read."""
        return {}

    def finish(self, describe: Describe, end_ns: int, size_bytes: int = 0) -> None:  # noqa: ARG002 - as BurrSpan
        """Describe and end it."""
        if self._ended:
            return
        self._ended, span = True, self.current
        try:
            content = describe()
            span.set_attributes(content.attributes)
            for event in content.events:
                span.add_event(*event)
            status = sdk_status(content.status)
            if not status.is_unset:
                span.set_status(status)
        finally:
            span.end(end_ns)


LiveSpan = BurrSpan | ApiSpan | NoSpan


class SpanStarter:
    """Starts the spans of one tracer."""

    def __init__(self, tracer: trace.Tracer, policy: ContentPolicy) -> None:
        self._tracer = tracer
        # Providers that wrap the SDK's (Logfire's) have tracers of their own.
        self._sdk: Any = tracer if isinstance(tracer, SdkTracer) else None
        self._asks = True
        if self._sdk is None:
            return
        self._ids = id_generator(self._sdk)
        self._asks = not _samples_children(self._sdk.sampler)
        processor = self._sdk.span_processor
        self.source = SpanSource(
            self._sdk.resource,
            self._sdk._instrumentation_scope,  # noqa: SLF001 - the tracer's only way to it
            self._sdk._span_limits,  # noqa: SLF001 - likewise
            policy,
            processor,
            getattr(processor, "_on_ending", None),  # experimental in the specification
        )

    def send(self, span: ReadableSpan) -> bool:
        """Give a span that another process left behind to the processors; whether that is done."""
        if self._sdk is None:
            return False
        content = content_of(span, ())
        made = BurrSpan(
            span.name,
            cast("SpanContext", span.get_span_context()),
            span.parent,
            span.links,
            span.start_time or 0,
            self.source._replace(resource=span.resource, scope=span.instrumentation_scope),
        )
        made.begin(lambda: content, None, Context())
        made.finish(lambda: content, span.end_time or 0)
        return True

    def start(
        self,
        name: str,
        parent: trace.Span | None,
        outer: Context,
        links: Sequence[Link],
        facts: Sequence[Mapping[str, AttributeValue]],
        start_ns: int,
        burr_step: BurrStep | None = None,
    ) -> LiveSpan:
        """Make a span under `parent` in the context `outer`; `facts` are what samplers see.

        Its processors hear of it with `begin`, once the caller can describe it.
        """
        # One decision a trace: under an unsampled parent no sampler is asked, so that one that
        # does not look at parents cannot make half a trace.
        over = None if parent is None else parent.get_span_context()
        if over is not None and not over[_FLAGS] & TraceFlags.SAMPLED:
            return NoSpan(over)
        if over is not None and not self._asks:
            trace_id, _, _, flags, state, _ = over
            context = SpanContext(trace_id, self._ids.generate_span_id(), False, flags, state)
            return BurrSpan(name, context, over, links, start_ns, self.source, burr_step)
        under = context_under(parent or trace.INVALID_SPAN, outer)
        told = {key: value for each in facts for key, value in each.items()}
        if self._sdk is None:
            span = self._tracer.start_span(
                name, under, links=links, attributes=told, start_time=start_ns
            )
            return ApiSpan(span, burr_step)
        enabled = getattr(self._sdk, "_is_enabled", None)
        if enabled is not None and not enabled():
            return NoSpan(over or trace.INVALID_SPAN_CONTEXT)
        context, added, recording = self._decide(name, over, under, links, told)
        if not recording:
            return NoSpan(context)
        made = BurrSpan(name, context, over, links, start_ns, self.source, burr_step)
        if added:
            made.set_attributes(added)
        return made

    def _decide(
        self,
        name: str,
        over: SpanContext | None,
        context: Context,
        links: Sequence[Link],
        told: Mapping[str, AttributeValue],
    ) -> tuple[SpanContext, Mapping[str, AttributeValue], bool]:
        """The context that the sampler gives a span, its attributes, and whether to record it."""
        if over is None:
            trace_id = self._ids.generate_trace_id()
            is_random = getattr(self._ids, "is_trace_id_random", None)
            flags = _RANDOM_TRACE_ID if is_random is not None and is_random() else 0
        else:
            trace_id, flags = over.trace_id, int(over.trace_flags)
        answer = self._sdk.sampler.should_sample(
            context, trace_id, name, SpanKind.INTERNAL, told, links
        )
        sampled = answer.decision.is_sampled()
        flags = flags | TraceFlags.SAMPLED if sampled else flags & ~TraceFlags.SAMPLED
        span_context = SpanContext(
            trace_id,
            self._ids.generate_span_id(),
            False,
            TraceFlags(flags),
            answer.trace_state,
        )
        added = {key: each for key, each in (answer.attributes or {}).items() if key not in told}
        return span_context, added, answer.decision.is_recording()


def _samples_children(sampler: Any) -> bool:
    """Whether a sampler, known to be the SDK's, samples whatever has a sampled parent."""
    if type(sampler) is sampling.ParentBased:
        names = ("_local_parent_sampled", "_remote_parent_sampled")
        return all(_samples_children(getattr(sampler, name, None)) for name in names)
    return isinstance(sampler, sampling.StaticSampler) and sampler.get_description() == _ALWAYS_ON
