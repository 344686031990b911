"""What is compared: a run without any tracker, Burr's own trackers, and ours."""

# ruff: noqa: PLC0415 - each process imports only what it measures
from __future__ import annotations

import contextlib
import time
import uuid
from typing import TYPE_CHECKING, Any

from burr.lifecycle import PostApplicationCreateHook, PostRunStepHook, PreRunStepHook

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = {
    "none": "no tracker",
    "ltc": "`LocalTrackingClient`",
    "ltc+bridge": "`LocalTrackingClient` + `OpenTelemetryBridge`",
    "ours": "`OtelTracker`",
    "delta": '`OtelTracker(snapshots="delta")`',
    "unsampled": "`OtelTracker`, sampled out",
    "off": '`OtelTracker(capture="off")`, NoOp provider',
    "spanless": "`OtelTracker`, NoOp provider",
    "store": "our store alone",
    "floor": "our store + a bare SDK span",
}


class StoreOnly(PostApplicationCreateHook, PreRunStepHook, PostRunStepHook):
    """The least that a tracker over our store can do: its records, and no OpenTelemetry at all."""

    def __init__(self, folder: str) -> None:
        from burr_otel.store import Store

        self._store = Store("bench", folder)

    def post_application_create(self, **told: Any) -> None:
        self._session = self._store.open_session(
            told["app_id"],
            partition_key=told["partition_key"],
            state=told["state"],
            application_graph=told["application_graph"],
            parent_pointer=None,
            spawning_parent_pointer=None,
            session_id=uuid.uuid4().hex,
            otel={"kind": "root"},
            time_ns=time.time_ns(),
        )

    def pre_run_step(self, **told: Any) -> None:
        now = time.time_ns()
        self._session.begin_step(
            sequence_id=told["sequence_id"],
            action=told["action"].name,
            inputs=told["inputs"],
            time_ns=now,
            otel={"time_unix_nano": now},
        )

    def post_run_step(self, **told: Any) -> None:
        from burr_otel.store import encode_state

        now = time.time_ns()
        state = encode_state(
            told["state"], serde_kwargs={}, run="bench", sequence_id=told["sequence_id"]
        )
        self._session.end_step(
            sequence_id=told["sequence_id"],
            action=told["action"].name,
            result=told["result"],
            exception=None,
            state=state,
            time_ns=now,
            otel={"time_unix_nano": now},
        )


class StoreAndSpan(StoreOnly):
    """The least that a tracker with spans can do: one of the SDK's, with as many attributes."""

    def __init__(self, folder: str, tracer: Any) -> None:
        super().__init__(folder)
        self._tracer = tracer
        self._attributes = {f"burr.attribute.{number}": "a value" for number in range(15)}

    def pre_run_step(self, **told: Any) -> None:
        self._span = self._tracer.start_span(told["action"].name, attributes=self._attributes)
        super().pre_run_step(**told)

    def post_run_step(self, **told: Any) -> None:
        super().post_run_step(**told)
        self._span.set_attributes({"burr.outcome": "ok", "burr.result": "{}", "burr.state": "{}"})
        self._span.end()


class Contender:
    """Attaches one of `NAMES` to builders.

    Args:
        name: Which one.
        folder: Where its files go.
        keeps_spans: Whether the exporter keeps what it is given, as the in-memory one does.
    """

    def __init__(self, name: str, folder: str, *, keeps_spans: bool = True) -> None:
        self.name = name
        self._folder = folder
        self._keeps_spans = keeps_spans
        self._provider = None if name in ("none", "ltc", "store") else self._make_provider()
        self._tracker = self._make_tracker()

    def _make_provider(self) -> Any:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
        from opentelemetry.trace import NoOpTracerProvider

        if self.name in ("off", "spanless"):  # as under OTEL_SDK_DISABLED=true
            return NoOpTracerProvider()

        class Discard(SpanExporter):
            def export(self, spans: Sequence[Any]) -> Any:  # noqa: ARG002 - they are dropped
                from opentelemetry.sdk.trace.export import SpanExportResult

                return SpanExportResult.SUCCESS

        sampler = ALWAYS_OFF if self.name == "unsampled" else ALWAYS_ON
        provider = TracerProvider(sampler=sampler)
        exporter = InMemorySpanExporter() if self._keeps_spans else Discard()
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return provider

    def _make_tracker(self) -> Any:
        if self.name == "none":
            return None
        if self.name.startswith("ltc"):
            from burr.tracking import LocalTrackingClient

            return LocalTrackingClient("bench", self._folder)
        if self.name == "store":
            return StoreOnly(self._folder)
        if self.name == "floor":
            return StoreAndSpan(self._folder, self._provider.get_tracer("bench"))
        from burr_otel import OtelTracker

        settings: dict[str, Any] = {"off": {"capture": "off"}, "delta": {"snapshots": "delta"}}
        return OtelTracker(
            "bench",
            self._folder,
            tracer_provider=self._provider,
            **settings.get(self.name, {}),
        )

    def attach(self, builder: Any) -> Any:
        """A builder with the contender in it."""
        if self.name == "none":
            return builder
        if self.name in ("store", "floor"):
            return builder.with_hooks(self._tracker)
        builder = builder.with_tracker(self._tracker)
        if self.name == "ltc+bridge":
            from burr.integrations.opentelemetry import OpenTelemetryBridge

            tracer = self._provider.get_tracer("bench")
            builder = builder.with_hooks(OpenTelemetryBridge(tracer=tracer))
        return builder

    def end_spans(self) -> None:
        """Let applications be idle: end their open spans, as ours do by themselves in time."""
        if self.name == "ours":
            self._tracker.close()

    def flush(self) -> None:
        """Have the exporter take what it has not yet."""
        with contextlib.suppress(AttributeError):
            self._provider.force_flush()
