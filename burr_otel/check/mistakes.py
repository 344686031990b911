"""The usual mistakes: the sentence that says what to change, and what an answer tells of them."""

from __future__ import annotations

import re
import urllib.parse
from typing import Final, NamedTuple

from burr_otel.check.probe import Answer, Place, connect_problem, handshake, speaks
from burr_otel.spans.exporters import without_secrets

MISTAKES: Final = {
    "disabled": "OTEL_SDK_DISABLED is true, so no trace is made; unset it.",
    "no_exporter": (
        "OTEL_TRACES_EXPORTER is {value}, so nothing is sent by OTLP; unset it, or set it to otlp."
    ),
    "sampled_out": (
        "The sampler {value} leaves out every trace; unset OTEL_TRACES_SAMPLER, or choose another."
    ),
    "bad_value": "No spans are made, because {variable} cannot be used: {answer}; correct it.",
    "bad_headers": (
        "{headers} cannot be read in full; write name=value, with a comma between two headers."
    ),
    "storage": (
        "No run can be kept in {value} ({answer}); "
        "let this user write there, name another place with storage_dir, or set "
        "BURR_OTEL_SNAPSHOTS=off to keep no state."
    ),
    "wrong_scheme": (
        "{endpoint} is no endpoint; write {variable}=http://{place}, or https:// for TLS."
    ),
    "user_in_url": (
        "gRPC takes no user or password in an address; leave them out of {variable}, "
        "and send what the endpoint wants as a header by {headers}."
    ),
    "dns": "The name {host} is not known; correct it in {variable}, or the name service.",
    "nothing_listening": (
        "Nothing listens at {place}; start the collector there, or correct {variable}."
    ),
    "timeout": (
        "{place} does not answer; "
        "correct {variable}, or look for a firewall on the way, or for a server that hangs."
    ),
    "tls_to_plain": "{place} speaks no TLS; write http:// for https:// in {variable}.",
    "plain_to_tls": "{place} speaks TLS; write https:// for http:// in {variable}.",
    "certificate": (
        "The certificate of {place} is not trusted ({answer}); name its authority's file in "
        "OTEL_EXPORTER_OTLP_CERTIFICATE, or correct the host in {variable}."
    ),
    "grpc_to_http": (
        "{place} speaks HTTP and not gRPC; set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, "
        "or name the gRPC port (mostly 4317) in {variable}."
    ),
    "http_to_grpc": (
        "{place} speaks gRPC and not HTTP; set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, "
        "or name the HTTP port (mostly 4318) in {variable}."
    ),
    "no_key": (
        "The endpoint wants a key and none is sent ({answer}); "
        "set {headers}, for Honeycomb to x-honeycomb-team=KEY."
    ),
    "missing_header": "The endpoint misses the header {value}; add {value}=VALUE to {headers}.",
    "bad_key": "The endpoint refuses the key ({answer}); correct {value} in {headers}.",
    "path_doubled": (
        "/v1/traces stands twice in the path; leave it out of {variable}, which gets it added."
    ),
    "path_missing": (
        "There is nothing at the path {path}; add /v1/traces to {variable}, "
        "which is taken as it is."
    ),
    "wrong_path": (
        "There is nothing at the path {path} ({answer}); correct path or port in {variable}."
    ),
    "not_otlp": (
        "{place} answers, but takes no OTLP ({answer}); correct host and port in {variable}."
    ),
    "redirect": (
        "{place} sends on to {value}, which exporters do not follow; put that into {variable}."
    ),
    "proxy": (
        "The way leads through the proxy of {value}, which does not reach the endpoint ({answer}); "
        "add {host} to no_proxy, or correct {value}."
    ),
    "too_large": (
        "The endpoint takes no message of {value} ({answer}); raise its limit, "
        "or lower OTEL_BSP_MAX_EXPORT_BATCH_SIZE or BURR_OTEL_MAX_ATTRIBUTE_BYTES."
    ),
    "busy": "The endpoint takes nothing at the moment ({answer}); wait, and try again.",
    "partly_refused": (
        "The endpoint took the request and left out {value} of its spans ({answer}); "
        "its own log says more."
    ),
    "refused": "The endpoint does not take the trace ({answer}); its own log says more.",
}
"""Sentences by the mistake's name."""

PASSING: Final = ("dns", "nothing_listening", "timeout", "busy")
"""Mistakes that may be over without a change: the endpoint is not there, or not yet."""

_TOO_LARGE: Final = re.compile(r"larger than|too large|exceeds", re.IGNORECASE)
_MISSING_HEADER: Final = re.compile(r"missing '?\"?([\w-]+)'?\"? header", re.IGNORECASE)
_TLS_WANTED: Final = re.compile(r"HTTPS (?:server|port)", re.IGNORECASE)
_UNREACHED: Final = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "INTERNAL", "CANCELLED", "")
_OK, _REDIRECT, _BAD_REQUEST, _SERVER_FAILED = 200, 300, 400, 500
_PROXY_SAID: Final = (407, 502, 503, 504)
_BY_STATUS: Final = {
    **dict.fromkeys((401, 403), "no_key"),
    **dict.fromkeys((404, 405), "wrong_path"),
    **dict.fromkeys((406, 415, 501), "not_otlp"),
    407: "proxy",
    413: "too_large",
    429: "busy",
}


class Problem(NamedTuple):
    """A mistake that was found."""

    name: str  # which of `MISTAKES`
    sentence: str  # what to change


def problem(name: str, fields: dict[str, str]) -> Problem:
    """A mistake with its sentence filled in."""
    return Problem(name, MISTAKES[name].format_map(fields))


def wrong_address(place: Place) -> Problem | None:
    """Whether the exporters would take the endpoint for something else, or not at all."""
    scheme, mark, rest = place.endpoint.partition("://")
    if mark and scheme in ("http", "https", "unix") and rest:
        user = place.protocol == "grpc" and "@" in rest.partition("/")[0]
        return problem("user_in_url", _fields(place)) if user else None
    meant = place.shown.rpartition("://")[2] or "localhost:4317"
    return problem("wrong_scheme", {**_fields(place), "place": meant})


def diagnose(place: Place, answer: Answer) -> Problem | None:
    """The mistake behind an answer; `None` when the trace was taken whole."""
    name = "partly_refused" if answer.rejected_spans else _mistake(place, answer)
    if name is None:
        return None
    missing = _MISSING_HEADER.search(answer.said)
    if name == "no_key" and (missing or answer.headers_sent):
        name = "missing_header" if missing else "bad_key"
    values = {
        "bad_key": " and ".join(answer.headers_sent),
        "missing_header": missing[1] if missing else "",
        "partly_refused": str(answer.rejected_spans),
        "proxy": place.proxy or "",
        "redirect": without_secrets(answer.location),
        "too_large": f"{answer.size_bytes / 1000:,.0f} kB",
    }
    said = handshake(place) if name == "certificate" else None
    fields = {
        **_fields(place),
        "answer": said or shown(answer, place) or "it says nothing",
        "path": urllib.parse.urlsplit(answer.url).path,
        "value": values.get(name, ""),
    }
    return problem(name, fields)


def shown(answer: Answer, place: Place) -> str:
    """An endpoint's words without any secret that it was sent."""
    text = f"{answer.http_status or answer.grpc_status or ''} {answer.said}".strip()
    parts = urllib.parse.urlsplit(place.endpoint)
    asked = [value for _, value in urllib.parse.parse_qsl(parts.query)]
    for secret in (*answer.secrets, *asked, parts.password, parts.username):
        if secret:
            text = text.replace(secret, "***")
    return text


def _fields(place: Place) -> dict[str, str]:
    parts, endpoint = urllib.parse.urlsplit(place.endpoint), place.shown
    return {
        "endpoint": endpoint,
        "variable": place.variable or "OTEL_EXPORTER_OTLP_ENDPOINT",
        "headers": place.headers_variable or "OTEL_EXPORTER_OTLP_HEADERS",
        "place": parts.netloc.rpartition("@")[2] or endpoint,
        "host": parts.hostname or "",
    }


def _mistake(place: Place, answer: Answer) -> str | None:
    if answer.http_status:
        return _by_status(place, answer, answer.http_status)
    code = answer.grpc_status or ""
    if code == "RESOURCE_EXHAUSTED":
        return "too_large" if _TOO_LARGE.search(answer.said) else "busy"
    if code in (*_UNREACHED, "UNIMPLEMENTED"):
        unreached = "proxy" if place.proxy else connect_problem(place.address)
        return unreached or _by_tls(place) or _by_protocol(place, answer)
    known = {"OK": None, "UNAUTHENTICATED": "no_key", "PERMISSION_DENIED": "no_key"}
    return known.get(code, "refused")


def _by_status(place: Place, answer: Answer, status: int) -> str | None:
    if _OK <= status < _REDIRECT:
        return "not_otlp" if answer.said else None
    if status < _BAD_REQUEST:
        return "redirect"
    if place.proxy and status in _PROXY_SAID:
        return "proxy"
    if status == _BAD_REQUEST and place.endpoint.startswith("http://"):
        said_so = _TLS_WANTED.search(answer.said)
        if said_so or (not place.proxy and handshake(place) is not None):
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
    certificate = handshake(place)
    if place.is_tls:
        return "tls_to_plain" if certificate is None else "certificate" if certificate else None
    return None if certificate is None else "plain_to_tls"


def _by_protocol(place: Place, answer: Answer) -> str:
    spoken = speaks(place)
    if spoken is not None and spoken != place.protocol:
        return "grpc_to_http" if place.protocol == "grpc" else "http_to_grpc"
    if answer.grpc_status == "UNIMPLEMENTED":
        return "not_otlp"
    if spoken is None or answer.grpc_status == "DEADLINE_EXCEEDED" or "timed out" in answer.said:
        return "timeout"
    return "busy" if answer.grpc_status in ("UNAVAILABLE", None) else "refused"
