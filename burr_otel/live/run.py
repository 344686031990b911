"""One application as one tracker sees it: its spans and its records, kept in step.

A `Run` is made when an application is built and lives as long as the application does. Its methods
are called by Burr's hooks with Burr's own arguments (see `burr_otel.hooks`); a record that cannot
be written is a `SnapshotError` once the span has ended properly.
"""

from __future__ import annotations

import sys
import uuid
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from burr_otel import forks, semconv
from burr_otel.errors import SnapshotError
from burr_otel.live import step_end
from burr_otel.live.capture import found_by_step, raised_of
from burr_otel.live.inner import InnerSpan, logged_records
from burr_otel.live.registry import GraphReference, close_collected, registry
from burr_otel.live.step import LiveStep
from burr_otel.printable import logger
from burr_otel.spans import describe
from burr_otel.spans.scope import current_context, innermost_scope

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

    from burr_otel.live.build import BuiltApplication
    from burr_otel.live.root import Root
    from burr_otel.live.shared import Shared
    from burr_otel.store import Session

SEQUENCE_KEY = "__SEQUENCE_ID"  # burr.core.application.SEQUENCE_ID
PRIOR_STEP_KEY = "__PRIOR_STEP"  # burr.core.application.PRIOR_STEP


class Run:
    """One live application."""

    __slots__ = (
        "__weakref__", "_calls", "_graph", "_last", "_method", "_opens", "_outer_error", "_prior",
        "_state", "_step_failed", "_steps", "answers_later", "app_id", "is_outpost", "owner",
        "partition_key", "root", "session", "shared",
    )  # fmt: skip

    def __init__(
        self,
        shared: Shared,
        built: BuiltApplication,
        root: Root,
        opens: Callable[[], Root] | None = None,
    ) -> None:
        self.shared, self.owner = shared, shared.owner
        self.app_id, self.partition_key = built.app_id, built.partition_key
        self.root = root
        self._opens = opens  # with empty_runs="drop": opens the run at the first execute call
        self.session: Session | None = root.session
        self.is_outpost = False  # spawned from another process: this one may be killed when done
        self.answers_later = False  # an `AnswersHook` waits for the store
        self._method: str | None = None
        self._prior: str | None = built.state.get(PRIOR_STEP_KEY)
        self._steps: dict[int, LiveStep] = {}
        self._last: tuple[int | None, SpanContext | None] = None, None
        self._calls = 0
        self._outer_error: BaseException | None = None
        self._step_failed = False
        self._state = weakref.ref(built.state)
        self._graph = GraphReference(built.graph, close_collected)
        self._graph.run = weakref.ref(self)

    @property
    def name(self) -> str:
        """``project/app_id``, for messages."""
        return f"{self.shared.project}/{self.app_id}"

    @property
    def is_open(self) -> bool:
        """Whether its span and its records have begun."""
        return self._opens is None

    def _open(self) -> None:
        if self._opens is not None:
            self.root = self._opens()
            self.session, self._opens = self.root.session, None

    # --- what the registry asks ---------------------------------------------------------------

    def has_action(self, action: Any) -> bool:
        """Whether `action` belongs to this run's graph."""
        graph = self._graph()
        return graph is not None and any(each is action for each in graph.actions)

    def saw_state(self, state: Any) -> bool:
        """Whether `state` is the object that the application held when we last saw it."""
        return self._state() is state

    def step(self, sequence_id: int) -> LiveStep | None:
        """A step in progress."""
        return self._steps.get(sequence_id)

    def step_context(self, sequence_id: int) -> SpanContext | None:
        """Span context of a step in progress, or of the last one finished."""
        step = self._steps.get(sequence_id)
        if step is None:
            number, context = self._last
            return context if number == sequence_id else None
        return step.context

    def after_fork(self) -> None:
        """In a forked child: the open spans are the parent's, and so is the session."""
        self.root.forget()
        self._steps.clear()
        if self.session is not None:
            self.session = self.root.session = self.session.fork(uuid.uuid4().hex)

    # --- the application ----------------------------------------------------------------------

    def executing(self, *, method: Any, state: Any, **_told: Any) -> None:
        """Note which of Burr's methods runs the application."""
        forks.notice()
        self._open()
        self._method = method.value
        self._calls += 1
        if self.session is not None:
            asks = self._method in ("run", "step") and not self.answers_later
            self.session.method = self._method if asks else None
        self._outer_error, self._step_failed = sys.exc_info()[1], False
        self._state = weakref.ref(state)
        self.root.touch(self.shared.clock())
        registry.executing(self)

    def executed(self, state: Any) -> None:
        """An execute call has ended with `state`, perhaps raising what `sys.exc_info` reports."""
        in_flight = sys.exc_info()[1]
        self._state = weakref.ref(state)
        self._calls = max(0, self._calls - 1)
        error = None if in_flight is self._outer_error else in_flight
        here = innermost_scope() if self._steps else None
        for step in list(self._steps.values()):
            # A stream that nobody reads counts as a call for good.
            if not step.streaming and (not self._calls or step.encloses(here)):
                self.settle(step, state, error)
        # Between steps: a condition, a missing input, an unknown action to halt after.
        failed = self.shared.outcome_of(error) == semconv.ERROR
        if error is not None and failed and not self._step_failed:
            self.root.fail(*step_end.failure_of(self.shared.policy, raised_of(error)))
        self.root.touch(self.shared.clock())
        self._outer_error = None
        current_context()  # what another hook's token brought back of ours is not current any more
        registry.not_executing(self)
        if self.session is not None:
            if not self._calls:
                self.session.method = None  # a dropped stream's end comes when nobody asks
            for failure in self.session.settle():  # also steps whose asynchronous hook never came
                self.tell_lost(failure, error)

    def end_open_spans(self) -> None:
        """End all open spans; the state of a stream that goes on later is still kept."""
        for step in list(self._steps.values()):
            if step.streaming and not step.running:
                self._finish(step, None, None, GeneratorExit(), self.shared.clock())
                step.go_on_unseen()
                self._steps[step.sequence_id] = step
                self.root.enter(self.shared.clock())
        self.root.finish()

    def close(self) -> None:
        """The application is gone: end what is open."""
        registry.remove(self)
        for step in list(self._steps.values()):
            self.drop(step)
        self.root.finish()
        if self.session is not None:
            self.session.close()

    # --- steps --------------------------------------------------------------------------------

    def begin_step(
        self,
        *,
        action: Any,
        inputs: Mapping[str, Any],
        sequence_id: int,
        state: Any,
        **_told: Any,
    ) -> None:
        """Make a step's span and its record, and make the span current."""
        if self._opens is not None:
            self._open()
        if self._steps:
            self._settle_earlier(sequence_id, state)
        shared, root, session = self.shared, self.root, self.session
        now = shared.clock()
        name = action.name
        facts = root.facts.actions.get(name) or root.facts.action(name)
        step = LiveStep(self, facts, sequence_id, state, sys.exc_info()[1])
        bound = getattr(action, "_bound_params", None)
        if inputs or bound:
            # `astep` and streams pass on everything that the caller gave, also what others take.
            taken = {key: value for key, value in inputs.items() if key in facts.inputs}
            inputs = {**bound, **taken} if bound else taken
        step.start(inputs, self._method, self._prior, now)
        step.labels = shared.metrics.step_began(str(facts.attributes[semconv.ACTION_NAME]))
        self._steps[sequence_id] = step
        root.enter(now)
        if root.ended and session is not None:
            session.mark_open(root.ids, now)
        step.enter(step.outer)
        if session is None:
            return
        if session.grown_from is None:  # no step has told of a state yet
            session.begin_with(found_by_step(state, facts.writes, shared.serde_kwargs, self.name))
        if shared.config.child_spans == "record":
            step.tag.child_records = session
        try:
            session.begin_step(step.begin, later=self.answers_later)
        except SnapshotError as error:
            self.refuse_step(sequence_id, error)

    def refuse_step(self, sequence_id: int, error: SnapshotError) -> None:
        """The begin of a step cannot be recorded, so it does not take place."""
        if self.shared.config.on_snapshot_error == "raise":
            step = self._steps[sequence_id]
            begun = error.sequence_id != sequence_id  # an earlier step's end is what is lost
            self._finish(step, None, None, error, step.begin.time_ns, recorded=begun)
            raise error
        logger.warning("%s", describe.snapshot_text(self.shared.policy, error))

    def _settle_earlier(self, sequence_id: int, state: Any) -> None:
        """Steps whose post hook never came, because another hook raised or a stream was dropped."""
        here = innermost_scope()
        for step in list(self._steps.values()):
            is_over = step.sequence_id != sequence_id if step.streaming else step.encloses(here)
            if is_over:
                self.settle(step, state)

    def end_step(
        self,
        *,
        state: Any,
        result: Mapping[str, Any] | None,
        sequence_id: int,
        exception: BaseException | None,
        **_told: Any,
    ) -> None:
        """End a step's span and keep its state."""
        step = self._steps.get(sequence_id)
        if step is None:  # the finaliser of a dropped stream has ended it, perhaps in another task
            current_context()
            return
        if exception is not None and result is None and state is not step.state_before:
            return  # the end of a dropped stream, told under the id of the step in progress
        now = self.shared.clock()
        if step.streaming and step.final is not None:
            exception = None  # the stream was complete; what its consumer handles is not its own
        elif step.final is not None:
            result, state = step.final  # Burr has the state before the step, and no result
        elif exception is None and result is None:
            # Ctrl-C and cancellation: Burr passes on an `Exception` only.
            in_flight = sys.exc_info()[1]
            exception = None if in_flight is step.outer_error else in_flight
            if exception is None and step.streaming:
                exception = GeneratorExit()
            elif exception is None:
                # The state before the step is not the step's, and nothing else told of another.
                logger.warning(
                    "%s: Burr does not tell what %r gave, so its state is not kept; "
                    "burr-otel is not made for this version of Burr.",
                    self.name,
                    step.action.name,
                )
                state = None
        self._finish(step, state, result, exception, now)

    def settle(self, step: LiveStep, state: Any = None, error: BaseException | None = None) -> None:
        """End a step whose post hook never came.

        Whether its action completed is told by `state`, of a stream by what it has yielded.
        """
        if self._steps.get(step.sequence_id) is not step:
            return
        now, name, result = self.shared.clock(), step.action.name, None
        if step.streaming:
            completed = step.final is not None
            if step.final is not None:
                result, state = step.final
                state = state.update(**{PRIOR_STEP_KEY: name, SEQUENCE_KEY: step.sequence_id})
        else:
            completed = state is not step.state_before and state.get(PRIOR_STEP_KEY) == name
        if completed:
            self._finish(step, state, result, None, now)
        else:
            self._finish(step, None, None, error or GeneratorExit(), now)

    def drop(self, step: LiveStep) -> None:
        """End a step where nobody could catch an error: in the keeper's thread."""
        try:
            self.settle(step, step.state_before)
        except SnapshotError as failure:
            self.tell_lost(failure, failure)

    def _finish(
        self,
        step: LiveStep,
        state: Any,
        result: Any,
        error: BaseException | None,
        end_ns: int,
        *,
        recorded: bool = True,
    ) -> None:
        """Nothing of a step is current any more; write its record and end its span."""
        step.leave()  # first: a Ctrl-C in here leaves nothing current
        try:
            step.claims.pop()
        except IndexError:
            return  # another thread ends it, or has
        self._steps.pop(step.sequence_id, None)
        session = self.session if recorded else None
        if step.inner:
            step.end_inner(end_ns, session)
        step.tag.child_records = None
        self._step_failed = self._step_failed or error is not None
        if error is None and state is not None:
            self._prior = step.action.name
            self._state = weakref.ref(state)
        try:
            failure = step_end.finish(step, state, result, error, end_ns, session)
        finally:
            step.state_before = None  # a task that was begun inside may go on, in its context
            self._last = step.sequence_id, step.context
            if self.root.ended and self.session is not None and not self._steps:
                self.session.unmark()
        if failure is not None:
            self.tell_lost(failure, error)

    def tell_lost(self, failure: SnapshotError, error: BaseException | None) -> None:
        """A step's state could not be kept: raise or log."""
        if error is None and self.shared.config.on_snapshot_error == "raise":
            raise failure
        # Also when raising it would mask the user's own error.
        logger.warning("%s", describe.snapshot_text(self.shared.policy, failure))

    # --- streams ------------------------------------------------------------------------------

    def begin_stream(self, *, sequence_id: int, **_told: Any) -> None:
        """The step in progress is a stream."""
        step = self._steps.get(sequence_id)
        if step is not None:
            step.begin_stream(self.session)

    def stream_item(self, *, sequence_id: int, **_told: Any) -> None:
        """The stream has given an item."""
        step = self._steps.get(sequence_id)
        if step is not None:
            step.item(self.session)

    # --- inner spans --------------------------------------------------------------------------

    def begin_span(
        self,
        *,
        action_sequence_id: int,
        span: Any,
        span_dependencies: list[str],
        **_told: Any,
    ) -> None:
        """Start an inner span and make it current."""
        step = self._steps.get(action_sequence_id)
        if step is not None:
            now, outer_error = self.shared.clock(), sys.exc_info()[1]
            InnerSpan(step, span, span_dependencies, now, outer_error, self.session)

    def end_span(self, *, action_sequence_id: int, span: Any, **_told: Any) -> None:
        """End an inner span."""
        step = self._steps.get(action_sequence_id)
        inner = None if step is None else step.inner.get(id(span))
        if inner is not None:
            inner.end(self.shared.clock(), self.session, sys.exc_info()[1])

    def log_attributes(
        self,
        *,
        attributes: Mapping[str, Any],
        action_sequence_id: int,
        span: Any,
        tags: Mapping[str, Any],
        **_told: Any,
    ) -> None:
        """Set attributes on the step or inner span that they were logged on."""
        step = self._steps.get(action_sequence_id)
        if step is not None:
            step.log(attributes, span, tags, self.session)
        elif self.session is not None:  # the step is over: they only go into the log
            for record, _ in logged_records(
                self.shared, attributes, span, action_sequence_id, tags, self.name
            ):
                self.session.append(record)
