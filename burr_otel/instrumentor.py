"""`BurrInstrumentor`: every Burr application of a process traced, with no code change.

``opentelemetry-instrument python app.py`` finds it through the entry point ``burr``. It needs the
extra ``burr-otel[instrument]``. Applications that already have an `OtelTracker` are left alone.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Collection
from typing import Any

from burr.core.application import Application
from burr.lifecycle.internal import LifecycleAdapterSet
from opentelemetry import trace
from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]  # opts out of typing
    BaseInstrumentor,
)

from burr_otel.config import OtelConfig
from burr_otel.tracker import OtelTracker

__all__ = ["BurrInstrumentor"]

_NOT_IN_A_PROJECT = re.compile(r"[^a-zA-Z0-9_\-:]+")


class BurrInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # likewise
    """Adds an `OtelTracker` without a store to every application that is built.

    ``instrument()`` takes the arguments of `OtelTracker`, with two defaults of its own:
    ``project`` is the service's name, and ``snapshots`` is ``"off"`` unless the argument or
    ``BURR_OTEL_SNAPSHOTS`` says otherwise.

    ``uninstrument()`` ends what is open, and applications built afterwards are not traced.
    """

    _tracker: OtelTracker | None = None
    _replaced: Callable[..., None] | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """What must be installed for this to make sense."""
        return ("apache-burr >= 0.42",)

    def _instrument(self, **kwargs: Any) -> None:
        project = kwargs.pop("project", None) or _service_name(kwargs.get("tracer_provider"))
        config = kwargs.pop("config", None) or OtelConfig.resolve(defaults={"snapshots": "off"})
        self._tracker = OtelTracker(project, config=config, **kwargs)
        if self._replaced is None:
            self._replace()

    def _uninstrument(self, **kwargs: Any) -> None:  # noqa: ARG002  # the base class's signature
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            tracker.close()
        if self._replaced is not None and getattr(Application.__init__, "burr_otel", None) is self:
            Application.__init__ = self._replaced  # type: ignore[method-assign]  # as it was
            self._replaced = None

    def _replace(self) -> None:
        original = self._replaced = Application.__init__
        signature = inspect.signature(original)

        @functools.wraps(original)
        def construct(*args: Any, **kwargs: Any) -> None:
            # Stays, and does nothing, when somebody has wrapped it by the time of `uninstrument`.
            if self._tracker is not None:
                bound = signature.bind(*args, **kwargs)
                adapters = bound.arguments.get("adapter_set") or LifecycleAdapterSet()
                if not any(isinstance(each, OtelTracker) for each in adapters.adapters):
                    bound.arguments["adapter_set"] = adapters.with_new_adapters(self._tracker)
                args, kwargs = bound.args, bound.kwargs
            original(*args, **kwargs)

        construct.burr_otel = self  # type: ignore[attr-defined]  # how `uninstrument` knows it
        Application.__init__ = construct  # type: ignore[method-assign]  # what instrumenting is


def _service_name(given: trace.TracerProvider | None) -> str:
    """The service's name as a project: its letters, digits, ``_``, ``-`` and ``:``."""
    resource = getattr(given or trace.get_tracer_provider(), "resource", None)
    name = str(resource.attributes.get("service.name", "")) if resource is not None else ""
    if name.startswith("unknown_service"):  # what the SDK says when nobody named it
        name = ""
    return _NOT_IN_A_PROJECT.sub("-", name)[:255].strip("-") or "burr"
