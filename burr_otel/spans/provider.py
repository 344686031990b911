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
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal

from opentelemetry import metrics, trace
from opentelemetry.environment_variables import OTEL_TRACES_EXPORTER
from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_COMPRESSION,
    OTEL_EXPORTER_OTLP_ENDPOINT,
    OTEL_EXPORTER_OTLP_PROTOCOL,
    OTEL_EXPORTER_OTLP_TRACES_COMPRESSION,
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL,
    OTEL_RESOURCE_ATTRIBUTES,
    OTEL_SDK_DISABLED,
    OTEL_SERVICE_NAME,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from burr_otel import semconv
from burr_otel._version import __version__
from burr_otel.errors import ConfigError
from burr_otel.spans import roots

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, MutableMapping, Sequence

__all__ = [
    "Protocol",
    "configure",
    "endpoint_from_environ",
    "meter_provider",
    "service_resource",
    "tracer_provider",
]

logger = logging.getLogger("burr_otel")

Protocol = Literal["grpc", "http/protobuf"]
_DEFAULT_ENDPOINT = {"grpc": "http://localhost:4317", "http/protobuf": "http://localhost:4318"}
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
        provider = trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider):  # nobody has set one
            provider = _own_provider(project)
    roots.register_exit()
    return provider


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
    if protocol not in (None, *_DEFAULT_ENDPOINT):
        raise ConfigError(
            f"protocol={protocol!r} is not allowed; choose one of 'grpc', 'http/protobuf'."
        )
    if endpoint is not None and not endpoint.startswith(("http://", "https://")):
        raise ConfigError(
            f"endpoint={endpoint!r} is not allowed; use a URL such as http://localhost:4317."
        )
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        raise ConfigError(
            "a global tracer provider is already set and OpenTelemetry allows one a process; "
            "call burr_otel.configure() first, or pass that provider to OtelTracker."
        )
    exporter = _otlp_exporter(protocol or _protocol_from_environ(), endpoint, headers)
    provider = _make_provider(service_name, [exporter], force_name=True)
    trace.set_tracer_provider(provider)
    roots.register_exit()
    return provider


def endpoint_from_environ() -> tuple[str, Protocol]:
    """Where a provider of our own sends to, and how."""
    protocol = _protocol_from_environ()
    return _endpoint_of(protocol), protocol


def _endpoint_of(protocol: Protocol) -> str:
    return (
        os.environ.get(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT)
        or os.environ.get(OTEL_EXPORTER_OTLP_ENDPOINT)
        or _DEFAULT_ENDPOINT[protocol]
    )


def _own_provider(project: str) -> trace.TracerProvider:
    with _lock:
        provider = _own.get(project)
        if provider is None:
            try:
                provider = _make_provider(project, _exporters_from_environ(), force_name=False)
            except Exception as error:
                # The SDK and the exporters raise for some bad values of their variables.
                logger.warning(
                    "no spans are made, because an OTEL_* variable cannot be used: %s. "
                    "Correct it; the snapshots are kept all the same.",
                    error,
                )
                provider = trace.NoOpTracerProvider()
            _own[project] = provider
        return provider


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
        provider.add_span_processor(BatchSpanProcessor(exporter))
        if isinstance(exporter, QuietExporter):
            quiet.append(exporter)
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


def _exporters_from_environ() -> Iterator[SpanExporter]:
    """Exporters named by ``OTEL_TRACES_EXPORTER``, ``otlp`` when it is not set."""
    if os.environ.get(OTEL_SDK_DISABLED, "").strip().lower() == "true":
        return
    names = [n.strip() for n in os.environ.get(OTEL_TRACES_EXPORTER, "otlp").split(",")]
    for name in names:
        if name in ("none", ""):
            continue
        if name == "otlp":
            yield _otlp_exporter(_protocol_from_environ())
            continue
        found = list(entry_points(group="opentelemetry_traces_exporter", name=name))
        if found:
            yield found[0].load()()
            continue
        known = sorted(e.name for e in entry_points(group="opentelemetry_traces_exporter"))
        logger.warning(
            "%s=%r names no installed exporter; allowed here: none, %s. "
            "Nothing is exported for that name; the snapshots are kept all the same.",
            OTEL_TRACES_EXPORTER,
            name,
            ", ".join(known),
        )


def _protocol_from_environ() -> Protocol:
    for variable in (OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, OTEL_EXPORTER_OTLP_PROTOCOL):
        value = os.environ.get(variable, "").strip()
        if value == "grpc":
            return "grpc"
        if value == "http/protobuf":
            return "http/protobuf"
        if value:
            logger.warning(
                "%s=%r is not supported; allowed are grpc and http/protobuf. grpc is used instead.",
                variable,
                value,
            )
            break
    return "grpc"


def _otlp_exporter(
    protocol: Protocol, endpoint: str | None = None, headers: dict[str, str] | None = None
) -> SpanExporter:
    # Both exporters take seconds to import grpc or requests, so only the one in use is.
    compress = not any(
        os.environ.get(name)
        for name in (OTEL_EXPORTER_OTLP_TRACES_COMPRESSION, OTEL_EXPORTER_OTLP_COMPRESSION)
    )
    options: dict[str, Any] = {"headers": headers} if headers else {}
    exporter: SpanExporter
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http import Compression  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as HttpExporter,
        )

        if compress:
            options["compression"] = Compression.Gzip
        if endpoint is not None:
            _, _, rest = endpoint.partition("://")
            path = "" if "/" in rest.rstrip("/") else "/v1/traces"
            options["endpoint"] = endpoint.rstrip("/") + path
        exporter = HttpExporter(**options)
    else:
        import grpc  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as GrpcExporter,
        )

        if compress:
            options["compression"] = grpc.Compression.Gzip
        exporter = GrpcExporter(endpoint=endpoint, **options)
    return QuietExporter(exporter, endpoint or _endpoint_of(protocol))


class QuietExporter(SpanExporter):
    """Turns the log lines of a failing OTLP exporter into one warning an outage.

    Args:
        exporter: What really sends.
        endpoint: Where to, for the warning.
    """

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._failing = False
        self._said: list[str] = []

    @property
    def struggling(self) -> bool:
        """Whether the endpoint did not take the batch that is being, or was last, sent."""
        return self._failing or bool(self._said)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; a failure is reported once until a batch goes through again."""
        with _hushed() as said:
            self._said = said
            result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self._failing = False
        elif not self._failing:
            self._failing = True
            logger.warning(
                "cannot send spans to %s (%s). The run is unaffected and its snapshots are kept; "
                "`burr-otel replay` sends it later.",
                self._endpoint,
                said[0][:200] if said else "the exporter gave no reason",
            )
        return result

    def shutdown(self) -> None:
        """Shut the exporter down, quietly when nobody answers."""
        with _hushed():
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter."""
        return self._exporter.force_flush(timeout_millis)


class _Hush(logging.Filter):
    """Keeps what the exporter logs on a thread that is inside `_hushed`."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        kept: list[str] | None = getattr(self.kept, "lines", None)
        if kept is None or record.levelno < logging.WARNING:
            return True
        kept.append(" ".join(record.getMessage().split()))
        return False


_hush = _Hush()
for _name in (
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http._common",
    "opentelemetry.exporter.otlp.common.http",
):
    logging.getLogger(_name).addFilter(_hush)


@contextlib.contextmanager
def _hushed() -> Iterator[list[str]]:
    lines: list[str] = []
    _hush.kept.lines = lines
    try:
        yield lines
    finally:
        _hush.kept.lines = None


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
    target = given or trace.get_tracer_provider()
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
