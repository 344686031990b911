"""What a tracker does when Burr calls: a table of its hooks and of the methods of a run.

Only synchronous hooks: Burr runs asynchronous ones in tasks of their own, where a span made current
is lost to the action.
"""

from __future__ import annotations

import functools
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from burr.lifecycle.base import PostApplicationExecuteCallHook, PreApplicationExecuteCallHook
from burr.tracking.base import SyncTrackingClient

from burr_otel.config import OtelConfig
from burr_otel.errors import BurrOtelError, SnapshotError
from burr_otel.interrupts import is_interrupt
from burr_otel.live.build import BuiltApplication, start_run
from burr_otel.live.registry import Owner, Spawner, registry
from burr_otel.live.run import Run
from burr_otel.live.shared import Shared
from burr_otel.spans import keeper, shield
from burr_otel.store import Store


class _Inside(threading.local):
    """Whether the running thread is inside one of our hooks."""

    hook = False


_inside = _Inside()


def _hook(method: Callable[..., None], *, of_run: bool = True, keeps_data: bool = False) -> Any:
    """A hook that calls a method of the run, or of the tracker, with all that Burr tells.

    Our own errors do not reach Burr; one in a hook that `keeps_data` does, as a `SnapshotError`.

    The garbage collector may finalise an abandoned stream at any allocation, also while this thread
    is inside a hook and holds a lock, and Burr then calls hooks. Those are left to the keeper.
    """

    @functools.wraps(method)
    def hook(self: RunHooks, **told: Any) -> None:
        if _inside.hook:
            keeper.keeper.defer(functools.partial(hook, self, **told))
            return
        _inside.hook = True
        try:
            target: Any = registry.resolve(self._owner, told) if of_run else self
            if target is not None:
                method(target, **told)
        except BurrOtelError:
            raise
        except Exception as error:
            if is_interrupt(error):
                raise
            if keeps_data and self.config.snapshots != "off":
                self._tell_lost(method.__name__, told, error)
            shield.report(method.__name__, error)
        finally:
            _inside.hook = False

    return hook


class RunHooks(SyncTrackingClient, PreApplicationExecuteCallHook, PostApplicationExecuteCallHook):
    """Burr's hooks, each passed on to its run; `OtelTracker` sets the attributes."""

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
        if self.config.on_snapshot_error == "raise" and arguments.get("exception") is None:
            run = f"{self.project_id}/{arguments['app_id']}"
            cause = f"{hook} failed: {type(error).__name__}"
            raise SnapshotError(run, cause, sequence_id=arguments.get("sequence_id")) from error

    def _created(
        self,
        *,
        app_id: str,
        partition_key: str | None,
        state: Any,
        application_graph: Any,
        parent_pointer: Any,
        spawning_parent_pointer: Any,
        **_told: Any,
    ) -> None:
        """Start the application span and open the run's files."""
        built = BuiltApplication(
            app_id, partition_key, state, application_graph, parent_pointer, spawning_parent_pointer
        )
        start_run(self._shared(), self._store, built, self._spawner)
        self._last_run = app_id, partition_key

    def _executed(self, **told: Any) -> None:
        """Note the state that an execute call ended with."""
        run = registry.resolve(self._owner, told)
        if run is not None:
            run.executed(told["state"])
            if run.is_outpost:
                self._leave_nothing_open()

    def post_end_stream(self, **_told: Any) -> None:
        """Nothing: `post_run_step` comes first and has ended the stream."""

    post_application_create = _hook(_created, of_run=False, keeps_data=True)
    pre_run_execute_call = _hook(Run.executing, keeps_data=True)
    post_run_execute_call = _hook(_executed, of_run=False)
    pre_run_step = _hook(Run.begin_step, keeps_data=True)
    post_run_step = _hook(Run.end_step, keeps_data=True)
    pre_start_span = _hook(Run.begin_span)
    post_end_span = _hook(Run.end_span)
    do_log_attributes = _hook(Run.log_attributes)
    pre_start_stream = _hook(Run.begin_stream)
    post_stream_item = _hook(Run.stream_item)
