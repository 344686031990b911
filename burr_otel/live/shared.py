"""What all runs of a tracker share in a process."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from burr_otel import semconv
from burr_otel.cached import CachedProperty
from burr_otel.config import OtelConfig, log_level
from burr_otel.content import call_safely
from burr_otel.spans.facts import ActionFacts, SpanSettings
from burr_otel.spans.signals import StepMetrics, exception_signals

if TYPE_CHECKING:
    from burr_otel.content import ContentPolicy
    from burr_otel.live.registry import Owner
    from burr_otel.spans.start import SpanStarter


_exit_code: Final = SystemExit.__dict__["code"].__get__  # past what a subclass makes of it


@dataclasses.dataclass(frozen=True)
class Shared:
    """Settings and tools of one tracker."""

    owner: Owner
    at_home: bool  # made in this process, and not pickled or forked into it
    project: str
    serde_kwargs: dict[str, Any]
    config: OtelConfig
    policy: ContentPolicy
    settings: SpanSettings
    starter: SpanStarter | None
    metrics: StepMetrics
    clock: Callable[[], int]  # Unix time in nanoseconds
    # Each graph as data, and its actions, by digest.
    graphs: dict[str, tuple[Any, Mapping[str, ActionFacts]]] = dataclasses.field(
        default_factory=dict
    )

    @CachedProperty
    def keeps(self) -> bool:
        """Whether there is a store."""
        return self.config.snapshots != "off"

    @CachedProperty
    def log_events(self) -> int | None:
        """The level from which on log lines become span events, if any do."""
        level = self.config.log_events
        return None if level is None else log_level(level)

    @CachedProperty
    def shows_more(self) -> bool:
        """Whether the hook at a step's begin shows more than its inputs."""
        return self.policy.asks_user or self.settings.capture_state_read == "all"

    @CachedProperty
    def idle_clock(self) -> Callable[[], int]:
        """The clock of idle time, which nobody sets back unless `clock` was injected."""
        return time.monotonic_ns if self.clock is time.time_ns else self.clock

    def outcome_of(self, error: BaseException | None) -> str:
        """The ``burr.outcome`` of something that ended with `error`."""
        if error is None:
            return semconv.OK
        if isinstance(error, asyncio.CancelledError):
            return semconv.CANCELLED
        if isinstance(error, GeneratorExit):
            return semconv.ABANDONED
        if isinstance(error, SystemExit):
            code = _exit_code(error)
            if code is None or (type(code) in (int, bool) and not code):
                return semconv.OK
        expected = bool(self.config.expected_exceptions) and call_safely(self._is_expected, error)
        return semconv.OK if expected is True else semconv.ERROR

    def _is_expected(self, error: BaseException) -> bool:
        names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
        names |= {kind.__qualname__ for kind in type(error).__mro__}
        return any(
            each in names if isinstance(each, str) else isinstance(error, each)
            for each in self.config.expected_exceptions
        )


def session_settings(config: OtelConfig) -> SpanSettings:
    """The settings that a session's record keeps for its readers."""
    signals = exception_signals()
    return SpanSettings(
        config.openinference_content,
        config.capture_state_read,
        exception_events="logs" not in signals or "logs/dup" in signals,
    )
