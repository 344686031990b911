"""OpenTelemetry traces and resumable state for Burr applications."""

from burr_otel._version import __version__
from burr_otel.config import OtelConfig
from burr_otel.errors import (
    BurrOtelError,
    ConfigError,
    InvalidIdentifierError,
    RunLockedError,
    SnapshotError,
    StoreError,
    UnknownRunError,
    UnknownSequenceError,
)
from burr_otel.live.step import mark_failed
from burr_otel.spans.provider import configure
from burr_otel.tracker import OtelTracker

__all__ = [
    "BurrOtelError",
    "ConfigError",
    "InvalidIdentifierError",
    "OtelConfig",
    "OtelTracker",
    "RunLockedError",
    "SnapshotError",
    "StoreError",
    "UnknownRunError",
    "UnknownSequenceError",
    "__version__",
    "configure",
    "mark_failed",
]
