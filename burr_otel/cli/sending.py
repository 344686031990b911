"""Sending spans from the command line: to an endpoint that answers, with an answer to show."""

from __future__ import annotations

import os
import socket
import urllib.parse
from typing import Final, NamedTuple

from opentelemetry.environment_variables import OTEL_TRACES_EXPORTER
from opentelemetry.sdk.environment_variables import OTEL_SDK_DISABLED
from opentelemetry.sdk.trace.export import SpanExporter

from burr_otel.check.probe import proxy_variable
from burr_otel.spans.exporters import (
    Protocol,
    bare_exporter,
    endpoint_from_environ,
    exporter_names,
    sdk_disabled,
    without_secrets,
)

_CONNECT_TIMEOUT_S: Final = 0.5
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_OTLP_GRPC_PORT: Final = 4317
_HTTP_DEFAULT: Final = "http://localhost:4318"
_OTLP_HTTP_PORT: Final = 4318


class Target(NamedTuple):
    """Where spans go."""

    endpoint: str
    protocol: Protocol
    problem: str = ""  # why nothing can be sent there
    unreachable: bool = False  # because nobody answers
    named: bool = False  # on the command line

    @property
    def shown(self) -> str:
        """The endpoint as it may be shown."""
        return without_secrets(self.endpoint)


def find_target(to: str | None = None) -> Target:
    """Ask an endpoint whether it answers: this one, or that of the ``OTEL_*`` variables.

    It is by HTTP when its path or port is that of OTLP over HTTP, else as
    ``OTEL_EXPORTER_OTLP_PROTOCOL`` says.
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
    if answers(endpoint, protocol):
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
    elif not answers(endpoint, protocol):
        problem = f"No OTLP endpoint answers at {without_secrets(endpoint)}."
    return Target(endpoint, protocol, problem, unreachable=bool(problem), named=True)


def host_and_port(endpoint: str) -> tuple[str, int] | None:
    """Where an OTLP endpoint (a URL, or ``host:port``) listens; `None`: it is no TCP address."""
    url = endpoint if "://" in endpoint else f"//{endpoint}"
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or parts.scheme not in ("", *_DEFAULT_PORTS):
        return None
    return parts.hostname, port or _DEFAULT_PORTS.get(parts.scheme, _OTLP_GRPC_PORT)


def answers(endpoint: str, protocol: Protocol = "http/protobuf") -> bool:
    """Whether a connection is accepted; behind a proxy, or without TCP, only sending tells."""
    place = host_and_port(endpoint)
    if place is None:
        return True
    local = place[0] in ("localhost", "::1") or place[0].startswith("127.")
    if not local and proxy_variable(protocol, endpoint):
        return True
    try:
        with socket.create_connection(place, timeout=_CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False


def open_exporter(target: Target, timeout_s: float) -> SpanExporter:
    """An exporter to a target that spends so long on one batch, tries of its own included."""
    endpoint = target.endpoint if target.named else None  # else it reads the variables itself
    return bare_exporter(target.protocol, endpoint, timeout=timeout_s)
