"""What Burr tells no hook, found by wrapping its internal functions, once a process.

Streams: there is no hook at which a generator is resumed, so the four functions that drive
streaming actions are wrapped; the step is current while the generator runs, and never between its
items. Where a later Burr has others, streams are still traced and timed; spans made inside the
generator then do not nest, and a test says so.

Synchronous actions under asynchronous methods: `astep` runs such an action by calling `step`'s
inner half, and calls ``post_run_step`` with the state before the action and no result. The true
state comes with the hook after that, if one is called at all: Burr calls none for an application
that still counts as busy with a stream which nobody read. So that inner half is wrapped, too.

Asynchronous applications: adapters with asynchronous hooks are for them alone, and nothing but the
built application tells what it is. So what builds it is wrapped. There, applications of the same
adapters also get to share the tables of their hooks, of which Burr makes two for each, of 2.5 KB.

Other OpenTelemetry adapters: ``with_tracker(tracker, use_otel_tracing=True)`` wraps a tracker in
one that makes every span a second time, and calls no execute hooks. Ours is not wrapped.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, Any

from burr.core import application as burr_application
from burr.core.application import Application, ApplicationBuilder

from burr_otel import forks
from burr_otel.live.answers import AnswersHook
from burr_otel.live.registry import registry
from burr_otel.printable import logger

if TYPE_CHECKING:
    from burr_otel.live.step import LiveStep

DRIVERS = {
    "_run_single_step_streaming_action": False,
    "_run_multi_step_streaming_action": False,
    "_arun_single_step_streaming_action": True,
    "_arun_multi_step_streaming_action": True,
}
"""Burr's functions that drive a stream, and whether each is asynchronous."""


_lock = threading.RLock()  # two threads may make their first trackers at once
forks.free_in_child(_lock)  # the child, too, has all of Burr's functions wrapped once, or none
_installed: set[type] = set()
_known_hooks: weakref.WeakValueDictionary[tuple[int, ...], Any] = weakref.WeakValueDictionary()


def install(kind: type) -> None:
    """Wrap Burr's functions for trackers of a class; idempotent."""
    with _lock:
        if kind in _installed:
            return
        for name, is_async in DRIVERS.items():
            _replace(burr_application, name, functools.partial(_driving, is_async=is_async))
        _replace(Application, "_step", _noting)
        _replace(ApplicationBuilder, "with_tracker", functools.partial(_adding_tracker, kind))
        _replace(ApplicationBuilder, "with_hooks", functools.partial(_adding_hooks, kind))
        _replace(ApplicationBuilder, "build", functools.partial(_building, kind))
        _replace(ApplicationBuilder, "abuild", functools.partial(_building_async, kind))
        _installed.add(kind)


def _replace(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Any]) -> None:
    """Wrap a function of Burr's, if this version has it."""
    original = getattr(owner, name, None)
    if original is not None:
        setattr(owner, name, functools.wraps(original)(wrap(original)))


def _building(kind: type, build: Callable[..., Any]) -> Callable[..., Any]:
    return lambda builder: _share_hooks(kind, _await_answers(kind, build(builder)))


def _building_async(kind: type, abuild: Callable[..., Any]) -> Callable[..., Any]:
    async def build(builder: Any) -> Any:
        return _share_hooks(kind, _await_answers(kind, await abuild(builder)))

    return build


def _await_answers(kind: type, app: Any) -> Any:
    """Have an asynchronous application wait for the stores of its trackers that answer late.

    Such an application was built by ``abuild()``, or has an asynchronous action, which synchronous
    methods cannot run.
    """
    if app.builder.is_async or any(each.is_async() for each in app.graph.actions):
        adapters = app._adapter_set  # noqa: SLF001 - Burr tells no hook of the application itself
        for tracker in adapters.adapters:
            if isinstance(tracker, kind):
                adapters = adapters.with_new_adapters(*AnswersHook.made_for(tracker, app.uid))
        app._adapter_set = adapters  # noqa: SLF001
    return app


def _share_hooks(kind: type, app: Any) -> Any:
    """Have an application of our tracker share its tables of hooks with others."""
    own = app._adapter_set  # noqa: SLF001 - as above
    if any(isinstance(each, kind) for each in own.adapters):
        for each in own.adapters:
            if type(each).__name__ == "TracerFactoryContextHook":  # Burr adds one to all others
                given = each._adapter_set  # noqa: SLF001
                # The ids are those of live objects: the table that is known holds them.
                known = _known_hooks.setdefault(tuple(map(id, given.adapters)), given)
                each._adapter_set = known  # noqa: SLF001
                for name, adapters in known.sync_hooks.items():
                    if own.sync_hooks.get(name) == adapters:
                        own.sync_hooks[name] = adapters
    return app


def _adding_tracker(kind: type, with_tracker: Callable[..., Any]) -> Callable[..., Any]:
    def add(builder: Any, tracker: Any = "local", *args: Any, **kwargs: Any) -> Any:
        if isinstance(tracker, kind) and kwargs.pop("use_otel_tracing", False):
            _warn_once("use_otel_tracing=True")
        return _told_of_bridge(kind, with_tracker(builder, tracker, *args, **kwargs))

    return add


def _adding_hooks(kind: type, with_hooks: Callable[..., Any]) -> Callable[..., Any]:
    return lambda builder, *adapters: _told_of_bridge(kind, with_hooks(builder, *adapters))


def _told_of_bridge(kind: type, builder: Any) -> Any:
    """Tell of a bridge beside our tracker: it makes every span a second time."""
    adapters = getattr(builder, "lifecycle_adapters", ())
    bridges = [each for each in adapters if type(each).__name__ == "OpenTelemetryBridge"]
    if bridges and any(isinstance(each, kind) for each in adapters):
        _warn_once("OpenTelemetryBridge()")
    return builder


@functools.lru_cache
def _warn_once(what: str) -> None:
    logger.warning(
        "%s beside an OtelTracker would trace every step twice. The tracker's spans say more: "
        "remove it.",
        what,
    )


def _noting(inner: Callable[..., Any]) -> Callable[..., Any]:
    def run(app: Any, inputs: Any, _run_hooks: bool = True) -> Any:
        done = inner(app, inputs, _run_hooks)
        if not _run_hooks and done is not None:  # under an asynchronous method
            action, result, state = done
            for each in registry.runs(app.uid):
                step = each.step(app.sequence_id) if each.has_action(action) else None
                if step is not None and not step.streaming:
                    step.final = result, state
        return done

    return run


def _driving(driver: Callable[..., Any], *, is_async: bool) -> Callable[..., Any]:
    def drive(*args: Any, **kwargs: Any) -> Any:
        steps = []
        if {"app_id", "sequence_id", "action", "state"} <= kwargs.keys():
            found = (run.step(kwargs["sequence_id"]) for run in registry.runs(kwargs["app_id"]))
            # Of several trackers all, of another application of that id none.
            steps = [s for s in found if s and s.streaming and s.state_before is kwargs["state"]]
        for step in steps:
            kwargs["action"] = _ObservedAction(kwargs["action"], step)
        stream = driver(*args, **kwargs)
        for step in steps:
            stream = DrivenAsyncStream(stream, step) if is_async else DrivenStream(stream, step)
        return stream

    return drive


class _ObservedAction:
    """An action whose generator reports what it raises, because Burr may only log it."""

    def __init__(self, action: Any, step: LiveStep) -> None:
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


def _observed_sync(stream: Any, step: LiveStep) -> Generator[Any, None, None]:
    try:
        yield from stream
    except Exception as error:
        step.stream_failed(error)
        raise


async def _observed_async(stream: Any, step: LiveStep) -> AsyncGenerator[Any, None]:
    try:
        async for item in stream:
            yield item
    except Exception as error:
        step.stream_failed(error)
        raise


class _Driven:
    """What the synchronous and the asynchronous driver share."""

    def __init__(self, stream: Any, step: LiveStep) -> None:
        self._stream = stream
        self._step = step

    def _note(self, item: tuple[Any, Any]) -> tuple[Any, Any]:
        if item[1] is not None:  # the final result and state
            self._step.final = item
        return item

    def __del__(self) -> None:
        self._step.stream_dropped()


class DrivenStream(_Driven):
    """Burr's synchronous stream, with the step current whenever it runs."""

    def __iter__(self) -> DrivenStream:
        return self

    def __next__(self) -> tuple[Any, Any]:
        entered = self._step.stream_resumed()
        try:
            return self._note(next(self._stream))
        finally:
            self._step.stream_suspended(entered)

    def close(self) -> None:
        """Close the generator, with the step current for its clean-up."""
        entered = self._step.stream_resumed()
        try:
            self._stream.close()
        finally:
            self._step.stream_suspended(entered)


class DrivenAsyncStream(_Driven):
    """Burr's asynchronous stream, with the step current whenever it runs."""

    def __aiter__(self) -> DrivenAsyncStream:
        return self

    async def __anext__(self) -> tuple[Any, Any]:
        entered = self._step.stream_resumed()
        try:
            return self._note(await self._stream.__anext__())
        finally:
            self._step.stream_suspended(entered)

    async def aclose(self) -> None:
        """Close the generator, with the step current for its clean-up."""
        entered = self._step.stream_resumed()
        try:
            await self._stream.aclose()
        finally:
            self._step.stream_suspended(entered)
