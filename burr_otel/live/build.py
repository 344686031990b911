"""An application has been built: start its span, open its files, and make its `Run`."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import orjson
from opentelemetry import context as otel_context
from opentelemetry import trace

from burr_otel import recover, semconv
from burr_otel.errors import BurrOtelError, SnapshotError, StoreError
from burr_otel.live.capture import differing, show, surrounding_attributes
from burr_otel.live.registry import Spawner, registry
from burr_otel.live.root import Root
from burr_otel.live.run import PRIOR_STEP_KEY, Run
from burr_otel.printable import logger
from burr_otel.records import BeginRoot, Origin, SpanIds
from burr_otel.records.read import read_ids
from burr_otel.spans import describe, inside, keeper, shield
from burr_otel.spans.burr_span import LIMITS
from burr_otel.spans.facts import RunFacts, actions_of_graph, graph_document, is_scalar, portable
from burr_otel.spans.scope import (
    context_of,
    current_span_context,
    ids_of,
    links_to,
    origin_of,
    suppressed,
)
from burr_otel.spans.start import NO_SPAN, LiveSpan
from burr_otel.store import ALL, RunHistory, Session, Store, digest, graph_json
from burr_otel.store.names import check_app_id

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanContext

    from burr_otel.content import Attribute
    from burr_otel.live.shared import Shared

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
    _warn_of_lost_place(shared, built)
    graph = graph_json(built.graph)
    # Not the application's graph: by its collection we know that the application is gone.
    start = _Start(shared, store, built._replace(graph=graph), copied)
    if shared.config.empty_runs == "drop":
        root = Root(shared, NO_SPAN, BeginRoot({}, shared.clock()), start.facts, start.graph)
        root.ended = True
        run = Run(shared, built, root, functools.partial(start.open_in, otel_context.get_current()))
    else:
        run = Run(shared, built, start.open())
    if built.spawner is not None and not shared.at_home:
        pointer = built.spawner.app_id, built.spawner.sequence_id
        run.is_outpost = registry.step_context(*pointer) is None
    registry.add(run)
    return run


def _warn_of_lost_place(shared: Shared, built: BuiltApplication) -> None:
    """Warn of a resume behind an action that the graph lacks: no transition leads on from there."""
    prior, names = built.state.get(PRIOR_STEP_KEY), [action.name for action in built.graph.actions]
    if prior is not None and prior not in names:
        logger.warning(
            "%s/%s goes on after the action %r, which its graph lacks, so no transition leads on "
            "from there. The graph has: %s. Keep an action of that name, or resume with "
            "resume_at_next_action=False.",
            shared.project,
            built.app_id,
            prior,
            ", ".join(map(repr, names[:_MOST_NAMED])) + ("" if len(names) <= _MOST_NAMED else "…"),
        )


class _Start:
    """The start of a session: what is known of the run, then its application span and its files."""

    def __init__(
        self, shared: Shared, store: Store, built: BuiltApplication, copied: Spawner
    ) -> None:
        self._shared, self._built, self._copied = shared, built, copied
        self._store = store if shared.keeps else None
        self._history = None if self._store is None else self._earlier(self._store)
        self.graph, self.facts = self._facts()

    def _earlier(self, store: Store) -> RunHistory | None:
        """What earlier sessions of the run have left."""
        shared, built = self._shared, self._built
        check_app_id(built.app_id)
        try:
            return store.history(built.app_id, built.partition_key)
        except Exception as error:
            # A store that did not answer now need not be waited for a second time.
            if (
                isinstance(error, StoreError | ConnectionError)
                and shared.config.on_snapshot_error == "raise"
            ):
                raise SnapshotError(f"{shared.project}/{built.app_id}", error) from error
            shield.report("looking for earlier sessions of a run", error)
            return None

    def _facts(self) -> tuple[Any, RunFacts]:
        """The graph as data, and what the run's spans share; equal graphs share both."""
        shared, built = self._shared, self._built
        key = digest(built.graph)
        known = shared.graphs.get(key)
        if known is None:
            data = orjson.loads(built.graph)
            if len(shared.graphs) >= _MOST_GRAPHS:
                shared.graphs.clear()
            known = shared.graphs[key] = data, actions_of_graph(data, shared.policy)
        data, actions = known
        return data, RunFacts(
            shared.project,
            built.app_id,
            built.partition_key,
            shared.policy,
            shared.settings,
            actions,
            conversation_id=self._conversation(),
            user_id=built.partition_key if shared.config.user_id_from_partition_key else None,
        )

    def _conversation(self) -> str | None:
        """App id of the outermost application that a spawned one is a part of."""
        built, copied = self._built, self._copied
        if built.spawner is None:
            return None
        app_id: str = built.spawner.app_id
        if copied.pointer == (app_id, built.spawner.sequence_id) and copied.conversation_id:
            return copied.conversation_id
        live = next(iter(registry.runs(app_id)), None)
        if live is not None:
            return live.root.facts.conversation_id
        try:
            history = None if self._store is None else self._store.history(app_id)
        except Exception:
            history = None  # another persister kept the parent
        told = (history.last_root or {}).get("conversation") if history else None
        return told if isinstance(told, str) else app_id

    def open_in(self, context: Context) -> Root:
        """Open the run where its application was built: that is whose child it is."""
        token = otel_context.attach(context)
        try:
            return self.open()
        finally:
            otel_context.detach(token)

    def open(self) -> Root:
        """Start the application span and open the run's files."""
        shared, built, store = self._shared, self._built, self._store
        now = shared.clock()
        if store is not None:
            try:
                recover.recover_run(
                    store,
                    built.app_id,
                    built.partition_key,
                    shared.config.dead_before_ns(now),
                    shared.policy,
                    shared.starter,
                )
            except Exception as error:
                shield.report("looking for earlier sessions of a run", error)
        kept = BeginRoot({}, now)
        begin = kept._replace(about={"policy": shared.policy.to_data()})
        span = cast("LiveSpan", NO_SPAN)
        try:
            about = self._about()
            orjson.dumps(about)  # what cannot be written would cost the state, too
            begin = begin._replace(about=about)
            if "shown" in about:  # no more is held, because a process may have very many
                kept = kept._replace(about={"shown": about["shown"]})
            span, origin = self._start_span(kept)
            begin = begin._replace(origin=origin)
        except Exception as error:
            shield.report("starting an application span", error)
        root = Root(shared, span, kept, self.facts, self.graph)
        try:
            root.session = None if store is None else self._open_session(store, begin)
        except BurrOtelError as error:
            if not isinstance(error, SnapshotError) or shared.config.on_snapshot_error == "raise":
                root.finish()
                raise
            logger.warning("%s", describe.snapshot_text(shared.policy, error))
        keeper.keeper.watch(root)
        if shared.log_events is not None:
            inside.see_log_lines()
        return root

    def _open_session(self, store: Store, begin: BeginRoot) -> Session:
        built = self._built
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

    def _start_span(self, kept: BeginRoot) -> tuple[LiveSpan, Origin | None]:
        """The application span, which holds the part of the record that is kept, and its origin."""
        starter, built, history = self._shared.starter, self._built, self._history
        if starter is None:
            return NO_SPAN, None
        ambient = current_span_context()
        spawner = None if built.spawner is None else self._spawning_step(ambient)
        if spawner is None and suppressed():  # one decision a trace: the spawning step's holds
            return NO_SPAN, None
        earlier = _recorded(history.last_root if history else None)
        last_step = _recorded(history.last_step if history else None)
        # Burr passes a fork pointer without an app id when an application is merely resumed.
        is_fork = built.fork is not None and built.fork.app_id is not None
        forked = self._recorded_step(built.fork) if is_fork else None
        in_its_trace = spawner is None or (ambient and ambient.trace_id == spawner.trace_id)
        parent = ambient if in_its_trace else spawner
        if parent is None and self._shared.config.on_resume == "continue":
            parent = context_of(earlier)
        over: trace.Span | None = trace.get_current_span()
        if parent is not ambient or parent is None:
            over = None if parent is None else trace.NonRecordingSpan(parent)
        links = links_to(
            (forked, semconv.LINK_FORK),
            (earlier, semconv.LINK_RESUME),
            (last_step, semconv.LINK_RESUME),
        )
        outer = otel_context.get_current()
        span = starter.start(
            self.facts.name,
            over,
            outer,
            links,
            (self.facts.identity, {semconv.GEN_AI_OPERATION_NAME: semconv.INVOKE_WORKFLOW}),
            kept.time_ns,
        )
        told = functools.partial(describe.root, self.facts, self.graph, kept, None)
        span.begin(told, over, outer)
        return span, origin_of(span.get_span_context(), ids_of(parent), links)

    def _spawning_step(self, ambient: SpanContext | None) -> SpanContext | None:
        spawner, copied = self._built.spawner, self._copied
        pointer = spawner.app_id, spawner.sequence_id
        if copied.context is not None and copied.pointer == pointer:
            return copied.context
        live = registry.step_context(*pointer, near=ambient)
        return live or context_of(self._recorded_step(spawner)) or copied.context

    def _recorded_step(self, pointer: Any) -> SpanIds | None:
        if self._store is None:
            return None
        partition = ALL if pointer.partition_key is None else pointer.partition_key
        record = self._store.find_step(pointer.app_id, pointer.sequence_id, partition)
        return _recorded((record or {}).get("otel"))

    def _about(self) -> dict[str, Any]:
        """What a reader of the log needs to make the session's spans, beside their records."""
        shared, facts = self._shared, self.facts
        found: dict[str, Any] = {
            "policy": shared.policy.to_data(),
            "settings": shared.settings._asdict(),
        }
        if facts.conversation_id != self._built.app_id:
            found["conversation"] = facts.conversation_id
        if semconv.USER_ID in facts.identity:
            found["user_id"] = facts.identity[semconv.USER_ID]
        shown = surrounding_attributes(shared.config, otel_context.get_current())
        show(shown, semconv.STATE_INITIAL, self._initial())
        if shared.policy.asks_user:
            document = graph_document(self.graph)
            show(shown, semconv.GRAPH, shared.policy.attribute(semconv.GRAPH, document))
        if shown:
            found["shown"] = shown
        source = getattr(shared.starter, "source", None)
        if source is not None:
            resource, scope = source.resource, source.scope
            found["resource"] = {
                key: portable(value)
                for key, value in resource.attributes.items()
                if type(key) is str and is_scalar(key)
            }
            found["scope_version"] = None if scope is None else scope.version
            found["schema_url"] = None if scope is None else scope.schema_url
            if resource.schema_url:
                found["resource_schema_url"] = resource.schema_url
            limits = {name: getattr(source.limits, name, None) for name in LIMITS}
            found["limits"] = {name: limit for name, limit in limits.items() if limit is not None}
        return found

    def _initial(self) -> Attribute | None:
        """What a spawned application begins with beyond the state of the step that spawned it."""
        built, policy, copied = self._built, self._shared.policy, self._copied
        if built.spawner is None or policy.state == "off":
            return None
        pointer = built.spawner.app_id, built.spawner.sequence_id
        digests = copied.digests if copied.pointer == pointer else registry.state_digests(*pointer)
        own = None if digests is None else differing(built.state, digests)
        return policy.document("state", own) if own else None


def _recorded(otel: Mapping[str, Any] | None) -> SpanIds | None:
    return read_ids(otel or {}, is_remote=True)
