"""A backend for tests of several processes: takes OTLP over HTTP and gives SDK spans."""

import contextlib
import gzip
import http.server
import threading

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from burr_otel.testing import span_tree


class Receiver:
    """Spans that have arrived.

    Attributes:
        environ: Variables that make a process send here.
    """

    def __init__(self):
        self._spans, self._lock = [], threading.Lock()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = decoded(self)
                if self.path == "/v1/traces":
                    receiver._take(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.environ = {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
        }

    def _take(self, request):
        with self._lock:
            for batch in request.resource_spans:
                resource = Resource(attributes(batch.resource))
                for scoped in batch.scope_spans:
                    scope = InstrumentationScope(scoped.scope.name, scoped.scope.version)
                    self._spans += [readable(span, resource, scope) for span in scoped.spans]

    @property
    def spans(self):
        """All spans, by start time."""
        with self._lock:
            return sorted(self._spans, key=lambda span: span.start_time)

    def tree(self):
        """See `span_tree`, between newlines."""
        return f"\n{span_tree(self.spans)}\n"


def decoded(handler):
    """The body of the request that a handler was given."""
    body = handler.rfile.read(int(handler.headers["Content-Length"]))
    return gzip.decompress(body) if handler.headers.get("Content-Encoding") == "gzip" else body


@contextlib.contextmanager
def receiving():
    """A receiver that runs."""
    receiver = Receiver()
    thread = threading.Thread(target=receiver._server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver._server.shutdown()
        thread.join()
        receiver._server.server_close()


def readable(span, resource, scope):
    def context(trace_id, span_id):
        return SpanContext(
            int.from_bytes(trace_id, "big"), int.from_bytes(span_id, "big"), False, TraceFlags(1)
        )

    parent = span.parent_span_id
    return ReadableSpan(
        name=span.name,
        context=context(span.trace_id, span.span_id),
        parent=context(span.trace_id, parent) if parent else None,
        resource=resource,
        attributes=attributes(span),
        events=[Event(each.name, attributes(each), each.time_unix_nano) for each in span.events],
        links=[Link(context(each.trace_id, each.span_id), attributes(each)) for each in span.links],
        kind=SpanKind(span.kind - 1),  # OTLP counts from "unspecified"
        status=Status(StatusCode(span.status.code), span.status.message or None),
        start_time=span.start_time_unix_nano,
        end_time=span.end_time_unix_nano,
        instrumentation_scope=scope,
    )


def attributes(holder):
    return {each.key: value(each.value) for each in holder.attributes}


def value(any_value):
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return tuple(value(each) for each in any_value.array_value.values)
    return getattr(any_value, kind)
