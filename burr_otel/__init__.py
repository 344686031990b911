"""OpenTelemetry traces and resumable state for Burr applications."""

from burr_otel._version import __version__

__all__ = ["__version__"]
