"""What is compared: a run without a tracker, Burr's own trackers, and ours."""

# ruff: noqa: PLC0415 - each process imports only what it measures
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import NoOpTracerProvider

if TYPE_CHECKING:
    from collections.abc import Sequence

    from burr.core import ApplicationBuilder
    from opentelemetry.sdk.trace import ReadableSpan

NAMES = {
    "none": "no tracker",
    "ltc": "`LocalTrackingClient`",
    "ltc+bridge": "`LocalTrackingClient` + `OpenTelemetryBridge`",
    "ltc+langfuse": "`LocalTrackingClient` + `LangfuseBridge`",
    "ours": "`OtelTracker`",
    "delta": '`OtelTracker(snapshots="delta")`',
    "off": '`OtelTracker(capture="off")`',
    "unsampled": "`OtelTracker`, sampled out",
    "no-spans": "`OtelTracker`, no spans (`OTEL_SDK_DISABLED`)",
}
SETTINGS: dict[str, dict[str, Any]] = {"delta": {"snapshots": "delta"}, "off": {"capture": "off"}}
SILENT = ("none", "ltc", "unsampled", "no-spans")
"""Contenders whose exporter gets nothing."""


class Encode(SpanExporter):
    """Encodes spans as the OTLP exporters do, and drops the bytes."""

    def __init__(self) -> None:
        self.spans = self.roots = self.size_bytes = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.size_bytes += len(encode_spans(spans).SerializeToString())
        self.spans += len(spans)
        self.roots += sum(span.parent is None for span in spans)
        return SpanExportResult.SUCCESS


class Contender:
    """One of `NAMES`, which can be added to any number of builders.

    Attributes:
        exporter: What its spans are encoded by.
        provider: `None` when it makes no spans.
        hooks: Adapters that are added beside the tracker.
    """

    def __init__(self, name: str, folder: str, **settings: Any) -> None:
        self.name = name
        self.exporter = Encode()
        self.provider: Any = None
        self._tracker: Any = None
        self.hooks: list[Any] = []
        if name == "none":
            return
        if name.startswith("ltc"):
            from burr.tracking import LocalTrackingClient

            self._tracker = LocalTrackingClient("bench", folder)
            if name == "ltc+bridge":
                self.hooks = [self._bridge()]
            elif name == "ltc+langfuse":
                self.hooks = [self._langfuse()]
            return
        from burr_otel import OtelTracker

        if name == "no-spans":
            self.provider = NoOpTracerProvider()
        else:
            self.provider = self._batching(ALWAYS_OFF if name == "unsampled" else ALWAYS_ON)
        settings = {**SETTINGS.get(name, {}), **settings}
        self._tracker = OtelTracker("bench", folder, tracer_provider=self.provider, **settings)

    def _batching(self, sampler: Any = ALWAYS_ON) -> TracerProvider:
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(BatchSpanProcessor(self.exporter))
        return provider

    def _bridge(self) -> Any:
        from burr.integrations.opentelemetry import OpenTelemetryBridge

        self.provider = self._batching()
        return OpenTelemetryBridge(tracer=self.provider.get_tracer("bench"))

    def _langfuse(self) -> Any:
        from burr.integrations.langfuse import LangfuseBridge, burr_span_export_filter
        from langfuse import Langfuse

        self.provider = TracerProvider()  # the client adds a batch processor of its own
        client = Langfuse(
            public_key="pk",
            secret_key="sk",
            base_url="http://127.0.0.1:9",  # never called: the exporter is ours
            tracer_provider=self.provider,
            span_exporter=self.exporter,
            should_export_span=burr_span_export_filter,
        )
        return LangfuseBridge(langfuse_client=client, tracer_provider=self.provider)

    def add(self, builder: ApplicationBuilder) -> ApplicationBuilder:
        """The builder with the contender in it."""
        if self._tracker is not None:
            builder = builder.with_tracker(self._tracker)
        return builder.with_hooks(*self.hooks) if self.hooks else builder

    def load(self, app_id: str) -> Any:
        """The latest state of a run."""
        return self._tracker.load(None, app_id, None)

    def flush(self) -> None:
        """Have the exporter take what it has not taken yet."""
        if isinstance(self.provider, TracerProvider):
            self.provider.force_flush()
