"""Who is whose parent, and what links to what: pure functions over span contexts and records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import Link, SpanContext, TraceFlags

from burr_otel import semconv

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["ambient", "context_of", "link", "links", "record_of", "root_parent", "step_parent"]


def record_of(context: SpanContext) -> dict[str, Any]:
    """What the log keeps of a span context; empty for an invalid one."""
    if not context.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
        "flags": int(context.trace_flags),
    }


def context_of(record: Mapping[str, Any] | None) -> SpanContext | None:
    """The span context that `record_of` kept, or `None` when the record has none that is valid."""
    if not record:
        return None
    try:
        context = SpanContext(
            trace_id=int(record["trace_id"], 16),
            span_id=int(record["span_id"], 16),
            is_remote=True,
            trace_flags=TraceFlags(int(record.get("flags", 1))),
        )
    except (KeyError, TypeError, ValueError):
        return None
    return context if context.is_valid else None


def ambient() -> SpanContext | None:
    """The span context current here, or `None`."""
    context = trace.get_current_span().get_span_context()
    return context if context.is_valid else None


def root_parent(
    current: SpanContext | None, spawning_step: SpanContext | None
) -> SpanContext | None:
    """Parent of an application span.

    Args:
        current: The span current where the application is built.
        spawning_step: The step that spawned the application, if one did.

    Returns:
        The span current at creation, unless a spawning step of another trace is known: that one.
    """
    if spawning_step is None or (current and current.trace_id == spawning_step.trace_id):
        return current
    return spawning_step


def step_parent(
    policy: str, root: SpanContext, current: SpanContext | None
) -> tuple[SpanContext, list[Link]]:
    """Parent of a step and its links to the correlated trace.

    Args:
        policy: ``"application"`` or ``"ambient"``.
        root: The application span.
        current: The span current where the step runs.

    Returns:
        The parent, and the links.
    """
    if current is None:
        return root, []
    if policy == "ambient":
        return current, links((root, semconv.LINK_APPLICATION))
    if current.trace_id == root.trace_id:
        return root, []
    return root, links((current, semconv.LINK_AMBIENT))


def link(context: SpanContext, kind: str) -> Link:
    """A link of the given ``burr.link.type``."""
    return Link(context, {semconv.LINK_TYPE: kind})


def links(*targets: tuple[SpanContext | None, str]) -> list[Link]:
    """Links to those targets that are known, each target once."""
    found: dict[tuple[int, int], Link] = {}
    for context, kind in targets:
        if context is not None and context.is_valid:
            found.setdefault((context.trace_id, context.span_id), link(context, kind))
    return list(found.values())


def records_of(all_links: Iterable[Link]) -> list[dict[str, Any]]:
    """What the log keeps of links."""
    return [
        {**record_of(each.context), "type": (each.attributes or {}).get(semconv.LINK_TYPE)}
        for each in all_links
    ]
