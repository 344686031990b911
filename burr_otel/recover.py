"""Crash completion: the spans that a killed process left open, sent once by another one.

A session's marker says that it is open and who owns it; its log says which ids and start times were
reserved. Whoever takes the marker away, the next builder of the run or ``burr-otel recover``, sends
the spans. Taking comes first, so a process that dies in between loses spans and sends none twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from burr_otel import semconv
from burr_otel.spans import parents
from burr_otel.spans.reserved import emit
from burr_otel.spans.shared import identity, root_attributes, root_name
from burr_otel.store import markers

if TYPE_CHECKING:
    from burr_otel.spans.shared import Shared
    from burr_otel.store import Store
    from burr_otel.store.markers import OpenSession

__all__ = ["Recovered", "recover_run"]

_DIED = "the process ended before this did"


class Recovered(NamedTuple):
    """What was completed for one crashed session.

    Attributes:
        session_id: The session.
        trace_id: Its trace as 32 hexadecimal digits, if it was ever traced.
        spans: Names of the spans that were sent.
    """

    session_id: str
    trace_id: str | None
    spans: tuple[str, ...]


def recover_run(shared: Shared, store: Store, app_id: str, now_ns: int) -> list[Recovered]:
    """Send what crashed sessions of a run left open.

    Args:
        shared: Settings, and the tracer to send with.
        store: Where the run is.
        app_id: The run.
        now_ns: Unix time.

    Returns:
        One item for each session that this call completed; sessions whose owner lives and those
        that another process completes are not among them.
    """
    folder = store.run_path(app_id)
    done = []
    for session in markers.left_open(
        folder, now_ns=now_ns, recover_after_s=shared.config.recover_after
    ):
        if markers.claim(folder, session.session_id):
            names = _send(shared, app_id, session)
            markers.end_crashed(folder, session)
            done.append(Recovered(session.session_id, session.root.get("trace_id"), tuple(names)))
    return done


def _send(shared: Shared, app_id: str, session: OpenSession) -> list[str]:
    sent = []
    partition_key = session.partition_key
    common: dict[str, Any] = {semconv.OUTCOME: semconv.CRASHED}
    own = identity(shared.project, app_id, partition_key)
    root = parents.context_of(session.root)
    step = session.step
    if step is not None:
        context = parents.context_of(step["otel"])
        name = shared.policy.name(step["action"])
        attributes = {
            semconv.ACTION_NAME: step["action"],
            semconv.GRAPH_NODE_ID: step["action"],
            semconv.OPENINFERENCE_SPAN_KIND: "CHAIN",
            **common,
            semconv.SEQUENCE_ID: step["sequence_id"],
            **own,
        }
        inputs = shared.policy.document("inputs", step.get("inputs") or {})
        if inputs is not None:
            attributes[semconv.INPUTS] = inputs.value
        if context is not None and emit(
            shared.tracer,
            name,
            context,
            parent=parents.recorded_parent(step["otel"]),
            links=parents.recorded_links(step["otel"]),
            attributes=attributes,
            start_ns=markers.time_of(step),
            end_ns=session.last_ns,
            error=_DIED,
        ):
            sent.append(name)
    if root is not None and emit(
        shared.tracer,
        root_name(shared.project),
        root,
        parent=parents.recorded_parent(session.root),
        links=parents.recorded_links(session.root),
        attributes={**root_attributes(shared.project, app_id, partition_key), **common},
        start_ns=int(session.root.get("time_unix_nano", session.last_ns)),
        end_ns=session.last_ns,
        error=_DIED,
    ):
        sent.append(root_name(shared.project))
    return sent
