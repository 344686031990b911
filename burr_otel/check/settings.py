"""What the tracker's own provider would do, read where the provider reads it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider

from burr_otel.config import ENV_PREFIX, OtelConfig
from burr_otel.errors import BurrOtelError
from burr_otel.spans.exporters import (
    Protocol,
    endpoint_from_environ,
    exporter_names,
    otlp_variable,
    sdk_disabled,
)
from burr_otel.spans.provider import culprits, service_resource, warn_of_config_file
from burr_otel.store import is_url, projects, without_password

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
    """What is set."""

    endpoint: str
    endpoint_from: str  # a variable, or "default"
    protocol: Protocol
    headers_from: str | None
    exporters: list[str]
    disabled: bool
    resource: Resource | None = None  # None: the provider cannot be made
    sampler: str = ""  # in the SDK's words
    limits: dict[str, int | None] = dataclasses.field(default_factory=dict)
    own: dict[str, Any] = dataclasses.field(default_factory=dict)  # by BURR_OTEL_* variable
    max_attribute_bytes: int = 0
    warnings: list[str] = dataclasses.field(default_factory=list)  # said while they were read
    unusable: tuple[str, str] | None = None  # variables to blame, and why

    @classmethod
    def read(cls) -> Settings:
        """Read the variables of this process."""
        with kept_warnings("burr_otel") as said:
            warn_of_config_file()
            endpoint, protocol = endpoint_from_environ()
            found = cls(
                endpoint,
                otlp_variable("ENDPOINT") or "default",
                protocol,
                otlp_variable("HEADERS"),
                exporter_names(),
                sdk_disabled(),
                own=_own(),
                max_attribute_bytes=OtelConfig.resolve().max_attribute_bytes,
            )
            try:
                provider = TracerProvider(shutdown_on_exit=False)
                found.resource = service_resource(SERVICE_NAME)
                found.sampler = provider.sampler.get_description()
                limits = SpanLimits()
                found.limits = {text: getattr(limits, name) for text, name in _LIMITS.items()}
            except Exception as error:  # the SDK raises for some bad values of its variables
                found.blame(error)
        found.warnings = list(dict.fromkeys(said))
        return found

    def blame(self, error: Exception) -> None:
        """Note that an error keeps the provider from being made."""
        self.unusable = (culprits(str(error)), str(error).rstrip("."))

    @property
    def service_name(self) -> str:
        """Value of ``service.name``."""
        return str(self.resource.attributes["service.name"]) if self.resource else SERVICE_NAME

    @property
    def names_service(self) -> bool:
        """Whether the variables name the service."""
        return self.service_name != SERVICE_NAME


def _own() -> dict[str, Any]:
    said = OtelConfig.said_by_environ()
    known = {ENV_PREFIX + field.name.upper() for field in dataclasses.fields(OtelConfig)}
    found: dict[str, Any] = {}
    for name in sorted(os.environ):
        if name in known and os.environ[name]:
            field = name.removeprefix(ENV_PREFIX).lower()
            value = said.get(field, "(not usable)")
            found[name] = f"{len(value)} patterns" if field in _PATTERNS else value
        elif name == f"{ENV_PREFIX}STORAGE_DIR":
            found[name] = without_password(os.environ[name])
        elif name.startswith(ENV_PREFIX):
            found[name] = "(no setting of that name)"
    return found


class _Keeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())  # without the traceback


@contextlib.contextmanager
def kept_warnings(*names: str) -> Iterator[list[str]]:
    """Keep warnings of these loggers, and of those below them, instead of printing them."""
    keeper = _Keeper()
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(keeper)
        logger.propagate = False
    try:
        yield keeper.texts
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(keeper)
            logger.propagate = propagate


def unwritable(storage_dir: str) -> str | None:
    """Why no run can be kept there; a folder that is not there yet is not made."""
    if is_url(storage_dir):
        try:
            projects(storage_dir)
        except (BurrOtelError, OSError) as error:
            return str(error)
        return None
    folder = Path(storage_dir).expanduser()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)
