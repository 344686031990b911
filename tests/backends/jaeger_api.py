"""Traces read back from Jaeger, as the SDK's own span objects.

`/api/v3` answers with OTLP, which keeps everything (types, link attributes, nanoseconds); asked
without `raw_traces`, it also carries the warnings that Jaeger's page would show. `/api/traces` of
this version takes them from an older check that does not know `host.name`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import pathlib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from processes import Server, free_ports, wait_for

CONFIG = pathlib.Path(__file__).with_name("jaeger.yaml")


@dataclasses.dataclass(frozen=True)
class Ports:
    """Where one Jaeger listens, all on 127.0.0.1."""

    grpc: int
    http: int
    query: int
    query_grpc: int
    health: int


class Jaeger:
    """One Jaeger with storage in memory: start, stop, and read."""

    def __init__(self, binary: pathlib.Path, folder: pathlib.Path, name: str = "jaeger") -> None:
        self.ports = Ports(*free_ports(5))
        self.server = Server(
            name,
            [binary, "--config", CONFIG],
            health_url=f"http://127.0.0.1:{self.ports.health}/status",
            folder=folder,
            env={
                # It traces its own API to port 4317 otherwise: into whatever listens there.
                "OTEL_TRACES_SAMPLER": "always_off",
                **{
                    f"TEST_{field.upper()}_PORT": str(port)
                    for field, port in dataclasses.asdict(self.ports).items()
                },
            },
        )

    @property
    def grpc_endpoint(self) -> str:
        return f"127.0.0.1:{self.ports.grpc}"

    @property
    def http_endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports.http}"

    def services(self) -> list[str]:
        """Names of the services that it has spans of."""
        return self._get("/api/v3/services").get("services") or []

    def trace(self, trace_id: int | str, *, spans: int = 1, timeout_s: float = 120.0) -> Trace:
        """The trace, once it has at least `spans` spans.

        Raises:
            TimeoutError: It has fewer after `timeout_s` seconds; the message names those it has.
        """
        wanted = trace_id if isinstance(trace_id, str) else f"{trace_id:032x}"
        last: list[ReadableSpan] = []

        def probe() -> list[ReadableSpan] | None:
            last[:] = self._arrived(wanted)
            return last if len(last) >= spans else None

        try:
            found = wait_for(f"trace {wanted} with {spans} spans", probe, timeout_s)
        except TimeoutError as error:
            names = [span.name for span in last]
            raise TimeoutError(f"{error}; Jaeger has {len(names)}: {names}") from None
        return self._judged(wanted, found)

    def _arrived(self, trace_id: str) -> list[ReadableSpan]:
        try:
            otlp = self._get(f"/api/v3/traces/{trace_id}", raw_traces="true")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return []
            raise
        return _spans(otlp["result"]["resourceSpans"])

    def _judged(self, trace_id: str, spans: list[ReadableSpan]) -> Trace:
        # Only once all is there: Jaeger writes its warnings into the spans that it has in memory,
        # and what it found amiss in half a trace stays amiss.
        return Trace(spans, _warnings(self._get(f"/api/v3/traces/{trace_id}")))

    def find_traces(self, service: str, *, limit: int = 1000) -> dict[str, list[ReadableSpan]]:
        """Spans of every trace of the service in the last day, by trace id."""
        now = dt.datetime.now(dt.timezone.utc)
        day = dt.timedelta(days=1)
        try:
            answer = self._get(
                "/api/v3/traces",
                **{
                    "query.service_name": service,
                    "query.start_time_min": (now - day).isoformat(),
                    "query.start_time_max": (now + day).isoformat(),
                    "query.num_traces": str(limit),
                    "query.raw_traces": "true",
                },
            )
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return {}
            raise
        found: dict[str, list[ReadableSpan]] = {}
        for span in _spans(answer["result"]["resourceSpans"]):
            found.setdefault(f"{span.context.trace_id:032x}", []).append(span)
        return found

    def wait_for_traces(self, service: str, count: int = 1) -> list[str]:
        """Ids of the service's traces, once it has at least `count`."""

        def probe() -> list[str] | None:
            found = list(self.find_traces(service))
            return found if len(found) >= count else None

        return wait_for(f"{count} traces of {service}", probe)

    def _get(self, path: str, **query: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.ports.query}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=30) as response:
            return json.load(response)


@dataclasses.dataclass(frozen=True)
class Trace:
    """One trace as Jaeger has it."""

    spans: list[ReadableSpan]  # by start time
    warnings: dict[str, list[str]]  # span name: what Jaeger's page would warn of; without others

    @property
    def roots(self) -> list[ReadableSpan]:
        """Spans whose parent is not in the trace: exactly one in a complete trace."""
        known = {span.context.span_id for span in self.spans}
        return [
            span for span in self.spans if span.parent is None or span.parent.span_id not in known
        ]

    def named(self, name: str) -> list[ReadableSpan]:
        """The spans of that name, by start time."""
        return [span for span in self.spans if span.name == name]

    def children(self, parent: ReadableSpan) -> list[ReadableSpan]:
        """The direct children, by start time."""
        return [s for s in self.spans if s.parent and s.parent.span_id == parent.context.span_id]


# --- OTLP/JSON to SDK objects -------------------------------------------------------------------


def _spans(resource_spans: Sequence[Mapping[str, Any]]) -> list[ReadableSpan]:
    spans = [
        _span(span, Resource(_attributes(batch.get("resource", {}))), scoped.get("scope", {}))
        for batch in resource_spans
        for scoped in batch.get("scopeSpans", ())
        for span in scoped.get("spans", ())
    ]
    return sorted(spans, key=lambda span: (span.start_time, span.end_time or 0))


def _span(span: Mapping[str, Any], resource: Resource, scope: Mapping[str, Any]) -> ReadableSpan:
    parent = span.get("parentSpanId")
    status = span.get("status", {})
    return ReadableSpan(
        name=span.get("name", ""),  # JSON of protobuf leaves out what is empty
        context=_context(span),
        parent=_context({**span, "spanId": parent}) if parent else None,
        resource=resource,
        attributes=_attributes(span),
        events=[
            Event(event.get("name", ""), _attributes(event), int(event["timeUnixNano"]))
            for event in span.get("events", ())
        ],
        links=[Link(_context(link), _attributes(link)) for link in span.get("links", ())],
        kind=SpanKind(span["kind"] - 1),  # OTLP counts from "unspecified"
        status=Status(StatusCode(status.get("code", 0)), status.get("message")),
        start_time=int(span["startTimeUnixNano"]),
        end_time=int(span["endTimeUnixNano"]),
        instrumentation_scope=InstrumentationScope(scope.get("name", ""), scope.get("version")),
    )


def _context(holder: Mapping[str, Any]) -> SpanContext:
    return SpanContext(
        trace_id=int(holder["traceId"], 16),
        span_id=int(holder["spanId"], 16),
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )


def _attributes(holder: Mapping[str, Any]) -> dict[str, Any]:
    return {entry["key"]: _value(entry["value"]) for entry in holder.get("attributes", ())}


def _value(value: Mapping[str, Any]) -> Any:
    kind, content = next(iter(value.items()), ("stringValue", ""))
    if kind == "intValue":
        return int(content)  # OTLP/JSON writes 64-bit numbers as text
    if kind == "doubleValue":
        return float(content)  # ... and whole floats without a point
    if kind == "arrayValue":
        return tuple(_value(item) for item in content.get("values", ()))
    return content


def _warnings(shown: Mapping[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for span in _spans(shown["result"]["resourceSpans"]):
        warnings = span.attributes.get("@jaeger@warnings")
        if warnings:
            found.setdefault(span.name, []).extend(warnings)
    return found
