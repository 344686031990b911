"""The exporters that the ``OTEL_*`` variables ask for."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal, cast

from opentelemetry.environment_variables import OTEL_TRACES_EXPORTER
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_HEADERS, OTEL_SDK_DISABLED
from opentelemetry.sdk.trace.export import SpanExporter

from burr_otel.printable import logger
from burr_otel.spans.quiet import QuietExporter

Protocol = Literal["grpc", "http/protobuf"]
_DEFAULT_ENDPOINT = {"grpc": "http://localhost:4317", "http/protobuf": "http://localhost:4318"}
PROTOCOLS = tuple(_DEFAULT_ENDPOINT)
_EXPORTERS = "opentelemetry_traces_exporter"  # where packages enter theirs


def otlp_variable(what: str) -> str | None:
    """The variable that sets, for traces, the ``ENDPOINT``, ``HEADERS`` and so on; one, if any."""
    names = f"OTEL_EXPORTER_OTLP_TRACES_{what}", f"OTEL_EXPORTER_OTLP_{what}"
    return next((name for name in names if os.environ.get(name, "").strip()), None)


def _said(what: str, default: str) -> str:
    variable = otlp_variable(what)
    return os.environ[variable] if variable else default


def endpoint_from_environ() -> tuple[str, Protocol]:
    """Where a provider of our own sends to, and how."""
    protocol = protocol_from_environ()
    return _said("ENDPOINT", _DEFAULT_ENDPOINT[protocol]), protocol


def compression_from_environ() -> str:
    """The compression that the variables name, ``gzip`` when none does."""
    return _said("COMPRESSION", "gzip")


def protocol_from_environ() -> Protocol:
    """The OTLP protocol that the variables name, ``grpc`` when none does."""
    value = _said("PROTOCOL", "grpc").strip()
    if value in PROTOCOLS:
        return cast("Protocol", value)
    logger.warning(
        "%s=%r is not supported; allowed are grpc and http/protobuf. grpc is used instead.",
        otlp_variable("PROTOCOL"),
        value,
    )
    return "grpc"


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
        elif found := list(entry_points(group=_EXPORTERS, name=name)):
            yield QuietExporter(found[0].load()(), f"{OTEL_TRACES_EXPORTER}={name}")
        else:
            logger.warning(
                "%s=%r names no installed exporter; allowed here: none, %s. "
                "Nothing is exported for that name; the snapshots are kept all the same.",
                OTEL_TRACES_EXPORTER,
                name,
                ", ".join(sorted(each.name for each in entry_points(group=_EXPORTERS))),
            )


def otlp_exporter(
    protocol: Protocol, endpoint: str | None = None, headers: dict[str, str] | None = None
) -> QuietExporter:
    """An OTLP exporter; what is not given comes from the variables."""
    place = endpoint or _said("ENDPOINT", _DEFAULT_ENDPOINT[protocol])
    return QuietExporter(
        bare_exporter(protocol, endpoint, headers),
        without_secrets(place),
        secret=place.rpartition("@")[0].rpartition("://")[2],
        key_variable=otlp_variable("HEADERS") or OTEL_EXPORTER_OTLP_HEADERS,
    )


def bare_exporter(
    protocol: Protocol,
    endpoint: str | None = None,
    headers: dict[str, str] | None = None,
    **options: Any,
) -> SpanExporter:
    """What `otlp_exporter` wraps: the exporter as it logs and fails by itself."""
    if endpoint is None and otlp_variable("ENDPOINT") is None:  # not an empty one
        endpoint = _DEFAULT_ENDPOINT[protocol]
    is_http = protocol == "http/protobuf"
    if is_http and endpoint is not None:
        endpoint = endpoint.rstrip("/")
        endpoint += "" if "/" in endpoint.partition("://")[2] else "/v1/traces"
    # Both exporters take seconds to import grpc or requests, so only the one in use is.
    package = f"opentelemetry.exporter.otlp.proto.{'http' if is_http else 'grpc'}"
    compressions = import_module(package if is_http else "grpc").Compression
    # The exporter of gRPC itself knows no "none".
    known = {"gzip": compressions.Gzip, "none": compressions.NoCompression}
    options["compression"] = known.get(compression_from_environ())
    make: Callable[..., SpanExporter] = import_module(f"{package}.trace_exporter").OTLPSpanExporter
    return make(endpoint=endpoint, headers=headers, **options)


def without_secrets(endpoint: str) -> str:
    """An endpoint as it may be shown: without user, password and what a query says."""
    place = re.sub(r"^([\w+.-]+://)?[^/]*@", r"\1", endpoint)
    return re.sub(r"(?<==)[^&#]+", "***", place)
