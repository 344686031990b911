"""OpenTelemetry traces and resumable state for Burr applications."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from burr_otel._version import __version__
    from burr_otel.config import OtelConfig
    from burr_otel.errors import (
        BurrOtelError,
        ConfigError,
        InvalidIdentifierError,
        RunInUseError,
        RunLockedError,
        SnapshotError,
        StateLoadError,
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
    "RunInUseError",
    "RunLockedError",
    "SnapshotError",
    "StateLoadError",
    "StoreError",
    "UnknownRunError",
    "UnknownSequenceError",
    "__version__",
    "configure",
    "mark_failed",
]

# Names are imported when first used: Burr and the OpenTelemetry SDK take a second, which the
# command line and its shell completion need not pay.
_HOMES: Final = {
    "OtelConfig": "config",
    "OtelTracker": "tracker",
    "__version__": "_version",
    "configure": "spans.provider",
    "mark_failed": "live.step",
}


if not TYPE_CHECKING:  # else every misspelt name would have a type

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}")
        value = globals()[name] = getattr(home, name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
