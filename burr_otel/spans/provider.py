"""Which tracer provider is used, and the one that we make when there is none.

Order: the argument; else the global provider, when one was set by the time an application is
built; else one of our own from the standard ``OTEL_*`` variables, shared by all trackers of a
service name. We shut down only what we made, when the process ends.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from opentelemetry import trace
from opentelemetry.sdk.environment_variables import OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from burr_otel import forks, semconv
from burr_otel._version import __version__
from burr_otel.errors import ConfigError
from burr_otel.interrupts import is_interrupt
from burr_otel.printable import logger
from burr_otel.spans import keeper
from burr_otel.spans.exporters import (
    PROTOCOLS,
    Protocol,
    exporters_from_environ,
    otlp_exporter,
    protocol_from_environ,
)
from burr_otel.spans.quiet import QuietBatchProcessor, QuietExporter
from burr_otel.spans.start import ids

V = TypeVar("V")
_lock = threading.RLock()
forks.free_in_child(_lock)  # its holder imports the exporters

# A batch that we wait for may take this long, and this long once the endpoint has refused it.
_LONGEST_S = 10.0
_STRUGGLING_S = 1.0


class ByIdentity(Generic[V]):
    """A value for each object, made when it is asked for first, and held while the object lives.

    The objects are neither hashed nor compared: Logfire's providers can be neither.
    """

    def __init__(self, make: Callable[[Any], V]) -> None:
        self._make = make
        self._held: dict[int, tuple[weakref.ref[Any], V]] = {}

    def __getitem__(self, key: object) -> V:
        number = id(key)
        with _lock:
            if number not in self._held:
                ref = weakref.ref(key, lambda _: self._held.pop(number, None))
                self._held[number] = ref, self._make(key)
            return self._held[number][1]

    def __iter__(self) -> Iterator[tuple[Any, V]]:
        """The objects that still live, each with its value."""
        for ref, value in tuple(self._held.values()):
            key = ref()
            if key is not None:
                yield key, value


class _Sending:
    """What we know of a provider; its exporters, when we made it."""

    def __init__(self, _provider: trace.TracerProvider) -> None:
        self.exporters: list[QuietExporter] = []
        self.flushed: threading.Event | None = None  # set when the last flush is over

    def flush(self, provider: Any) -> None:
        """Flush the provider, unless it has not answered an earlier call yet."""
        force_flush = getattr(provider, "force_flush", None)
        if force_flush is None or (self.flushed is not None and not self.flushed.is_set()):
            return
        done = threading.Event()
        work = threading.Thread(target=_do_and_tell, args=(force_flush, done), daemon=True)
        # At exit, Python 3.12 starts no thread any more, and providers shut down by themselves.
        with contextlib.suppress(RuntimeError):
            work.start()
            self.flushed = done
            self.wait_for(done)

    def end(self, work: threading.Event) -> None:
        """Stop the last export if it is not over after all the waiting, and tell of losses."""
        if not work.is_set():
            for exporter in self.exporters:
                exporter.shutdown()  # interrupts the back-off
            work.wait(_STRUGGLING_S)
        for exporter in self.exporters:
            exporter.tell_of_losses()

    def wait_for(self, work: threading.Event) -> None:
        """Wait for an export as long as spans are taken, not long where nobody answers."""
        taken, since = 0, time.monotonic()
        while not work.wait(0.05):
            sent = sum(exporter.sent for exporter in self.exporters)
            if sent != taken:
                taken, since = sent, time.monotonic()
            waited = time.monotonic() - since
            struggling = any(exporter.struggling for exporter in self.exporters)
            if waited > _LONGEST_S or (struggling and waited > _STRUGGLING_S):
                return


_own: dict[str, trace.TracerProvider] = {}
_sending: ByIdentity[_Sending] = ByIdentity(_Sending)


def tracer_provider(given: trace.TracerProvider | None, project: str) -> trace.TracerProvider:
    """The provider for an application that is built now; `given` is the tracker's argument."""
    provider = given
    if provider is None:
        provider = _global_provider()
        if isinstance(provider, trace.ProxyTracerProvider):  # nobody has set one
            provider = _own_provider(project)
    _ = _sending[provider]  # to be flushed when a child process ends
    _register_exit()
    return provider


def _global_provider() -> trace.TracerProvider:
    try:
        return trace.get_tracer_provider()
    except Exception:  # OTEL_PYTHON_TRACER_PROVIDER names none; OpenTelemetry has logged it
        return trace.NoOpTracerProvider()


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
        ConfigError: An unknown protocol, an endpoint that is not an http(s) URL, a header that is
            no text, or a global provider that is already set (OpenTelemetry allows one a process).
    """
    if protocol not in (None, *PROTOCOLS):
        raise ConfigError(
            f"protocol={protocol!r} is not allowed; choose one of 'grpc', 'http/protobuf'."
        )
    if endpoint is not None and not endpoint.startswith(("http://", "https://")):
        raise ConfigError(
            f"endpoint={endpoint!r} is not allowed; use a URL such as http://localhost:4317."
        )
    for name, value in (headers or {}).items():
        if not isinstance(value, str):  # it may be a secret
            raise ConfigError(
                f"the header {name!r} has no text but a {type(value).__name__}; "
                "is the variable that it comes from set?"
            )
    if not isinstance(_global_provider(), trace.ProxyTracerProvider):
        raise ConfigError(
            "a global tracer provider is already set and OpenTelemetry allows one a process; "
            "call burr_otel.configure() first, or pass that provider to OtelTracker."
        )
    warn_of_config_file()
    exporter = otlp_exporter(protocol or protocol_from_environ(), endpoint, headers)
    provider = _make_provider(service_name, [exporter], force_name=True)
    trace.set_tracer_provider(provider)
    _register_exit()
    return provider


def _own_provider(project: str) -> trace.TracerProvider:
    with _lock:
        provider = _own.get(project)
        if provider is None:
            if not _own:
                warn_of_config_file()
            try:
                provider = _make_provider(project, exporters_from_environ(), force_name=False)
            except Exception as error:
                if is_interrupt(error):
                    raise
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


def warn_of_config_file() -> None:
    """Say that our provider does not read a configuration file, where one is named."""
    file = os.environ.get("OTEL_CONFIG_FILE")
    if file:
        logger.warning(
            "OTEL_CONFIG_FILE=%r is not read by the provider that burr-otel makes, which "
            "goes by the other OTEL_* variables. Start the program with "
            "opentelemetry-instrument, which reads the file, or set a global tracer "
            "provider first.",
            file,
        )


def culprits(reason: str) -> str:
    """The variables whose value an error quotes; of none, an error of the SDK tells the rest."""
    names = [
        name
        for name, value in os.environ.items()
        if name.startswith("OTEL_") and value and value in reason
    ]
    return ", ".join(names) or "an OTEL_* variable"


def service_resource(service_name: str, *, force_name: bool = False) -> Resource:
    """What spans say of their service; the environment names it, unless a name is forced."""
    attributes = {"host.name": socket.gethostname()}  # Jaeger warns of a service without a host
    said = os.environ.get(OTEL_RESOURCE_ATTRIBUTES, "")
    named = os.environ.get(OTEL_SERVICE_NAME) or "service.name=" in said
    if force_name or not named:
        attributes["service.name"] = service_name
    if f"{semconv.OPENINFERENCE_PROJECT_NAME}=" not in said:
        attributes[semconv.OPENINFERENCE_PROJECT_NAME] = service_name  # else "default" in Phoenix
    return Resource.create(attributes)


def _make_provider(
    service_name: str, exporters: Iterable[QuietExporter], *, force_name: bool
) -> TracerProvider:
    # The SDK's own shutdown at exit waits out every retry of an endpoint that does not answer.
    resource = service_resource(service_name, force_name=force_name)
    provider = TracerProvider(resource=resource, shutdown_on_exit=False, id_generator=ids)
    sending = _sending[provider]
    for exporter in exporters:
        sending.exporters.append(exporter)
        provider.add_span_processor(QuietBatchProcessor(exporter))
    keeper.keeper.start()  # it shuts the provider down: Python 3.12.1 starts no thread at exit
    atexit.register(_shut_down, provider, sending)
    return provider


def _shut_down(provider: TracerProvider, sending: _Sending) -> None:
    done = threading.Event()
    keeper.keeper.defer(functools.partial(_do_and_tell, provider.shutdown, done))
    sending.wait_for(done)
    sending.end(done)


def _do_and_tell(work: Callable[[], object], done: threading.Event) -> None:
    try:
        work()
    finally:
        done.set()


def flush(given: trace.TracerProvider | None, project: str) -> None:
    """Send the spans that have ended, without waiting long for an endpoint that does not answer."""
    # Not the metrics: their provider is the user's, and a flush makes some readers collect twice.
    target = given if given is not None else _global_provider()
    if isinstance(target, trace.ProxyTracerProvider):
        target = _own.get(project, target)
    _sending[target].flush(target)


# --- the end of the process -----------------------------------------------------------------------


def _register_exit() -> None:
    """Have roots ended at exit *before* the providers that exist by now shut down."""
    # `atexit` runs last in, first out, so this is called again whenever a provider came to be.
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)
    process: Any = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        _register_child_exit()
    celery_signals: Any = sys.modules.get("celery.signals")
    if celery_signals is not None:
        celery_signals.worker_process_shutdown.connect(
            _at_child_exit, weak=False, dispatch_uid="burr_otel"
        )


def _register_child_exit(_: object = None) -> None:
    """In a child of multiprocessing: it may end by `os._exit`, which runs nothing of `atexit`."""
    global _child_pid
    if _child_pid != os.getpid():
        from multiprocessing.util import Finalize  # noqa: PLC0415  # loaded already, in a child

        _child_pid = os.getpid()
        Finalize(None, _at_child_exit, exitpriority=0)


def _at_exit() -> None:
    forks.notice()
    keeper.keeper.finish_all()


def _at_child_exit(**_: object) -> None:
    keeper.keeper.finish_all()
    for provider, sending in _sending:
        sending.flush(provider)
        if sending.flushed is not None:
            sending.end(sending.flushed)


def _after_fork() -> None:
    keeper.keeper.after_fork()
    for _, sending in _sending:
        sending.flushed = None  # by a thread of the parent
        for exporter in sending.exporters:
            keeper.keeper.start()
            exporter.count_anew()
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:  # it forgets the finalisers of now when it begins the child's work
        util.register_after_fork(_register_child_exit, _register_child_exit)


_child_pid = 0
forks.in_child(_after_fork)
