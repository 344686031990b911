"""What the tracker's own provider would do, read where the provider reads it."""

from __future__ import annotations

import dataclasses
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace import SpanLimits, TracerProvider

from burr_otel.config import ENV_PREFIX, OtelConfig
from burr_otel.spans.exporters import (
    Protocol,
    endpoint_from_environ,
    endpoint_variable,
    exporter_names,
    headers_variable,
    sdk_disabled,
)
from burr_otel.spans.provider import culprits, service_resource

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

__all__ = ["SERVICE_NAME", "Settings", "unwritable"]

SERVICE_NAME: Final = "burr-otel-check"
"""The service of a test trace, unless the variables name one."""

_PATTERNS: Final = ("redact_keys", "redact_values")  # may hold what they are to hide
_LIMITS: Final = {
    "attributes a span": "max_span_attributes",
    "events a span": "max_events",
    "links a span": "max_links",
    "bytes an attribute of any span": "max_span_attribute_length",
}


@dataclasses.dataclass
class Settings:
    """What is set.

    Attributes:
        endpoint: Where spans are sent.
        endpoint_from: The variable that says so, or "default".
        protocol: How.
        headers_from: The variable with the headers; `None` when none is set.
        exporters: What ``OTEL_TRACES_EXPORTER`` names.
        disabled: Whether ``OTEL_SDK_DISABLED`` is true.
        resource: What spans say of the service; `None` when the provider cannot be made.
        sampler: Which traces are kept, in the SDK's words.
        limits: Of spans, by what they limit; `None` where there is none.
        own: Settings by ``BURR_OTEL_*`` variables, and what they say.
        warnings: What was said about bad values while they were read.
        unusable: Why the provider cannot be made, and which variables are to blame.
    """

    endpoint: str
    endpoint_from: str
    protocol: Protocol
    headers_from: str | None
    exporters: list[str]
    disabled: bool
    resource: Resource | None = None
    sampler: str = ""
    limits: dict[str, int | None] = dataclasses.field(default_factory=dict)
    own: dict[str, Any] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    unusable: tuple[str, str] | None = None

    @classmethod
    def read(cls) -> Settings:
        """Read the variables of this process."""
        with _warnings_kept() as warnings:
            endpoint, protocol = endpoint_from_environ()
            found = cls(
                endpoint,
                endpoint_variable() or "default",
                protocol,
                headers_variable(),
                exporter_names(),
                sdk_disabled(),
                warnings=warnings,
            )
            found.own = _own()
            try:
                provider = TracerProvider(shutdown_on_exit=False)
                found.resource = service_resource(SERVICE_NAME)
                found.sampler = provider.sampler.get_description()
                limits = SpanLimits()
                found.limits = {text: getattr(limits, name) for text, name in _LIMITS.items()}
            except Exception as error:  # the SDK raises for some bad values of its variables
                found.blame(error)
        return found

    def blame(self, error: Exception) -> None:
        """Note that an error keeps the provider from being made."""
        self.unusable = (culprits(str(error)), str(error).rstrip("."))

    @property
    def service_name(self) -> str:
        """Value of ``service.name``."""
        return str(self.resource.attributes["service.name"]) if self.resource else SERVICE_NAME


def _own() -> dict[str, Any]:
    said = OtelConfig.said_by_environ()
    known = {ENV_PREFIX + field.name.upper() for field in dataclasses.fields(OtelConfig)}
    found: dict[str, Any] = {}
    for name in sorted(os.environ):
        if name in known and os.environ[name]:
            field = name.removeprefix(ENV_PREFIX).lower()
            value = said.get(field, "(not usable)")
            found[name] = f"{len(value)} patterns" if field in _PATTERNS else value
        elif name.startswith(ENV_PREFIX):
            found[name] = "(no setting of that name)"
    return found


class _Kept(logging.Handler):
    def __init__(self, texts: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.texts = texts

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message once."""
        text = record.getMessage()
        if text not in self.texts:
            self.texts.append(text)


class _warnings_kept:  # noqa: N801 - reads as a function
    """Keeps our own warnings in a list instead of printing them."""

    def __enter__(self) -> list[str]:
        self._logger = logging.getLogger("burr_otel")
        self._before = self._logger.propagate
        texts: list[str] = []
        self._handler = _Kept(texts)
        self._logger.addHandler(self._handler)
        self._logger.propagate = False
        return texts

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self._handler)
        self._logger.propagate = self._before


def unwritable(storage_dir: str) -> str | None:
    """Why nothing can be written below a folder; `None` when it can.

    A folder that is not there yet is not made; the one that it would be made in is tried.
    """
    folder = Path(storage_dir).expanduser()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)
