"""The first record of a session -> where its application span stands and what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from burr_otel import semconv
from burr_otel._version import __version__
from burr_otel.replay.content import Sayings
from burr_otel.replay.ids import Ids
from burr_otel.replay.parts import Opened, Origin, Session, otel_of, texts
from burr_otel.spans import parents, recorded
from burr_otel.spans.portable import from_portable
from burr_otel.spans.shared import graph_document, identity, root_attributes, root_name

if TYPE_CHECKING:
    from opentelemetry.trace import Link, SpanContext

    from burr_otel.content import ContentPolicy

__all__ = ["FindStep", "new_session", "source_of"]

FindStep = Callable[[Mapping[str, Any], Mapping[str, Any]], "SpanContext | None"]
"""The span of the step that a pointer of Burr's names, asked with the record that needs it."""

_ROOT: Final = "otel_root"


def new_session(
    origin: Origin,
    record: Mapping[str, Any],
    time_ns: int,
    earlier: Mapping[str | None, Session],
    policy: ContentPolicy,
    find_step: FindStep,
) -> Session:
    """A session from its first record.

    Args:
        origin: The run.
        record: The session's ``otel_root``; the first one of another type when that is lost, or
            never was there.
        time_ns: Unix time of the record.
        earlier: The sessions of the run before this one, in file order, by their ids.
        policy: What is told of the graph when no record keeps what was.
        find_step: Finds the steps that Burr's pointers name.
    """
    otel = otel_of(record)
    first = record if record["type"] == _ROOT else None
    key = otel.get("session")
    ids = Ids(origin.project, origin.app_id, key)
    donor = earlier.get(first["forked_from"]) if first and first.get("forked_from") else None
    graph = origin.graph((first or {}).get("graph"))
    partition_key = (first or {}).get("partition_key", origin.partition_key)
    if donor is not None:
        root, resource, scope = donor.root, donor.resource, donor.scope
    else:
        resource, scope = source_of(otel, origin.resource)
        context, parent, links = _place(origin, ids, record, first, earlier, find_step)
        root = Opened(
            name=root_name(origin.project),
            context=context,
            parent=parent,
            links=links,
            start_ns=time_ns,
            attributes={},
            exact=first is not None and recorded.is_exact(otel),
        )
        _describe(root, origin, otel, partition_key, graph, policy)
    return Session(
        key=key,
        record=first,
        root=root,
        borrowed=donor is not None,
        ids=ids,
        identity=identity(origin.project, origin.app_id, partition_key),
        resource=resource,
        scope=scope,
        reads_writes=_reads_writes(graph),
    )


def _describe(
    root: Opened,
    origin: Origin,
    otel: Mapping[str, Any],
    partition_key: str | None,
    graph: Mapping[str, Any] | None,
    policy: ContentPolicy,
) -> None:
    known = root_attributes(origin.project, origin.app_id, partition_key)
    document = None if graph is None else _document(graph)
    if root.exact:
        base = None if document is None else recorded.graph_base(document)
        root.attributes = recorded.read_attributes(known, otel, {semconv.GRAPH: base})
        return
    said = Sayings(policy)
    if document is not None:
        said.put(semconv.GRAPH, policy.attribute(semconv.GRAPH, document))
    root.attributes = said.done(known)


def _place(
    origin: Origin,
    ids: Ids,
    record: Mapping[str, Any],
    first: Mapping[str, Any] | None,
    earlier: Mapping[str | None, Session],
    find_step: FindStep,
) -> tuple[SpanContext, SpanContext | None, Sequence[Link]]:
    """Ids, parent and links of the application span."""
    otel = otel_of(record)
    context = parents.context_of(otel, is_remote=False)
    if context is not None and context.trace_flags.sampled:
        if first is not None:
            return context, parents.recorded_parent(otel), parents.recorded_links(otel)
        lost = {**otel, "span_id": otel.get("root_span_id")}
        return parents.context_of(lost, is_remote=False) or ids.root(context.trace_id), None, ()
    fork = (first or {}).get("parent_pointer", origin.fork)
    spawner = (first or {}).get("spawning_parent_pointer", origin.spawner)
    parent = find_step(spawner, record) if spawner else None
    if context is not None:
        trace_id = context.trace_id  # runs that it spawned have recorded this one
    else:
        trace_id = parent.trace_id if parent is not None else ids.trace_id()
    if parent is not None and parent.trace_id != trace_id:
        parent = None
    before = next(reversed(earlier.values()), None)  # type: ignore[call-overload]  # a dict
    links = parents.links(
        (find_step(fork, record) if fork else None, semconv.LINK_FORK),
        (before.root.context if before else None, semconv.LINK_RESUME),
        (before.last_step if before else None, semconv.LINK_RESUME),
    )
    return ids.root(trace_id), parent, links


def source_of(otel: Mapping[str, Any], default: Resource) -> tuple[Resource, InstrumentationScope]:
    """Resource and scope that a record tells, or those of a run that tells none."""
    kept = otel.get("resource")
    if not isinstance(kept, Mapping):
        return default, InstrumentationScope(semconv.SCOPE_NAME, __version__, semconv.SCHEMA_URL)
    attributes = {key: from_portable(value) for key, value in kept.items()}
    version, schema_url = otel.get("scope_version"), otel.get("schema_url")
    resource = Resource(attributes, otel.get("resource_schema_url"))
    return resource, InstrumentationScope(semconv.SCOPE_NAME, version, schema_url)


def _document(graph: Mapping[str, Any]) -> dict[str, Any]:
    """What the application span says of a graph, from ``graph.json``."""
    transitions = [
        (str(each["from_"]), str(each["to"]), str(each["condition"]))
        for each in graph.get("transitions") or ()
    ]
    actions = [str(each["name"]) for each in graph.get("actions") or ()]
    return graph_document(str(graph.get("entrypoint")), actions, transitions)


def _reads_writes(
    graph: Mapping[str, Any] | None,
) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    return {
        str(each["name"]): (texts(each.get("reads")), texts(each.get("writes")))
        for each in (graph or {}).get("actions") or ()
    }
