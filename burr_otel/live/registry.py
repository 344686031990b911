"""The applications of this process: which one a hook speaks of, and where a step's span is.

Burr's hooks name an application by its id only, while a web server may hold several live
applications of one id, and copies of one tracker run in many threads.
"""

from __future__ import annotations

import threading
import uuid
import weakref
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from burr_otel import forks, semconv
from burr_otel.spans import keeper
from burr_otel.spans.scope import current_span_context, innermost_scope

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

    from burr_otel.live.capture import Digests
    from burr_otel.live.run import Run


class Owner:
    """Stands for a tracker, whose hooks speak of runs of this owner."""

    __slots__ = ("_original",)

    def __init__(self, original: Owner | None = None) -> None:
        self._original = original

    def is_within(self, other: Owner) -> bool:
        """Whether this is `other`, a copy of it, a copy of a copy, and so on."""
        owner: Owner | None = self
        while owner is not None:
            if owner is other:
                return True
            owner = owner._original  # noqa: SLF001  # our own class
        return False


class Spawner(NamedTuple):
    """The step in progress where a tracker was copied, for the sub-application's process.

    `digests` are checksums of the state that the step found, see `live.capture`.
    """

    context: SpanContext | None = None
    pointer: tuple[str, int] | None = None  # app id and sequence id
    conversation_id: str | None = None
    digests: Mapping[str, int | None] | None = None


class Registry:
    """Live runs by app id, oldest first."""

    def __init__(self) -> None:
        self.process = uuid.uuid4().hex  # no other process has it, a forked child neither
        self._lock = threading.RLock()  # reentrant: a finaliser may run inside
        self._only: dict[str, Run] = {}
        self._several: dict[str, list[Run]] = {}  # of one app id
        self._executing: ContextVar[dict[str, weakref.ref[Run]] | None] = ContextVar(
            "burr_otel_executing", default=None
        )
        forks.in_child(self._after_fork)

    def __len__(self) -> int:
        return len(self._only) + sum(len(runs) for runs in self._several.values())

    def add(self, run: Run) -> None:
        """Enter a run."""
        with self._lock:
            runs = self._several.get(run.app_id)
            if runs is not None:
                runs.append(run)
            elif run.app_id in self._only:
                self._several[run.app_id] = [self._only[run.app_id], run]
                del self._only[run.app_id]
            else:
                self._only[run.app_id] = run

    def remove(self, run: Run) -> None:
        """Strike a run out; idempotent."""
        with self._lock:
            runs = self._several.get(run.app_id)
            if runs is None:
                if self._only.get(run.app_id) is run:
                    del self._only[run.app_id]
            elif run in runs:
                runs.remove(run)
                if len(runs) == 1:
                    self._only[run.app_id] = runs[0]
                    del self._several[run.app_id]

    def runs(self, app_id: str | None = None) -> Iterator[Run]:
        """Runs of an app id, or all; the newest first."""
        with self._lock:
            if app_id is None:
                several = (run for runs in self._several.values() for run in runs)
                return reversed([*self._only.values(), *several])
            only = self._only.get(app_id)
            found = self._several.get(app_id, ()) if only is None else (only,)
            return reversed(tuple(found))

    def resolve(self, owner: Owner, told: Mapping[str, Any]) -> Run | None:
        """The run of the tracker `owner` that Burr tells a hook of; None when it is not here."""
        run = self._only.get(told["app_id"])
        if run is None:
            return self._among_several(owner, told)
        return run if run.owner is owner else None

    def _among_several(self, owner: Owner, told: Mapping[str, Any]) -> Run | None:
        app_id = told["app_id"]
        runs = [run for run in self.runs(app_id) if run.owner is owner]
        if len(runs) > 1:
            runs = [run for run in runs if run.partition_key == told["partition_key"]] or runs
        if len(runs) <= 1:
            return runs[0] if runs else None
        if "action" in told:
            runs = [run for run in runs if run.has_action(told["action"])] or runs
        if len(runs) > 1 and "state" in told:
            runs = [run for run in runs if run.saw_state(told["state"])] or runs
        if len(runs) > 1:
            reference = (self._executing.get() or {}).get(app_id)
            runs = [run for run in runs if reference is not None and run is reference()] or runs
        if "inputs" in told:  # a step begins, and an unread stream may still count as executing
            self.executing(runs[0])
        return runs[0]

    def executing(self, run: Run) -> None:
        """Note that `run` executes in the running context."""
        held = self._executing.get()
        if held is None:
            self._executing.set({run.app_id: weakref.ref(run)})
            return
        # An abandoned stream never says that it no longer executes; its run is freed some day.
        known = {k: ref for k, ref in held.items() if ref() is not None}
        self._executing.set({**known, run.app_id: weakref.ref(run)})

    def not_executing(self, run: Run) -> None:
        """Note that it no longer does."""
        known = self._executing.get()
        if known and run.app_id in known:
            rest = {key: value for key, value in known.items() if key != run.app_id}
            self._executing.set(rest or None)

    def step_context(
        self, app_id: str, sequence_id: int, near: SpanContext | None = None
    ) -> SpanContext | None:
        """Span context of a step of this process; of several, of the one in the trace of `near`."""
        found = [run.step_context(sequence_id) for run in self.runs(app_id)]
        known = [context for context in found if context is not None]
        for context in known:
            if near is not None and context.trace_id == near.trace_id:
                return context
        return known[0] if known else None

    def spawner(self) -> Spawner:
        """The step in progress here, else the span that is current."""
        scope = innermost_scope()
        if scope is None:
            return Spawner(current_span_context())
        step, run = scope.tag, scope.tag.run
        context = step.context if step.context.is_valid else None
        app_id = str(run.identity[semconv.APP_ID])
        digests = self.state_digests(app_id, step.sequence_id)
        return Spawner(context, (app_id, step.sequence_id), run.conversation_id, digests)

    def state_digests(self, app_id: str, sequence_id: int) -> Digests | None:
        """Checksums of the state that a step of this process in progress found."""
        steps = (run.step(sequence_id) for run in self.runs(app_id))
        return next((step.digests for step in steps if step is not None), None)

    def _after_fork(self) -> None:
        self.process = uuid.uuid4().hex
        self._lock = threading.RLock()
        for run in self.runs():
            run.after_fork()


class GraphReference(weakref.ref[Any]):
    """To the graph of a run's application, with which the application is collected."""

    __slots__ = ("run",)
    run: weakref.ref[Run]


def close_collected(graph: GraphReference) -> None:
    """Finaliser of an application; the work is the keeper's, see `Keeper`."""
    run = graph.run()
    if run is not None:
        keeper.keeper.defer(run.close)


registry = Registry()
