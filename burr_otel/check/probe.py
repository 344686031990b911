"""Asking an endpoint: what listens there, and what it answers to one batch.

The exporters keep the answer to themselves and try again for seconds. So HTTP's is given a session
that listens, and of gRPC's only the client is called.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import socket
import ssl
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan

from burr_otel.spans.exporters import (
    Protocol,
    bare_exporter,
    compression_from_environ,
    otlp_variable,
    without_secrets,
)

Address = tuple[str, int]
"""Host and port."""

_TIMEOUT_S: Final = 3.0
_QUICK_TIMEOUT_S: Final = 0.5
_DEFAULT_PORTS: Final = {"": 4317, "http": 80, "https": 443}  # a bare host is one of gRPC
# A client of HTTP/2 begins so: the fixed first line, then an empty SETTINGS frame (type 4).
_HTTP2_GREETING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS: Final = 4
_FRAME_HEADER_BYTES: Final = 9
# The gRPC library reads these, and only in small letters.
_GRPC_PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
_GRPC_DIRECT: Final = ("no_grpc_proxy", "no_proxy")
# What the exporters and their libraries send in any case.
_USUAL_HEADERS: Final = {
    *("accept", "accept-encoding", "connection", "content-encoding", "content-length"),
    *("content-type", "user-agent", "host"),
}
_LONGEST: Final = 300
_REFUSED: Final = 400


class Place(NamedTuple):
    """Where spans go, and the variables that say so."""

    endpoint: str
    protocol: Protocol
    variable: str | None = None  # None: it is the default
    headers_variable: str | None = None

    @property
    def address(self) -> Address:
        """Where it listens."""
        return host_and_port(self.endpoint) or ("", 443)

    @property
    def shown(self) -> str:
        """The endpoint as it may be shown."""
        return without_secrets(self.endpoint)

    @property
    def is_tls(self) -> bool:
        """Whether TLS is meant."""
        return self.endpoint.startswith("https://")

    @property
    def authority(self) -> str | None:
        """The file of the certificates that are trusted; `None`: the usual authorities."""
        # With HTTP, those of the requests library win over the exporter's.
        names = [] if self.protocol == "grpc" else ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]
        names.append(otlp_variable("CERTIFICATE") or "")
        return next((os.environ[name] for name in names if os.environ.get(name)), None)

    @property
    def proxy(self) -> str | None:
        """The variable whose proxy stands between us and it; `None` when none does."""
        parts = urllib.parse.urlsplit(self.endpoint)
        host = parts.hostname or ""
        names: Sequence[str] = _GRPC_PROXIES
        if self.protocol == "grpc":
            direct = next((os.environ[name] for name in _GRPC_DIRECT if os.environ.get(name)), "")
            domains = [each.strip().lstrip(".") for each in direct.split(",")]
            bypassed = any(each and f".{host}".endswith(f".{each}") for each in domains)
        else:
            kinds = [f"{kind}_proxy" for kind in (parts.scheme, "all")]
            names = [name for kind in kinds for name in (kind, kind.upper())]
            bypassed = urllib.request.proxy_bypass(f"{host}:{parts.port}" if parts.port else host)
        return next((name for name in names if os.environ.get(name) and not bypassed), None)

    def answers(self) -> bool:
        """Whether a connection is accepted; behind a proxy, or without TCP, only sending tells."""
        address = host_and_port(self.endpoint)
        if address is None:
            return True
        local = address[0] in ("localhost", "::1") or address[0].startswith("127.")
        if not local and self.proxy:
            return True
        return connect_problem(address, _QUICK_TIMEOUT_S) is None


def host_and_port(endpoint: str) -> Address | None:
    """Where an OTLP endpoint (a URL, or ``host:port``) listens; `None`: it is no TCP address."""
    try:
        parts = urllib.parse.urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or parts.scheme not in _DEFAULT_PORTS:
        return None
    return parts.hostname, port or _DEFAULT_PORTS[parts.scheme]


def connect_problem(address: Address, timeout_s: float | None = None) -> str | None:
    """Why no connection is made: "dns", "nothing_listening" or "timeout"; `None` when one is."""
    try:
        with socket.create_connection(address, timeout=timeout_s or _TIMEOUT_S):
            return None
    except (socket.gaierror, UnicodeError):
        return "dns"
    except ConnectionRefusedError:
        return "nothing_listening"
    except OSError:
        return "timeout"


def handshake(place: Place) -> str | None:
    """What is wrong with a server's certificate ("": nothing); `None` when it speaks no TLS."""
    try:
        with _connection(place, tls=True):
            return ""
    except ssl.SSLCertVerificationError as error:
        return str(error.verify_message)
    except FileNotFoundError:
        return f"there is no file {place.authority}"
    except OSError:
        return None


def speaks(place: Place) -> Protocol | None:
    """Which of the two transports of OTLP a server speaks; `None` when it speaks neither."""
    # A server of HTTP/2 greets with a SETTINGS frame; one of HTTP/1 answers in text.
    if _reply(place, _HTTP2_GREETING, "h2")[3:4] == bytes([_SETTINGS]):
        return "grpc"
    head = f"POST /v1/traces HTTP/1.1\r\nHost: {place.address[0]}\r\nContent-Length: 0\r\n\r\n"
    replied = _reply(place, head.encode(), "http/1.1").startswith(b"HTTP/1")
    return "http/protobuf" if replied else None


def _reply(place: Place, request: bytes, alpn: str) -> bytes:
    """The first bytes of an answer; none when there is no answer."""
    try:
        with _connection(place, tls=place.is_tls, alpn=(alpn,)) as connection:
            connection.sendall(request)
            with connection.makefile("rb") as reply:
                return reply.read(_FRAME_HEADER_BYTES)
    except OSError:
        return b""


def _connection(
    place: Place, *, tls: bool, alpn: Sequence[str] = ("h2", "http/1.1")
) -> socket.socket:
    connection = socket.create_connection(place.address, timeout=_TIMEOUT_S)
    if not tls:
        return connection
    try:
        context = ssl.create_default_context(cafile=place.authority)
        context.set_alpn_protocols(list(alpn))
        return context.wrap_socket(connection, server_hostname=place.address[0])
    except BaseException:
        connection.close()
        raise


# --- one batch ----------------------------------------------------------------------------------


@dataclasses.dataclass
class Answer:
    """What was sent and what came back."""

    compression: str
    size_bytes: int  # of the message, before it is compressed
    http_status: int | None = None
    grpc_status: str | None = None
    said: str = ""  # the endpoint's words, or the error's
    rejected_spans: int = 0  # which a partial success leaves out
    location: str = ""  # where a redirect leads
    url: str = ""  # where the request went by HTTP
    headers_sent: tuple[str, ...] = ()  # names of those that the settings added
    timeout_s: float = 0.0
    secrets: tuple[str, ...] = dataclasses.field(default=(), repr=False)

    def note_sent(self, headers: Iterable[tuple[str, str | bytes]], timeout_s: object) -> None:
        """Note what was sent: the names of headers to show, their values never to show."""
        texts = {k.lower(): v if isinstance(v, str) else v.decode("latin-1") for k, v in headers}
        self.headers_sent = tuple(sorted(texts.keys() - _USUAL_HEADERS))
        self.secrets = tuple(texts[name] for name in self.headers_sent if len(texts[name]) > 1)
        self.timeout_s = round(timeout_s, 1) if isinstance(timeout_s, int | float) else 0.0

    def note_response(self, response: ExportTraceServiceResponse) -> None:
        """Note what OTLP answers."""
        self.rejected_spans = response.partial_success.rejected_spans
        self.said = _short(response.partial_success.error_message)


def ask(protocol: Protocol, spans: Sequence[ReadableSpan]) -> Answer:
    """Send spans where the ``OTEL_*`` variables say; raises what the exporter raises of them."""
    request = encode_spans(spans)
    answer = Answer(compression_from_environ(), request.ByteSize())
    if protocol == "grpc":
        _ask_by_grpc(request, answer)
    else:
        _ask_by_http(spans, answer)
    return answer


def _short(text: str) -> str:
    return " ".join(text.split())[:_LONGEST]


def _ask_by_grpc(request: Any, answer: Answer) -> None:
    import grpc  # noqa: PLC0415 - as the exporters: only the one in use

    exporter: Any = bare_exporter("grpc")
    headers, timeout_s = exporter._headers, exporter._timeout  # noqa: SLF001 - it has no other way in
    answer.note_sent(headers, timeout_s)
    try:
        export = exporter._client.Export  # noqa: SLF001 - likewise
        answer.note_response(export(request=request, metadata=headers, timeout=timeout_s))
        answer.grpc_status = "OK"
    except grpc.RpcError as error:
        answer.grpc_status, answer.said = error.code().name, _short(error.details() or str(error))
    finally:
        exporter.shutdown(timeout_millis=0)


def _ask_by_http(spans: Sequence[ReadableSpan], answer: Answer) -> None:
    import requests  # noqa: PLC0415 - costs a quarter of a second, and gRPC does without

    class Listening(requests.Session):
        def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            answer.url = str(request.url)
            answer.note_sent(request.headers.items(), options.get("timeout"))
            try:
                options["allow_redirects"] = False  # OpenTelemetry 1.38 follows one
                response = super().send(request, **options)
                _note_http(answer, response)
            except requests.RequestException as error:
                answer.said, response = _short(str(error)), requests.Response()
                response.status_code = _REFUSED  # which the exporter does not try again
            exporter.shutdown()  # nor anything else
            return response

    exporter = bare_exporter("http/protobuf", session=Listening())
    exporter.export(spans)


def _note_http(answer: Answer, response: Any) -> None:
    answer.http_status = response.status_code
    answer.location = response.headers.get("Location", "")
    kind = response.headers.get("Content-Type", "")
    body: bytes = response.content or b""
    if response.status_code < 300 and "protobuf" in kind:  # noqa: PLR2004 - success
        with contextlib.suppress(Exception):  # no OTLP, whatever it calls itself
            answer.note_response(ExportTraceServiceResponse.FromString(body))
        return
    answer.said = _short(_words(body, kind) or str(response.reason or ""))


def _words(body: bytes, kind: str) -> str:
    """What a body says to people, whatever it is."""
    text = body.decode("utf-8", "replace")
    if "protobuf" in kind:  # google.rpc.Status: its message is the text field 2
        from google.rpc.status_pb2 import Status  # noqa: PLC0415 - for a refusal only

        with contextlib.suppress(Exception):
            return str(Status.FromString(body).message)
    if "html" in kind:
        return re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<(style|script).*?</\1>", " ", text))
    return text
