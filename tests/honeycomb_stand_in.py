"""A stand-in for Honeycomb: OTLP over gRPC and HTTP without TLS, its rules, limits and refusals.

Rules and answers follow Honeycomb's documentation and its public translation library (husky):
keys and dataset headers, the dataset of a span, and that each span, span event and link becomes one
flat event. Where Honeycomb would cut or replace a value, the stand-in counts a violation.
"""

import contextlib
import json
import re
import threading
import time
from typing import NamedTuple

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from otlp_servers import Refusal, grpc_server, http_server

KEY = "hcaik_01hqk4k20cjeh63wca8vva5stw70nft6m5n8wr8f5mjx3762s8269j50wc"
CLASSIC_KEY = "0123456789abcdef0123456789abcdef"

LONGEST_EVENT_BYTES = 1_000_000  # as uncompressed JSON
LONGEST_STRING_BYTES = 64 * 1024 - 1
MOST_FIELDS = 2000
LONGEST_MESSAGE_BYTES = 15_000_000  # a gRPC message that Honeycomb's own proxy takes
LONGEST_LEAD_S = 3600  # later timestamps are replaced by the time of arrival


class Event(NamedTuple):
    """A span, a span event or a link, as Honeycomb stores it."""

    dataset: str
    time_ns: int
    fields: dict


class StandIn:
    """What has arrived, and what was wrong with it.

    Attributes:
        events: In the order of their arrival.
        violations: Limits that were exceeded.
        keys: Those that are accepted.
    """

    def __init__(self, *keys):
        self.events, self.violations, self.keys = [], [], keys
        self._lock = threading.Lock()

    @property
    def span_ids(self):
        """Of the spans that have arrived, with repetitions."""
        return [e.fields["trace.span_id"] for e in self.events if "trace.span_id" in e.fields]

    def answer(self, request, headers):
        """Take a request, or refuse it."""
        key, dataset = headers.get("x-honeycomb-team"), headers.get("x-honeycomb-dataset")
        if not key:
            raise unauthenticated("missing 'x-honeycomb-team' header")
        classic = re.fullmatch("[0-9a-f]{32}|hc[a-z]ic_[0-9a-z]{58}", key) is not None
        if classic and not dataset:
            raise unauthenticated("missing 'x-honeycomb-dataset' header")
        if key not in self.keys:
            raise unauthenticated("unknown API key - check your credentials, region, and API URL")
        with self._lock:
            for event in events(request, dataset if classic else None):
                self.events.append(event)
                self.violations += violations(event)
        return ExportTraceServiceResponse()


def unauthenticated(message):
    return Refusal(401, grpc.StatusCode.UNAUTHENTICATED, message)


def events(request, dataset):
    """The events that a request becomes.

    Args:
        request: What was sent.
        dataset: That of a classic key; `None`: the service's name.
    """
    for of_resource in request.resource_spans:
        shared = fields(of_resource.resource.attributes)
        place = dataset if dataset is not None else dataset_of(shared.get("service.name"))
        for of_scope in of_resource.scope_spans:
            shared |= {"library.name": of_scope.scope.name}
            for span in of_scope.spans:
                yield from (Event(place, *each) for each in flattened(span, shared))


def dataset_of(service_name):
    """Names are trimmed; without one, or with the SDK's stand-in, it is ``unknown_service``."""
    name = service_name.strip() if isinstance(service_name, str) else ""
    return "unknown_service" if not name or name.startswith("unknown_service") else name


def flattened(span, shared):
    trace_id, span_id = span.trace_id.hex(), span.span_id.hex()
    own = {
        "trace.trace_id": trace_id,
        "trace.span_id": span_id,
        "name": span.name,
        "duration_ms": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6,
        "status_code": span.status.code,
        "status_message": span.status.message,
        "span.num_events": len(span.events),
        "span.num_links": len(span.links),
    }
    if span.parent_span_id:
        own["trace.parent_id"] = span.parent_span_id.hex()
    yield span.start_time_unix_nano, {**own, **shared, **fields(span.attributes)}
    below = {"trace.trace_id": trace_id, "trace.parent_id": span_id, "parent_name": span.name}
    for event in span.events:
        kind = {"name": event.name, "meta.annotation_type": "span_event"}
        yield event.time_unix_nano, {**below, **kind, **shared, **fields(event.attributes)}
    for link in span.links:
        kind = {
            "trace.link.trace_id": link.trace_id.hex(),
            "trace.link.span_id": link.span_id.hex(),
            "meta.annotation_type": "link",
        }
        yield span.start_time_unix_nano, {**below, **kind, **shared, **fields(link.attributes)}


def fields(attributes):
    return {each.key: plain(each.value) for each in attributes}


def plain(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return json.dumps([plain(each) for each in value.array_value.values])
    if kind == "kvlist_value":
        return json.dumps({each.key: plain(each.value) for each in value.kvlist_value.values})
    if kind == "bytes_value":
        return value.bytes_value.hex()
    return getattr(value, kind) if kind else None


def violations(event):
    """Limits that an event exceeds."""
    size_bytes = len(json.dumps(event.fields, ensure_ascii=False).encode())
    if size_bytes > LONGEST_EVENT_BYTES:
        yield f"an event of {size_bytes} bytes"
    if len(event.fields) > MOST_FIELDS:
        yield f"an event of {len(event.fields)} fields"
    for key, value in event.fields.items():
        if isinstance(value, str) and len(value.encode()) > LONGEST_STRING_BYTES:
            yield f"{key} of {len(value.encode())} bytes"
        if not key:
            yield "a field without a name"
    if not 0 < event.time_ns < time.time_ns() + LONGEST_LEAD_S * 10**9:
        yield f"the time {event.time_ns}"
    if event.fields.get("duration_ms", 0) < 0:
        yield "a negative duration"


@contextlib.contextmanager
def honeycomb(protocol, *keys):
    """A stand-in that runs.

    Args:
        protocol: ``grpc`` or ``http/protobuf``.
        keys: Those that it accepts.

    Yields:
        The stand-in, and its endpoint.
    """
    stand_in = StandIn(*keys)
    if protocol == "grpc":
        serving = grpc_server(stand_in.answer, longest_bytes=LONGEST_MESSAGE_BYTES)
    else:
        serving = http_server(stand_in.answer)
    with serving as endpoint:
        yield stand_in, endpoint
