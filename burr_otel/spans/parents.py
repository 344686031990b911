"""Who is whose parent, and what links to what: pure functions over span contexts and records."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import orjson
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.trace import Link, SpanContext, TraceFlags, TraceState

from burr_otel import semconv
from burr_otel.semconv import LINK_TYPE
from burr_otel.spans.portable import from_portable, portable
from burr_otel.spans.scope import innermost_scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "ambient",
    "context_in",
    "context_of",
    "id_members",
    "ids_of",
    "link",
    "link_records",
    "links",
    "origin_members",
    "origin_record",
    "record_of",
    "recorded_links",
    "recorded_parent",
    "recorded_spawner",
    "root_parent",
    "span_text",
    "spawner_record",
    "step_parent",
    "suppressed",
]


_IDS = ("trace_id", "span_id", "flags", "trace_state")
_NO_STATE = trace.INVALID_SPAN_CONTEXT.trace_state
_trace_text = functools.lru_cache(256)(trace.format_trace_id)  # of a run's steps: the same
span_text = functools.lru_cache(256)(trace.format_span_id)


def record_of(context: SpanContext) -> dict[str, Any]:
    """What the log keeps of a span context; empty for an invalid one."""
    if not context.is_valid:
        return {}
    record: dict[str, Any] = {
        "trace_id": _trace_text(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
        "flags": int(context.trace_flags),
    }
    if context.trace_state:
        record["trace_state"] = context.trace_state.to_header()
    return record


def ids_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The members of `record_of` in a longer record."""
    return {key: record[key] for key in _IDS if key in record}


def id_members(context: SpanContext) -> bytes:
    """The JSON members of `record_of`, without braces."""
    trace_id, span_id, _, flags, state, valid = context  # a tuple; its properties cost a call each
    if not valid or (state is not _NO_STATE and len(state)):
        return orjson.dumps(record_of(context))[1:-1]
    return b'"trace_id":"%032x","span_id":"%016x","flags":%d' % (trace_id, span_id, flags)


def context_of(record: Mapping[str, Any] | None, *, is_remote: bool = True) -> SpanContext | None:
    """The span context that `record_of` kept, or `None` when the record has none that is valid.

    Args:
        record: The record.
        is_remote: Whether it is now that of another process.
    """
    if not record:
        return None
    try:
        state = record.get("trace_state")
        context = SpanContext(
            trace_id=int(record["trace_id"], 16),
            span_id=int(record["span_id"], 16),
            is_remote=is_remote,
            trace_flags=TraceFlags(int(record.get("flags", 1))),
            trace_state=TraceState.from_header([state]) if state else None,
        )
    except (KeyError, TypeError, ValueError):
        return None
    return context if context.is_valid else None


def ambient() -> SpanContext | None:
    """The span context current here, or `None`."""
    return context_in(trace.get_current_span())


def context_in(span: trace.Span) -> SpanContext | None:
    """A span's context, or `None` for one that is not valid."""
    context = span.get_span_context()
    return context if context.is_valid else None


def spawner_record() -> dict[str, Any]:
    """The step in progress here, else the current span, as a sub-application's tracker keeps it."""
    scope = innermost_scope()
    step = None if scope is None else scope.outermost()
    if step is None or step.step is None:
        return record_of(trace.get_current_span().get_span_context())
    app_id, sequence_id = step.step
    record = record_of(step.span.get_span_context())
    return {**record, "app_id": app_id, "sequence_id": sequence_id}


def recorded_spawner(
    record: Mapping[str, Any], app_id: str, sequence_id: int | None
) -> SpanContext | None:
    """The step that `spawner_record` kept, if it is the one asked for."""
    if (record.get("app_id"), record.get("sequence_id")) != (app_id, sequence_id):
        return None
    return context_of(record)


def suppressed() -> bool:
    """Whether instrumentation is suppressed here, as OpenTelemetry's instrumentations ask it."""
    return bool(otel_context.get_value(_SUPPRESS_INSTRUMENTATION_KEY))


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


def origin_record(
    context: SpanContext, parent: SpanContext | None, all_links: Iterable[Link]
) -> dict[str, Any]:
    """What the log keeps of a span's ids, parent and links, so that it can be sent later."""
    record = record_of(context)
    if record and parent is not None and parent.is_valid:
        record["parent_span_id"] = span_text(parent.span_id)
        if parent.is_remote:
            record["parent_is_remote"] = True
    if kept := link_records(all_links):
        record["links"] = kept
    return record


def origin_members(ids: bytes, parent: SpanContext, all_links: Sequence[Link]) -> bytes:
    """The JSON members of `origin_record`, without braces.

    Args:
        ids: What `id_members` gives of the span; not empty.
        parent: Its parent, which is valid.
        all_links: Its links.
    """
    _, span_id, is_remote, _, _, _ = parent
    members = b'%b,"parent_span_id":"%016x"' % (ids, span_id)
    if is_remote:
        members += b',"parent_is_remote":true'
    if all_links:
        members += b',"links":%b' % orjson.dumps(link_records(all_links))
    return members


def link_records(all_links: Iterable[Link]) -> list[dict[str, Any]]:
    """What the log keeps of links."""
    records = []
    for each in all_links:
        record = record_of(each.context)
        if each.context.is_remote:
            record["is_remote"] = True
        attributes = dict(each.attributes or {})
        kind = attributes.pop(LINK_TYPE, None)
        if attributes or not isinstance(kind, str):
            record["attributes"] = portable(dict(each.attributes or {}))
        else:
            record["type"] = kind
        records.append(record)
    return records


def recorded_parent(record: Mapping[str, Any]) -> SpanContext | None:
    """The parent that `origin_record` kept."""
    parent = {**record, "span_id": record.get("parent_span_id")}
    return context_of(parent, is_remote=record.get("parent_is_remote") is True)


def recorded_links(record: Mapping[str, Any]) -> list[Link]:
    """The links that `origin_record` kept.

    Raises:
        ValueError: They are damaged.
    """
    found = []
    for each in record.get("links") or ():
        context = context_of(each, is_remote=each.get("is_remote") is True)
        if context is None:
            continue
        if "attributes" in each:
            found.append(Link(context, from_portable(each["attributes"])))
        else:
            found.append(link(context, str(each.get("type"))))
    return found
