"""Span contexts and links as OpenTelemetry and as records have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.trace import Link, SpanContext, TraceFlags, TraceState

from burr_otel import semconv
from burr_otel.records import LinkIds, Origin, SpanIds
from burr_otel.spans.portable import from_portable, portable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.context import Context

_NO_STATE = trace.INVALID_SPAN_CONTEXT.trace_state  # of nearly all; others are asked, by calls


def ids_of(context: SpanContext | None) -> SpanIds | None:
    """What a record keeps of a span context; None for one that is not valid."""
    if context is None:
        return None
    trace_id, span_id, is_remote, flags, state, valid = context  # a tuple; properties cost a call
    if not valid:
        return None
    header = "" if state is _NO_STATE or not state else state.to_header()
    return SpanIds(trace_id, span_id, int(flags), header, is_remote)


def context_of(ids: SpanIds | None, *, is_remote: bool | None = None) -> SpanContext | None:
    """The span context that a record kept; `is_remote` as recorded unless given."""
    if ids is None:
        return None
    state = TraceState.from_header([ids.trace_state]) if ids.trace_state else None
    remote = ids.is_remote if is_remote is None else is_remote
    return SpanContext(ids.trace_id, ids.span_id, remote, TraceFlags(ids.flags), state)


def current_span_context(context: Context | None = None) -> SpanContext | None:
    """Span context of the span that is current; None without one."""
    # MLflow leaves a span without one where it could not begin its own.
    found: Any = trace.get_current_span(context).get_span_context()
    return found if found is not None and found.is_valid else None


def is_sampled(context: SpanContext) -> bool:
    """Whether a span of this context was sampled."""
    _, _, _, flags, _, _ = context
    return bool(flags & TraceFlags.SAMPLED)


def suppressed() -> bool:
    """Whether instrumentation is suppressed here, as OpenTelemetry's instrumentations ask it."""
    return bool(otel_context.get_value(_SUPPRESS_INSTRUMENTATION_KEY))


def link(context: SpanContext, kind: str) -> Link:
    """A link of the given ``burr.link.type``."""
    return Link(context, {semconv.LINK_TYPE: kind})


def links_to(*targets: tuple[SpanContext | None, str]) -> list[Link]:
    """Links to those targets that are known, each target once."""
    found: dict[tuple[int, int], Link] = {}
    for context, kind in targets:
        if context is not None and context.is_valid:
            found.setdefault((context.trace_id, context.span_id), link(context, kind))
    return list(found.values())


def link_ids(links: Iterable[Link]) -> list[LinkIds]:
    """What a record keeps of links."""
    kept = []
    for each in links:
        target = ids_of(each.context)
        if target is None:
            continue
        attributes = dict(each.attributes or {})
        kind = attributes.get(semconv.LINK_TYPE)
        if len(attributes) == 1 and isinstance(kind, str):
            kept.append(LinkIds(target, kind))
        else:
            kept.append(LinkIds(target, None, portable(attributes)))
    return kept


def link_of(kept: LinkIds) -> Link:
    """The link that a record kept."""
    context = context_of(kept.target) or trace.INVALID_SPAN_CONTEXT
    if kept.attributes is not None:
        return Link(context, from_portable(kept.attributes))
    return link(context, str(kept.kind))


def origin_of(
    context: SpanContext, parent: SpanContext | SpanIds | None, links: Iterable[Link]
) -> Origin | None:
    """What a record keeps of a span's ids, parent and links; None for a span that is not valid."""
    ids = ids_of(context)
    if ids is None:
        return None
    over = parent if isinstance(parent, SpanIds) else ids_of(parent)
    return Origin(ids, over, link_ids(links) if links else ())
