"""From an answer, or none, to the mistake behind it."""

from __future__ import annotations

import os
import re
import urllib.parse
from typing import Final

from burr_otel.check.ask import Answer
from burr_otel.check.mistakes import Problem, problem
from burr_otel.check.probe import (
    Place,
    certificate_problem,
    connect_problem,
    speaks,
    speaks_tls,
)
from burr_otel.spans.exporters import without_secrets

_TOO_LARGE: Final = re.compile(r"larger than|too large|exceeds", re.IGNORECASE)
_MISSING_HEADER: Final = re.compile(r"missing '?\"?([\w-]+)'?\"? header", re.IGNORECASE)
_TLS_WANTED: Final = re.compile(r"HTTPS (?:server|port)", re.IGNORECASE)
_UNREACHED: Final = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "INTERNAL", "CANCELLED", "")
_OK, _REDIRECT, _BAD_REQUEST, _SERVER_FAILED = 200, 300, 400, 500
_PROXY_SAID: Final = (407, 502, 503, 504)
_AUTHORITIES: Final = ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE")
_BY_STATUS: Final = {
    **dict.fromkeys((401, 403), "no_key"),
    **dict.fromkeys((404, 405), "wrong_path"),
    **dict.fromkeys((406, 415, 501), "not_otlp"),
    407: "proxy",
    413: "too_large",
    429: "busy",
}


def wrong_address(place: Place) -> Problem | None:
    """Whether the exporters would take the endpoint for something else, or not at all."""
    scheme, mark, rest = place.endpoint.partition("://")
    if mark and scheme in ("http", "https", "unix") and rest:
        user = place.protocol == "grpc" and "@" in rest.partition("/")[0]
        return problem("user_in_url", _fields(place)) if user else None
    meant = without_secrets(place.endpoint).rpartition("://")[2] or "localhost:4317"
    return problem("wrong_scheme", {**_fields(place), "place": meant})


def diagnose(place: Place, answer: Answer) -> Problem | None:
    """The mistake behind an answer; `None` when the trace was taken whole."""
    name = "partly_refused" if answer.rejected else _mistake(place, answer)
    if name is None:
        return None
    missing = _MISSING_HEADER.search(answer.said)
    if name == "no_key" and (missing or answer.headers):
        name = "missing_header" if missing else "bad_key"
    values = {
        "bad_key": " and ".join(answer.headers),
        "missing_header": missing[1] if missing else "",
        "partly_refused": str(answer.rejected),
        "proxy": place.proxy or "",
        "redirect": without_secrets(answer.location),
        "too_large": f"{answer.size_bytes / 1000:,.0f} kB",
    }
    said = _certificate(place) if name == "certificate" else None
    fields = {
        **_fields(place),
        "answer": said or shown(answer, place) or "it says nothing",
        "path": urllib.parse.urlsplit(answer.url).path,
        "value": values.get(name, ""),
    }
    return problem(name, fields)


def shown(answer: Answer, place: Place) -> str:
    """An endpoint's words without any secret that it was sent."""
    text = f"{answer.status or answer.code} {answer.said}".strip()
    parts = urllib.parse.urlsplit(place.endpoint)
    asked = [value for _, value in urllib.parse.parse_qsl(parts.query)]
    for secret in (*answer.secrets, *asked, parts.password, parts.username):
        if secret:
            text = text.replace(secret, "***")
    return text


def _fields(place: Place) -> dict[str, str]:
    parts, endpoint = urllib.parse.urlsplit(place.endpoint), without_secrets(place.endpoint)
    return {
        "endpoint": endpoint,
        "variable": place.variable or "OTEL_EXPORTER_OTLP_ENDPOINT",
        "headers": place.headers_variable or "OTEL_EXPORTER_OTLP_HEADERS",
        "place": parts.netloc.rpartition("@")[2] or endpoint,
        "host": parts.hostname or "",
    }


def _mistake(place: Place, answer: Answer) -> str | None:
    if answer.status:
        return _by_status(place, answer)
    if answer.code == "RESOURCE_EXHAUSTED":
        return "too_large" if _TOO_LARGE.search(answer.said) else "busy"
    if answer.code in (*_UNREACHED, "UNIMPLEMENTED"):
        unreached = "proxy" if place.proxy else connect_problem(place.address)
        return unreached or _by_tls(place) or _by_protocol(place, answer)
    known = {"OK": None, "UNAUTHENTICATED": "no_key", "PERMISSION_DENIED": "no_key"}
    return known.get(answer.code, "refused")


def _by_status(place: Place, answer: Answer) -> str | None:
    status = answer.status
    if _OK <= status < _REDIRECT:
        return "not_otlp" if answer.said else None
    if status < _BAD_REQUEST:
        return "redirect"
    if place.proxy and status in _PROXY_SAID:
        return "proxy"
    if status == _BAD_REQUEST and place.endpoint.startswith("http://"):
        said_so = _TLS_WANTED.search(answer.said)
        if said_so or (not place.proxy and speaks_tls(place.address)):
            return "plain_to_tls"
    name = _BY_STATUS.get(status, "busy" if status >= _SERVER_FAILED else "refused")
    return _wrong_path(place, answer) if name == "wrong_path" else name


def _wrong_path(place: Place, answer: Answer) -> str:
    path = urllib.parse.urlsplit(answer.url).path.rstrip("/")
    if path.endswith("/v1/traces/v1/traces"):
        return "path_doubled"
    taken_as_it_is = place.variable == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    return "path_missing" if taken_as_it_is and not path.endswith("/v1/traces") else "wrong_path"


def _by_tls(place: Place) -> str | None:
    if place.is_tls != speaks_tls(place.address):
        return "tls_to_plain" if place.is_tls else "plain_to_tls"
    return "certificate" if place.is_tls and _certificate(place) else None


def _by_protocol(place: Place, answer: Answer) -> str:
    spoken = speaks(place.address, tls=place.is_tls)
    if spoken is not None and spoken != place.protocol:
        return "grpc_to_http" if place.protocol == "grpc" else "http_to_grpc"
    if answer.code == "UNIMPLEMENTED":
        return "not_otlp"
    if spoken is None or answer.code == "DEADLINE_EXCEEDED" or "timed out" in answer.said:
        return "timeout"
    return "busy" if answer.code in ("UNAVAILABLE", "") else "refused"


def _certificate(place: Place) -> str | None:
    # With HTTP, those of the requests library win over the exporter's.
    names = () if place.protocol == "grpc" else ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    named = (os.environ.get(name) for name in (*names, *_AUTHORITIES))
    return certificate_problem(place.address, next(filter(None, named), None))
