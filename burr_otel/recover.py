"""Crash completion: the spans that a killed process left behind, sent by another one.

A session's marker says that it is open and who owns it; its log says which ids and start times were
reserved. Whoever holds the marker, the next builder of the run or ``burr-otel recover``, sends the
open spans and, since they may never have been sent, the newest finished ones again, and takes the
marker away once they have been taken. A process that dies in between leaves it to the next one,
which sends the same spans under the same ids.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan

from burr_otel import semconv
from burr_otel.content import ContentPolicy
from burr_otel.records import EndRoot
from burr_otel.records.read import read_ids
from burr_otel.spans.start import SpanStarter
from burr_otel.store import Store, StoredRun
from burr_otel.store.port import Partition

Send = Callable[[Sequence[ReadableSpan]], bool]
"""Sends spans; whether they were taken."""

_MOST_FINISHED: Final = 2_048  # as many as the SDK's span processor holds unsent
_SAMPLED: Final = 1


class Recovered(NamedTuple):
    """What was completed for one crashed session.

    Attributes:
        session_id: The session.
        trace_id: Its trace as 32 hexadecimal digits, if it was ever traced.
        spans: Names of the spans that it left open.
        sent: Whether they were taken, by the provider or by `send`; if not, the session stays as
            it was, for the next one that looks.
        again: How many spans were sent that had ended, and may never have been sent.
    """

    session_id: str
    trace_id: str | None
    spans: tuple[str, ...]
    sent: bool
    again: int = 0


def recover_run(
    store: Store,
    app_id: str,
    partition_key: Partition,
    dead_before_ns: int,
    policy: ContentPolicy,
    starter: SpanStarter | None,
    send: Send | None = None,
) -> list[Recovered]:
    """Send what crashed sessions of a run left behind, with `send` or else by the starter.

    Sessions whose owner lives and those that another process completes are passed over.

    Raises:
        OSError: A marker cannot be held, or the run's files cannot be written.
    """
    done: list[Recovered] = []
    if not store.exists(app_id, partition_key):
        return done
    run = store.read(app_id, partition_key)
    for session in run.left_open(dead_before_ns):
        root, last_ns = read_ids(session.root), session.last_ns
        left: list[ReadableSpan] = []
        ended: deque[ReadableSpan] = deque(maxlen=_MOST_FINISHED)
        if root is not None and root.flags & _SAMPLED and not session.completed:
            for is_open, span, time_ns in _spans(store, run, session.session_id, policy, starter):
                (left if is_open else ended).append(span)
                last_ns = time_ns or session.last_ns
        if session.completed or (session.root.get("ended") is True and not left):
            session.end()
            continue
        spans = (*ended, *left)
        if send is not None:
            sent = send(spans)
        else:  # to the tracer's processors, as if the spans began and ended now
            sent = starter is not None and all(starter.send(span) for span in spans)
        if sent:
            session.end(EndRoot(last_ns, semconv.CRASHED, root))
        trace_id = None if root is None else f"{root.trace_id:032x}"
        names = tuple(span.name for span in left)
        done.append(Recovered(session.session_id, trace_id, names, sent, len(ended)))
    return done


def _spans(
    store: Store,
    run: StoredRun,
    session_id: str,
    policy: ContentPolicy,
    starter: SpanStarter | None,
) -> Iterator[tuple[bool, ReadableSpan, int]]:
    """The spans of a session: whether it was left open, the span, the session's newest time."""
    # Few processes find a crashed session, and each would import all of replay to look for one.
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415

    from burr_otel.history.tree import session_of  # noqa: PLC0415
    from burr_otel.replay.read import Relatives, RunSpans  # noqa: PLC0415

    source = getattr(starter, "source", None)
    spans = RunSpans(
        run,
        policy=policy,
        relatives=Relatives(store),
        alive=lambda _fields, _last_ns: False,
        resource=getattr(source, "resource", None) or Resource.get_empty(),
    )
    for node, span in spans.nodes():
        if node.session == session_id:
            yield node.closed_ns is not None, span, session_of(node).last_record_ns
