"""Spans of others inside a step (LLM, HTTP, SQL), written into the run's log as Burr span records.

A span processor sees every span of the provider; those whose parent is a step, an inner span or a
span recorded before are of interest. Its parent's id tells, so that it does not matter in which
thread or context a span is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from burr_otel import semconv
from burr_otel.spans import parents, shield
from burr_otel.spans.by_identity import ByIdentity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

__all__ = ["ChildRecorder", "recorder_of"]


class Records(Protocol):
    """Where records go: a session of the store."""

    def begin_span(
        self,
        *,
        sequence_id: int,
        span_id: str,
        name: str,
        parent_span_id: str | None,
        dependencies: Sequence[str],
        time_ns: int,
        otel: Any,
    ) -> None:
        """Write a begin record."""

    def end_span(self, *, sequence_id: int, span_id: str, time_ns: int, otel: Any) -> None:
        """Write an end record."""

    def attribute(
        self,
        *,
        key: str,
        value: Any,
        tags: Any,
        sequence_id: int,
        span_id: str | None,
        time_ns: int,
    ) -> object:
        """Write an attribute record."""


class _Place(NamedTuple):
    """Where in a run a span is.

    Attributes:
        uid: Burr's id of the span, `None` for the step itself.
    """

    records: Records
    sequence_id: int
    uid: str | None


class ChildRecorder(SpanProcessor):
    """Records the descendants of the spans that it was told of."""

    def __init__(self) -> None:
        self._places: dict[int, _Place] = {}

    def watch(self, span: trace.Span, records: Records, sequence_id: int, uid: str | None) -> None:
        """Record what is made inside `span` until `unwatch`."""
        if span.is_recording():
            place = _Place(records, sequence_id, uid)
            self._places[span.get_span_context().span_id] = place

    def unwatch(self, span: trace.Span) -> None:
        """Record nothing more that begins inside `span`; what has begun is recorded to its end."""
        self._places.pop(span.get_span_context().span_id, None)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002  # the SDK names it
        """Write the begin record of a span inside a watched one."""
        place = None if span.parent is None else self._places.get(span.parent.span_id)
        if place is None or _is_ours(span):
            return
        try:
            # The Burr UI takes the depth of a span from the dots in its id.
            number = f"{span.context.span_id:016x}"
            uid = f"{place.uid}.{number}" if place.uid else f"{place.sequence_id}:{number}"
            self._places[span.context.span_id] = place._replace(uid=uid)
            place.records.begin_span(
                sequence_id=place.sequence_id,
                span_id=uid,
                name=span.name,
                parent_span_id=place.uid,
                dependencies=(),
                time_ns=span.start_time or 0,
                otel=_origin(span),
            )
        except Exception as error:
            shield.report("recording a span inside a step", error)

    def on_end(self, span: ReadableSpan) -> None:
        """Write the attributes and the end record of a span that `on_start` has recorded."""
        if _is_ours(span):
            return
        place = self._places.pop(span.context.span_id, None)
        if place is None or place.uid is None:
            return
        end_ns = span.end_time or 0
        try:
            for key, value in (span.attributes or {}).items():
                place.records.attribute(
                    key=key,
                    value=list(value) if isinstance(value, tuple) else value,
                    tags={},
                    sequence_id=place.sequence_id,
                    span_id=place.uid,
                    time_ns=end_ns,
                )
            failed = not span.status.is_ok and not span.status.is_unset
            place.records.end_span(
                sequence_id=place.sequence_id,
                span_id=place.uid,
                time_ns=end_ns,
                otel={
                    **parents.record_of(span.context),
                    "time_unix_nano": end_ns,
                    "outcome": semconv.ERROR if failed else semconv.OK,
                },
            )
        except Exception as error:
            shield.report("recording a span inside a step", error)


def _is_ours(span: ReadableSpan) -> bool:
    scope = span.instrumentation_scope
    return scope is not None and scope.name == semconv.SCOPE_NAME


def _origin(span: ReadableSpan) -> dict[str, Any]:
    scope = span.instrumentation_scope
    return {
        **parents.origin_record(span.context, span.parent, ()),
        "time_unix_nano": span.start_time,
        "kind": span.kind.name,
        "scope": scope.name if scope is not None else None,
    }


def _added_to(provider: Any) -> ChildRecorder:
    recorder = ChildRecorder()
    if isinstance(provider, TracerProvider):
        # Not the method of a subclass: Phoenix's replaces the exporter that is there.
        TracerProvider.add_span_processor(provider, recorder)
    else:
        provider.add_span_processor(recorder)
    return recorder


_recorders = ByIdentity(_added_to)


def recorder_of(provider: Any) -> ChildRecorder | None:
    """The one recorder of a provider, added to it on the first call.

    Returns:
        `None` for a provider that makes no spans.
    """
    return _recorders[provider] if hasattr(provider, "add_span_processor") else None
