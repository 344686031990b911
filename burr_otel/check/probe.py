"""What listens at a place: asked with real connections, a step at a time."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Final, NamedTuple

from burr_otel.spans.exporters import Protocol

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


class Place(NamedTuple):
    """Where spans go, and the variables that say so."""

    endpoint: str
    protocol: Protocol
    variable: str | None  # None: it is the default
    headers_variable: str | None

    @property
    def address(self) -> Address:
        """Where it listens."""
        return host_and_port(self.endpoint) or ("", 443)

    @property
    def is_tls(self) -> bool:
        """Whether TLS is meant."""
        return self.endpoint.startswith("https://")

    @property
    def proxy(self) -> str | None:
        """The variable of a proxy on the way."""
        return proxy_variable(self.protocol, self.endpoint)


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


def answers(endpoint: str, protocol: Protocol = "http/protobuf") -> bool:
    """Whether a connection is accepted; behind a proxy, or without TCP, only sending tells."""
    address = host_and_port(endpoint)
    if address is None:
        return True
    local = address[0] in ("localhost", "::1") or address[0].startswith("127.")
    if not local and proxy_variable(protocol, endpoint):
        return True
    try:
        with socket.create_connection(address, timeout=_QUICK_TIMEOUT_S):
            return True
    except OSError:
        return False


def connect_problem(address: Address) -> str | None:
    """Why no connection is made: "dns", "nothing_listening" or "timeout"; `None` when one is."""
    try:
        socket.create_connection(address, timeout=_TIMEOUT_S).close()
    except (socket.gaierror, UnicodeError):
        return "dns"
    except ConnectionRefusedError:
        return "nothing_listening"
    except OSError:
        return "timeout"
    return None


def speaks_tls(address: Address) -> bool:
    """Whether a TLS handshake goes through, whoever the certificate is for."""
    try:
        with _connection(address, _any_certificate("h2")):
            return True
    except OSError:
        return False


def certificate_problem(address: Address, authority: str | None) -> str | None:
    """Why a certificate is not accepted by an authority's file, or the usual authorities."""
    try:
        context = ssl.create_default_context(cafile=authority)
        context.set_alpn_protocols(["h2", "http/1.1"])
        with _connection(address, context):
            return None
    except ssl.SSLCertVerificationError as error:
        return str(error.verify_message)
    except OSError:
        return None


def speaks(address: Address, *, tls: bool) -> Protocol | None:
    """Which of the two transports of OTLP a server speaks; `None` when it speaks neither.

    A server of HTTP/2 greets with a SETTINGS frame; one of HTTP/1 answers in text.
    """
    context = _any_certificate("h2") if tls else None
    if _reply(address, context, _HTTP2_GREETING)[3:4] == bytes([_SETTINGS]):
        return "grpc"
    context = _any_certificate("http/1.1") if tls else None
    head = f"POST /v1/traces HTTP/1.1\r\nHost: {address[0]}\r\nContent-Length: 0\r\n\r\n"
    replied = _reply(address, context, head.encode()).startswith(b"HTTP/1")
    return "http/protobuf" if replied else None


def _reply(address: Address, context: ssl.SSLContext | None, request: bytes) -> bytes:
    """The first bytes of an answer; none when there is no answer."""
    reply = b""
    with contextlib.suppress(OSError), _connection(address, context) as connection:
        connection.sendall(request)
        while len(reply) < _FRAME_HEADER_BYTES:
            part = connection.recv(_FRAME_HEADER_BYTES - len(reply))
            if not part:
                break
            reply += part
    return reply


def _any_certificate(alpn: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing secret is sent
    context.set_alpn_protocols([alpn])
    return context


def _connection(address: Address, context: ssl.SSLContext | None) -> socket.socket:
    connection = socket.create_connection(address, timeout=_TIMEOUT_S)
    try:
        return (
            context.wrap_socket(connection, server_hostname=address[0]) if context else connection
        )
    except BaseException:
        connection.close()
        raise


def proxy_variable(protocol: Protocol, endpoint: str) -> str | None:
    """The variable whose proxy stands between us and an endpoint; `None` when none does."""
    parts = urllib.parse.urlsplit(endpoint)
    host = parts.hostname or ""
    names: Sequence[str] = _GRPC_PROXIES
    if protocol == "grpc":
        direct = next((os.environ[name] for name in _GRPC_DIRECT if os.environ.get(name)), "")
        domains = [each.strip().lstrip(".") for each in direct.split(",")]
        bypassed = any(each and f".{host}".endswith(f".{each}") for each in domains)
    else:
        kinds = [f"{kind}_proxy" for kind in (parts.scheme, "all")]
        names = [name for kind in kinds for name in (kind, kind.upper())]
        bypassed = urllib.request.proxy_bypass(f"{host}:{parts.port}" if parts.port else host)
    return next((name for name in names if os.environ.get(name) and not bypassed), None)
