"""A Burr span's place in OpenTelemetry's contexts: what is current, who is whose parent, links.

Tokens are not used. Hooks of others attach and detach between ours, in any order, or never; a
generator goes on in another `contextvars.Context`, where a token cannot be reset; and with
Datadog's API `detach` does nothing. So each context that we attach knows its scope, a scope knows
what was current before it, and leaving one attaches that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context
from opentelemetry.trace import Link, SpanContext, TraceFlags, TraceState

from burr_otel import semconv
from burr_otel.records import LinkIds, Origin, SpanIds, Usage
from burr_otel.spans.facts import RunFacts, from_portable, portable

_SCOPE_KEY: Final = otel_context.create_key("burr_otel.scope")
# A context is a dict; one copy with both entries costs half of `set_value` twice.
(SPAN_KEY,) = trace.set_span_in_context(trace.INVALID_SPAN, Context())
_NO_STATE = trace.INVALID_SPAN_CONTEXT.trace_state  # of nearly all; others are asked, by calls


# --- span contexts and links, as OpenTelemetry and as records have them ---------------------------


def ids_of(context: SpanContext | None) -> SpanIds | None:
    """What a record keeps of a span context; None for one that is not valid."""
    if context is None:
        return None
    trace_id, span_id, is_remote, flags, state, valid = context  # a tuple; properties cost a call
    if not valid:
        return None
    header = "" if state is _NO_STATE or not state else state.to_header()
    return SpanIds(trace_id, span_id, int(flags), header, is_remote)


def context_of(ids: SpanIds | None) -> SpanContext | None:
    """The span context that a record kept."""
    if ids is None:
        return None
    state = TraceState.from_header([ids.trace_state]) if ids.trace_state else None
    return SpanContext(ids.trace_id, ids.span_id, ids.is_remote, TraceFlags(ids.flags), state)


def current_span_context(context: Context | None = None) -> SpanContext | None:
    """Span context of the span that is current; None without one."""
    # MLflow leaves a span without one where it could not begin its own.
    found: Any = trace.get_current_span(context).get_span_context()
    return found if found is not None and found.is_valid else None


def suppressed() -> bool:
    """Whether instrumentation is suppressed here, as OpenTelemetry's instrumentations ask it."""
    return bool(otel_context.get_value(_SUPPRESS_INSTRUMENTATION_KEY))


def links_to(*targets: tuple[SpanIds | None, str]) -> Sequence[LinkIds]:
    """Links to those targets that are known, each target once, with their ``burr.link.type``."""
    found: dict[tuple[int, int], LinkIds] = {}
    for ids, kind in targets:
        if ids is not None:
            found.setdefault((ids.trace_id, ids.span_id), LinkIds(ids, kind))
    return tuple(found.values())


def link_ids(links: Iterable[Link]) -> list[LinkIds]:
    """What a record keeps of links that other code made."""
    found = ((ids_of(each.context), portable(each.attributes or {})) for each in links)
    return [LinkIds(target, None, attributes) for target, attributes in found if target]


def link_of(kept: LinkIds) -> Link:
    """The link that a record kept."""
    context = context_of(kept.target) or trace.INVALID_SPAN_CONTEXT
    if kept.attributes is not None:
        return Link(context, from_portable(kept.attributes))
    return Link(context, {semconv.LINK_TYPE: str(kept.kind)})


def origin_of(
    context: SpanContext, parent: SpanIds | None, links: Sequence[LinkIds]
) -> Origin | None:
    """What a record keeps of where a span stands; None for a span that is not valid."""
    ids = ids_of(context)
    return None if ids is None else Origin(ids, parent, links)


# --- what is current ------------------------------------------------------------------------------


class BurrStep:
    """The step in progress that a span is inside of, as spans of others are told of it."""

    context: SpanContext = trace.INVALID_SPAN_CONTEXT
    failed: str | None = None  # why, although it raised nothing
    child_records: Any = None  # the session in which spans of others are recorded, if they are
    log_events: int | None = None  # the level from which on its log lines are events
    log_lines = 0
    sends_baggage = False

    def __init__(self, run: RunFacts, sequence_id: int) -> None:
        self.run, self.sequence_id = run, sequence_id

    def add_usage(self, input_tokens: int, output_tokens: int) -> None:
        """Count one call of a model, from any thread."""
        # Neither call lets another thread in between, so that no lock is needed.
        self.__dict__.setdefault("_calls", []).append((input_tokens, output_tokens))

    @property
    def usage(self) -> Usage | None:
        """What the models inside took and gave."""
        calls: list[tuple[int, int]] = self.__dict__.get("_calls", [])
        if not calls:
            return None
        return Usage(sum(taken for taken, _ in calls), sum(given for _, given in calls), len(calls))


def context_under(parent: trace.Span | None, outer: Context) -> Context:
    """`outer` with another span as the current one, or with none."""
    return Context({**outer, SPAN_KEY: parent or trace.INVALID_SPAN})


def innermost_scope(context: Context | None = None) -> Scope | None:
    """The Burr scope that a context is inside of, at any depth; the current one by default."""
    found = otel_context.get_current() if context is None else context
    scope: Any = found.get(_SCOPE_KEY)
    return scope  # type: ignore[no-any-return]


def current_context() -> Context:
    """The current context, without spans of scopes that were left open and have ended since."""
    current = otel_context.get_current()
    if _SCOPE_KEY not in current:
        return current
    alive = _alive(current)
    if alive is not current:
        otel_context.attach(alive)
    return alive


def _alive(context: Context) -> Context:
    """`context`, or what was current around it if its innermost span is of an ended scope."""
    while True:
        scope: Any = context.get(_SCOPE_KEY)
        if scope is None or not scope.left:
            return context
        inside = trace.get_current_span(context)
        if inside is not scope.current and scope.context.is_valid:
            return context  # something of others is inside, in a task that outlives the step
        context = scope.outer


class Scope:
    """A span that can be made current: a step's, or one inside of it.

    `outer` is what was current before, and `parent` the scope that this one is inside of.
    """

    current: trace.Span
    context: SpanContext
    tag: BurrStep
    outer: Context
    parent: Scope | None = None
    left = False
    _inside: Context | None = None

    def encloses(self, other: Scope | None) -> bool:
        """Whether `other` is this scope or inside it."""
        while other is not None:
            if other is self:
                return True
            other = other.parent
        return False

    def enter(self, outer: Context) -> None:
        """Make the span current, inside `outer`, until `leave`."""
        *_, valid = self.context
        entries = {SPAN_KEY: self.current, _SCOPE_KEY: self} if valid else {_SCOPE_KEY: self}
        context, tag = Context({**outer, **entries}), self.tag
        if tag.sends_baggage and self.parent is None:
            for name in (semconv.GEN_AI_CONVERSATION_ID, semconv.GEN_AI_AGENT_NAME):
                context = baggage.set_baggage(name, tag.run.identity[name], context)
        otel_context.attach(context)

    def pause(self) -> None:
        """Make current what was current before, until `resume`."""
        current = otel_context.get_current()
        inside: Any = current.get(_SCOPE_KEY)
        # Datadog's contexts hold a span, and no entry of others.
        if inside is self or (
            self._is_current(current) if inside is None else self.encloses(inside)
        ):
            outer = self.outer
            otel_context.attach(_alive(outer) if _SCOPE_KEY in outer else outer)

    def _is_current(self, context: Context) -> bool:
        ids, own = current_span_context(context), self.context
        return ids is not None and (ids.trace_id, ids.span_id) == (own.trace_id, own.span_id)

    def leave(self) -> None:
        """Make current what was current before, wherever that can be done; idempotent."""
        # What an action attached and never detached goes too. Another scope of ours that is
        # current (a second tracker's) finds this one left when it is left itself.
        self.left = True
        self.pause()

    # --- generators ---------------------------------------------------------------------------

    def resume(self) -> Context:
        """Make current what was when the step's generator was suspended; what is current now."""
        consumer = otel_context.get_current()
        if self._inside is None:
            self.left = False
            self.enter(consumer)
        else:
            otel_context.attach(self._inside)
        return consumer

    def suspend(self, consumer: Context) -> None:
        """The generator yields: its consumer's context is current again."""
        self._inside = otel_context.get_current()
        otel_context.attach(consumer)
