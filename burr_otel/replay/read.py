"""Stored runs as spans, read record by record in little memory.

A span that was never given an id gets the same one wherever its run is replayed: the first 8 bytes
(of a trace 16) of the SHA-256 of the texts ``burr-otel/1``, ``span`` (or ``trace``), project, app
id, session id (empty in a log of Burr's own client) and what the span is within the session, each
in UTF-8 behind its length in bytes as a decimal number and a colon.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeGuard, cast

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags

from burr_otel import semconv
from burr_otel._version import __version__
from burr_otel.config import OtelConfig
from burr_otel.content import ContentPolicy
from burr_otel.errors import BurrOtelError
from burr_otel.history.content import RunContent
from burr_otel.history.fold import Fold
from burr_otel.history.tree import RUNNING, Alive, SessionNode, SpanNode, session_of, writer_lives
from burr_otel.records import BeginInner, LinkIds, Origin, SpanIds
from burr_otel.replay.legacy import LegacyContent
from burr_otel.spans import provider
from burr_otel.spans.burr_span import LIMITS, BurrSpan, SpanSource
from burr_otel.spans.describe import SpanContent, soonest_end
from burr_otel.spans.facts import content_policy, from_portable
from burr_otel.spans.scope import context_of, links_to
from burr_otel.store import Store, StoredRun
from burr_otel.store.stored_run import Pointer

_OF_THIS_PROCESS: Final = ("telemetry.sdk.", "service.instance.id", "process.")
_SCHEME: Final = "burr-otel/1"
_TRACE_BYTES, _SPAN_BYTES = 16, 8
_MOST_REMEMBERED: Final = 64  # runs
_DEEPEST: Final = 200  # runs that spawn runs


def opened(found: Iterable[StoredRun], storage_dir: str) -> Iterator[RunSpans]:
    """The spans of each run, with the settings of the environment."""
    policy, alive_of = content_policy(OtelConfig.resolve()), writer_lives()
    relatives_of = functools.cache(lambda project: Relatives(Store(project, storage_dir)))
    resource_of = functools.cache(_resource)
    for run in found:
        yield RunSpans(
            run,
            policy=policy,
            relatives=relatives_of(run.project),
            alive=alive_of(run),
            resource=resource_of(run.project),
        )


def _resource(project: str) -> Resource:
    """As a tracker would make it, but without what tells of this process: each replay is alike."""
    made = provider.service_resource(project)
    kept = {k: v for k, v in made.attributes.items() if not k.startswith(_OF_THIS_PROCESS)}
    return Resource(kept, made.schema_url)


class RunSpans:
    """The spans of a stored run, each as soon as no later record changes it.

    `running` names those that still go on; `foreign` counts the spans that other code made and
    sent, and `damaged` the records that could not be understood. `resource` is said of a service of
    which the log says nothing.
    """

    def __init__(
        self,
        run: StoredRun,
        *,
        policy: ContentPolicy,
        relatives: Relatives,
        alive: Alive,
        resource: Resource,
    ) -> None:
        self.run = run
        self.running: list[str] = []
        self.foreign = self.damaged = 0
        self._alive, self._resource = alive, resource
        self._content = RunContent(run, policy)
        self._legacy = LegacyContent(run, self._content)
        self._places = Places(run, relatives)
        self._sources: dict[str | None, SpanSource] = {}

    def __iter__(self) -> Iterator[ReadableSpan]:
        """The spans, once: those inside others first."""
        for _, span in self.nodes():
            yield span

    def nodes(self) -> Iterator[tuple[SpanNode, ReadableSpan]]:
        """The spans, each with what the log has of it."""
        run = self.run
        fold = Fold.of_run(run, keep=False)
        for node in fold.spans(map(self._legacy.noted, run.records()), self._alive):
            step = node.step or node
            # A forked process has no application span of its own; who made a span sends it.
            if (isinstance(node, SessionNode) and node.donor is not None) or node.is_foreign:
                continue
            if node.outcome == RUNNING or (node.lives and node.end is None):
                self.running += [node.name] if node.kind != "span" else []
            elif step.kind == "application" or step.begin is not None or step.end is not None:
                yield node, self._span(node)
        self.foreign = fold.foreign
        self.damaged += fold.damaged

    def _span(self, node: SpanNode) -> ReadableSpan:
        legacy = self._legacy_content(node)
        origin, source = self._places.of(node), self._source(node)
        end = {} if legacy is None or node.end is None else node.end.otel
        end_ns = end.get("end_unix_nano")
        if not isinstance(end_ns, int):
            end_ns = node.closed_ns or node.last_ns
        content = self._content.of(node) if legacy is None else legacy
        span = BurrSpan(
            content.name,
            cast("SpanContext", context_of(origin.ids)),
            context_of(origin.parent),
            () if "links" in end else origin.links,
            node.start_ns,
            source,
        )
        span.finish(lambda: content, soonest_end(node.start_ns, end_ns))
        return span

    def _legacy_content(self, node: SpanNode) -> SpanContent | None:
        """What a span said, where its records keep that in the old way and are sound."""
        try:
            return self._legacy.of(node)
        except (KeyError, TypeError, ValueError, AttributeError):
            self.damaged += 1
            return None

    def _source(self, node: SpanNode) -> SpanSource:
        """Resource, scope and limits of a span, as its session's records tell them."""
        session = session_of(node)
        told = node.begin.otel if node.kind == "step" and node.begin is not None else {}
        if "resource" in told:  # of a forked process, as it was recorded before
            self._sources[session.session] = self._source_of(told)
        if session.session not in self._sources:
            self._sources[session.session] = self._source_of(session.top.root.otel)
        return self._sources[session.session]

    def _source_of(self, otel: Mapping[str, Any]) -> SpanSource:
        resource, kept = self._resource, otel.get("resource")
        scope = InstrumentationScope(semconv.SCOPE_NAME, __version__, semconv.SCHEMA_URL)
        if isinstance(kept, Mapping):
            attributes = {key: from_portable(value) for key, value in kept.items()}
            resource = Resource(attributes, otel.get("resource_schema_url"))
            version, schema_url = otel.get("scope_version"), otel.get("schema_url")
            scope = InstrumentationScope(semconv.SCOPE_NAME, version, schema_url)
        kept = otel.get("limits")
        if not isinstance(kept, Mapping) or set(map(type, kept.values())) - {int}:
            kept = {}
        limits = SpanLimits(**{name: kept.get(name, SpanLimits.UNSET) for name in LIMITS})
        return SpanSource(resource, scope, limits, self._content.policy)


class Places:
    """The ids, parents and links of the spans of one run."""

    def __init__(self, run: StoredRun, relatives: Relatives) -> None:
        self._run, self._relatives = run, relatives
        self._roots: dict[str | None, tuple[SpanIds, SpanIds | None]] = {}

    def of(self, span: SpanNode) -> Origin:
        """Ids, parent and links of a span."""
        if isinstance(span, SessionNode):
            return self._session(span.top)
        ids, origin = self.ids(span), getattr(span.begin, "origin", None)
        over = None if span.above is None else self.ids(span.above)
        if origin is not None and _is_sampled(origin.ids):
            return Origin(ids, origin.parent or over, origin.links)
        return Origin(ids, over, self._dependencies(span))

    def ids(self, span: SpanNode) -> SpanIds:
        """The ids of a span."""
        if isinstance(span, SessionNode):
            return self._root(span.top)[0]
        if _is_sampled(span.ids):
            return span.ids
        session, step = session_of(span), span.step or span
        place = [str(step.sequence_id or 0), str(step.occurrence)]
        if span.kind == "step":
            derived = self._derived(_SPAN_BYTES, session, "step", *place)
        else:
            place += [span.burr_id or "", str(span.occurrence)]
            derived = self._derived(_SPAN_BYTES, session, "inner", *place)
        return SpanIds(self.ids(session).trace_id, derived)

    def _session(self, session: SessionNode) -> Origin:
        if _is_sampled(session.ids):
            return session.root.origin or Origin(session.ids)
        ids, parent = self._root(session)
        fork = self._pointed(session, "parent_pointer", self._run.parent_pointer)
        before = session.previous
        last_step = None if before is None else before.last_step
        links = links_to(
            (fork, semconv.LINK_FORK),
            (None if before is None else self.ids(before), semconv.LINK_RESUME),
            (None if last_step is None else self.ids(last_step), semconv.LINK_RESUME),
        )
        return Origin(ids, parent, links)

    def _root(self, session: SessionNode) -> tuple[SpanIds, SpanIds | None]:
        """Ids of an application span, and its derived parent."""
        if _is_sampled(session.ids):
            return session.ids, None
        if session.session not in self._roots:
            spawner = self._run.spawning_parent_pointer
            parent = self._pointed(session, "spawning_parent_pointer", spawner)
            if session.ids is not None:
                trace_id = session.ids.trace_id  # runs that it spawned have recorded this one
            elif parent is not None:
                trace_id = parent.trace_id
            else:
                trace_id = self._derived(_TRACE_BYTES, session)
            if parent is not None and parent.trace_id != trace_id:
                parent = None
            ids = SpanIds(trace_id, self._derived(_SPAN_BYTES, session, "root"))
            self._roots[session.session] = ids, parent
        return self._roots[session.session]

    def _pointed(self, session: SessionNode, name: str, default: Pointer | None) -> SpanIds | None:
        """The step that a session's record, or else its run, points to."""
        fields = session.root.fields
        pointer = Pointer.read(fields[name]) if name in fields else default
        return None if pointer is None else self._relatives.find_step(pointer, session.start_ns)

    def _derived(self, size_bytes: int, session: SessionNode, *place: str) -> int:
        digest = hashlib.sha256()
        kind = "span" if place else "trace"
        run = self._run.project, self._run.app_id, session.session or ""
        for text in (_SCHEME, kind, *run, *place):
            data = text.encode("utf-8", "surrogatepass")
            digest.update(b"%d:%b" % (len(data), data))
        return int.from_bytes(digest.digest()[:size_bytes], "big") or 1  # zero means "no id"

    def _dependencies(self, span: SpanNode) -> Sequence[LinkIds]:
        if not isinstance(span.begin, BeginInner) or not span.begin.dependencies:
            return ()
        named: dict[str, SpanNode] = {}
        for other, _ in (span.step or span).walk():
            if other is not span and other.start_ns <= span.start_ns:
                named[other.name] = other
        wanted = [named[name] for name in span.begin.dependencies if name in named]
        return links_to(*((self.ids(other), semconv.LINK_DEPENDENCY) for other in wanted))


def _is_sampled(ids: SpanIds | None) -> TypeGuard[SpanIds]:
    return ids is not None and bool(ids.flags & TraceFlags.SAMPLED)


class Relatives:
    """Finds steps of other runs of a project by Burr's pointers."""

    def __init__(self, store: Store) -> None:
        self._store, self._depth = store, 0
        self._steps_of = functools.lru_cache(_MOST_REMEMBERED)(self._read)

    def find_step(self, pointer: Pointer, before_ns: int) -> SpanIds | None:
        """The span of the step that a pointer names, of several the last begun by `before_ns`."""
        places, steps = self._steps_of(pointer.app_id)
        begun = steps.get(pointer.sequence_id, [])
        if places is None or not begun or self._depth == _DEEPEST:
            return None
        earlier = [step for step in begun if step.start_ns <= before_ns]
        self._depth += 1
        try:
            return places.ids(earlier[-1] if earlier else begun[0])
        finally:
            self._depth -= 1

    def _read(self, app_id: str) -> tuple[Places | None, dict[int | None, list[SpanNode]]]:
        """The steps of a run by number, in order of their start."""
        found: list[SpanNode] = []
        try:
            run = self._store.read(app_id)
            fold = Fold.of_run(run, keep=False)
            for span in fold.spans(run.records(), lambda _fields, _last_ns: False):
                if span.kind == "step" and span.begin is not None:
                    span.let_go()
                    span.children = []
                    found.append(span)
        except (BurrOtelError, OSError):
            return None, {}  # another store has it, or none
        steps: dict[int | None, list[SpanNode]] = {}
        for step in sorted(found, key=lambda each: each.start_ns):
            steps.setdefault(step.sequence_id, []).append(step)
        return Places(run, self), steps
