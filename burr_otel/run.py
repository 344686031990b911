"""One application as one tracker sees it: its spans and its records, kept in step.

A `Run` is made when an application is built and lives as long as the application does. Each
method is what one of Burr's hooks means; span work is shielded, so that its errors reach nobody,
and a record that cannot be written is a `SnapshotError` once the span has ended properly.
"""

from __future__ import annotations

import dataclasses
import logging
import uuid
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import SpanContext

from burr_otel import semconv
from burr_otel.errors import SnapshotError
from burr_otel.spans import exceptions, parents, roots, shield
from burr_otel.spans.registry import Registry
from burr_otel.spans.roots import Root
from burr_otel.spans.scope import SpanScope, innermost_scope
from burr_otel.spans.steps import (
    ActionFacts,
    OpenSpan,
    action_facts,
    outcome_of,
    start_span,
)
from burr_otel.store import encode_state

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from burr_otel.config import OtelConfig
    from burr_otel.content import ContentPolicy
    from burr_otel.spans.metrics import StepMetrics
    from burr_otel.store import EncodedState, Session

__all__ = ["Run", "RunContext", "Step", "registry"]

logger = logging.getLogger("burr_otel")

SEQUENCE_KEY = "__SEQUENCE_ID"  # burr.core.application.SEQUENCE_ID
PRIOR_STEP_KEY = "__PRIOR_STEP"  # burr.core.application.PRIOR_STEP
_INJECTED = ("__tracer", "__context")


@dataclasses.dataclass(frozen=True)
class RunContext:
    """What all runs of a tracker share."""

    owner: object
    project: str
    serde_kwargs: dict[str, Any]
    config: OtelConfig
    policy: ContentPolicy
    tracer: trace.Tracer
    metrics: StepMetrics
    clock: Callable[[], int]


class Step:
    """One step in progress.

    Attributes:
        open_span: Its span.
        sequence_id: Burr's number of the step.
        action: What the span says of the action.
        items: Items that its stream has yielded.
        final: Result and state that its stream has yielded last.
        inner: Its open inner spans by identity of Burr's `ActionSpan`, which is kept alive here.
    """

    def __init__(self, run: Run, open_span: OpenSpan, sequence_id: int, action: ActionFacts):
        self.run = run
        self.open_span = open_span
        self.sequence_id = sequence_id
        self.action = action
        self.streaming = False
        self.items = 0
        self.first_item_ns: int | None = None
        self.final: tuple[Any, Any] | None = None
        self.inner: dict[int, tuple[Any, OpenSpan]] = {}

    def stream_scope(self) -> SpanScope:
        """See `StreamObserver`."""
        return SpanScope(self.open_span.span)

    def stream_ended(self, result: Any, state: Any) -> None:
        """See `StreamObserver`."""
        self.final = (result, state)

    def stream_failed(self, error: Exception) -> None:
        """See `StreamObserver`: an event; whether the step failed is for Burr to say."""
        try:
            content = self.run.shared.policy.exception(error)
            exceptions.record_exception(
                self.open_span.span, content, self.run.shared.clock(), failed=False
            )
        except Exception as problem:
            shield.report("recording an exception", problem)

    def stream_dropped(self) -> None:
        """See `StreamObserver`: nothing more can come, so settle once the hooks had their turn."""
        roots.keeper.defer(lambda: self.run.settle_stream(self))


class Run:
    """One live application.

    Attributes:
        app_id: Burr's application id.
        owner: The tracker whose hooks speak of this run.
        root: The application span.
        session: Where records go; `None` when snapshots failed and may (`on_snapshot_error`).
    """

    def __init__(
        self,
        shared: RunContext,
        app_id: str,
        partition_key: str | None,
        root: Root,
        session: Session | None,
        application_graph: Any,
        state: Any,
    ) -> None:
        self.shared = shared
        self.app_id = app_id
        self.owner = shared.owner
        self.partition_key = partition_key
        self.root = root
        self.session = session
        self.method: str | None = None
        self.identity: dict[str, AttributeValue] = identity(shared.project, app_id, partition_key)
        self._steps: dict[int, Step] = {}
        self._pending: tuple[Step, int] | None = None
        self._prior: str | None = state.get(PRIOR_STEP_KEY)
        self._last: tuple[int, SpanContext] | None = None
        self._facts: dict[int, ActionFacts] = {}
        self._actions = {id(action) for action in application_graph.actions}
        self._state = weakref.ref(state)
        collected = weakref.finalize(application_graph, roots.keeper.defer, self.close)
        collected.atexit = False  # the keeper ends what is open at exit

    # --- what the registry asks --------------------------------------------------------------

    def has_action(self, action: Any) -> bool:
        """Whether `action` belongs to this run's graph."""
        return id(action) in self._actions

    def saw_state(self, state: Any) -> bool:
        """Whether `state` is the object that the application held when we last saw it."""
        return self._state() is state

    def step_context(self, sequence_id: int) -> SpanContext | None:
        """Span context of a step in progress, or of the last one finished."""
        step = self._steps.get(sequence_id)
        if step is not None:
            return step.open_span.context
        if self._last is not None and self._last[0] == sequence_id:
            return self._last[1]
        return None

    def after_fork(self) -> None:
        """In a forked child: the open spans are the parent's, and so is the session."""
        context = self.root.span.get_span_context()
        self.root.span = trace.NonRecordingSpan(context)
        self._steps.clear()
        self._pending = None
        if self.session is not None:
            self.session = self.session.fork(uuid.uuid4().hex)

    # --- the application ---------------------------------------------------------------------

    def executing(self, method: str, state: Any) -> None:
        """An execute call begins."""
        self.method = method
        self._state = weakref.ref(state)
        self.root.touch(self.shared.clock())
        registry.executing(self)

    def executed(self, state: Any) -> None:
        """An execute call has ended with `state`."""
        self._settle_pending(state)
        self._state = weakref.ref(state)
        self.root.touch(self.shared.clock())
        registry.not_executing(self)

    def close(self) -> None:
        """The application is gone, or its tracker closes: end what is open."""
        registry.remove(self)
        for step in list(self._steps.values()):
            self.settle_stream(step)
        self._settle_pending(None)
        self.root.finish()

    def ended(self, end_ns: int, outcome: str) -> None:
        """The root has ended."""
        roots.keeper.unwatch(self.root)
        if self.session is not None:
            record = parents.record_of(self.root.span.get_span_context())
            self.session.end(time_ns=end_ns, otel={**record, "outcome": outcome})

    # --- steps -------------------------------------------------------------------------------

    def begin_step(
        self,
        action: Any,
        state: Any,
        inputs: Mapping[str, Any],
        sequence_id: int,
        outer_error: BaseException | None,
    ) -> None:
        """A step begins: start its span, make it current, write its begin record."""
        for earlier in list(self._steps.values()):
            self.settle_stream(earlier)
        self._settle_pending(state)
        now = self.shared.clock()
        seen = {key: value for key, value in inputs.items() if key not in _INJECTED}
        facts = self._facts.get(id(action)) or self._facts.setdefault(
            id(action), action_facts(action)
        )
        self.root.enter(now)
        step, record = self._start_step(facts, seen, sequence_id, now, outer_error)
        self._steps[sequence_id] = step
        step.open_span.scope.attach()
        self.shared.metrics.step_began(facts.name)
        if self.session is None:
            return
        try:
            self.session.begin_step(
                sequence_id=sequence_id,
                action=facts.name,
                inputs=seen,
                time_ns=now,
                otel=record,
            )
        except SnapshotError as error:
            if self.shared.config.on_snapshot_error == "raise":
                self._steps.pop(sequence_id, None)
                step.open_span.scope.detach()
                self._end_span(step, error, now, result=None, state=None)
                raise
            self._snapshot_failed(step, error)

    def _start_step(
        self,
        facts: ActionFacts,
        inputs: Mapping[str, Any],
        sequence_id: int,
        now: int,
        outer_error: BaseException | None,
    ) -> tuple[Step, dict[str, Any]]:
        shared = self.shared
        span: trace.Span = trace.INVALID_SPAN
        record: dict[str, Any] = {"time_unix_nano": now}
        last: dict[str, AttributeValue] = {semconv.SEQUENCE_ID: sequence_id, **self.identity}
        try:
            root = self.root.span.get_span_context()
            if root.is_valid:
                ambient = parents.ambient()
                parent, links = parents.step_parent(shared.config.step_parent, root, ambient)
                span = start_span(
                    shared.tracer,
                    shared.policy.name(facts.name),
                    parent=parent,
                    links=links,
                    attributes={**facts.attributes, **last},
                    start_ns=now,
                )
                context = span.get_span_context()
                record |= parents.record_of(context)
                record["parent_span_id"] = trace.format_span_id(parent.span_id)
                record["root_span_id"] = trace.format_span_id(root.span_id)
                if links:
                    record["links"] = parents.records_of(links)
                if ambient is not None and ambient.trace_id != context.trace_id:
                    trace.get_current_span().add_link(context, {semconv.LINK_TYPE: semconv.LINK_STEP})
        except Exception as error:
            shield.report("starting a step span", error)
        open_span = OpenSpan(span, start_ns=now, identity=last, outer_error=outer_error)
        try:
            if open_span.recording:
                if self.method is not None:
                    span.set_attribute(semconv.EXECUTE_METHOD, self.method)
                if self._prior is not None:
                    span.set_attribute(semconv.GRAPH_NODE_PARENT_ID, self._prior)
                content = shared.policy.document("inputs", inputs)
                open_span.put(semconv.INPUTS, content)
                self._put_openinference(open_span, semconv.INPUT_VALUE, content)
        except Exception as error:
            shield.report("describing a step's inputs", error)
        return Step(self, open_span, sequence_id, facts), record

    def end_step(
        self,
        state: Any,
        result: Mapping[str, Any] | None,
        sequence_id: int,
        exception: BaseException | None,
        in_flight: BaseException | None,
    ) -> None:
        """A step has ended, as Burr tells it; see DESIGN on what Burr leaves out.

        Args:
            state: The state after the step, or before it when the step did not complete.
            result: The result; `None` when there is none, or Burr lost it.
            sequence_id: Burr's number of the step.
            exception: What Burr says was raised.
            in_flight: What `sys.exc_info` says is being handled or raised.
        """
        step = self._steps.pop(sequence_id, None)
        if step is None:
            return
        now = self.shared.clock()
        step.open_span.scope.detach()
        if step.final is not None:
            # The stream was complete. What its consumer handles meanwhile is not the step's.
            exception = None
        elif exception is None and result is None:
            if in_flight is not None and in_flight is not step.open_span.outer_error:
                exception = in_flight  # Ctrl-C, cancellation: Burr passes on only `Exception`
            elif step.streaming:
                exception = GeneratorExit()
            else:
                # A synchronous action under an asynchronous method: `state` is the one before
                # the step, and the true one comes with the next hook.
                self._pending = (step, now)
                return
        self._finish_step(step, state, result, exception, now)

    def settle_stream(self, step: Step) -> None:
        """End a stream's step that Burr will not end: read by `next()`, or never read."""
        if not step.streaming or self._steps.get(step.sequence_id) is not step:
            return
        del self._steps[step.sequence_id]
        now = self.shared.clock()
        if step.final is None:
            self._finish_step(step, None, None, GeneratorExit(), now)
        else:
            result, state = step.final
            state = state.update(
                **{PRIOR_STEP_KEY: step.action.name, SEQUENCE_KEY: step.sequence_id}
            )
            self._finish_step(step, state, result, None, now)

    def _settle_pending(self, state: Any) -> None:
        if self._pending is None:
            return
        (step, end_ns), self._pending = self._pending, None
        if state is not None and state.get(SEQUENCE_KEY) != step.sequence_id:
            state = state.update(**{SEQUENCE_KEY: step.sequence_id})  # Burr has counted on
        self._finish_step(step, state, None, None, end_ns)

    def _finish_step(
        self,
        step: Step,
        state: Any,
        result: Mapping[str, Any] | None,
        error: BaseException | None,
        end_ns: int,
    ) -> None:
        """End the span, then keep the snapshot."""
        if not step.open_span.claim_end():
            return
        shared = self.shared
        encoded: EncodedState | None = None
        failure: SnapshotError | None = None
        if state is not None:
            try:
                encoded = encode_state(
                    state,
                    serde_kwargs=shared.serde_kwargs,
                    run=f"{shared.project}/{self.app_id}",
                    sequence_id=step.sequence_id,
                )
            except SnapshotError as problem:
                failure = problem
                self._snapshot_failed(step, problem)
            self._state = weakref.ref(state)
        outcome = self._end_span(step, error, end_ns, result=result, state=state)
        if error is None:
            self._prior = step.action.name
        if self.session is not None and encoded is not None:
            try:
                self._write_end(step, result, error, encoded, end_ns, outcome)
            except SnapshotError as problem:
                failure = problem
        if failure is not None and error is None:
            if shared.config.on_snapshot_error == "raise":
                raise failure
            logger.warning("%s", failure)

    def _write_end(
        self,
        step: Step,
        result: Mapping[str, Any] | None,
        error: BaseException | None,
        encoded: EncodedState,
        end_ns: int,
        outcome: str,
    ) -> None:
        assert self.session is not None
        if step.streaming:
            self.session.end_stream(
                sequence_id=step.sequence_id, items=step.items, time_ns=end_ns
            )
        size = self.session.end_step(
            sequence_id=step.sequence_id,
            action=step.action.name,
            result=result,
            exception=None if error is None else exceptions.formatted(error),
            state=encoded,
            time_ns=end_ns,
            otel={
                **parents.record_of(step.open_span.context),
                "time_unix_nano": end_ns,
                "outcome": outcome,
            },
        )
        self.shared.metrics.snapshot(size)

    def _end_span(
        self,
        step: Step,
        error: BaseException | None,
        end_ns: int,
        *,
        result: Mapping[str, Any] | None,
        state: Any,
    ) -> str:
        """End a step's span and account for it; never raises."""
        outcome = outcome_of(error)
        message = None
        try:
            message = self._describe_end(step, error, outcome, end_ns, result, state)
        except Exception as problem:
            shield.report("describing a step", problem)
        try:
            step.open_span.end(end_ns, {semconv.OUTCOME: outcome})
        except Exception as problem:
            shield.report("ending a step span", problem)
        self._last = (step.sequence_id, step.open_span.context)
        self.root.leave(end_ns, outcome, message)
        self.shared.metrics.step_ended(
            step.action.name, outcome, max(0, end_ns - step.open_span.start_ns) / 1e9
        )
        return outcome

    def _describe_end(
        self,
        step: Step,
        error: BaseException | None,
        outcome: str,
        end_ns: int,
        result: Mapping[str, Any] | None,
        state: Any,
    ) -> str | None:
        """Set what the end of a step adds to its span.

        Returns:
            The failure's message, for the root, if the step failed.
        """
        policy, open_span = self.shared.policy, step.open_span
        message = None
        if outcome == semconv.ERROR and error is not None:
            content = policy.exception(error)
            message = content.message or content.type
            exceptions.record_exception(open_span.span, content, end_ns, failed=True)
        if not open_span.recording:
            return message
        if step.streaming:
            open_span.span.set_attribute(semconv.STREAM_ITEMS, step.items)
            if step.first_item_ns is not None:
                open_span.span.set_attribute(
                    semconv.STREAM_TIME_TO_FIRST_ITEM,
                    (step.first_item_ns - open_span.start_ns) / 1e9,
                )
            open_span.span.add_event(
                semconv.EVENT_STREAM_END, {semconv.STREAM_ITEMS: step.items}, timestamp=end_ns
            )
        if result is not None:
            open_span.put(semconv.RESULT, policy.document("results", result))
        written = None
        if state is not None and error is None and step.action.writes:
            values = {key: state[key] for key in step.action.writes if key in state}
            written = policy.document("state", values)
            open_span.put(semconv.STATE_WRITTEN, written)
        # Most actions return only state, so that is what they put out.
        output = policy.document("results", result) if result else written
        self._put_openinference(open_span, semconv.OUTPUT_VALUE, output)
        return message

    def _put_openinference(self, open_span: OpenSpan, name: str, content: Any) -> None:
        if self.shared.config.openinference_content and content is not None:
            open_span.put(name, content)
            mime = semconv.INPUT_MIME_TYPE if name == semconv.INPUT_VALUE else semconv.OUTPUT_MIME_TYPE
            open_span.span.set_attribute(mime, semconv.MIME_JSON)

    def _snapshot_failed(self, step: Step, error: SnapshotError) -> None:
        if step.open_span.recording:
            step.open_span.span.set_attribute(
                semconv.SNAPSHOT_ERROR, self.shared.policy.text(str(error))
            )

    # --- streams -----------------------------------------------------------------------------

    def begin_stream(self, sequence_id: int) -> None:
        """The step in progress turns out to be a stream: current only while it runs."""
        step = self._steps.get(sequence_id)
        if step is None:
            return
        step.streaming = True
        step.open_span.scope.detach()
        if self.session is not None:
            self.session.begin_stream(sequence_id=sequence_id, time_ns=self.shared.clock())

    def stream_item(self, sequence_id: int) -> None:
        """A stream has yielded an item."""
        step = self._steps.get(sequence_id)
        if step is None:
            return
        now = self.shared.clock()
        step.items += 1
        self.root.touch(now)
        if step.first_item_ns is not None:
            return
        step.first_item_ns = now
        step.open_span.span.add_event(semconv.EVENT_STREAM_FIRST_ITEM, timestamp=now)
        self.shared.metrics.first_item(step.action.name, (now - step.open_span.start_ns) / 1e9)
        if self.session is not None:
            self.session.first_stream_item(sequence_id=sequence_id, time_ns=now)

    def stream_step(self, sequence_id: int) -> Step | None:
        """The step of a stream, for the driver."""
        step = self._steps.get(sequence_id)
        return step if step is not None and step.streaming else None

    # --- inner spans -------------------------------------------------------------------------

    def begin_span(
        self,
        burr_span: Any,
        sequence_id: int,
        dependencies: list[str],
        outer_error: BaseException | None,
    ) -> None:
        """An inner span begins."""
        step = self._steps.get(sequence_id)
        if step is None:
            return
        now = self.shared.clock()
        enclosing = step.inner.get(id(burr_span.parent), (None, step.open_span))[1]
        current = innermost_scope()
        # What is current inside the enclosing Burr span (an HTTP span, say) is the closer parent;
        # in a thread that copied no context, or another trace, it is not.
        parent = enclosing.context
        ambient = parents.ambient()
        if ambient is not None and enclosing.scope.encloses(current):
            parent = ambient
        named = {each.name: opened.context for each, opened in step.inner.values()}
        links = parents.links(
            *((named.get(name), semconv.LINK_DEPENDENCY) for name in dependencies)
        )
        last: dict[str, AttributeValue] = {semconv.SEQUENCE_ID: sequence_id, **self.identity}
        span: trace.Span = trace.INVALID_SPAN
        if parent.is_valid:
            span = start_span(
                self.shared.tracer,
                self.shared.policy.name(burr_span.name),
                parent=parent,
                links=links,
                attributes=last,
                start_ns=now,
            )
        opened = OpenSpan(
            span, start_ns=now, identity=last, outer_error=outer_error, parent=enclosing.scope
        )
        step.inner[id(burr_span)] = (burr_span, opened)
        opened.scope.attach()
        if self.session is not None:
            self.session.begin_span(
                sequence_id=sequence_id,
                span_id=burr_span.uid,
                name=burr_span.name,
                parent_span_id=burr_span.parent.uid if burr_span.parent else None,
                dependencies=dependencies,
                time_ns=now,
                otel={**parents.record_of(opened.context), "time_unix_nano": now},
            )

    def end_span(
        self, burr_span: Any, sequence_id: int, in_flight: BaseException | None
    ) -> None:
        """An inner span has ended."""
        step = self._steps.get(sequence_id)
        found = step.inner.get(id(burr_span)) if step is not None else None
        if found is None:
            return
        _, opened = found
        opened.scope.detach()
        now = self.shared.clock()
        error = in_flight if in_flight is not opened.outer_error else None
        if outcome_of(error) == semconv.ERROR and error is not None:
            content = self.shared.policy.exception(error)
            exceptions.record_exception(opened.span, content, now, failed=True)
        if opened.claim_end():
            opened.end(now, {})
        if self.session is not None:
            self.session.end_span(
                sequence_id=sequence_id,
                span_id=burr_span.uid,
                time_ns=now,
                otel={
                    **parents.record_of(opened.context),
                    "time_unix_nano": now,
                    "outcome": outcome_of(error),
                },
            )

    def log_attributes(
        self, attributes: Mapping[str, Any], burr_span: Any, sequence_id: int, tags: Any
    ) -> None:
        """The action logs attributes on its step or on an inner span."""
        step = self._steps.get(sequence_id)
        if step is not None:
            target = step.inner.get(id(burr_span), (None, step.open_span))[1]
            for key, value in attributes.items():
                target.put(
                    self.shared.policy.name(key), self.shared.policy.attribute(key, value)
                )
        if self.session is None:
            return
        for key, value in attributes.items():
            self.session.attribute(
                key=key,
                value=value,
                tags=tags,
                sequence_id=sequence_id,
                span_id=burr_span.uid if burr_span is not None else None,
                time_ns=self.shared.clock(),
            )


def identity(
    project: str, app_id: str, partition_key: str | None
) -> dict[str, AttributeValue]:
    """The attributes that every span of a run carries."""
    found: dict[str, AttributeValue] = {
        semconv.SESSION_ID: app_id,
        semconv.PROJECT: project,
        semconv.APP_ID: app_id,
    }
    if partition_key is not None:
        found[semconv.PARTITION_KEY] = partition_key
    return found


registry: Registry[Run] = Registry()
