"""One application as one tracker sees it: its spans and its records, kept in step.

A `Run` is made when an application is built and lives as long as the application does. Each
method is what one of Burr's hooks means; a record that cannot be written is a `SnapshotError`
once the span has ended properly.
"""

from __future__ import annotations

import logging
import uuid
import weakref
from typing import TYPE_CHECKING, Any

from burr_otel import step_records
from burr_otel.errors import SnapshotError
from burr_otel.spans import exceptions, parents, roots, shield
from burr_otel.spans.actions import ActionFacts, action_facts
from burr_otel.spans.recorded import Described
from burr_otel.spans.registry import Registry
from burr_otel.spans.steps import Step
from burr_otel.store import markers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from opentelemetry.trace import SpanContext

    from burr_otel.spans.roots import Root
    from burr_otel.spans.shared import Shared
    from burr_otel.store import Session

__all__ = ["Run", "registry"]

logger = logging.getLogger("burr_otel")

SEQUENCE_KEY = "__SEQUENCE_ID"  # burr.core.application.SEQUENCE_ID
PRIOR_STEP_KEY = "__PRIOR_STEP"  # burr.core.application.PRIOR_STEP


class Run:
    """One live application.

    Args:
        shared: What the tracker's runs share.
        app_id: Burr's application id.
        partition_key: Burr's partition key.
        folder: Where its files are; `None` when there is no store.
        root: The application span.
        session: Where records go; `None` when there is no store, or none that works.
        application_graph: Burr's graph object, which lives exactly as long as the application.
        state: The state at creation.

    Attributes:
        is_outpost: Whether it was spawned by a step of another process, so that this one may end
            with it.
    """

    __slots__ = (
        "__weakref__",
        "_described",
        "_facts",
        "_folder",
        "_last",
        "_method",
        "_partition_key",
        "_prior",
        "_state",
        "_steps",
        "app_id",
        "is_outpost",
        "owner",
        "root",
        "session",
        "shared",
    )

    def __init__(
        self,
        shared: Shared,
        app_id: str,
        partition_key: str | None,
        folder: Path | None,
        root: Root,
        session: Session | None,
        application_graph: Any,
        state: Any,
    ) -> None:
        self.shared = shared
        self.app_id = app_id
        self.owner = shared.owner
        self.root = root
        self.is_outpost = False
        self._folder = folder
        self._partition_key = partition_key
        self.session = session
        self._method: str | None = None
        prior = state.get(PRIOR_STEP_KEY)
        self._prior: str | None = None if prior is None else shared.policy.name(prior)
        self._steps: dict[int, Step] = {}
        self._last: tuple[int, SpanContext] | None = None
        self._facts: dict[int, ActionFacts | None] = {
            id(action): None for action in application_graph.actions
        }
        self._described = Described()
        self._state = weakref.ref(state)
        collected = weakref.finalize(application_graph, _collected, weakref.ref(self))
        collected.atexit = False  # the keeper ends what is open at exit

    # --- what the registry asks --------------------------------------------------------------

    def has_action(self, action: Any) -> bool:
        """Whether `action` belongs to this run's graph."""
        return id(action) in self._facts

    def saw_state(self, state: Any) -> bool:
        """Whether `state` is the object that the application held when we last saw it."""
        return self._state() is state

    def root_record(self) -> dict[str, Any]:
        """Ids and start time of the application span."""
        ids = parents.record_of(self.root.context)
        return {**ids, "time_unix_nano": self.root.started_ns}

    def step_context(self, sequence_id: int) -> SpanContext | None:
        """Span context of a step in progress, or of the last one finished."""
        step = self._steps.get(sequence_id)
        if step is not None:
            return step.open_span.context
        if self._last is not None and self._last[0] == sequence_id:
            return self._last[1]
        return None

    def delegated(self, sequence_id: int, result: Any, state: Any) -> None:
        """The action of the step in progress has run, and Burr tells its hooks nothing of it."""
        step = self._steps.get(sequence_id)
        if step is not None and not step.streaming:
            step.final = (result, state)

    def stream_step(self, sequence_id: int) -> Step | None:
        """The step in progress when it is a stream."""
        step = self._steps.get(sequence_id)
        return step if step is not None and step.streaming else None

    def after_fork(self) -> None:
        """In a forked child: the open spans are the parent's, and so is the session."""
        self.root.span = self.root.stand_in
        self._steps.clear()
        self._described = Described(source=True)
        if self.session is not None:
            self.session = self.session.fork(uuid.uuid4().hex)

    # --- the application ---------------------------------------------------------------------

    def executing(self, method: str, state: Any) -> None:
        """An execute call begins."""
        self._method = method
        self._state = weakref.ref(state)
        self.root.touch(self.shared.clock())
        registry.executing(self)

    def executed(self, state: Any) -> None:
        """An execute call has ended with `state`."""
        self._state = weakref.ref(state)
        self.root.touch(self.shared.clock())
        registry.not_executing(self)

    def close(self) -> None:
        """The application is gone: end what is open."""
        registry.remove(self)
        for step in list(self._steps.values()):
            self.settle_stream(step)
        self.root.finish()
        if self.session is not None:
            self.session.close()

    def ended(self, end_ns: int, outcome: str) -> None:
        """The application span has ended."""
        roots.keeper.unwatch(self.root)
        if self.session is not None and self._folder is not None:
            markers.remove(self._folder, self.session.session_id)
            self.session.end(time_ns=end_ns, otel=self.root.end_record(end_ns, outcome))
            if self._steps:
                self._mark()
        if not self._steps:
            self._steps.clear()  # an emptied dict keeps its table

    def _mark(self) -> None:
        """Mark the session as open while steps run after the application span has ended."""
        sampled = self.root.context.trace_flags.sampled
        if self.session is None or self._folder is None or not sampled:
            return
        root = {**self.root_record(), "ended": True}
        try:
            markers.place(self._folder, self.session.session_id, root, self._partition_key)
        except FileExistsError:
            pass  # another step did
        except OSError as error:
            shield.report("marking a session as open", error)

    def _unmark(self) -> None:
        late = self.root.ended and not self._steps
        if late and self.session is not None and self._folder is not None:
            markers.remove(self._folder, self.session.session_id)

    # --- steps -------------------------------------------------------------------------------

    def begin_step(
        self,
        action: Any,
        inputs: Mapping[str, Any],
        sequence_id: int,
        outer_error: BaseException | None,
    ) -> None:
        """A step begins: start its span, make it current, write its begin record.

        Raises:
            SnapshotError: The record cannot be written, and ``on_snapshot_error`` is ``"raise"``.
        """
        if self._steps:
            for earlier in list(self._steps.values()):
                self.settle_stream(earlier)
        shared, root, session = self.shared, self.root, self.session
        now = shared.clock()
        facts = self._facts.get(id(action))
        if facts is None:
            facts = self._facts[id(action)] = action_facts(action, shared.policy.name)
        # `astep` and streams pass on everything that the caller gave, also what others take.
        seen = inputs and {key: value for key, value in inputs.items() if key in facts.inputs}
        root.enter(now)
        step = self._steps[sequence_id] = Step(
            shared,
            root,
            facts,
            sequence_id,
            seen,
            self._method,
            self._prior,
            outer_error,
            now,
            self.settle_stream,
        )
        if root.ended:
            self._mark()
        step.open_span.scope.attach()
        step.labels = shared.metrics.step_began(facts.name)
        if session is None:
            return
        if shared.recorder is not None:
            shared.recorder.watch(step.open_span.span, session, sequence_id, None)
        described = self._described
        try:
            session.begin_step(
                sequence_id=sequence_id,
                action=facts.name,
                inputs=seen,
                time_ns=now,
                otel=lambda written: step.begin_record(written, described=described),
            )
        except SnapshotError as error:
            if shared.config.on_snapshot_error == "raise":
                self._give_up(step, error, now)
                raise
            self._warn(step, error)
        else:
            step.begun = True
            described.note(facts.name)

    def _give_up(self, step: Step, error: SnapshotError, now_ns: int) -> None:
        """A step does not take place, because its begin cannot be recorded."""
        del self._steps[step.sequence_id]
        step.open_span.scope.detach()
        step.close(self._end_span(step, error, now_ns, result=None, state=None), now_ns)
        self._unmark()

    def end_step(
        self,
        state: Any,
        result: Mapping[str, Any] | None,
        sequence_id: int,
        exception: BaseException | None,
        in_flight: BaseException | None,
    ) -> None:
        """A step has ended, as Burr tells it.

        Args:
            state: The state after the step; before it, when the step did not complete.
            result: The result; `None` when there is none, or Burr lost it.
            sequence_id: Burr's number of the step.
            exception: What Burr says was raised.
            in_flight: What `sys.exc_info` reports.

        Raises:
            SnapshotError: The state cannot be kept, and ``on_snapshot_error`` is ``"raise"``.
        """
        step = self._steps.pop(sequence_id, None)
        if step is None:
            return
        now = self.shared.clock()
        step.open_span.scope.detach()
        if step.streaming and step.final is not None:
            exception = None  # the stream was complete; what its consumer handles is not its own
        elif step.final is not None:
            result, state = step.final  # Burr has the state before the step, and no result
        elif exception is None and result is None:
            # Ctrl-C and cancellation: Burr passes on an `Exception` only.
            exception = step.open_span.own_error(in_flight)
            if exception is None and step.streaming:
                exception = GeneratorExit()
            elif exception is None:
                # The state before the step is not the step's, and `delegated` saw no other.
                state = None
                logger.warning(
                    "%s: Burr does not tell what %r gave, so its state is not kept; "
                    "burr-otel is not made for this version of Burr.",
                    self.app_id,
                    step.action.name,
                )
        self._finish_step(step, state, result, exception, now)

    def settle_stream(self, step: Step) -> None:
        """End a stream's step that Burr does not end: read by `next()`, or never read."""
        if not step.streaming or self._steps.get(step.sequence_id) is not step:
            return
        del self._steps[step.sequence_id]
        now = self.shared.clock()
        if step.final is None:
            self._finish_step(step, None, None, GeneratorExit(), now)
            return
        result, state = step.final
        internal = {PRIOR_STEP_KEY: step.action.name, SEQUENCE_KEY: step.sequence_id}
        self._finish_step(step, state.update(**internal), result, None, now)

    def _finish_step(
        self,
        step: Step,
        state: Any,
        result: Mapping[str, Any] | None,
        error: BaseException | None,
        end_ns: int,
    ) -> None:
        """Describe the span, keep the snapshot, and end the span whatever came of that."""
        if not step.open_span.claim_end():
            return
        session = self.session
        encoded = written = failure = None
        if state is not None and session is not None:
            try:
                encoded, written = step_records.encode(self.shared, session, step, state)
            except SnapshotError as problem:
                failure = problem
                step.mark_snapshot_error(problem)
        plain = written if written and encoded and encoded.plain else None
        outcome = self._end_span(step, error, end_ns, result=result, state=state, plain=plain)
        if error is None:
            self._prior = step.shown_name
            if state is not None:
                self._state = weakref.ref(state)
        try:
            if session is not None:
                ended = step_records.Ended(result, error, encoded, written, end_ns, outcome)
                step_records.end_step(self.shared, session, step, ended)
        except SnapshotError as problem:
            failure = problem
            step.mark_snapshot_error(problem)
        finally:
            step.close(outcome, end_ns)
            self._unmark()
        if failure is not None:
            self._tell(failure, error)

    def _tell(self, failure: SnapshotError, error: BaseException | None) -> None:
        """A step's state could not be kept: raise or log."""
        if error is None and self.shared.config.on_snapshot_error == "raise":
            raise failure
        # Also when raising it would mask the user's own error.
        logger.warning("%s", exceptions.snapshot_text(self.shared.policy, failure))

    def _end_span(
        self,
        step: Step,
        error: BaseException | None,
        end_ns: int,
        *,
        result: Mapping[str, Any] | None,
        state: Any,
        plain: bytes | None = None,
    ) -> str:
        if self.shared.recorder is not None:
            self.shared.recorder.unwatch(step.open_span.span)
        outcome, message = step.end(error, end_ns, result=result, state=state, plain=plain)
        self._last = step.sequence_id, step.open_span.context
        self.root.leave(end_ns, outcome, message)
        return outcome

    def _warn(self, step: Step, error: SnapshotError) -> None:
        step.mark_snapshot_error(error)
        logger.warning("%s", exceptions.snapshot_text(self.shared.policy, error))

    # --- streams -----------------------------------------------------------------------------

    def begin_stream(self, sequence_id: int) -> None:
        """The step in progress is a stream."""
        step = self._steps.get(sequence_id)
        if step is None:
            return
        step.begin_stream()
        if self.session is not None:
            self.session.begin_stream(sequence_id=sequence_id, time_ns=self.shared.clock())

    def stream_item(self, sequence_id: int) -> None:
        """A stream has yielded an item."""
        step = self._steps.get(sequence_id)
        if step is None:
            return
        now = self.shared.clock()
        self.root.touch(now)
        if step.item(now) and self.session is not None:
            self.session.first_stream_item(sequence_id=sequence_id, time_ns=now)

    # --- inner spans -------------------------------------------------------------------------

    def begin_span(
        self,
        burr_span: Any,
        sequence_id: int,
        dependencies: Sequence[str],
        outer_error: BaseException | None,
    ) -> None:
        """An inner span begins."""
        step = self._steps.get(sequence_id)
        if step is not None:
            step_records.begin_inner(
                self.shared, self.session, step, burr_span, dependencies, outer_error
            )

    def end_span(self, burr_span: Any, sequence_id: int, in_flight: BaseException | None) -> None:
        """An inner span has ended."""
        step = self._steps.get(sequence_id)
        if step is not None:
            step_records.end_inner(self.shared, self.session, step, burr_span, in_flight)

    def log_attributes(
        self,
        attributes: Mapping[str, Any],
        burr_span: Any,
        sequence_id: int,
        tags: Mapping[str, Any],
    ) -> None:
        """The action logs attributes on its step or on an inner span."""
        step = self._steps.get(sequence_id)
        step_records.log_attributes(
            self.shared, self.session, step, attributes, burr_span, sequence_id, tags
        )


def _collected(reference: weakref.ref[Run]) -> None:
    """Finaliser of an application; the work is the keeper's, see `Keeper`."""
    run = reference()
    if run is not None:
        roots.keeper.defer(run.close)


registry: Registry[Run] = Registry()
