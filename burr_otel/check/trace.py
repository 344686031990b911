"""The test trace: an application and its steps as the tracker describes them, marked as a check."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags

from burr_otel import semconv
from burr_otel._version import __version__
from burr_otel.content import ContentPolicy
from burr_otel.records import NO_DOCUMENT, BeginRoot, BeginStep, EndRoot, EndStep
from burr_otel.spans import describe
from burr_otel.spans.burr_span import BurrSpan, SpanSource
from burr_otel.spans.facts import RunFacts, SpanSettings
from burr_otel.spans.ids import ids

_PROJECT = "burr-otel-check"
_STEP = "check"


def make_trace(
    resource: Resource, contents: Sequence[str]
) -> tuple[list[ReadableSpan], list[ReadableSpan]]:
    """A root with its step, and more steps of that trace, each with one of these texts.

    Whatever the sampler says: it is the way that is tried, not the luck.
    """
    policy, begin_ns = ContentPolicy(), time.time_ns()
    end_ns = begin_ns + 1_000
    facts = RunFacts(_PROJECT, f"check-{uuid.uuid4().hex[:8]}", None, policy, SpanSettings(), {})
    scope = InstrumentationScope(semconv.SCOPE_NAME, __version__, semconv.SCHEMA_URL)
    source = SpanSource(resource, scope, None, policy)
    begin_root = BeginRoot({}, begin_ns)
    end_root = EndRoot(end_ns, semconv.OK, steps=1 + len(contents))
    spans: list[ReadableSpan] = []
    found = [describe.root(facts, None, begin_root, end_root)]
    for number, text in enumerate(["", *contents]):
        begin = BeginStep(number, _STEP, NO_DOCUMENT, begin_ns)
        # The text is shown as it is, so that its size is the one that was asked for.
        shown = {semconv.STATE_WRITTEN: f'{{"text":"{text}"}}'} if text else {}
        end = EndStep(number, _STEP, None, None, None, end_ns, semconv.OK, shown=shown)
        found.append(describe.step(facts, begin, end))
    trace_id, sampled = ids.generate_trace_id(), TraceFlags(TraceFlags.SAMPLED)
    for content in found:
        content.attributes[semconv.CHECK] = True
        context = SpanContext(trace_id, ids.generate_span_id(), False, sampled)
        parent = spans[0].get_span_context() if spans else None
        spans.append(BurrSpan.finished(content, context, parent, (), (begin_ns, end_ns), source))
    return spans[:2], spans[2:]


def trace_id(spans: Sequence[ReadableSpan]) -> str:
    """The trace that spans belong to, as backends write it."""
    return f"{spans[0].context.trace_id:032x}"
