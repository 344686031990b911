"""What has begun -> spans that have ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, Status, StatusCode

from burr_otel import semconv
from burr_otel.replay.content import Sayings, failure_of
from burr_otel.spans import parents, recorded
from burr_otel.spans.portable import UNKNOWN, native

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.trace import Event
    from opentelemetry.trace import Link
    from opentelemetry.util.types import AttributeValue

    from burr_otel.content import ContentPolicy
    from burr_otel.replay.parts import Opened, OpenStep, Session

__all__ = ["DIED", "exact_span", "left_open", "made_inner", "made_root", "made_step"]

DIED: Final = "the process ended before this did"


def exact_span(
    session: Session,
    opened: Opened,
    otel: Mapping[str, Any],
    end_ns: int,
    said: Mapping[str, AttributeValue],
    bases: recorded.Bases | None = None,
) -> ReadableSpan:
    """A span as its records say that it was.

    Args:
        session: Whose it is.
        opened: Its begin.
        otel: The `otel` object of its end record.
        end_ns: Unix time of that record.
        said: Attributes that follow from that record.
        bases: Content that it holds.

    Raises:
        ValueError: The record is damaged, or of a later version.
    """
    logged = {key: native(value) for key, value in opened.logged}
    logged = {key: value for key, value in logged.items() if value is not UNKNOWN}
    known = {**opened.attributes, **logged, **said}
    return _span(
        session,
        opened,
        recorded.read_attributes(known, otel, bases or {}),
        otel.get("end_unix_nano") or end_ns,
        name=recorded.read_name(otel, opened.name),
        links=parents.recorded_links(otel) if "links" in otel else opened.links,
        events=recorded.read_events(otel),
        status=recorded.read_status(otel),
    )


def made_step(
    session: Session,
    step: OpenStep,
    record: Mapping[str, Any],
    outcome: str,
    end_ns: int,
    policy: ContentPolicy,
    *,
    openinference: bool,
) -> ReadableSpan:
    """A step's span from its end record alone.

    Args:
        session: Whose it is.
        step: Its begin.
        record: Its end.
        outcome: How it ended.
        end_ns: Unix time of its end.
        policy: What is told.
        openinference: Whether ``output.value`` is wanted too.
    """
    said = Sayings(policy, step.attributes)
    said.logged(step.logged)
    state = record.get("state") if outcome == semconv.OK else None
    said.output(record.get("result"), state, step.writes, openinference=openinference)
    failure, status = None, None
    if outcome == semconv.ERROR:
        failure = failure_of(record.get("exception"), end_ns, policy)
    if failure is not None:
        said.attributes.update(failure.attributes)
        step.events.append(failure.event)
        status = failure.status
    said.attributes[semconv.OUTCOME] = outcome
    return _made(session, step, said.done(step.identity), end_ns, status)


def made_root(session: Session, outcome: str, end_ns: int, error: str | None) -> ReadableSpan:
    """An application span of which no record says how it ended.

    Args:
        session: Whose it is.
        outcome: How it ended.
        end_ns: Unix time of its end.
        error: Why, when that was an error or a crash.
    """
    attributes = dict(session.root.attributes)
    if outcome != semconv.CRASHED or session.record is None:  # else nobody knows them all
        attributes |= {semconv.STEPS: session.done, semconv.STEPS_FAILED: session.failed}
    attributes[semconv.OUTCOME] = outcome
    failed = outcome in (semconv.ERROR, semconv.CRASHED)
    status = Status(StatusCode.ERROR, error) if failed else None
    return _made(session, session.root, attributes, end_ns, status)


def left_open(
    session: Session,
    opened: Opened,
    identity: Mapping[str, AttributeValue],
    outcome: str,
    end_ns: int,
    policy: ContentPolicy,
) -> ReadableSpan:
    """The span of a step, or of a span in one, of which the end was never recorded.

    Args:
        session: Whose it is.
        opened: Its begin.
        identity: Attributes that go last.
        outcome: ``crashed`` or ``abandoned``.
        end_ns: Unix time that it is said to have ended.
        policy: What is told of attributes that were logged on it.
    """
    said = Sayings(policy, opened.attributes)
    said.logged(opened.logged)
    said.attributes[semconv.OUTCOME] = outcome
    status = Status(StatusCode.ERROR, DIED) if outcome == semconv.CRASHED else None
    return _made(session, opened, said.done(identity), end_ns, status)


def made_inner(
    session: Session, step: OpenStep, inner: Opened, end_ns: int, policy: ContentPolicy
) -> ReadableSpan:
    """The span inside a step of which no record says what it said."""
    said = Sayings(policy, inner.attributes)
    said.logged(inner.logged)
    return _made(session, inner, said.done(step.identity), end_ns, None)


def _made(
    session: Session,
    opened: Opened,
    attributes: dict[str, AttributeValue],
    end_ns: int,
    status: Status | None,
) -> ReadableSpan:
    return _span(
        session,
        opened,
        attributes,
        end_ns,
        name=opened.name,
        links=opened.links,
        events=opened.events,
        status=status or Status(StatusCode.UNSET),
    )


def _span(
    session: Session,
    opened: Opened,
    attributes: dict[str, AttributeValue],
    end_ns: int,
    *,
    name: str,
    links: Sequence[Link],
    events: Sequence[Event],
    status: Status,
) -> ReadableSpan:
    return ReadableSpan(
        name=name,
        context=opened.context,
        parent=opened.parent,
        resource=session.resource,
        attributes=attributes,
        events=tuple(events),
        links=tuple(links),
        kind=SpanKind.INTERNAL,
        status=status,
        start_time=opened.start_ns,
        end_time=recorded.soonest_end(opened.start_ns, end_ns),
        instrumentation_scope=session.scope,
    )
