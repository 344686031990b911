"""`burr-otel demo`, through the real executable, with and without something to send to."""

import gzip
import http.server
import json
import re
import socket
import threading
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from cli_support import run, run_in_terminal, without_colour
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from rich.cells import cell_len

STEPS = [
    "receive_question",
    "classify",
    "search_docs",
    "search_docs",
    "write_answer",
    "receive_question",
    "classify",
    "look_up_order",
    "look_up_order",
    "write_answer",
]


@pytest.fixture
def closed_port():
    """A port of this machine on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def grpc_endpoint():
    """An OTLP endpoint over gRPC, and the spans that it was sent."""
    received = []

    class Service(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request, context):  # noqa: N802 - the protocol's name
            received.append(request)
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}", received
    server.stop(None)


@pytest.fixture
def http_server():
    """Starts an HTTP server that answers every POST with a status; gives URL and requests."""
    servers = []

    def start(status):
        received = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                request = trace_service_pb2.ExportTraceServiceRequest()
                request.ParseFromString(body)
                received.append(request)
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", received

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def spans_of(requests):
    """Name and trace id of every span that was sent."""
    return [
        (span.name, span.trace_id.hex())
        for request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def trace_id_in(text):
    return re.search(r"^trace +([0-9a-f]{32})$", text, re.MULTILINE)[1]


def test_demo_without_any_server(tmp_path, closed_port):
    """It draws the run, says where it is, and neither warns nor fails."""
    result = run(
        "demo",
        "--storage-dir",
        tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{closed_port}",
    )
    assert result.returncode == 0
    assert result.stderr == ""
    assert "Traceback" not in result.stdout
    assert re.findall(r"^. {3}\d (\w+) ", result.stdout, re.MULTILINE) == STEPS
    assert "✗   7 look_up_order" in result.stdout
    assert "ConnectionResetError: orders.internal closed the connection" in result.stdout
    assert "◆" in result.stdout
    assert f"No OTLP endpoint answers at http://127.0.0.1:{closed_port}" in result.stdout
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in result.stdout
    folder = Path(re.search(r"^place +(.+)$", result.stdout, re.MULTILINE)[1])
    assert (folder / "log.jsonl").is_file()


def test_demo_is_shown_again_as_it_was(tmp_path, closed_port):
    """The command that it names at its end draws the same waterfall."""
    endpoint = f"http://127.0.0.1:{closed_port}"
    first = run("demo", "--storage-dir", tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint).stdout
    again = re.search(r"burr-otel (show .+)$", first, re.MULTILINE)[1].split()
    second = run(*again)
    assert second.returncode == 0
    assert first.startswith(second.stdout)
    listed = json.loads(run("list", "--storage-dir", tmp_path, "--json").stdout)
    assert [(entry["app_id"], entry["status"]) for entry in listed] == [(again[1], "ok")]
    assert listed[0]["trace_id"] == trace_id_in(first)


def test_demo_sends_over_grpc(tmp_path, grpc_endpoint):
    """An endpoint that answers gets the whole trace, and the command says so."""
    endpoint, received = grpc_endpoint
    result = run("demo", "--storage-dir", tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    assert result.returncode == 0
    assert result.stderr == ""
    spans = spans_of(received)
    assert {trace for _, trace in spans} == {trace_id_in(result.stdout)}
    assert f"Sent to {endpoint} as trace {trace_id_in(result.stdout)}" in result.stdout
    names = [name for name, _ in spans]
    assert names.count("invoke_workflow burr-otel-demo") == 1
    assert sorted(name for name in names if name in STEPS) == sorted(STEPS)


def test_demo_sends_over_http(tmp_path, http_server):
    """The protocol variable is respected, and the address of the trace is that of the settings."""
    endpoint, received = http_server(200)
    result = run(
        "demo",
        "--storage-dir",
        tmp_path,
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{endpoint}/v1/traces",
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        BURR_OTEL_TRACE_URL="https://traces.example.com/{trace_id}",
    )
    assert result.returncode == 0
    address = f"https://traces.example.com/{trace_id_in(result.stdout)}"
    assert f"To look at it: {address}\n" in result.stdout
    assert f"Sent to {endpoint}/v1/traces as trace" in result.stdout
    assert len({trace for _, trace in spans_of(received)}) == 1
    assert len(spans_of(received)) == 25


def test_demo_says_when_the_endpoint_refuses(tmp_path, http_server):
    """Something that listens there and is no collector is named, without a stack trace."""
    endpoint, _ = http_server(404)
    result = run(
        "demo",
        "--storage-dir",
        tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
    )
    assert result.returncode == 0
    assert result.stderr == ""
    assert f"{endpoint} answers but did not take the trace" in result.stdout
    assert "Sent to" not in result.stdout


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, "OTEL_SDK_DISABLED is true"),
        ({"OTEL_TRACES_EXPORTER": "none"}, "OTEL_TRACES_EXPORTER is 'none'"),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, "the sampler 'always_off' left this trace out"),
    ],
)
def test_demo_respects_what_is_switched_off(tmp_path, grpc_endpoint, variables, said):
    """An endpoint that answers gets nothing when the variables say so."""
    endpoint, received = grpc_endpoint
    result = run(
        "demo", "--storage-dir", tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, **variables
    )
    assert result.returncode == 0
    assert result.stderr == ""
    assert said in result.stdout
    assert received == []
    assert "9 write_answer" in result.stdout


def test_demo_json(tmp_path, closed_port):
    """The same for programs: one JSON object and nothing else."""
    result = run(
        "demo",
        "--json",
        "--storage-dir",
        tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{closed_port}",
    )
    found = json.loads(result.stdout)
    assert found["sent_to"] is None
    assert [span["name"] for span in found["spans"] if span["kind"] == "step"] == STEPS
    assert [span["sequence_id"] for span in found["spans"] if span["outcome"] == "error"] == [7, 7]


@pytest.mark.parametrize("columns", [40, 100])
def test_demo_in_a_terminal(tmp_path, closed_port, columns):
    """Coloured, with the failure in red, and within the terminal's width."""
    code, drawn = run_in_terminal(
        "demo",
        "--storage-dir",
        tmp_path,
        columns=columns,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{closed_port}",
    )
    assert code == 0
    assert re.search(r"\x1b\[31m✗ .*look_up_or", drawn)
    assert re.search(r"\x1b\[31mConnectionResetError", drawn)
    waterfall = without_colour(drawn).split("\n\n")[1]
    assert len(waterfall.splitlines()) >= 28
    assert max(cell_len(line) for line in waterfall.splitlines()) <= columns


def test_demo_that_cannot_write_says_so(tmp_path):
    """An unwritable storage directory is one clear error."""
    (tmp_path / "file").write_text("")
    result = run("demo", "--storage-dir", tmp_path / "file" / "below")
    assert result.returncode == 1
    assert str(tmp_path / "file") in result.stderr
    assert "Traceback" not in result.stderr
