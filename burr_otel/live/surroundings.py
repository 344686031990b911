"""Attributes that other code has asked for in the context around a span."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from opentelemetry import baggage

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from burr_otel.config import OtelConfig

OPENINFERENCE = "openinference.instrumentation"


def surrounding_attributes(config: OtelConfig, context: Context) -> dict[str, Any]:
    """What OpenInference's `using_attributes` set here, and the wanted baggage."""
    found: dict[str, Any] = {}
    if OPENINFERENCE in sys.modules:
        told = getattr(sys.modules[OPENINFERENCE], "get_attributes_from_context", None)
        for key, value in () if told is None else told():
            found[key] = list(value) if isinstance(value, tuple) else value
    for key in config.baggage_keys:
        value = baggage.get_baggage(key, context)
        if value is not None:
            found[key] = str(value)
    return found
