"""A stored run as spans, read record by record in little memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext

from burr_otel import semconv
from burr_otel._version import __version__
from burr_otel.content import ContentPolicy
from burr_otel.history.content import RunContent, session_of
from burr_otel.history.fold import Fold
from burr_otel.history.settle import Alive
from burr_otel.history.times import RecordTimes
from burr_otel.history.tree import RUNNING, SessionNode, SpanNode
from burr_otel.records import BeginRoot
from burr_otel.replay.legacy import LegacyContent
from burr_otel.replay.places import Places, Relatives
from burr_otel.spans import provider
from burr_otel.spans.burr_span import LIMITS, BurrSpan, SpanSource
from burr_otel.spans.contexts import context_of, link_of
from burr_otel.spans.describe import SpanContent, soonest_end
from burr_otel.spans.portable import from_portable
from burr_otel.store import StoredRun

_OF_THIS_PROCESS: Final = ("telemetry.sdk.", "service.instance.id", "process.")


class RunSpans:
    """The spans of a stored run, each as soon as no later record changes it.

    `running` names those that still go on; `foreign` counts the spans that other code made and
    sent, and `damaged` the records that could not be understood.
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
        self._places = Places(run, relatives.find_step)
        self._sources: dict[str | None, tuple[Resource, InstrumentationScope]] = {}

    def __iter__(self) -> Iterator[ReadableSpan]:
        """The spans, once: those inside others first."""
        for _, span in self.nodes():
            yield span

    def nodes(self) -> Iterator[tuple[SpanNode, ReadableSpan]]:
        """The spans, each with what the log has of it."""
        run = self.run
        fold = Fold(run.project, run.app_id, keep=False, times=RecordTimes(run.records))
        for raw in run.records():
            self._legacy.note(raw)
            for node in fold.add(raw):
                yield from self._made(node)
        for node in fold.finish(self._alive):
            yield from self._made(node)
        self.foreign = fold.foreign
        self.damaged += fold.damaged

    def _made(self, node: SpanNode) -> Iterator[tuple[SpanNode, ReadableSpan]]:
        session = session_of(node)
        if isinstance(node, SessionNode):
            if node.donor is not None:
                return
            if node.outcome == RUNNING or (node.lives and node.end is None):
                self.running.append(node.name)
                return
        elif node.outcome == RUNNING:
            self.running += [node.name] if node.kind == "step" else []
            return
        step = node
        while step.kind == "span" and step.above is not None:
            step = step.above
        if step.kind == "step" and step.begin is None and step.end is None:
            return  # only spans in it are known
        yield node, self._span(session, node)

    def _span(self, session: SessionNode, node: SpanNode) -> ReadableSpan:
        origin, (content, is_legacy) = self._places.of(node), self._said(node)
        end_ns = (self._legacy.end_ns(node) if is_legacy else None) or node.closed_ns
        end_ns = end_ns or node.end_ns or node.last_ns
        links = [link_of(each) for each in origin.links]
        if is_legacy and self._legacy.replaces_links(node):
            links = []
        resource, scope = self._source(session, node)
        begin = session.top.begin
        about = begin.about if isinstance(begin, BeginRoot) and not is_legacy else {}
        return BurrSpan.finished(
            content,
            cast("SpanContext", context_of(origin.ids, is_remote=False)),
            context_of(origin.parent),
            links,
            (node.start_ns, soonest_end(node.start_ns, end_ns)),
            SpanSource(resource, scope, _limits(about), self._content.policy),
        )

    def _said(self, node: SpanNode) -> tuple[SpanContent, bool]:
        """What a span said, and whether its records keep that in the old way."""
        try:
            legacy = self._legacy.of(node)
        except (KeyError, TypeError, ValueError, AttributeError):
            self.damaged += 1
            legacy = None
        return (self._content.of(node), False) if legacy is None else (legacy, True)

    def _source(
        self, session: SessionNode, node: SpanNode
    ) -> tuple[Resource, InstrumentationScope]:
        """Resource and scope of a span, as its session's records tell them."""
        key = session.session
        if node.kind == "step" and node.begin is not None and "resource" in node.begin.otel:
            self._sources[key] = source_of(node.begin.otel, self._resource)  # of a forked process
        if key not in self._sources:
            begin = session.top.begin
            self._sources[key] = source_of({} if begin is None else begin.otel, self._resource)
        return self._sources[key]


def _limits(about: Mapping[str, Any]) -> SpanLimits | None:
    """The limits of the provider that a session's spans were made by, where it had any."""
    kept = about.get("limits")
    if not isinstance(kept, Mapping) or set(map(type, kept.values())) - {int}:
        return None
    return SpanLimits(**{name: kept.get(name, SpanLimits.UNSET) for name in LIMITS})


def source_of(otel: Mapping[str, Any], default: Resource) -> tuple[Resource, InstrumentationScope]:
    """Resource and scope that a record tells, or those of a run that tells none."""
    kept = otel.get("resource")
    if not isinstance(kept, Mapping):
        return default, InstrumentationScope(semconv.SCOPE_NAME, __version__, semconv.SCHEMA_URL)
    attributes = {key: from_portable(value) for key, value in kept.items()}
    version, schema_url = otel.get("scope_version"), otel.get("schema_url")
    resource = Resource(attributes, otel.get("resource_schema_url"))
    return resource, InstrumentationScope(semconv.SCOPE_NAME, version, schema_url)


def default_resource(project: str) -> Resource:
    """What a run says of its service when its log does not: as a tracker of that project would."""
    # Without what tells of this process, so that a second replay says the same.
    made = provider.service_resource(project)
    kept = {
        key: value for key, value in made.attributes.items() if not key.startswith(_OF_THIS_PROCESS)
    }
    return Resource(kept, made.schema_url)
