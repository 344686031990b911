"""Which tracer provider is used, and the one that we make when there is none.

Order: the argument; else the global provider, when one was set by the time an application is
built; else one of our own from the standard ``OTEL_*`` variables, shared by all trackers of a
service name. We shut down only what we made, at interpreter exit.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import socket
import threading
import time
import weakref
from typing import TYPE_CHECKING

from opentelemetry import metrics, trace
from opentelemetry.sdk.environment_variables import (
    OTEL_RESOURCE_ATTRIBUTES,
    OTEL_SERVICE_NAME,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from burr_otel import semconv
from burr_otel._version import __version__
from burr_otel.errors import ConfigError
from burr_otel.spans import roots
from burr_otel.spans.exporters import (
    PROTOCOLS,
    Protocol,
    QuietExporter,
    exporters_from_environ,
    otlp_exporter,
    protocol_from_environ,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

__all__ = [
    "configure",
    "culprits",
    "meter_provider",
    "service_resource",
    "tracer_provider",
]

logger = logging.getLogger("burr_otel")

# A batch that we wait for may take this long, and this long once the endpoint has refused it.
_LONGEST_S = 10.0
_STRUGGLING_S = 1.0

_own: dict[str, trace.TracerProvider] = {}
_quiet: MutableMapping[object, list[QuietExporter]] = weakref.WeakKeyDictionary()
_flushing: MutableMapping[object, threading.Thread] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def tracer_provider(given: trace.TracerProvider | None, project: str) -> trace.TracerProvider:
    """The provider for an application that is built now.

    Args:
        given: The tracker's argument.
        project: Service name of a provider of our own, unless the environment sets one.
    """
    provider = given
    if provider is None:
        provider = _global_provider()
        if isinstance(provider, trace.ProxyTracerProvider):  # nobody has set one
            provider = _own_provider(project)
    roots.register_exit()
    return provider


def _global_provider() -> trace.TracerProvider:
    try:
        return trace.get_tracer_provider()
    except Exception:  # OTEL_PYTHON_TRACER_PROVIDER names none; OpenTelemetry has logged it
        return trace.NoOpTracerProvider()


def meter_provider(given: metrics.MeterProvider | None) -> metrics.MeterProvider:
    """The provider of instruments: the argument, else the global one."""
    return given if given is not None else metrics.get_meter_provider()


def tracer(provider: trace.TracerProvider) -> trace.Tracer:
    """Our tracer of a provider."""
    return provider.get_tracer(semconv.SCOPE_NAME, __version__, semconv.SCHEMA_URL)


def configure(
    service_name: str,
    endpoint: str | None = None,
    protocol: Protocol | None = None,
    *,
    headers: dict[str, str] | None = None,
) -> TracerProvider:
    """Make a tracer provider that sends OTLP, and make it the global one.

    Args:
        service_name: Value of ``service.name``; the dataset's name in Honeycomb.
        endpoint: Where the collector or backend listens, for example ``http://localhost:4317``.
            Default: the ``OTEL_EXPORTER_OTLP_*`` variables, else localhost. For
            ``http/protobuf``, ``/v1/traces`` is added when the URL has no path.
        protocol: ``"grpc"`` or ``"http/protobuf"``. Default: the variables, else ``"grpc"``.
        headers: Sent with every request, such as ``{"x-honeycomb-team": key}``.

    Returns:
        The provider; shut down at interpreter exit.

    Raises:
        ConfigError: An unknown protocol, an endpoint that is not an http(s) URL, or a global
            provider that is already set (OpenTelemetry allows one a process).
    """
    if protocol not in (None, *PROTOCOLS):
        raise ConfigError(
            f"protocol={protocol!r} is not allowed; choose one of 'grpc', 'http/protobuf'."
        )
    if endpoint is not None and not endpoint.startswith(("http://", "https://")):
        raise ConfigError(
            f"endpoint={endpoint!r} is not allowed; use a URL such as http://localhost:4317."
        )
    if not isinstance(_global_provider(), trace.ProxyTracerProvider):
        raise ConfigError(
            "a global tracer provider is already set and OpenTelemetry allows one a process; "
            "call burr_otel.configure() first, or pass that provider to OtelTracker."
        )
    exporter = otlp_exporter(protocol or protocol_from_environ(), endpoint, headers)
    provider = _make_provider(service_name, [exporter], force_name=True)
    trace.set_tracer_provider(provider)
    roots.register_exit()
    return provider


def _own_provider(project: str) -> trace.TracerProvider:
    with _lock:
        provider = _own.get(project)
        if provider is None:
            try:
                provider = _make_provider(project, exporters_from_environ(), force_name=False)
            except Exception as error:
                # The SDK and the exporters raise for some bad values of their variables.
                logger.warning(
                    "no spans are made, because %s cannot be used: %s. "
                    "Correct it; the snapshots are kept all the same.",
                    culprits(str(error)),
                    str(error).rstrip("."),
                )
                provider = trace.NoOpTracerProvider()
            _own[project] = provider
        return provider


def culprits(reason: str) -> str:
    """The variables whose value an error quotes; of none, an error of the SDK tells the rest."""
    names = [
        name
        for name, value in os.environ.items()
        if name.startswith("OTEL_") and value and value in reason
    ]
    return ", ".join(names) or "an OTEL_* variable"


def service_resource(service_name: str, *, force_name: bool = False) -> Resource:
    """What spans say of the service that they come from.

    Args:
        service_name: Its ``service.name``.
        force_name: Whether that wins over the environment's.
    """
    attributes = {"host.name": socket.gethostname()}  # Jaeger warns of a service without a host
    named = os.environ.get(OTEL_SERVICE_NAME) or "service.name=" in os.environ.get(
        OTEL_RESOURCE_ATTRIBUTES, ""
    )
    if force_name or not named:
        attributes["service.name"] = service_name
    return Resource.create(attributes)


def _make_provider(
    service_name: str, exporters: Iterable[SpanExporter], *, force_name: bool
) -> TracerProvider:
    # The SDK's own shutdown at exit waits out every retry of an endpoint that does not answer.
    resource = service_resource(service_name, force_name=force_name)
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    quiet = _quiet[provider] = []
    for exporter in exporters:
        if isinstance(exporter, QuietExporter):
            quiet.append(exporter)
            provider.add_span_processor(exporter.tally)
        provider.add_span_processor(BatchSpanProcessor(exporter))
    atexit.register(_shut_down, provider, _Closer(provider))
    return provider


class _Closer:
    """Shuts a provider down in a thread made beforehand: Python 3.12.1 can start none at exit.

    Args:
        provider: What `close` shuts down.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._start()
        os.register_at_fork(after_in_child=self._start)  # threads stay behind in the parent

    def _start(self) -> None:
        self._asked = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="burr-otel-exit", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        self._asked.wait()
        self._provider.shutdown()

    def close(self) -> threading.Thread:
        """Have the provider shut down; the thread that does it."""
        self._asked.set()
        return self._thread


def _shut_down(provider: TracerProvider, closer: _Closer) -> None:
    """Shut a provider down, without waiting long for an endpoint that does not answer."""
    work = closer.close()
    if not _finished(work, provider):
        for exporter in _quiet[provider]:
            exporter.shutdown()  # interrupts the back-off
        work.join(_STRUGGLING_S)
    for exporter in _quiet[provider]:
        exporter.tell_of_losses()


def _finished(work: threading.Thread, provider: object) -> bool:
    """Wait for an export, the shorter when the endpoint has refused one; whether it is over."""
    pid, started = os.getpid(), time.monotonic()
    exporters = _quiet.get(provider, [])
    while work.is_alive() and os.getpid() == pid:
        work.join(0.05)
        waited = time.monotonic() - started
        struggling = any(exporter.struggling for exporter in exporters)
        if waited > _LONGEST_S or (struggling and waited > _STRUGGLING_S):
            return False
    return True


def flush(
    given: trace.TracerProvider | None, meters: metrics.MeterProvider | None, project: str
) -> None:
    """Send what has ended, without waiting long for an endpoint that does not answer.

    An endpoint that still has not answered an earlier call is not waited for again.

    Args:
        given: The tracker's argument.
        meters: The tracker's argument.
        project: Whose provider of our own to flush when there is neither argument nor global one.
    """
    target = given or _global_provider()
    if isinstance(target, trace.ProxyTracerProvider):
        target = _own.get(project, target)
    for provider in (target, meter_provider(meters)):
        force_flush = getattr(provider, "force_flush", None)
        earlier = _flushing.get(provider)
        if force_flush is None or (earlier is not None and earlier.is_alive()):
            continue
        work = _flushing[provider] = threading.Thread(target=force_flush, daemon=True)
        # At exit, Python 3.12 starts no thread any more, and providers shut down by themselves.
        with contextlib.suppress(RuntimeError):
            work.start()
            _finished(work, provider)
