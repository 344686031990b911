"""Real listeners for OTLP on the loopback address, over gRPC and HTTP, that answer as they are told."""

import contextlib
import gzip
import http.server
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import grpc
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

PROTOBUF = "application/x-protobuf"
CERTIFICATE = Path(__file__).parent / "tls" / "localhost.pem"
"""Key and certificate of ``localhost`` and ``127.0.0.1``, for tests only."""


class Reply(NamedTuple):
    """An answer by HTTP."""

    status: int
    body: bytes = b""
    kind: str = PROTOBUF
    headers: dict = {}  # noqa: RUF012 - never changed

    @classmethod
    def of(cls, message, status=200):
        """A protobuf message."""
        return cls(status, message.SerializeToString())


class Refusal(Exception):  # noqa: N818 - it is an answer
    """A refusal, as each protocol says it.

    Args:
        status: By HTTP.
        code: By gRPC.
        message: By both.
    """

    def __init__(self, status, code, message):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def taken(request, headers):
    """The answer of an endpoint that is content with everything."""
    return ExportTraceServiceResponse()


@contextlib.contextmanager
def http_server(answer=taken, *, tls=False):
    """A server of OTLP by HTTP.

    Args:
        answer: Given the request and its headers (small letters), gives the response, raises
            `Refusal`, or gives a `Reply`, which `reply_to` may also do with the path alone.
        tls: Whether it speaks TLS.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {key.lower(): value for key, value in self.headers.items()}
            if headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            self._reply(self._answered(ExportTraceServiceRequest.FromString(body), headers))

        do_CONNECT = do_GET = do_POST  # noqa: N815 - names of the standard library

        def _answered(self, request, headers):
            headers[":path"] = self.path
            try:
                found = answer(request, headers)
            except Refusal as refusal:
                return Reply.of(Status(message=refusal.message), refusal.status)
            return found if isinstance(found, Reply) else Reply.of(found)

        def _reply(self, reply):
            self.send_response(reply.status)
            for key, value in {"Content-Type": reply.kind, **reply.headers}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # a client that hangs up is not our failure
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def grpc_server(answer=taken, *, tls=False, longest_bytes=4 * 1024 * 1024):
    """A server of OTLP by gRPC; see `http_server`.

    Args:
        answer: Given the request and its metadata, gives the response or raises `Refusal`.
        tls: Whether it speaks TLS.
        longest_bytes: Longest message that it takes.
    """

    class Servicer(TraceServiceServicer):
        def Export(self, request, context):  # noqa: N802 - gRPC's name
            try:
                return answer(request, dict(context.invocation_metadata()))
            except Refusal as refusal:
                context.abort(refusal.code, refusal.message)

    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, options=[("grpc.max_receive_message_length", longest_bytes)])
        if answer is not None:
            add_TraceServiceServicer_to_server(Servicer(), server)
        if tls:
            pem = CERTIFICATE.read_bytes()
            port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(pem, pem)]))
        else:
            port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"{'https' if tls else 'http'}://localhost:{port}"
        finally:
            server.stop(None).wait()


@contextlib.contextmanager
def silent_server():
    """A listener that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://localhost:{listener.getsockname()[1]}"


def closed_port():
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://localhost:{listener.getsockname()[1]}"
