"""What a tracker does when Burr calls: one short method a hook.

Only synchronous hooks: Burr runs asynchronous ones in tasks of their own, where a span made current
is lost to the action.
"""

from __future__ import annotations

import functools
import sys
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from burr.lifecycle.base import PostApplicationExecuteCallHook, PreApplicationExecuteCallHook
from burr.tracking.base import SyncTrackingClient

from burr_otel.config import OtelConfig
from burr_otel.errors import BurrOtelError, SnapshotError
from burr_otel.live.build import BuiltApplication, start_run
from burr_otel.live.registry import Owner
from burr_otel.live.run import registry
from burr_otel.live.shared import Shared
from burr_otel.spans import keeper, shield
from burr_otel.spans.parents import Spawner
from burr_otel.store import Store

_KEEP_DATA = frozenset(
    {"post_application_create", "pre_run_execute_call", "pre_run_step", "post_run_step"}
)
Hook = TypeVar("Hook", bound=Callable[..., None])


class _Inside(threading.local):
    """What the running thread is inside of."""

    hook = False


_inside = _Inside()


def _hook(method: Hook) -> Hook:
    """Keep our own errors from Burr, and finalisers from running inside a hook.

    The garbage collector may finalise an abandoned stream, and Burr then calls hooks, at any
    allocation, also at one made while this thread is inside a hook and holds a lock. Such a call
    is left to the keeper. An error of a hook that keeps data is a `SnapshotError`.
    """
    keeps_data = method.__name__ in _KEEP_DATA

    @functools.wraps(method)
    def guarded(self: RunHooks, **arguments: Any) -> None:
        if _inside.hook:
            keeper.keeper.defer(functools.partial(guarded, self, **arguments))
            return
        _inside.hook = True
        try:
            method(self, **arguments)
        except BurrOtelError:
            raise
        except Exception as error:
            if keeps_data and self.config.snapshots != "off":
                self._tell_lost(method.__name__, arguments, error)
            shield.report(method.__name__, error)
        finally:
            _inside.hook = False

    return cast("Hook", guarded)


class RunHooks(SyncTrackingClient, PreApplicationExecuteCallHook, PostApplicationExecuteCallHook):
    """Burr's hooks, each passed on to the run that it is about; what they need, a tracker has."""

    config: OtelConfig
    project_id: str
    _owner: Owner
    _store: Store
    _spawner: Spawner
    _last_run: tuple[str, str | None] | None = None  # app id and partition key

    @abstractmethod
    def _shared(self) -> Shared:
        """What the runs of the tracker share."""

    @abstractmethod
    def _leave_nothing_open(self) -> None:
        """End what is idle and flush: this process may be killed as soon as its task is done."""

    def _tell_lost(self, hook: str, arguments: Mapping[str, Any], error: Exception) -> None:
        """Say that a state may not be kept, whatever the cause."""
        if self.config.on_snapshot_error == "raise":
            run = f"{self.project_id}/{arguments['app_id']}"
            cause = f"{hook} failed: {type(error).__name__}"
            raise SnapshotError(run, cause, sequence_id=arguments.get("sequence_id")) from error

    @_hook
    def post_application_create(
        self,
        *,
        app_id: str,
        partition_key: str | None,
        state: Any,
        application_graph: Any,
        parent_pointer: Any,
        spawning_parent_pointer: Any,
        **future_kwargs: Any,
    ) -> None:
        """Start the application span and open the run's files."""
        built = BuiltApplication(
            app_id, partition_key, state, application_graph, parent_pointer, spawning_parent_pointer
        )
        start_run(self._shared(), self._store, built, self._spawner)
        self._last_run = app_id, partition_key

    @_hook
    def pre_run_execute_call(
        self,
        *,
        app_id: str,
        partition_key: str | None,
        state: Any,
        method: Any,
        **future_kwargs: Any,
    ) -> None:
        """Note which of Burr's methods runs the application."""
        run = registry.resolve(self._owner, app_id, partition_key, state=state)
        if run is not None:
            run.executing(method.value, state, sys.exc_info()[1])

    @_hook
    def post_run_execute_call(
        self, *, app_id: str, partition_key: str | None, state: Any, **future_kwargs: Any
    ) -> None:
        """Note the state that the call ended with."""
        run = registry.resolve(self._owner, app_id, partition_key)
        if run is not None:
            run.executed(state, sys.exc_info()[1])
            if run.is_outpost:
                self._leave_nothing_open()

    @_hook
    def pre_run_step(
        self,
        *,
        app_id: str,
        partition_key: str | None,
        sequence_id: int,
        state: Any,
        action: Any,
        inputs: Mapping[str, Any],
        **future_kwargs: Any,
    ) -> None:
        """Start the step's span and make it current."""
        run = registry.resolve(self._owner, app_id, partition_key, action=action, state=state)
        if run is not None:
            run.begin_step(action, inputs, sequence_id, state, sys.exc_info()[1])

    @_hook
    def post_run_step(
        self,
        *,
        app_id: str,
        partition_key: str | None,
        sequence_id: int,
        state: Any,
        action: Any,
        result: Mapping[str, Any] | None,
        exception: BaseException | None,
        **future_kwargs: Any,
    ) -> None:
        """End the step's span and keep its state."""
        run = registry.resolve(self._owner, app_id, partition_key, action=action)
        if run is not None:
            run.end_step(state, result, sequence_id, exception, sys.exc_info()[1])

    @_hook
    def pre_start_span(
        self,
        *,
        app_id: str,
        partition_key: str | None,
        action_sequence_id: int,
        span: Any,
        span_dependencies: list[str],
        **future_kwargs: Any,
    ) -> None:
        """Start an inner span and make it current."""
        run = registry.resolve(self._owner, app_id, partition_key)
        if run is not None:
            run.begin_span(span, action_sequence_id, span_dependencies, sys.exc_info()[1])

    @_hook
    def post_end_span(
        self,
        *,
        app_id: str,
        partition_key: str | None,
        action_sequence_id: int,
        span: Any,
        **future_kwargs: Any,
    ) -> None:
        """End an inner span."""
        run = registry.resolve(self._owner, app_id, partition_key)
        if run is not None:
            run.end_span(span, action_sequence_id, sys.exc_info()[1])

    @_hook
    def do_log_attributes(
        self,
        *,
        attributes: Mapping[str, Any],
        app_id: str,
        partition_key: str | None,
        action_sequence_id: int,
        span: Any,
        tags: Mapping[str, Any],
        **future_kwargs: Any,
    ) -> None:
        """Set attributes on the step or inner span that they were logged on."""
        run = registry.resolve(self._owner, app_id, partition_key)
        if run is not None:
            run.log_attributes(attributes, span, action_sequence_id, tags)

    @_hook
    def pre_start_stream(
        self, *, app_id: str, partition_key: str | None, sequence_id: int, **future_kwargs: Any
    ) -> None:
        """The step in progress is a stream."""
        run = registry.resolve(self._owner, app_id, partition_key)
        if run is not None:
            run.begin_stream(sequence_id)

    @_hook
    def post_stream_item(
        self, *, app_id: str, partition_key: str | None, sequence_id: int, **future_kwargs: Any
    ) -> None:
        """Count an item."""
        run = registry.resolve(self._owner, app_id, partition_key)
        if run is not None:
            run.stream_item(sequence_id)

    @_hook
    def post_end_stream(self, **future_kwargs: Any) -> None:
        """Nothing: `post_run_step` comes first and has ended the stream."""
