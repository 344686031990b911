"""What goes to OpenTelemetry's metrics, and exceptions that go to its logs.

The instruments are those of section "Metrics" in docs/spans.md; their attributes
never hold an app id.
"""

from __future__ import annotations

import functools
import os
from typing import Final

from opentelemetry import _logs, trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.metrics import MeterProvider

from burr_otel import records, semconv
from burr_otel._version import __version__
from burr_otel.content import ContentPolicy
from burr_otel.spans.describe import exception_attributes
from burr_otel.spans.provider import ByIdentity

_SIGNAL: Final = "OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN"
_MOST_ACTIONS = 1024  # whose labels are kept
# Steps last from microseconds (a counter) to minutes (an agent's tool call).
_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_BYTES = tuple(256.0 * 4**power for power in range(10))  # to 64 MiB; the SDK's own end at 10,000


_made: ByIdentity[dict[str, StepMetrics]] = ByIdentity(lambda _: {})


def step_metrics(provider: MeterProvider, project: str) -> StepMetrics:
    """The instruments of a provider and project, made once."""
    made = _made[provider]  # until one is set, OpenTelemetry keeps every proxy instrument for good
    if project not in made:
        made[project] = StepMetrics(provider, project)
    return made[project]


class StepMetrics:
    """Counts and times the steps of a project."""

    def __init__(self, provider: MeterProvider, project: str) -> None:
        meter = provider.get_meter(semconv.SCOPE_NAME, __version__, semconv.SCHEMA_URL)
        seconds = functools.partial(
            meter.create_histogram, unit="s", explicit_bucket_boundaries_advisory=_SECONDS
        )
        self._duration = seconds(
            semconv.METRIC_STEP_DURATION, description="Duration of Burr steps."
        )
        self._active = meter.create_up_down_counter(
            semconv.METRIC_STEP_ACTIVE, unit="{step}", description="Burr steps in progress."
        )
        self._ended = meter.create_counter(
            semconv.METRIC_STEP_ENDED, unit="{step}", description="Burr steps that have ended."
        )
        self.first_item = seconds(
            semconv.METRIC_STREAM_TIME_TO_FIRST_ITEM,
            description="Time from a stream's start to its first item.",
        )
        self.snapshot = meter.create_histogram(
            semconv.METRIC_SNAPSHOT_BYTES,
            unit="By",
            description="Size of a state snapshot record.",
            explicit_bucket_boundaries_advisory=_BYTES,
        )
        self._tokens = meter.create_counter(
            semconv.METRIC_USAGE_TOKENS,
            unit="{token}",
            description="Tokens that models took and gave inside Burr steps.",
        )
        self._invocation = seconds(
            semconv.METRIC_INVOKE_AGENT_DURATION, description="Duration of Burr application spans."
        )
        self.project_labels = {semconv.PROJECT: project}
        self._invocation_labels = {
            **self.project_labels,
            semconv.GEN_AI_OPERATION_NAME: semconv.INVOKE_WORKFLOW,
            semconv.GEN_AI_AGENT_NAME: project,
        }
        self._labels: dict[str, dict[str, str]] = {}

    def step_began(self, action: str) -> dict[str, str]:
        """Count a step as active; the labels of its measurements."""
        labels = self._labels.get(action)
        if labels is None:
            if len(self._labels) >= _MOST_ACTIONS:
                self._labels.clear()
            labels = self._labels[action] = {**self.project_labels, semconv.ACTION_NAME: action}
            # A series that begins with its first failure shows no rise. A counter may begin at
            # zero; a histogram cannot, because a measurement of 0 s would be one of the steps.
            for outcome in (semconv.OK, semconv.ERROR, semconv.FAILED):
                self._ended.add(0, {**labels, semconv.OUTCOME: outcome})
        self._active.add(1, labels)
        return labels

    def step_ended(self, labels: dict[str, str], outcome: str, seconds: float) -> None:
        """Count a step as over and record how long it took, with what `step_began` gave."""
        self._active.add(-1, labels)
        told = {**labels, semconv.OUTCOME: outcome}
        self._duration.record(seconds, told)
        self._ended.add(1, told)

    def usage(self, labels: dict[str, str], input_tokens: int, output_tokens: int) -> None:
        """Count what the models inside a step took and gave; `labels` are of `step_began`."""
        self._tokens.add(input_tokens, {**labels, semconv.GEN_AI_TOKEN_TYPE: "input"})
        self._tokens.add(output_tokens, {**labels, semconv.GEN_AI_TOKEN_TYPE: "output"})

    def application_ended(self, outcome: str, error_type: str | None, seconds: float) -> None:
        """Record how long an application span lasted."""
        labels = {**self._invocation_labels, semconv.OUTCOME: outcome}
        if error_type is not None:
            labels[semconv.ERROR_TYPE] = error_type
        self._invocation.record(seconds, labels)


def exception_signals() -> set[str]:
    """Where exceptions go beside span events: ``logs`` instead of these, ``logs/dup`` too."""
    # https://opentelemetry.io/docs/specs/semconv/exceptions/exceptions-spans/ (stability opt-in)
    return {part.strip() for part in os.environ.get(_SIGNAL, "").split(",")} & {"logs", "logs/dup"}


def emit_log(span: trace.Span, policy: ContentPolicy, raised: records.Raised, time_ns: int) -> None:
    """Write an exception as a log record of its span, where that is asked for."""
    if not exception_signals():
        return
    logger = _logs.get_logger(semconv.SCOPE_NAME, __version__, schema_url=semconv.SCHEMA_URL)
    logger.emit(
        LogRecord(
            timestamp=time_ns,
            context=trace.set_span_in_context(span),
            severity_number=SeverityNumber.ERROR,
            event_name=semconv.EVENT_EXCEPTION,
            attributes=exception_attributes(policy, raised),
        )
    )
