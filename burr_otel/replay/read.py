"""Stored runs as spans, read record by record in little memory."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext

from burr_otel import semconv
from burr_otel._version import __version__
from burr_otel.config import OtelConfig
from burr_otel.content import ContentPolicy
from burr_otel.errors import BurrOtelError
from burr_otel.history.content import RunContent
from burr_otel.history.fold import Fold
from burr_otel.history.read import children_of
from burr_otel.history.tree import RUNNING, Alive, SessionNode, SpanNode, session_of, writer_lives
from burr_otel.replay.legacy import LegacyContent
from burr_otel.replay.places import Places, Relatives
from burr_otel.spans import provider
from burr_otel.spans.burr_span import LIMITS, BurrSpan, SpanSource
from burr_otel.spans.describe import SpanContent, soonest_end
from burr_otel.spans.facts import content_policy, from_portable
from burr_otel.spans.scope import context_of, link_of
from burr_otel.store import Store, StoredRun
from burr_otel.view.find import find, runs

_OF_THIS_PROCESS: Final = ("telemetry.sdk.", "service.instance.id", "process.")


def choose(
    storage_dir: str,
    app_ids: Sequence[str],
    project: str | None,
    since_ns: int | None,
    partition: str | None = None,
) -> list[StoredRun]:
    """Runs by id (with those that they spawned) or all, in the order they were written to last."""
    if app_ids:
        named = [find(storage_dir, app_id, project, partition).run for app_id in app_ids]
        found = {
            (each.project, each.partition_key, each.app_id): each
            for run in named
            for each in _with_spawned(run, storage_dir)
        }
        wanted: Iterable[StoredRun] = found.values()
    else:
        wanted = runs(storage_dir, project, partition)
    meant = [run for run in wanted if since_ns is None or run.changed_ns >= since_ns]
    return sorted(meant, key=lambda run: (run.changed_ns, run.project, run.app_id))


def _with_spawned(run: StoredRun, storage_dir: str) -> list[StoredRun]:
    """A run and those that it spawned: they are one trace."""
    store, seen, found = Store(run.project, storage_dir), {run.app_id}, [run]
    for parent in found:  # grows
        for child in children_of(parent):
            if child.kind == "spawn" and child.app_id not in seen:
                seen.add(child.app_id)
                with contextlib.suppress(BurrOtelError):  # it is gone, or the pointer is damaged
                    found.append(store.read(child.app_id))
    return found


def opened(found: Iterable[StoredRun], storage_dir: str) -> Iterator[RunSpans]:
    """The spans of each run, with the settings of the environment."""
    policy, alive_of = content_policy(OtelConfig.resolve()), writer_lives()
    relatives_of = functools.cache(lambda project: Relatives(Store(project, storage_dir)))
    for run in found:
        # As a tracker of that project would make it, but without what tells of this process, so
        # that a second replay says the same.
        made = provider.service_resource(run.project)
        kept = {k: v for k, v in made.attributes.items() if not k.startswith(_OF_THIS_PROCESS)}
        yield RunSpans(
            run,
            policy=policy,
            relatives=relatives_of(run.project),
            alive=alive_of(run),
            resource=Resource(kept, made.schema_url),
        )


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
            if isinstance(node, SessionNode) and node.donor is not None:
                continue  # a forked process has no application span of its own
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
            cast("SpanContext", context_of(origin.ids, is_remote=False)),
            context_of(origin.parent),
            [] if "links" in end else [link_of(each) for each in origin.links],
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
        limits, kept = None, otel.get("limits")
        if isinstance(kept, Mapping) and set(map(type, kept.values())) <= {int}:
            limits = SpanLimits(**{name: kept.get(name, SpanLimits.UNSET) for name in LIMITS})
        return SpanSource(resource, scope, limits, self._content.policy)
