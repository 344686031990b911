"""Streams: the step is current while the action's generator runs, and never between its items.

Burr has no hook at which a generator is resumed, so its four internal functions that drive
streaming actions are wrapped, once a process. Where a later Burr has others, streams are still
traced and timed; spans made inside the generator then do not nest, and a test says so.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, Any, Protocol

from burr.core import application as burr_application

if TYPE_CHECKING:
    from burr_otel.spans.scope import SpanScope, Suspended

__all__ = ["DRIVERS", "StreamObserver", "install"]

logger = logging.getLogger("burr_otel")

DRIVERS = {
    "_run_single_step_streaming_action": False,
    "_run_multi_step_streaming_action": False,
    "_arun_single_step_streaming_action": True,
    "_arun_multi_step_streaming_action": True,
}
"""Burr's functions that drive a stream, and whether each is asynchronous."""


class StreamObserver(Protocol):
    """The step that a stream belongs to."""

    def stream_scope(self) -> SpanScope:
        """A scope for running the generator once more."""

    def stream_ended(self, result: Any, state: Any) -> None:
        """The generator has yielded its final result and state."""

    def stream_failed(self, error: Exception) -> None:
        """The action's own generator raised; Burr may swallow that."""

    def stream_dropped(self) -> None:
        """The generator can never run again. Called by a finaliser: must only defer work."""


Find = Callable[[str, int], "StreamObserver | None"]


def install(find: Find) -> None:
    """Wrap Burr's stream drivers; idempotent.

    Args:
        find: Gives the step of an app id and sequence id, `None` for one that nobody traces.
    """
    for name, is_async in DRIVERS.items():
        driver = getattr(burr_application, name, None)
        if driver is None or getattr(driver, "burr_otel_wrapped", False):
            continue
        setattr(burr_application, name, _wrapped(driver, find, is_async=is_async))


def _wrapped(driver: Callable[..., Any], find: Find, *, is_async: bool) -> Callable[..., Any]:
    @functools.wraps(driver)
    def drive(*args: Any, **kwargs: Any) -> Any:
        step = None
        if "app_id" in kwargs and "sequence_id" in kwargs and "action" in kwargs:
            step = find(kwargs["app_id"], kwargs["sequence_id"])
        if step is None:
            return driver(*args, **kwargs)
        kwargs["action"] = _ObservedAction(kwargs["action"], step)
        stream = driver(*args, **kwargs)
        return DrivenAsyncStream(stream, step) if is_async else DrivenStream(stream, step)

    drive.burr_otel_wrapped = True  # type: ignore[attr-defined]
    return drive


class _ObservedAction:
    """An action whose generator reports what it raises, because Burr may only log it."""

    def __init__(self, action: Any, step: StreamObserver) -> None:
        self._action, self._step = action, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._action, name)

    def stream_run(self, *args: Any, **kwargs: Any) -> Any:
        return self._observed(self._action.stream_run(*args, **kwargs))

    def stream_run_and_update(self, *args: Any, **kwargs: Any) -> Any:
        return self._observed(self._action.stream_run_and_update(*args, **kwargs))

    def _observed(self, stream: Any) -> Any:
        if hasattr(stream, "__aiter__"):
            return _observed_async(stream, self._step)
        return _observed_sync(stream, self._step)


def _observed_sync(stream: Any, step: StreamObserver) -> Generator[Any, None, None]:
    try:
        yield from stream
    except Exception as error:
        step.stream_failed(error)
        raise


async def _observed_async(stream: Any, step: StreamObserver) -> AsyncGenerator[Any, None]:
    try:
        async for item in stream:
            yield item
    except Exception as error:
        step.stream_failed(error)
        raise


class _Driven:
    """What the synchronous and the asynchronous driver share."""

    def __init__(self, stream: Any, step: StreamObserver) -> None:
        self._stream = stream
        self._step = step
        self._inside: Suspended | None = None

    def _enter(self) -> SpanScope:
        scope = self._step.stream_scope()
        scope.attach(self._inside)
        return scope

    def _leave(self, scope: SpanScope) -> None:
        self._inside = scope.suspended()
        scope.detach()

    def _note(self, item: tuple[Any, Any]) -> tuple[Any, Any]:
        result, state = item
        if state is not None:
            self._step.stream_ended(result, state)
        return item

    def __del__(self) -> None:
        self._step.stream_dropped()


class DrivenStream(_Driven):
    """Burr's synchronous stream, with the step current whenever it runs."""

    def __iter__(self) -> DrivenStream:
        return self

    def __next__(self) -> tuple[Any, Any]:
        scope = self._enter()
        try:
            return self._note(next(self._stream))
        finally:
            self._leave(scope)

    def close(self) -> None:
        """Close the generator, with the step current for its clean-up."""
        scope = self._enter()
        try:
            self._stream.close()
        finally:
            self._leave(scope)


class DrivenAsyncStream(_Driven):
    """Burr's asynchronous stream, with the step current whenever it runs."""

    def __aiter__(self) -> DrivenAsyncStream:
        return self

    async def __anext__(self) -> tuple[Any, Any]:
        scope = self._enter()
        try:
            return self._note(await self._stream.__anext__())
        finally:
            self._leave(scope)

    async def aclose(self) -> None:
        """Close the generator, with the step current for its clean-up."""
        scope = self._enter()
        try:
            await self._stream.aclose()
        finally:
            self._leave(scope)
