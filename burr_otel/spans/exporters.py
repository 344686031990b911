"""OTLP exporters from the ``OTEL_*`` variables, and one that is quiet about an outage."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal

from opentelemetry.environment_variables import OTEL_TRACES_EXPORTER
from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_COMPRESSION,
    OTEL_EXPORTER_OTLP_ENDPOINT,
    OTEL_EXPORTER_OTLP_HEADERS,
    OTEL_EXPORTER_OTLP_PROTOCOL,
    OTEL_EXPORTER_OTLP_TRACES_COMPRESSION,
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
    OTEL_EXPORTER_OTLP_TRACES_HEADERS,
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL,
    OTEL_SDK_DISABLED,
)
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from burr_otel.spans.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

__all__ = [
    "PROTOCOLS",
    "Protocol",
    "QuietExporter",
    "bare_exporter",
    "compression_from_environ",
    "endpoint_from_environ",
    "endpoint_variable",
    "exporter_names",
    "exporters_from_environ",
    "headers_variable",
    "otlp_exporter",
    "protocol_from_environ",
    "sdk_disabled",
    "without_secrets",
]

logger = logging.getLogger("burr_otel")

Protocol = Literal["grpc", "http/protobuf"]
_DEFAULT_ENDPOINT = {"grpc": "http://localhost:4317", "http/protobuf": "http://localhost:4318"}
PROTOCOLS = tuple(_DEFAULT_ENDPOINT)

_REFUSED_KEY = re.compile(r"UNAUTHENTICATED|PERMISSION_DENIED|code: (?:401|403)\b")


def endpoint_from_environ() -> tuple[str, Protocol]:
    """Where a provider of our own sends to, and how."""
    protocol = protocol_from_environ()
    return _endpoint_of(protocol), protocol


def _empty_endpoint() -> bool:
    """Whether the endpoint's variables are set and empty, which means unset; exporters differ."""
    values = [
        os.environ.get(name)
        for name in (OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT)
    ]
    return "" in values and not any(values)


def _endpoint_of(protocol: Protocol) -> str:
    variable = endpoint_variable()
    return os.environ[variable] if variable else _DEFAULT_ENDPOINT[protocol]


def _in_force(*names: str) -> str | None:
    """The first of these variables that says anything."""
    return next((name for name in names if os.environ.get(name)), None)


def endpoint_variable() -> str | None:
    """The variable that names the endpoint; `None` when the default holds."""
    return _in_force(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT)


def headers_variable() -> str | None:
    """The variable that holds the headers; `None` when there is none."""
    return _in_force(OTEL_EXPORTER_OTLP_TRACES_HEADERS, OTEL_EXPORTER_OTLP_HEADERS)


def compression_from_environ() -> str:
    """The compression that the variables name, ``gzip`` when none does."""
    variable = _in_force(OTEL_EXPORTER_OTLP_TRACES_COMPRESSION, OTEL_EXPORTER_OTLP_COMPRESSION)
    return os.environ[variable] if variable else "gzip"


def sdk_disabled() -> bool:
    """Whether ``OTEL_SDK_DISABLED`` says that no trace is made."""
    return os.environ.get(OTEL_SDK_DISABLED, "").strip().lower() == "true"


def exporter_names() -> list[str]:
    """What ``OTEL_TRACES_EXPORTER`` names, ``otlp`` when it is not set."""
    return [n.strip() for n in (os.environ.get(OTEL_TRACES_EXPORTER) or "otlp").split(",")]


def exporters_from_environ() -> Iterator[SpanExporter]:
    """Exporters named by ``OTEL_TRACES_EXPORTER``, ``otlp`` when it is not set."""
    if sdk_disabled():
        return
    for name in exporter_names():
        if name in ("none", ""):
            continue
        if name == "otlp":
            yield otlp_exporter(protocol_from_environ())
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


def protocol_from_environ() -> Protocol:
    """The OTLP protocol that the variables name, ``grpc`` when none does."""
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


def otlp_exporter(
    protocol: Protocol, endpoint: str | None = None, headers: dict[str, str] | None = None
) -> SpanExporter:
    """An OTLP exporter; what is not given comes from the variables."""
    exporter = bare_exporter(protocol, endpoint, headers)
    return QuietExporter(exporter, endpoint or _endpoint_of(protocol))


def bare_exporter(
    protocol: Protocol,
    endpoint: str | None = None,
    headers: dict[str, str] | None = None,
    **options: Any,
) -> SpanExporter:
    """What `otlp_exporter` wraps: the exporter as it logs and fails by itself.

    Args:
        protocol: How to send.
        endpoint: Where to; else from the variables.
        headers: What with; else from the variables.
        options: More arguments of the exporter's class.
    """
    if endpoint is None and _empty_endpoint():
        endpoint = _DEFAULT_ENDPOINT[protocol]
    compression = compression_from_environ()
    if headers:
        options["headers"] = headers
    # Both exporters take seconds to import grpc or requests, so only the one in use is.
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http import Compression  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as HttpExporter,
        )

        if compression == "gzip":
            options["compression"] = Compression.Gzip
        if endpoint is not None:
            _, _, rest = endpoint.partition("://")
            path = "" if "/" in rest.rstrip("/") else "/v1/traces"
            options["endpoint"] = endpoint.rstrip("/") + path
        return HttpExporter(**options)
    import grpc  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter as GrpcExporter,
    )

    if compression == "gzip":
        options["compression"] = grpc.Compression.Gzip
    elif compression == "none":  # the exporter of OpenTelemetry for Python refuses that word
        options["compression"] = grpc.Compression.NoCompression
    return GrpcExporter(endpoint=endpoint, **options)


def without_secrets(endpoint: str) -> str:
    """An endpoint as it may be shown: without user, password and what a query says."""
    scheme, mark, rest = endpoint.rpartition("://")
    place, slash, path = rest.partition("/")
    place = place.rpartition("@")[2]
    path = re.sub(r"(?<==)[^&#]+", "***", path)
    return f"{scheme}{mark}{place}{slash}{path}"


class QuietExporter(SpanExporter):
    """Turns the log lines of a failing OTLP exporter into one warning an outage.

    Args:
        exporter: What really sends.
        endpoint: Where to, for the warning.

    Attributes:
        tally: What became of the spans; a processor of the provider that hands it spans.
    """

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = without_secrets(endpoint)
        self._secret = endpoint.rpartition("@")[0].rpartition("://")[2]
        self._lost_before: int | None = None  # while an outage lasts: what was lost until then
        self._said: list[str] = []
        self._told_of_drops = False
        self.tally = Tally()

    @property
    def struggling(self) -> bool:
        """Whether the endpoint did not take the batch that is being, or was last, sent."""
        return self._lost_before is not None or bool(self._said)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; a failure is reported once until a batch goes through again."""
        self.tally.reached(len(spans))
        self._tell_of_drops()
        lost = self.tally.lost
        with _hushed() as said:
            self._said = said
            result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.tally.sent += len(spans)
            self._outage_is_over(lost)
            return result
        self.tally.refused += len(spans)
        if self._lost_before is None:
            self._lost_before = lost
            reason = said[0] if said else "the exporter gave no reason"
            reason = (reason.replace(self._secret, "***") if self._secret else reason)[:200]
            logger.warning(
                "cannot send spans to %s (%s). %s The run is unaffected and its snapshots are "
                "kept; `burr-otel replay` sends it later.",
                self._endpoint,
                reason,
                _what_to_change(reason),
            )
        return result

    def _outage_is_over(self, lost: int) -> None:
        before, self._lost_before = self._lost_before, None
        if before is not None:
            logger.warning(
                "%s takes spans again. Meanwhile %d were lost; "
                "`burr-otel replay` sends their runs.",
                self._endpoint,
                lost - before,
            )

    def _tell_of_drops(self) -> None:
        if self._told_of_drops or not self.tally.dropped:
            return
        self._told_of_drops = True
        logger.warning(
            "spans end faster than %s takes them: the queue of %d is full and drops the oldest. "
            "Raise OTEL_BSP_MAX_QUEUE_SIZE; `burr-otel replay` sends the runs whole later.",
            self._endpoint,
            self.tally.queue_size,
        )

    def tell_of_losses(self) -> None:
        """At the end: how many spans did not arrive, unless a warning has said that none did."""
        tally, unsent = self.tally, self.tally.ended - self.tally.reached_in_all
        if tally.sent + tally.dropped and tally.refused + unsent:
            logger.warning(
                "%d of %d spans did not get to %s: %d were refused, and %d never sent, because "
                "the queue of %d was full or time ran out at exit. "
                "`burr-otel replay` sends their runs.",
                tally.refused + unsent,
                tally.ended,
                self._endpoint,
                tally.refused,
                unsent,
                tally.queue_size,
            )
            tally.start()

    def shutdown(self) -> None:
        """Shut the exporter down, quietly when nobody answers."""
        with _hushed():
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter."""
        return self._exporter.force_flush(timeout_millis)


def _what_to_change(reason: str) -> str:
    if _REFUSED_KEY.search(reason):
        variable = headers_variable() or OTEL_EXPORTER_OTLP_HEADERS
        return f"It refuses the key that is sent, or misses one: correct {variable}."
    return "`burr-otel check` says what to change."


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
