"""Who is whose parent: pure functions over span contexts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from opentelemetry.trace import Link, SpanContext

from burr_otel import semconv
from burr_otel.spans.contexts import current_span_context, links_to
from burr_otel.spans.scope import innermost_scope


class Spawner(NamedTuple):
    """The step in progress where a tracker was copied, for the sub-application's process.

    `digests` are checksums of the state that the step found, see `live.initial`.
    """

    context: SpanContext | None = None
    pointer: tuple[str, int] | None = None  # app id and sequence id
    conversation_id: str | None = None
    digests: Mapping[str, int | None] | None = None


def copied_spawner() -> Spawner:
    """The step in progress here, else the span that is current."""
    scope = innermost_scope()
    if scope is None:
        return Spawner(ambient())
    step, run = scope.tag, scope.tag.run
    context = step.context if step.context.is_valid else None
    pointer = str(run.identity[semconv.APP_ID]), step.sequence_id
    return Spawner(context, pointer, run.conversation_id)


def ambient() -> SpanContext | None:
    """The span context current here, or None."""
    return current_span_context()


def root_parent(
    current: SpanContext | None, spawning_step: SpanContext | None
) -> SpanContext | None:
    """Parent of an application span: what is current, unless it was spawned in another trace."""
    if spawning_step is None or (current and current.trace_id == spawning_step.trace_id):
        return current
    return spawning_step


def step_parent(
    policy: str, root: SpanContext, current: SpanContext | None
) -> tuple[SpanContext, list[Link]]:
    """Parent of a step, and its links to what else it belongs to; see `OtelConfig.step_parent`."""
    if current is None:
        return root, []
    if policy == "ambient":
        return current, links_to((root, semconv.LINK_APPLICATION))
    if current.trace_id == root.trace_id:
        return root, []
    return root, links_to((current, semconv.LINK_AMBIENT))
