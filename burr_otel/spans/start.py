"""Starting spans: with the SDK's tracer as `BurrSpan`, with any other through its public API."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, sampling
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.util.types import AttributeValue

from burr_otel import forks
from burr_otel.content import ContentPolicy
from burr_otel.records import LinkIds
from burr_otel.spans.burr_span import BurrSpan, Describe, SpanSource, sdk_status
from burr_otel.spans.scope import BurrStep, context_under, link_of

_ALWAYS_ON: Final = sampling.ALWAYS_ON.get_description()
_FLAGS: Final = 3  # in a span context, a tuple: its properties cost a call


class SystemSeededIds(IdGenerator):
    """Random ids, seeded by the operating system and again in each forked child.

    A program that seeds the global `random` does not repeat them.
    """

    def __init__(self) -> None:
        self.seed()
        forks.in_child(self.seed)

    def seed(self) -> None:
        """Seed anew."""
        self._random_bits = random.Random().getrandbits  # noqa: S311  # ids are no secrets

    def generate_span_id(self) -> int:
        """A valid span id."""
        return self._random_bits(64) or self.generate_span_id()

    def generate_trace_id(self) -> int:
        """A valid trace id."""
        return self._random_bits(128) or self.generate_trace_id()

    def is_trace_id_random(self) -> bool:
        """Whether samplers may rely on the low 56 bits."""
        return True


ids = SystemSeededIds()


def id_generator(provider: Any) -> IdGenerator:
    """The provider's own generator, ours in place of the SDK's, which draws on `random`."""
    own = getattr(provider, "id_generator", None)
    return ids if own is None or type(own) is RandomIdGenerator else own


class ApiSpan:
    """A span that is not ours, described at its end through the public API if it is recorded.

    It stands also for a span that nobody will ever see, but for its context.
    """

    __slots__ = ("_ended", "current")

    def __init__(self, span: trace.Span, burr_step: BurrStep | None = None) -> None:
        self.current, self._ended = span, not span.is_recording()
        if burr_step is not None:
            with contextlib.suppress(Exception):  # spans of others need not take attributes
                span.burr_step = burr_step  # type: ignore[attr-defined]

    def get_span_context(self) -> SpanContext:
        """Its context."""
        return self.current.get_span_context()

    def is_recording(self) -> bool:
        """Whether what is set on it is kept."""
        return not self._ended

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


LiveSpan = BurrSpan | ApiSpan


def unseen(context: SpanContext) -> ApiSpan:
    """What stands for a span of this context that nobody will ever see."""
    return ApiSpan(trace.NonRecordingSpan(context))


NO_SPAN: Final = unseen(trace.INVALID_SPAN_CONTEXT)


class _HashedOnce(Resource):
    """A resource as it was given. OTLP encoders hash that of each span, the SDK's by its JSON."""

    def __init__(self, given: Resource) -> None:
        super().__init__(given.attributes, given.schema_url)
        self._hash = hash(given)

    def __hash__(self) -> int:
        return self._hash


class SpanStarter:
    """Starts the spans of one tracer."""

    source: SpanSource | None = None

    def __init__(self, tracer: trace.Tracer, policy: ContentPolicy) -> None:
        self._tracer: Any = tracer
        self._asks = True
        if not isinstance(tracer, SdkTracer):  # providers that wrap the SDK's have their own
            return
        self._ids = id_generator(tracer)
        self._asks = not _samples_children(tracer.sampler)
        self.source = SpanSource(
            _HashedOnce(tracer.resource),
            tracer._instrumentation_scope,  # noqa: SLF001 - the tracer's only way to it
            tracer._span_limits,  # noqa: SLF001 - likewise
            policy,
            tracer.span_processor,
        )
        # A copy that samples as the SDK does, and of whose spans no processor hears. Not by
        # `copy.copy`: OpenInference's tracers are proxies that cannot be copied.
        self._tracer = SdkTracer.__new__(SdkTracer)
        self._tracer.__dict__.update(tracer.__dict__)
        self._tracer.id_generator, self._tracer.span_processor = self._ids, SpanProcessor()

    def send(self, span: ReadableSpan) -> bool:
        """Give a span that another process left behind to the processors; whether that is done."""
        if self.source is None or not isinstance(span, BurrSpan):
            return False
        span.send(self.source)
        return True

    def start(
        self,
        name: str,
        parent: trace.Span | None,
        outer: Context,
        links: Sequence[LinkIds],
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
            return unseen(over)
        source = self.source
        if source is not None and over is not None and not self._asks:
            trace_id, _, _, flags, state, _ = over
            context = SpanContext(trace_id, self._ids.generate_span_id(), False, flags, state)
            return BurrSpan(name, context, over, links, start_ns, source, burr_step)
        under = context_under(parent, outer)
        told = {key: value for each in facts for key, value in each.items()}
        span = self._tracer.start_span(
            name, under, links=list(map(link_of, links)), attributes=told, start_time=start_ns
        )
        if source is None or not span.is_recording():
            return ApiSpan(span, burr_step)
        span.end()
        made = BurrSpan(name, span.context, over, links, start_ns, source, burr_step)
        added = {key: each for key, each in span.attributes.items() if key not in told}
        if added:  # by the sampler
            made.set_attributes(added)
        return made


def _samples_children(sampler: Any) -> bool:
    """Whether a sampler, known to be the SDK's, samples whatever has a sampled parent."""
    if type(sampler) is sampling.ParentBased:
        names = ("_local_parent_sampled", "_remote_parent_sampled")
        return all(_samples_children(getattr(sampler, name, None)) for name in names)
    return isinstance(sampler, sampling.StaticSampler) and sampler.get_description() == _ALWAYS_ON
