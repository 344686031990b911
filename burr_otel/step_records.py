"""What is written of a step and of the spans inside of it: spans and records, kept in step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from burr_otel.spans import exceptions
from burr_otel.spans.inner import InnerSpan, target
from burr_otel.store import encode_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from burr_otel.spans.shared import Shared
    from burr_otel.spans.steps import Step
    from burr_otel.store import EncodedState, Session

__all__ = ["Ended", "begin_inner", "encode", "end_inner", "end_step", "log_attributes"]


class Ended(NamedTuple):
    """How a step ended.

    Attributes:
        result: What it returned.
        error: What it ended with, if not well.
        state: The state after it; `None` when there is none to keep.
        written: The part of that which the action writes, see `recorded.Bases`.
        end_ns: Unix time.
        outcome: See `outcome_of`.
    """

    result: Mapping[str, Any] | None
    error: BaseException | None
    state: EncodedState | None
    written: bytes | None
    end_ns: int
    outcome: str


def encode(
    shared: Shared, session: Session, step: Step, state: Any
) -> tuple[EncodedState, bytes | None]:
    """The state after a step, and the part of it that the action writes.

    Raises:
        SnapshotError: A value cannot be written.
    """
    encoded = encode_state(
        state,
        serde_kwargs=shared.serde_kwargs,
        run=session.run,
        sequence_id=step.sequence_id,
    )
    compared = step.compares_state(len(encoded.json))
    return encoded, encoded.part(step.action.writes) if compared else None


def end_step(shared: Shared, session: Session, step: Step, ended: Ended) -> None:
    """Write the records of a step's end.

    Raises:
        SnapshotError: The state is not in the log.
    """
    result, error, state, written, end_ns, outcome = ended
    if step.streaming:
        session.end_stream(sequence_id=step.sequence_id, items=step.items, time_ns=end_ns)
    exception = None if error is None else exceptions.formatted(error)
    if state is None:
        session.settle_step(
            sequence_id=step.sequence_id,
            action=step.action.name,
            exception=exception,
            time_ns=end_ns,
            otel=step.end_record(end_ns, outcome, {}),
        )
        return
    size_bytes = session.end_step(
        sequence_id=step.sequence_id,
        action=step.action.name,
        result=result,
        exception=exception,
        state=state,
        time_ns=end_ns,
        otel=lambda returned: step.end_record(
            end_ns, outcome, step.bases(result, returned, error, written)
        ),
    )
    shared.metrics.snapshot(size_bytes)


def begin_inner(
    shared: Shared,
    session: Session | None,
    step: Step,
    burr_span: Any,
    dependencies: Sequence[str],
    outer_error: BaseException | None,
) -> None:
    """An inner span begins."""
    now = shared.clock()
    inner = InnerSpan(step, burr_span, dependencies, now, outer_error)
    if session is None:
        return
    if shared.recorder is not None:
        shared.recorder.watch(inner.open_span.span, session, step.sequence_id, burr_span.uid)
    session.begin_span(
        sequence_id=step.sequence_id,
        span_id=burr_span.uid,
        name=burr_span.name,
        parent_span_id=burr_span.parent.uid if burr_span.parent else None,
        dependencies=dependencies,
        time_ns=now,
        otel=inner.record,
    )


def end_inner(
    shared: Shared,
    session: Session | None,
    step: Step,
    burr_span: Any,
    in_flight: BaseException | None,
) -> None:
    """An inner span has ended."""
    inner = step.inner.get(id(burr_span))
    if inner is None:
        return
    now = shared.clock()
    if shared.recorder is not None:
        shared.recorder.unwatch(inner.open_span.span)
    outcome = inner.end(now, in_flight)
    if session is not None:
        session.end_span(
            sequence_id=step.sequence_id,
            span_id=burr_span.uid,
            time_ns=now,
            otel=inner.end_record(now, outcome),
        )


def log_attributes(
    shared: Shared,
    session: Session | None,
    step: Step | None,
    attributes: Mapping[str, Any],
    burr_span: Any,
    sequence_id: int,
    tags: Mapping[str, Any],
) -> None:
    """The action logs attributes on its step or on an inner span.

    Without the step, which is over then, they only go into the log.
    """
    policy = shared.policy
    open_span = None if step is None else target(step, burr_span)
    if open_span is not None:
        for key, value in attributes.items():
            open_span.put(policy.name(key), policy.attribute(key, value))
    if session is None:
        return
    now = shared.clock()
    for key, value in attributes.items():
        written = session.attribute(
            key=key,
            value=value,
            tags=tags,
            sequence_id=sequence_id,
            span_id=None if burr_span is None else burr_span.uid,
            time_ns=now,
        )
        if open_span is not None:
            open_span.note_logged(key, value, written)
