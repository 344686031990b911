"""Crash completion: the spans that a killed process left open, sent once by another one.

A session's marker says that it is open and who owns it; its log says which ids and start times were
reserved. Whoever holds the marker, the next builder of the run or ``burr-otel recover``, sends the
spans, and takes it away once they have been taken. A process that dies in between leaves it to the
next one, which sends the same spans under the same ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from burr_otel import semconv
from burr_otel.spans import parents
from burr_otel.store import markers

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from burr_otel.spans.shared import Shared
    from burr_otel.store import Store
    from burr_otel.store.markers import OpenSession

__all__ = ["Recovered", "Send", "recover_run"]

Send = Callable[[Sequence["ReadableSpan"]], bool]
"""Sends spans; whether they were taken."""


class Recovered(NamedTuple):
    """What was completed for one crashed session.

    Attributes:
        session_id: The session.
        trace_id: Its trace as 32 hexadecimal digits, if it was ever traced.
        spans: Names of the spans that it left open.
        sent: Whether they were taken, by the provider or by `send`; if not, the session stays as
            it was, for the next one that looks.
    """

    session_id: str
    trace_id: str | None
    spans: tuple[str, ...]
    sent: bool


def recover_run(
    shared: Shared, store: Store, app_id: str, now_ns: int, send: Send | None = None
) -> list[Recovered]:
    """Send what crashed sessions of a run left open.

    Args:
        shared: Settings, and the tracer to send with.
        store: Where the run is.
        app_id: The run.
        now_ns: Unix time.
        send: Sends the spans in place of the tracer.

    Returns:
        One item for each session that this call took on; sessions whose owner lives and those
        that another process completes are not among them.

    Raises:
        OSError: A marker cannot be locked, or the run's files cannot be written.
    """
    folder = store.run_path(app_id)
    done = []
    for session in markers.left_open(
        folder, now_ns=now_ns, recover_after_s=shared.config.recover_after
    ):
        spans = () if session.completed else _left_open(shared, store, app_id, session)
        if session.completed or (session.root_ended and not spans):
            markers.remove(folder, session.session_id)
            continue
        sent = send(spans) if send is not None else _emit(shared, spans)
        if sent:
            markers.end_crashed(folder, session)
            markers.remove(folder, session.session_id)
        names = tuple(span.name for span in spans)
        done.append(Recovered(session.session_id, session.root.get("trace_id"), names, sent))
    return done


def _emit(shared: Shared, spans: Sequence[ReadableSpan]) -> bool:
    from burr_otel.spans.reserved import emit  # noqa: PLC0415  # see `_left_open`

    return all(emit(shared.tracer, span) for span in spans)


def _left_open(
    shared: Shared, store: Store, app_id: str, session: OpenSession
) -> Sequence[ReadableSpan]:
    """The open spans of a session; none when the session was not traced."""
    # Few processes find a crashed session, and each would import all of replay to look for one.
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415

    from burr_otel.replay.build import SpanBuilder  # noqa: PLC0415
    from burr_otel.replay.graphs import Graphs  # noqa: PLC0415
    from burr_otel.replay.parts import Origin  # noqa: PLC0415

    root = parents.context_of(session.root)
    if root is None or not root.trace_flags.sampled:
        return ()
    origin = Origin(
        project=store.project,
        app_id=app_id,
        partition_key=session.partition_key,
        fork=None,
        spawner=None,
        graph=Graphs(store.run_path(app_id), None),
        resource=getattr(shared.tracer, "resource", None) or Resource.get_empty(),
    )
    openinference = shared.config.openinference_content
    builder = SpanBuilder(origin, shared.policy, openinference=openinference)
    builder.add(session.root_record)
    if session.root_ended:
        builder.add(markers.end_record(session, time_ns=session.root["time_unix_nano"]))
    if session.facts is not None:
        builder.learn(session.session_id, *session.facts)
    for record in session.records:
        builder.add(record)
    return builder.add(markers.end_record(session, outcome=semconv.CRASHED))
