"""The exporters that the ``OTEL_*`` variables ask for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any, Literal, cast

from opentelemetry.environment_variables import OTEL_TRACES_EXPORTER
from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_COMPRESSION,
    OTEL_EXPORTER_OTLP_ENDPOINT,
    OTEL_EXPORTER_OTLP_HEADERS,
    OTEL_EXPORTER_OTLP_PROTOCOL,
    OTEL_EXPORTER_OTLP_TRACES_COMPRESSION,
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
    OTEL_EXPORTER_OTLP_TRACES_HEADERS,
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL,
    OTEL_SDK_DISABLED,
)
from opentelemetry.sdk.trace.export import SpanExporter

from burr_otel.printable import logger_of_lines
from burr_otel.spans.quiet import QuietExporter

logger = logger_of_lines("burr_otel")

Protocol = Literal["grpc", "http/protobuf"]
_DEFAULT_ENDPOINT = {"grpc": "http://localhost:4317", "http/protobuf": "http://localhost:4318"}
PROTOCOLS = tuple(_DEFAULT_ENDPOINT)


def endpoint_from_environ() -> tuple[str, Protocol]:
    """Where a provider of our own sends to, and how."""
    protocol = protocol_from_environ()
    return _endpoint_of(protocol), protocol


def _endpoint_of(protocol: Protocol) -> str:
    variable = endpoint_variable()
    return os.environ[variable] if variable else _DEFAULT_ENDPOINT[protocol]


def _in_force(*names: str) -> str | None:
    """The first of these variables that says anything."""
    return next((name for name in names if os.environ.get(name)), None)


def endpoint_variable() -> str | None:
    """The variable that names the endpoint; `None` when the default holds."""
    return _in_force(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT)


def headers_variable() -> str | None:
    """The variable that holds the headers; `None` when there is none."""
    return _in_force(OTEL_EXPORTER_OTLP_TRACES_HEADERS, OTEL_EXPORTER_OTLP_HEADERS)


def compression_from_environ() -> str:
    """The compression that the variables name, ``gzip`` when none does."""
    variable = _in_force(OTEL_EXPORTER_OTLP_TRACES_COMPRESSION, OTEL_EXPORTER_OTLP_COMPRESSION)
    return os.environ[variable] if variable else "gzip"


def sdk_disabled() -> bool:
    """Whether ``OTEL_SDK_DISABLED`` says that no trace is made."""
    return os.environ.get(OTEL_SDK_DISABLED, "").strip().lower() == "true"


def exporter_names() -> list[str]:
    """What ``OTEL_TRACES_EXPORTER`` names, ``otlp`` when it is not set."""
    return [n.strip() for n in (os.environ.get(OTEL_TRACES_EXPORTER) or "otlp").split(",")]


def exporters_from_environ() -> Iterator[QuietExporter]:
    """Exporters named by ``OTEL_TRACES_EXPORTER``, ``otlp`` when it is not set."""
    if sdk_disabled():
        return
    for name in exporter_names():
        if name in ("none", ""):
            continue
        if name == "otlp":
            yield otlp_exporter(protocol_from_environ())
            continue
        found = list(entry_points(group="opentelemetry_traces_exporter", name=name))
        if found:
            yield QuietExporter(found[0].load()(), f"{OTEL_TRACES_EXPORTER}={name}")
            continue
        known = sorted(e.name for e in entry_points(group="opentelemetry_traces_exporter"))
        logger.warning(
            "%s=%r names no installed exporter; allowed here: none, %s. "
            "Nothing is exported for that name; the snapshots are kept all the same.",
            OTEL_TRACES_EXPORTER,
            name,
            ", ".join(known),
        )


def protocol_from_environ() -> Protocol:
    """The OTLP protocol that the variables name, ``grpc`` when none does."""
    for variable in (OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, OTEL_EXPORTER_OTLP_PROTOCOL):
        value = os.environ.get(variable, "").strip()
        if value in PROTOCOLS:
            return cast("Protocol", value)
        if value:
            logger.warning(
                "%s=%r is not supported; allowed are grpc and http/protobuf. grpc is used instead.",
                variable,
                value,
            )
            break
    return "grpc"


def otlp_exporter(
    protocol: Protocol, endpoint: str | None = None, headers: dict[str, str] | None = None
) -> QuietExporter:
    """An OTLP exporter; what is not given comes from the variables."""
    place = endpoint or _endpoint_of(protocol)
    return QuietExporter(
        bare_exporter(protocol, endpoint, headers),
        without_secrets(place),
        secret=place.rpartition("@")[0].rpartition("://")[2],
        key_variable=headers_variable() or OTEL_EXPORTER_OTLP_HEADERS,
    )


def bare_exporter(
    protocol: Protocol,
    endpoint: str | None = None,
    headers: dict[str, str] | None = None,
    **options: Any,
) -> SpanExporter:
    """What `otlp_exporter` wraps: the exporter as it logs and fails by itself."""
    if endpoint is None and endpoint_variable() is None:  # exporters take an empty one as it is
        endpoint = _DEFAULT_ENDPOINT[protocol]
    compression = compression_from_environ()
    if headers:
        options["headers"] = headers
    # Both exporters take seconds to import grpc or requests, so only the one in use is.
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http import Compression  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as HttpExporter,
        )

        if compression == "gzip":
            options["compression"] = Compression.Gzip
        if endpoint is not None:
            _, _, rest = endpoint.partition("://")
            path = "" if "/" in rest.rstrip("/") else "/v1/traces"
            options["endpoint"] = endpoint.rstrip("/") + path
        return HttpExporter(**options)
    import grpc  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter as GrpcExporter,
    )

    if compression == "gzip":
        options["compression"] = grpc.Compression.Gzip
    elif compression == "none":  # the exporter of OpenTelemetry for Python refuses that word
        options["compression"] = grpc.Compression.NoCompression
    return GrpcExporter(endpoint=endpoint, **options)


def without_secrets(endpoint: str) -> str:
    """An endpoint as it may be shown: without user, password and what a query says."""
    scheme, mark, rest = endpoint.rpartition("://")
    place, slash, path = rest.partition("/")
    place = place.rpartition("@")[2]
    path = re.sub(r"(?<==)[^&#]+", "***", path)
    return f"{scheme}{mark}{place}{slash}{path}"
