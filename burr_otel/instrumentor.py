"""`BurrInstrumentor`: every Burr application of a process traced, with no code change.

``opentelemetry-instrument python app.py`` finds it through the entry point ``burr``. It needs the
extra ``burr-otel[instrument]``. Applications that already have an `OtelTracker` are left alone.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

from burr.core.application import Application
from burr.lifecycle.internal import LifecycleAdapterSet
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
from opentelemetry.sdk.environment_variables import OTEL_SERVICE_NAME

from burr_otel.tracker import OtelTracker

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["BurrInstrumentor"]


class BurrInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # untyped base
    """Adds an `OtelTracker` without a store to every application that is built.

    ``instrument`` takes the arguments of `OtelTracker`: ``project`` (default:
    ``OTEL_SERVICE_NAME``, else ``"burr"``), providers and settings. Pass ``snapshots="full"`` and
    perhaps ``storage_dir`` to keep state too.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """What must be installed for this to make sense."""
        return ("apache-burr >= 0.40",)

    def _instrument(self, **kwargs: Any) -> None:
        project = kwargs.pop("project", None) or os.environ.get(OTEL_SERVICE_NAME) or "burr"
        tracker = OtelTracker(project, **{"snapshots": "off", **kwargs})
        original = Application.__init__

        @functools.wraps(original)
        def construct(app: Any, *args: Any, **arguments: Any) -> None:
            adapters = arguments.get("adapter_set") or LifecycleAdapterSet()
            if not any(isinstance(each, OtelTracker) for each in adapters.adapters):
                arguments["adapter_set"] = adapters.with_new_adapters(tracker)
            original(app, *args, **arguments)

        Application.__init__ = construct

    def _uninstrument(self, **kwargs: Any) -> None:  # noqa: ARG002  # the base class's signature
        Application.__init__ = Application.__init__.__wrapped__
