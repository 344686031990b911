"""The usual mistakes, each with the one sentence that says what to change."""

from __future__ import annotations

from typing import Final, NamedTuple

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


class Problem(NamedTuple):
    """A mistake that was found."""

    name: str  # which of `MISTAKES`
    sentence: str  # what to change


def problem(name: str, fields: dict[str, str]) -> Problem:
    """A mistake with its sentence filled in."""
    return Problem(name, MISTAKES[name].format_map(fields))
