"""The ``burr-otel`` command."""

from burr_otel.cli.app import cli, main

__all__ = ["cli", "main"]
