"""From an answer, or none, to the mistake behind it."""

from __future__ import annotations

import os
import re
import urllib.parse
from typing import Final

from burr_otel.check import probe
from burr_otel.check.ask import Answer
from burr_otel.check.mistakes import Problem, problem
from burr_otel.check.settings import Settings
from burr_otel.spans.exporters import without_secrets

_TOO_LARGE: Final = re.compile(r"larger than|too large|exceeds", re.IGNORECASE)
_MISSING_HEADER: Final = re.compile(r"missing '?\"?([\w-]+)'?\"? header", re.IGNORECASE)
_TLS_WANTED: Final = re.compile(r"HTTPS (?:server|port)", re.IGNORECASE)
_UNREACHED: Final = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "INTERNAL", "CANCELLED", "")
_OK, _REDIRECT, _BAD_REQUEST = 200, 300, 400
_SERVER_FAILED: Final = 500
_NO_SUCH_PATH: Final = (404, 405)
_PROXY_SAID: Final = (407, 502, 503, 504)
_AUTHORITIES: Final = ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE")
_BY_STATUS: Final = {
    401: "no_key",
    403: "no_key",
    406: "not_otlp",
    407: "proxy",
    413: "too_large",
    415: "not_otlp",
    429: "busy",
    501: "not_otlp",
}


def wrong_address(settings: Settings) -> Problem | None:
    """Whether the exporters would take the endpoint for something else, or not at all."""
    scheme, mark, rest = settings.endpoint.partition("://")
    if mark and scheme in ("http", "https", "unix") and rest:
        user = settings.protocol == "grpc" and "@" in rest.partition("/")[0]
        return problem("user_in_url", _fields(settings)) if user else None
    place = without_secrets(settings.endpoint).rpartition("://")[2] or "localhost:4317"
    return problem("wrong_scheme", {**_fields(settings), "place": place})


def diagnose(settings: Settings, answer: Answer) -> Problem | None:
    """The mistake behind an answer; `None` when the trace was taken whole."""
    fields = {**_fields(settings), "answer": shown(answer, settings) or "it says nothing"}
    if answer.rejected:
        return problem("partly_refused", {**fields, "value": str(answer.rejected)})
    name = _by_status(settings, answer) if answer.status else _by_code(settings, answer)
    if name is None:
        return None
    if name == "no_key" and answer.headers:
        name = "bad_key"
        fields["value"] = " and ".join(answer.headers)
    missing = _MISSING_HEADER.search(answer.said)
    if name in ("no_key", "bad_key") and missing:
        name, fields["value"] = "missing_header", missing[1]
    if name == "too_large":
        fields["value"] = f"{answer.size_bytes / 1000:,.0f} kB"
    if name == "redirect":
        fields["value"] = without_secrets(answer.location)
    if name == "proxy":
        fields["value"] = probe.proxy_variable(settings.protocol, settings.endpoint) or ""
    if name == "certificate":
        fields["answer"] = _certificate(settings) or fields["answer"]
    fields["path"] = urllib.parse.urlsplit(answer.url).path
    return problem(name, fields)


def shown(answer: Answer, settings: Settings) -> str:
    """An endpoint's words without any secret that it was sent."""
    text = f"{answer.status or answer.code} {answer.said}".strip()
    parts = urllib.parse.urlsplit(settings.endpoint)
    asked = [value for _, value in urllib.parse.parse_qsl(parts.query)]
    for secret in (*answer.secrets, *asked, parts.password, parts.username):
        if secret:
            text = text.replace(secret, "***")
    return text


def _fields(settings: Settings) -> dict[str, str]:
    parts = urllib.parse.urlsplit(settings.endpoint)
    by_default = settings.endpoint_from == "default"
    return {
        "endpoint": without_secrets(settings.endpoint),
        "variable": "OTEL_EXPORTER_OTLP_ENDPOINT" if by_default else settings.endpoint_from,
        "headers": settings.headers_from or "OTEL_EXPORTER_OTLP_HEADERS",
        "place": parts.netloc.rpartition("@")[2] or without_secrets(settings.endpoint),
        "host": parts.hostname or "",
    }


def _by_status(settings: Settings, answer: Answer) -> str | None:
    status, proxied = answer.status, probe.proxy_variable(settings.protocol, settings.endpoint)
    if _OK <= status < _REDIRECT:
        return "not_otlp" if answer.said else None
    if status < _BAD_REQUEST:
        return "redirect"
    if proxied and status in _PROXY_SAID:
        return "proxy"
    if status in _NO_SUCH_PATH:
        return _by_path(settings, answer)
    if status == _BAD_REQUEST and _wants_tls(settings, answer, proxied=bool(proxied)):
        return "plain_to_tls"
    return _BY_STATUS.get(status, "busy" if status >= _SERVER_FAILED else "refused")


def _wants_tls(settings: Settings, answer: Answer, *, proxied: bool) -> bool:
    if not settings.endpoint.startswith("http://"):
        return False
    said_so = bool(_TLS_WANTED.search(answer.said))
    return said_so or (not proxied and probe.speaks_tls(*_place(settings)))


def _by_path(settings: Settings, answer: Answer) -> str:
    path = urllib.parse.urlsplit(answer.url).path.rstrip("/")
    if path.endswith("/v1/traces/v1/traces"):
        return "path_doubled"
    taken_as_it_is = settings.endpoint_from == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    if taken_as_it_is and not path.endswith("/v1/traces"):
        return "path_missing"
    return "wrong_path"


def _by_code(settings: Settings, answer: Answer) -> str | None:
    if answer.taken:
        return None
    if answer.code == "RESOURCE_EXHAUSTED":
        return "too_large" if _TOO_LARGE.search(answer.said) else "busy"
    if answer.code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return "no_key"
    if answer.code not in (*_UNREACHED, "UNIMPLEMENTED"):
        return "refused"
    return _by_connection(settings, answer)


def _by_connection(settings: Settings, answer: Answer) -> str:
    if probe.proxy_variable(settings.protocol, settings.endpoint):
        return "proxy"
    place = _place(settings)
    return probe.connect_problem(*place) or _by_tls(settings) or _by_protocol(settings, answer)


def _by_tls(settings: Settings) -> str | None:
    speaks_tls = probe.speaks_tls(*_place(settings))
    if not settings.endpoint.startswith("https://"):
        return "plain_to_tls" if speaks_tls else None
    if not speaks_tls:
        return "tls_to_plain"
    return "certificate" if _certificate(settings) else None


def _by_protocol(settings: Settings, answer: Answer) -> str:
    spoken = probe.speaks(*_place(settings), tls=settings.endpoint.startswith("https://"))
    if spoken is not None and spoken != settings.protocol:
        return "grpc_to_http" if settings.protocol == "grpc" else "http_to_grpc"
    if answer.code == "UNIMPLEMENTED":
        return "not_otlp"
    if spoken is None or answer.code == "DEADLINE_EXCEEDED" or "timed out" in answer.said:
        return "timeout"
    return "busy" if answer.code in ("UNAVAILABLE", "") else "refused"


def _place(settings: Settings) -> tuple[str, int]:
    return probe.host_and_port(settings.endpoint) or ("", 443)


def _certificate(settings: Settings) -> str | None:
    host, port = _place(settings)
    # With HTTP, those of the requests library win over the exporter's.
    names = () if settings.protocol == "grpc" else ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    named = (os.environ.get(name) for name in (*names, *_AUTHORITIES))
    return probe.certificate_problem(host, port, next(filter(None, named), None))
