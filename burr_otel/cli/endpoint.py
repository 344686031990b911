"""Whether anything answers where spans would be sent."""

from __future__ import annotations

import socket
import urllib.parse
import urllib.request
from typing import Final

__all__ = ["answers", "host_and_port"]

_CONNECT_TIMEOUT_S: Final = 0.5
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_OTLP_GRPC_PORT: Final = 4317


def host_and_port(endpoint: str) -> tuple[str, int] | None:
    """Where an OTLP endpoint listens; ``None`` when it is not a TCP address.

    Args:
        endpoint: A URL, or ``host:port`` as gRPC also takes it.
    """
    url = endpoint if "://" in endpoint else f"//{endpoint}"
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or parts.scheme not in ("", *_DEFAULT_PORTS):
        return None
    return parts.hostname, port or _DEFAULT_PORTS.get(parts.scheme, _OTLP_GRPC_PORT)


def answers(endpoint: str, timeout_s: float = _CONNECT_TIMEOUT_S) -> bool:
    """Whether a connection to the endpoint is accepted within `timeout_s`.

    An endpoint behind a proxy, or one that is no TCP address, is taken to answer: only sending
    will tell.
    """
    place = host_and_port(endpoint)
    if place is None:
        return True
    if _behind_proxy(urllib.parse.urlsplit(endpoint).scheme, place[0]):
        return True
    try:
        with socket.create_connection(place, timeout=timeout_s):
            return True
    except OSError:
        return False


def _behind_proxy(scheme: str, host: str) -> bool:
    if host == "localhost" or host.startswith("127.") or host == "::1":
        return False
    return scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)
