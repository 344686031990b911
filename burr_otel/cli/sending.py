"""Sending spans from the command line: to an endpoint that answers, with an answer to show."""

from __future__ import annotations

import os
import urllib.parse
from typing import TYPE_CHECKING, Final, NamedTuple

from opentelemetry.environment_variables import OTEL_TRACES_EXPORTER
from opentelemetry.sdk.environment_variables import OTEL_SDK_DISABLED

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
    from opentelemetry.sdk.trace.export import SpanExporter

__all__ = ["Target", "collected_warnings", "find_target", "open_exporter"]

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


def open_exporter(target: Target, timeout_s: float) -> SpanExporter:
    """An exporter to a target that spends so long on one batch, tries of its own included."""
    endpoint = target.endpoint if target.named else None  # else it reads the variables itself
    return bare_exporter(target.protocol, endpoint, timeout=timeout_s)
