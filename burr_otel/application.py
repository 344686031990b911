"""An application has been built: start its span, open its files, and make its `Run`."""

from __future__ import annotations

import functools
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry import trace

from burr_otel import recover, semconv
from burr_otel.errors import BurrOtelError, SnapshotError
from burr_otel.run import Run, registry
from burr_otel.spans import exceptions, parents, recorded, roots, shield
from burr_otel.spans.open_span import start_span
from burr_otel.spans.roots import Root
from burr_otel.spans.shared import graph_document, identity, root_attributes, root_name
from burr_otel.store import markers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import Span, SpanContext
    from opentelemetry.util.types import AttributeValue

    from burr_otel.spans.shared import Shared
    from burr_otel.store import RunHistory, Session, Store

__all__ = ["Built", "start_run"]


class Built(NamedTuple):
    """What Burr tells of an application that has been built.

    Attributes:
        fork: Burr's pointer to the step that it was forked from, if any.
        spawner: Burr's pointer to the step that spawned it, if any.
    """

    app_id: str
    partition_key: str | None
    state: Any
    graph: Any
    fork: Any
    spawner: Any


class _Started(NamedTuple):
    """An application span that has begun.

    Attributes:
        record: What the log keeps of it.
        graph_says: What it says of the graph.
        links: How many links it has.
    """

    span: Span
    record: dict[str, Any]
    graph_says: Mapping[str, AttributeValue]
    links: int


_NOT_STARTED = _Started(trace.INVALID_SPAN, {}, {}, 0)


def start_run(shared: Shared, store: Store, built: Built, copied_in: Mapping[str, Any]) -> Run:
    """Start the application span and open the run's files.

    Args:
        shared: The tracker's settings and tools.
        store: Its store.
        built: The application.
        copied_in: Record of the step in which the tracker was copied, which the thread, process
            or machine of a sub-application may not know.

    Raises:
        InvalidIdentifierError: The app id cannot be the name of a folder.
        RunLockedError: ``exclusive=True``, and another session holds the run.
        SnapshotError: The files cannot be written, and ``on_snapshot_error`` is ``"raise"``.
    """
    keeps = shared.config.snapshots != "off"
    folder = store.run_path(built.app_id) if keeps else None
    now = shared.clock()
    history = store.history(built.app_id) if keeps else None
    started = _NOT_STARTED
    if keeps:
        try:
            recover.recover_run(shared, store, built.app_id, now)
        except Exception as error:
            shield.report("completing a crashed session", error)
    try:
        started = _start_root(shared, store if keeps else None, built, history, copied_in, now)
    except Exception as error:
        shield.report("starting an application span", error)
    record = {"kind": "root", "time_unix_nano": now, **started.record}
    span = started.span
    try:
        session = _open_session(store, built, record, now) if keeps else None
    except SnapshotError as error:
        if shared.config.on_snapshot_error == "raise":
            span.end(now + 1)
            raise
        shield.logger.warning("%s", exceptions.snapshot_text(shared.policy, error))
        session = None
    except BurrOtelError:
        span.end(now + 1)
        raise
    root = Root(
        span,
        identity=identity(shared.project, built.app_id, built.partition_key),
        started_ns=now,
        linger=shared.config.root_linger,
        max_open=shared.config.root_max_open,
        clock=shared.clock,
    )
    root.graph_says = started.graph_says
    root.links = started.links
    run = Run(
        shared,
        built.app_id,
        built.partition_key,
        folder,
        root,
        session,
        built.graph,
        built.state,
    )
    run.is_outpost = _is_outpost(shared, built.spawner)
    root.on_end = run.ended
    registry.add(run)
    roots.keeper.watch(root)
    return run


def _open_session(store: Store, built: Built, record: dict[str, Any], now: int) -> Session:
    session_id = uuid.uuid4().hex
    session = store.open_session(
        built.app_id,
        partition_key=built.partition_key,
        state=built.state,
        application_graph=built.graph,
        parent_pointer=built.fork,
        spawning_parent_pointer=built.spawner,
        session_id=session_id,
        otel=record,
        time_ns=now,
    )
    try:
        markers.place(store.run_path(built.app_id), session_id, record, built.partition_key)
    except OSError as error:
        shield.report("marking a session as open", error)
    return session


def _start_root(
    shared: Shared,
    store: Store | None,
    built: Built,
    history: RunHistory | None,
    copied_in: Mapping[str, Any],
    now: int,
) -> _Started:
    if parents.suppressed():
        return _NOT_STARTED
    earlier = parents.context_of(history.last_root if history else None)
    last_step = parents.context_of(history.last_step if history else None)
    # Burr passes a fork pointer without an app id when an application is merely resumed.
    is_fork = built.fork is not None and built.fork.app_id is not None
    forked = _recorded_step(store, built.fork) if is_fork else None
    ambient = parents.ambient()
    spawner = None if built.spawner is None else _spawning_step(store, built, copied_in, ambient)
    parent = parents.root_parent(ambient, spawner)
    if parent is None and shared.config.on_resume == "continue":
        parent = earlier
    links = parents.links(
        (forked, semconv.LINK_FORK),
        (earlier, semconv.LINK_RESUME),
        (last_step, semconv.LINK_RESUME),
    )
    span = start_span(
        shared.tracer,
        root_name(shared.project),
        parent=parent,
        links=links,
        attributes=root_attributes(shared.project, built.app_id, built.partition_key),
        start_ns=now,
    )
    record = parents.origin_record(span.get_span_context(), parent, links)
    graph_says: Mapping[str, AttributeValue] = {}
    if span.is_recording():
        graph = _graph(built.graph)
        graph_says = _describe_graph(span, shared, graph)
        record |= recorded.root_members(span, graph_says, graph)
    return _Started(span, record, graph_says, len(links))


def _describe_graph(
    span: Span, shared: Shared, graph: dict[str, Any]
) -> Mapping[str, AttributeValue]:
    content = shared.policy.attribute(semconv.GRAPH, graph)
    if content is None:
        return {}
    graph_json: Any = content.value
    said = _saying(graph_json, truncated=content.truncated)
    span.set_attributes(said)
    return said


@functools.lru_cache(maxsize=64)
def _saying(graph: str, *, truncated: bool) -> Mapping[str, AttributeValue]:
    """The same object for all applications of a graph, which may be long."""
    said: dict[str, AttributeValue] = {semconv.GRAPH: graph}
    if truncated:
        said[semconv.TRUNCATED] = (semconv.GRAPH,)
    return said


def _spawning_step(
    store: Store | None, built: Built, copied_in: Mapping[str, Any], ambient: SpanContext | None
) -> SpanContext | None:
    app_id, sequence_id = built.spawner.app_id, built.spawner.sequence_id
    return (
        parents.recorded_spawner(copied_in, app_id, sequence_id)
        or registry.step_context(app_id, sequence_id, near=ambient)
        or _recorded_step(store, built.spawner)
        or parents.context_of(copied_in)
    )


def _is_outpost(shared: Shared, spawner: Any) -> bool:
    if spawner is None or shared.at_home:
        return False
    return registry.step_context(spawner.app_id, spawner.sequence_id) is None


def _recorded_step(store: Store | None, pointer: Any) -> SpanContext | None:
    record = None if store is None else store.find_step(pointer.app_id, pointer.sequence_id)
    return parents.context_of((record or {}).get("otel"))


def _graph(graph: Any) -> dict[str, Any]:
    return graph_document(
        graph.entrypoint.name,
        [action.name for action in graph.actions],
        [(each.from_.name, each.to.name, each.condition.name) for each in graph.transitions],
    )
