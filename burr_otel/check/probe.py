"""What listens at a place: asked with real connections, a step at a time."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import urllib.parse
import urllib.request
from typing import Final

from burr_otel.spans.exporters import Protocol

_TIMEOUT_S: Final = 3.0
_QUICK_TIMEOUT_S: Final = 0.5
_DEFAULT_PORTS: Final = {"": 4317, "http": 80, "https": 443}  # a bare host is one of gRPC
# A client of HTTP/2 begins so: the fixed first line, then an empty SETTINGS frame (type 4).
_HTTP2_GREETING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS: Final = 4
# The gRPC library reads these, and only in small letters.
_GRPC_PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
_GRPC_DIRECT: Final = ("no_grpc_proxy", "no_proxy")
_FRAME_HEADER_BYTES: Final = 9


def host_and_port(endpoint: str) -> tuple[str, int] | None:
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
    place = host_and_port(endpoint)
    if place is None:
        return True
    local = place[0] in ("localhost", "::1") or place[0].startswith("127.")
    if not local and proxy_variable(protocol, endpoint):
        return True
    try:
        with socket.create_connection(place, timeout=_QUICK_TIMEOUT_S):
            return True
    except OSError:
        return False


def connect_problem(host: str, port: int) -> str | None:
    """Why no connection is made: "dns", "nothing_listening" or "timeout"; `None` when one is."""
    try:
        socket.create_connection((host, port), timeout=_TIMEOUT_S).close()
    except (socket.gaierror, UnicodeError):
        return "dns"
    except ConnectionRefusedError:
        return "nothing_listening"
    except OSError:
        return "timeout"
    return None


def speaks_tls(host: str, port: int) -> bool:
    """Whether a TLS handshake goes through, whoever the certificate is for."""
    try:
        with _connection(host, port, tls=True):
            return True
    except OSError:
        return False


def certificate_problem(host: str, port: int, authority: str | None) -> str | None:
    """Why a certificate is not accepted by an authority's file, or the usual authorities."""
    try:
        context = ssl.create_default_context(cafile=authority)
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection((host, port), timeout=_TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return None
    except ssl.SSLCertVerificationError as error:
        return str(error.verify_message)
    except OSError:
        return None


def speaks(host: str, port: int, *, tls: bool) -> Protocol | None:
    """Which of the two transports of OTLP a server speaks; `None` when it speaks neither.

    A server of HTTP/2 greets with a SETTINGS frame; one of HTTP/1 answers in text.
    """
    if _reply(host, port, _HTTP2_GREETING, tls=tls, alpn="h2")[3:4] == bytes([_SETTINGS]):
        return "grpc"
    request = f"POST /v1/traces HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode()
    if _reply(host, port, request, tls=tls, alpn="http/1.1").startswith(b"HTTP/1"):
        return "http/protobuf"
    return None


def _reply(host: str, port: int, request: bytes, *, tls: bool, alpn: str) -> bytes:
    """The first bytes of an answer; none when there is no answer."""
    reply = b""
    with contextlib.suppress(OSError), _connection(host, port, tls=tls, alpn=alpn) as connection:
        connection.sendall(request)
        while len(reply) < _FRAME_HEADER_BYTES:
            part = connection.recv(_FRAME_HEADER_BYTES - len(reply))
            if not part:
                break
            reply += part
    return reply


def _connection(host: str, port: int, *, tls: bool, alpn: str = "h2") -> socket.socket:
    connection = socket.create_connection((host, port), timeout=_TIMEOUT_S)
    if not tls:
        return connection
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing secret is sent
    context.set_alpn_protocols([alpn])
    try:
        return context.wrap_socket(connection, server_hostname=host)
    except BaseException:
        connection.close()
        raise


def proxy_variable(protocol: Protocol, endpoint: str) -> str | None:
    """The variable whose proxy stands between us and an endpoint; `None` when none does."""
    parts = urllib.parse.urlsplit(endpoint)
    host = parts.hostname or ""
    names: tuple[str, ...]
    if protocol == "grpc":
        names = _GRPC_PROXIES
        direct = next((os.environ[name] for name in _GRPC_DIRECT if os.environ.get(name)), "")
        if any(host == each.strip() or _below(host, each.strip()) for each in direct.split(",")):
            return None
    else:
        names = tuple(
            name
            for kind in (parts.scheme, "all")
            for name in (f"{kind}_proxy", f"{kind}_proxy".upper())
        )
        if urllib.request.proxy_bypass(f"{host}:{parts.port}" if parts.port else host):
            return None
    return next((name for name in names if os.environ.get(name)), None)


def _below(host: str, domain: str) -> bool:
    return bool(domain) and host.endswith("." + domain.lstrip("."))
