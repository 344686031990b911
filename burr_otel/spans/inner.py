"""Spans inside a step: those of ``__tracer`` and ``@trace``."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from burr_otel import semconv
from burr_otel.spans import exceptions, parents, recorded, shield
from burr_otel.spans.open_span import OpenSpan, outcome_of, start_span
from burr_otel.spans.scope import innermost_scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from burr_otel.spans.steps import Step

__all__ = ["InnerSpan"]


class InnerSpan:
    """One inner span, started and made current.

    It stays in `Step.inner` for as long as anything holds Burr's span object: a child may begin,
    and attributes may come, after its end. An action may make any number of them.

    Args:
        step: The step that it is in.
        burr_span: Burr's ``ActionSpan``.
        dependencies: Names of siblings that it links to.
        now_ns: Unix time of its start.
        outer_error: The exception being handled when it begins.
    """

    def __init__(
        self,
        step: Step,
        burr_span: Any,
        dependencies: Sequence[str],
        now_ns: int,
        outer_error: BaseException | None,
    ) -> None:
        self._burr_span = burr_span
        self._step = step
        enclosing = target(step, burr_span.parent)
        parent = enclosing.context
        # What is current inside the enclosing Burr span, an HTTP span say, is the closer parent;
        # in a thread that copied no context, what is current has nothing to do with it.
        ambient = parents.ambient()
        if ambient is not None and enclosing.scope.encloses(innermost_scope()):
            parent = ambient
        links = parents.links(
            *((step.named.get(name), semconv.LINK_DEPENDENCY) for name in dependencies)
        )
        span: trace.Span = trace.INVALID_SPAN
        self._name = str(burr_span.name)
        if parent.is_valid:
            self._name = step.shared.policy.name(burr_span.name)
            span = start_span(
                step.shared.tracer,
                self._name,
                parent=parent,
                links=links,
                attributes=step.identity,
                start_ns=now_ns,
            )
        self.open_span: OpenSpan = OpenSpan(
            span,
            start_ns=now_ns,
            identity=step.identity,
            outer_error=outer_error,
            parent=enclosing.scope,
        )
        self._links = len(links)
        self.record = {
            **parents.origin_record(self.open_span.context, parent, links),
            "time_unix_nano": now_ns,
            **self._begin_members(),
        }
        step.inner[id(burr_span)] = self
        step.named[burr_span.name] = self.open_span.context
        self.open_span.scope.attach()

    def _begin_members(self) -> dict[str, Any]:
        if self.open_span.readable is None:
            return {}
        try:
            return recorded.begin_members(str(self._burr_span.name), self._name, {}, {})
        except Exception as error:
            shield.report("recording what a span says", error)
            return {}

    def end_record(self, end_ns: int, outcome: str) -> dict[str, Any]:
        """What the log's end record keeps of the span; see `recorded.end_record`."""
        return recorded.end_record(
            self.open_span.span,
            ids=parents.ids_of(self.record),
            name=self._name,
            start_ns=self.open_span.start_ns,
            end_ns=end_ns,
            outcome=outcome,
            links=self._links,
            known={**self._step.identity, **self.open_span.logged},
            bases={},
        )

    def end(self, now_ns: int, in_flight: BaseException | None) -> str:
        """End the span.

        Args:
            now_ns: Unix time.
            in_flight: What `sys.exc_info` reports; Burr tells its hooks nothing of it.

        Returns:
            The outcome.
        """
        self.open_span.scope.detach()
        error = self.open_span.own_error(in_flight)
        outcome = outcome_of(error)
        if self.open_span.claim_end():
            if outcome == semconv.ERROR and error is not None:
                content = exceptions.content_of(self._step.shared.policy, error)
                exceptions.record_exception(self.open_span.span, content, now_ns, failed=True)
            self.open_span.put_last({})
            self.open_span.end(now_ns)
            self._let_go()
        return outcome

    def _let_go(self) -> None:
        inner, identity = self._step.inner, id(self._burr_span)
        self._gone = weakref.ref(self._burr_span, lambda _: inner.pop(identity, None))
        self._burr_span = None


def target(step: Step, burr_span: Any) -> OpenSpan:
    """The open span of Burr's span object; the step's for `None` and for an unknown one."""
    inner = step.inner.get(id(burr_span))
    return step.open_span if inner is None else inner.open_span
