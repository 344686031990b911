"""The instruments of section "Metrics" in docs/spans.md; their attributes never hold an app id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from burr_otel import semconv
from burr_otel._version import __version__
from burr_otel.spans.by_identity import ByIdentity

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

__all__ = ["StepMetrics", "step_metrics"]

# Steps last from microseconds (a counter) to minutes (an agent's tool call).
_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


_made: ByIdentity[dict[str, StepMetrics]] = ByIdentity(lambda _: {})


def step_metrics(provider: MeterProvider, project: str) -> StepMetrics:
    """The instruments of a provider and project, made once.

    Until a global provider is set, OpenTelemetry keeps every proxy instrument ever made.
    """
    made = _made[provider]
    if project not in made:
        made[project] = StepMetrics(provider, project)
    return made[project]


class StepMetrics:
    """Counts and times steps.

    Args:
        provider: Where the instruments are made.
        project: Value of ``burr.project`` on every measurement.
    """

    def __init__(self, provider: MeterProvider, project: str) -> None:
        meter = provider.get_meter(semconv.SCOPE_NAME, __version__, semconv.SCHEMA_URL)
        self._duration = meter.create_histogram(
            semconv.METRIC_STEP_DURATION,
            unit="s",
            description="Duration of Burr steps.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._active = meter.create_up_down_counter(
            semconv.METRIC_STEP_ACTIVE, unit="{step}", description="Burr steps in progress."
        )
        self._first_item = meter.create_histogram(
            semconv.METRIC_STREAM_TIME_TO_FIRST_ITEM,
            unit="s",
            description="Time from a stream's start to its first item.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._snapshot = meter.create_histogram(
            semconv.METRIC_SNAPSHOT_BYTES, unit="By", description="Size of a state snapshot record."
        )

        self._project_labels = {semconv.PROJECT: project}

    def step_began(self, action: str) -> dict[str, str]:
        """Count a step as active.

        Returns:
            What its measurements carry.
        """
        labels = {**self._project_labels, semconv.ACTION_NAME: action}
        self._active.add(1, labels)
        return labels

    def step_ended(self, labels: dict[str, str], outcome: str, seconds: float) -> None:
        """Count a step as over and record how long it took.

        Args:
            labels: What `step_began` gave.
            outcome: How it ended.
            seconds: How long it took.
        """
        self._active.add(-1, labels)
        self._duration.record(seconds, {**labels, semconv.OUTCOME: outcome})

    def first_item(self, labels: dict[str, str], seconds: float) -> None:
        """Record how long a stream took to yield its first item."""
        self._first_item.record(seconds, labels)

    def snapshot(self, size_bytes: int) -> None:
        """Record the size of a snapshot."""
        self._snapshot.record(size_bytes, self._project_labels)
