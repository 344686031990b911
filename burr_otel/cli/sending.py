"""Sending spans from the command line: to an endpoint that answers, with an answer to show."""

from __future__ import annotations

import os
import socket
import urllib.parse
from typing import TYPE_CHECKING, Final, NamedTuple

from opentelemetry.environment_variables import OTEL_TRACES_EXPORTER
from opentelemetry.sdk.environment_variables import OTEL_SDK_DISABLED
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from burr_otel.check.settings import kept_warnings as collected_warnings
from burr_otel.cli.endpoint import answers, host_and_port
from burr_otel.spans.exporters import (
    Protocol,
    bare_exporter,
    endpoint_from_environ,
    exporter_names,
    sdk_disabled,
    without_secrets,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Target",
    "Witness",
    "collected_warnings",
    "find_target",
    "make_provider",
    "open_exporter",
]

_HTTP_DEFAULT: Final = "http://localhost:4318"
_OTLP_HTTP_PORT: Final = 4318
_EXPORT_TIMEOUT_S: Final = 5.0


class Target(NamedTuple):
    """Where spans go.

    Attributes:
        endpoint: What was asked.
        protocol: How to talk to it.
        problem: Why nothing can be sent there; empty when it answers.
        unreachable: Whether the problem is that nobody answers.
        named: Whether the endpoint was named on the command line.
    """

    endpoint: str
    protocol: Protocol
    problem: str = ""
    unreachable: bool = False
    named: bool = False

    @property
    def shown(self) -> str:
        """The endpoint as it may be shown."""
        return without_secrets(self.endpoint)


def find_target(to: str | None = None) -> Target:
    """Ask an endpoint whether it answers.

    Args:
        to: Which one; by HTTP when its path or port is that of OTLP over HTTP, else as
            ``OTEL_EXPORTER_OTLP_PROTOCOL`` says. `None`: that of the ``OTEL_*`` variables, or the
            local default.
    """
    if to is not None:
        return _named_target(to)
    endpoint, protocol = endpoint_from_environ()
    if sdk_disabled():
        return Target(endpoint, protocol, f"{OTEL_SDK_DISABLED} is true, so no trace was made.")
    names = exporter_names()
    if "otlp" not in names:
        said = ",".join(names)
        return Target(
            endpoint, protocol, f"{OTEL_TRACES_EXPORTER} is {said!r}, so nothing was sent by OTLP."
        )
    if answers(endpoint):
        return Target(endpoint, protocol)
    given = any(name.startswith("OTEL_EXPORTER_OTLP") for name in os.environ)
    if not given and answers(_HTTP_DEFAULT):
        return Target(_HTTP_DEFAULT, "http/protobuf")
    return Target(
        endpoint,
        protocol,
        f"No OTLP endpoint answers at {without_secrets(endpoint)}, so the trace was not sent.",
        unreachable=True,
    )


def _named_target(to: str) -> Target:
    endpoint = to if "://" in to else f"http://{to}"
    parts = urllib.parse.urlsplit(endpoint)
    place = host_and_port(endpoint)
    _, protocol = endpoint_from_environ()
    if parts.path.strip("/") or (place and place[1] == _OTLP_HTTP_PORT):
        protocol = "http/protobuf"
    problem = ""
    if place is None:
        problem = (
            f"{without_secrets(to)!r} is no endpoint; use a URL such as http://localhost:4317."
        )
    elif not answers(endpoint):
        problem = f"No OTLP endpoint answers at {without_secrets(endpoint)}."
    return Target(endpoint, protocol, problem, unreachable=bool(problem), named=True)


class Witness(SpanExporter):
    """An exporter that remembers what became of the spans.

    Attributes:
        sent: Spans that the endpoint took.
        refused: Spans that it did not.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.sent = self.refused = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send, and count."""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.sent += len(spans)
        else:
            self.refused += len(spans)
        return result

    def shutdown(self) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter."""
        return self._exporter.force_flush(timeout_millis)


def make_provider(service_name: str, target: Target) -> tuple[TracerProvider, Witness | None]:
    """A provider that sends to the target, or makes trace ids and sends nothing.

    Args:
        service_name: Its ``service.name``, unless ``OTEL_SERVICE_NAME`` is set.
        target: Where to send.
    """
    attributes = {
        "service.name": os.environ.get("OTEL_SERVICE_NAME") or service_name,
        "host.name": socket.gethostname(),
    }
    provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    if target.problem:
        return provider, None
    witness = Witness(open_exporter(target, _EXPORT_TIMEOUT_S))
    provider.add_span_processor(BatchSpanProcessor(witness))
    return provider, witness


def open_exporter(target: Target, timeout_s: float) -> SpanExporter:
    """An exporter to a target.

    Args:
        target: Where to.
        timeout_s: How long one batch may take, with what the exporter itself tries again.
    """
    endpoint = target.endpoint if target.named else None  # else it reads the variables itself
    return bare_exporter(target.protocol, endpoint, timeout=timeout_s)
