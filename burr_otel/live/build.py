"""An application has been built: start its span, open its files, and make its `Run`."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import orjson
from opentelemetry import context as otel_context
from opentelemetry import trace

from burr_otel import recover, semconv
from burr_otel.errors import BurrOtelError, SnapshotError, StoreError
from burr_otel.live.capture import show
from burr_otel.live.initial import differing
from burr_otel.live.root import Root
from burr_otel.live.run import PRIOR_STEP_KEY, Run, registry
from burr_otel.live.surroundings import surrounding_attributes
from burr_otel.records import BeginRoot, read_ids
from burr_otel.spans import describe, exceptions, keeper, log_events, parents, shield
from burr_otel.spans.burr_span import LIMITS
from burr_otel.spans.contexts import context_of, links_to, origin_of, suppressed
from burr_otel.spans.facts import RunFacts, actions_of_graph, graph_document
from burr_otel.spans.portable import is_sound, portable
from burr_otel.spans.start import NO_SPAN
from burr_otel.store import digest, graph_json
from burr_otel.store.names import check_app_id

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanContext

    from burr_otel.content import Attribute
    from burr_otel.live.shared import Shared
    from burr_otel.spans.parents import Spawner
    from burr_otel.spans.start import LiveSpan
    from burr_otel.store import RunHistory, Session, Store

_MOST_GRAPHS = 64
_MOST_NAMED = 10


class BuiltApplication(NamedTuple):
    """What Burr tells of an application; `fork` and `spawner` are Burr's pointers to a step.

    `graph` is Burr's own, or its ``graph.json``.
    """

    app_id: str
    partition_key: str | None
    state: Any
    graph: Any
    fork: Any
    spawner: Any


def start_run(shared: Shared, store: Store, built: BuiltApplication, copied: Spawner) -> Run:
    """Make the run of an application; its span and files too, unless they wait for a first call."""
    keeps = store if shared.config.snapshots != "off" else None
    history = None
    if keeps is not None:
        check_app_id(built.app_id)
        try:
            history = keeps.history(built.app_id, built.partition_key)
        except (StoreError, ConnectionError) as error:
            if shared.config.on_snapshot_error == "raise":  # and not wait again for an answer
                raise SnapshotError(f"{shared.project}/{built.app_id}", error) from error
            shield.report("looking for earlier sessions of a run", error)
        except Exception as error:
            shield.report("looking for earlier sessions of a run", error)
    _warn_of_lost_place(shared, built)
    graph = graph_json(built.graph)
    data, facts = _facts(shared, built, graph, _conversation(keeps, built, copied))
    # Not the application's graph: by its collection we know that the application is gone.
    alone = built._replace(graph=graph)
    opens = functools.partial(_open, shared, keeps, alone, history, copied, facts, data)
    if shared.config.empty_runs == "drop":
        root = Root(shared, NO_SPAN, BeginRoot({}, shared.clock()), facts, data)
        root.ended = True
        opens_later = functools.partial(_open_in, otel_context.get_current(), opens)
        run = Run(shared, built, root, opens_later)
    else:
        run = Run(shared, built, opens())
    run.is_outpost = _is_outpost(shared, built.spawner)
    registry.add(run)
    return run


def _open_in(context: Context, opens: Callable[[], Root]) -> Root:
    """Open a run where its application was built: that is whose child it is."""
    token = otel_context.attach(context)
    try:
        return opens()
    finally:
        otel_context.detach(token)


def _open(
    shared: Shared,
    store: Store | None,
    built: BuiltApplication,
    history: RunHistory | None,
    copied: Spawner,
    facts: RunFacts,
    graph: Any,
) -> Root:
    """Start the application span and open the run's files."""
    now = shared.clock()
    if store is not None:
        try:
            recover.recover_run(shared, store, built.app_id, built.partition_key, now)
        except Exception as error:
            shield.report("looking for earlier sessions of a run", error)
    begin = kept = BeginRoot({}, now)
    span = cast("LiveSpan", NO_SPAN)
    try:
        about = _about(shared, facts, graph, _initial(shared, built, copied))
        orjson.dumps(about)  # what cannot be written would cost the state, too
        begin = begin._replace(about=about)
        if "shown" in about:  # an application holds no more, because a process may have very many
            kept = kept._replace(about={"shown": about["shown"]})
        begin, span = _start_root(shared, store, built, history, copied, facts, graph, begin, kept)
    except Exception as error:
        shield.report("starting an application span", error)
    root = Root(shared, span, kept, facts, graph)
    try:
        root.session = None if store is None else _open_session(store, built, begin)
    except SnapshotError as error:
        if shared.config.on_snapshot_error == "raise":
            root.finish()
            raise
        shield.logger.warning("%s", exceptions.snapshot_text(shared.policy, error))
    except BurrOtelError:
        root.finish()
        raise
    keeper.keeper.watch(root)
    if shared.log_events is not None:
        log_events.install()
    return root


def _warn_of_lost_place(shared: Shared, built: BuiltApplication) -> None:
    """Warn of a resume behind an action that the graph lacks: no transition leads on from there."""
    prior, names = built.state.get(PRIOR_STEP_KEY), [action.name for action in built.graph.actions]
    if prior is not None and prior not in names:
        shield.logger.warning(
            "%s/%s goes on after the action %r, which its graph lacks, so no transition leads on "
            "from there. The graph has: %s. Keep an action of that name, or resume with "
            "resume_at_next_action=False.",
            shared.project,
            built.app_id,
            prior,
            ", ".join(map(repr, names[:_MOST_NAMED])) + ("" if len(names) <= _MOST_NAMED else "…"),
        )


def _open_session(store: Store, built: BuiltApplication, begin: BeginRoot) -> Session:
    return store.open_session(
        built.app_id,
        partition_key=built.partition_key,
        state=built.state,
        graph=built.graph,
        parent_pointer=built.fork,
        spawning_parent_pointer=built.spawner,
        session_id=uuid.uuid4().hex,
        begin=begin,
    )


def _facts(
    shared: Shared, built: BuiltApplication, graph: bytes, conversation_id: str | None
) -> tuple[Any, RunFacts]:
    """The graph as data, and what the run's spans share; equal graphs share both."""
    key = digest(graph)
    known = shared.graphs.get(key)
    if known is None:
        data = orjson.loads(graph)
        if len(shared.graphs) >= _MOST_GRAPHS:
            shared.graphs.clear()
        known = shared.graphs[key] = data, actions_of_graph(data, shared.policy)
    data, actions = known
    by_partition = shared.config.user_id_from_partition_key
    facts = RunFacts(
        shared.project,
        built.app_id,
        built.partition_key,
        shared.policy,
        shared.settings,
        actions,
        conversation_id=conversation_id,
        user_id=built.partition_key if by_partition else None,
    )
    return data, facts


def _start_root(
    shared: Shared,
    store: Store | None,
    built: BuiltApplication,
    history: RunHistory | None,
    copied: Spawner,
    facts: RunFacts,
    graph: Any,
    begin: BeginRoot,
    kept: BeginRoot,
) -> tuple[BeginRoot, LiveSpan]:
    """The record of a session's begin, and its span, which holds the part that is kept."""
    starter = shared.starter
    if starter is None:
        return begin, NO_SPAN
    ambient = parents.ambient()
    spawner = None if built.spawner is None else _spawning_step(store, built, copied, ambient)
    if spawner is None and suppressed():  # one decision a trace: the spawning step's holds
        return begin, NO_SPAN
    earlier = _recorded(history.last_root if history else None)
    last_step = _recorded(history.last_step if history else None)
    # Burr passes a fork pointer without an app id when an application is merely resumed.
    is_fork = built.fork is not None and built.fork.app_id is not None
    forked = _recorded_step(store, built.fork) if is_fork else None
    current = trace.get_current_span()
    parent = parents.root_parent(ambient, spawner)
    if parent is None and shared.config.on_resume == "continue":
        parent = earlier
    over: trace.Span | None = current
    if parent is not ambient or parent is None:
        over = None if parent is None else trace.NonRecordingSpan(parent)
    links = links_to(
        (forked, semconv.LINK_FORK),
        (earlier, semconv.LINK_RESUME),
        (last_step, semconv.LINK_RESUME),
    )

    outer = otel_context.get_current()
    span = starter.start(
        facts.name,
        over,
        outer,
        links,
        (facts.identity, {semconv.GEN_AI_OPERATION_NAME: semconv.INVOKE_WORKFLOW}),
        begin.time_ns,
    )
    span.begin(functools.partial(describe.root, facts, graph, kept, None), over, outer)
    origin = origin_of(span.get_span_context(), parent, links)
    return begin._replace(origin=origin), span


def _initial(shared: Shared, built: BuiltApplication, copied: Spawner) -> Attribute | None:
    """What a spawned application begins with beyond the state of the step that spawned it."""
    if built.spawner is None or shared.policy.state == "off":
        return None
    pointer = built.spawner.app_id, built.spawner.sequence_id
    digests = copied.digests if copied.pointer == pointer else registry.state_digests(*pointer)
    own = None if digests is None else differing(built.state, digests)
    return shared.policy.document("state", own) if own else None


def _about(
    shared: Shared, facts: RunFacts, graph: Any, initial: Attribute | None
) -> dict[str, Any]:
    """What a reader of the log needs to make the session's spans, beside their records."""
    found: dict[str, Any] = {
        "policy": shared.policy.to_data(),
        "settings": shared.settings._asdict(),
    }
    if facts.conversation_id != facts.identity[semconv.APP_ID]:
        found["conversation"] = facts.conversation_id
    if semconv.USER_ID in facts.identity:
        found["user_id"] = facts.identity[semconv.USER_ID]
    shown = surrounding_attributes(shared.config, otel_context.get_current())
    show(shown, semconv.STATE_INITIAL, initial)
    if shared.policy.asks_user:
        document = graph_document(graph)
        show(shown, semconv.GRAPH, shared.policy.attribute(semconv.GRAPH, document))
    if shown:
        found["shown"] = shown
    source = getattr(shared.starter, "source", None)
    if source is not None:
        resource, scope = source.resource, source.scope
        found["resource"] = {
            key: portable(value)
            for key, value in resource.attributes.items()
            if type(key) is str and is_sound(key)
        }
        found["scope_version"] = None if scope is None else scope.version
        found["schema_url"] = None if scope is None else scope.schema_url
        if resource.schema_url:
            found["resource_schema_url"] = resource.schema_url
        limits = {name: getattr(source.limits, name, None) for name in LIMITS}
        found["limits"] = {name: limit for name, limit in limits.items() if limit is not None}
    return found


def _spawning_step(
    store: Store | None, built: BuiltApplication, copied: Spawner, ambient: SpanContext | None
) -> SpanContext | None:
    app_id, sequence_id = built.spawner.app_id, built.spawner.sequence_id
    if copied.context is not None and copied.pointer == (app_id, sequence_id):
        return copied.context
    return (
        registry.step_context(app_id, sequence_id, near=ambient)
        or _recorded_step(store, built.spawner)
        or copied.context
    )


def _conversation(store: Store | None, built: BuiltApplication, copied: Spawner) -> str | None:
    """App id of the outermost application that a spawned one is a part of."""
    if built.spawner is None:
        return None
    app_id: str = built.spawner.app_id
    if copied.pointer == (app_id, built.spawner.sequence_id) and copied.conversation_id:
        return copied.conversation_id
    live = next(iter(registry.runs(app_id)), None)
    if live is not None:
        return live.root.facts.conversation_id
    try:
        history = None if store is None else store.history(app_id)
    except Exception:
        history = None  # another persister kept the parent
    told = (history.last_root or {}).get("conversation") if history else None
    return told if isinstance(told, str) else app_id


def _is_outpost(shared: Shared, spawner: Any) -> bool:
    if spawner is None or shared.at_home:
        return False
    return registry.step_context(spawner.app_id, spawner.sequence_id) is None


def _recorded(otel: Mapping[str, Any] | None) -> SpanContext | None:
    return context_of(read_ids(otel or {}), is_remote=True)


def _recorded_step(store: Store | None, pointer: Any) -> SpanContext | None:
    record = None if store is None else store.find_step(pointer.app_id, pointer.sequence_id)
    return _recorded((record or {}).get("otel"))
