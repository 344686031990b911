"""Exporting: batches that fit the receiver's messages, and one warning where something is lost."""

import logging
import sys
import threading

import apps
import grpc
import pytest
from burr.core import action
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags
from otlp_servers import Refusal, Reply, grpc_server, http_server, taken

from burr_otel import OtelTracker
from burr_otel.spans import provider
from burr_otel.spans.exporters import otlp_exporter
from burr_otel.spans.quiet import QuietExporter, size_bytes

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def _own_providers(monkeypatch):
    monkeypatch.setattr(provider, "_own", {})


def sized(size_bytes, name="s"):
    """A span with so large an attribute."""
    return ReadableSpan(
        name,
        SpanContext(1, 1, False, TraceFlags(1)),
        attributes={"a": "x" * size_bytes},
        resource=Resource({}),
        start_time=1,
        end_time=2,
    )


class Endpoint:
    """Takes messages up to a size; knows what it has taken and how often it was asked."""

    def __init__(self, longest_bytes=4 * MIB, refusal=None):
        self.longest_bytes, self.asked, self.refused, self.spans = longest_bytes, 0, 0, []
        self.refusal = refusal or Refusal(413, None, "Request Entity Too Large")

    def __call__(self, request, headers):
        self.asked += 1
        if request.ByteSize() > self.longest_bytes:
            self.refused += 1
            raise self.refusal
        self.spans += [
            span.name
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return taken(request, headers)


@action(reads=["history"], writes=["history"])
def turn(state, size):
    return state.update(history=[*state["history"], "w" * size])


@pytest.mark.one_python
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_chat_of_250_turns_arrives_whole_at_a_receiver_of_4_mib(
    monkeypatch, tmp_path, caplog, protocol
):
    """Spans of 16 KB, 512 to a batch by number: 8 MiB, of which such a receiver takes none."""
    endpoint = Endpoint()
    server = http_server if protocol == "http/protobuf" else grpc_server
    with server(endpoint) as url:
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        tracker = OtelTracker("proj", tmp_path, snapshots="off", root_linger=None)
        app = apps.single(tracker, turn.bind(size=20_000), state={"history": []})
        for _ in range(250):
            app.step()
        with provider.tracer_provider(None, "proj").get_tracer("llm").start_as_current_span("s"):
            for _ in range(499):
                span = provider._own["proj"].get_tracer("llm").start_span("chat")
                span.set_attribute("messages", "w" * 16_000)
                span.end()
        tracker.close()
    assert (len(endpoint.spans), endpoint.refused) == (751, 0)
    assert not caplog.records


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(413, grpc.StatusCode.RESOURCE_EXHAUSTED, "message larger than max"),
        Refusal(
            413,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "grpc: received message after decompression larger than max 100000",
        ),
        Refusal(413, grpc.StatusCode.RESOURCE_EXHAUSTED, "exceeds maximum size 100000"),
    ],
    ids=["C", "Go", "Java"],
)
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_batch_refused_as_too_large_is_halved_until_it_is_taken(caplog, protocol, refusal):
    """At once, without the retries of the exporter; the next batches are small enough."""
    endpoint = Endpoint(100_000, refusal)
    server = http_server if protocol == "http/protobuf" else grpc_server
    with server(endpoint) as url:
        exporter = otlp_exporter(protocol, url)
        spans = [sized(10_000, str(number)) for number in range(64)]
        assert exporter.export(spans) is SpanExportResult.SUCCESS
        assert endpoint.spans == [span.name for span in spans]
        # 64, then 32, 16 and 8 in each branch of the tree.
        assert endpoint.asked <= 15
        endpoint.asked = 0
        exporter.export(spans)
        assert endpoint.asked < 15
        exporter.shutdown()
    assert len(endpoint.spans) == 128
    assert not caplog.records


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_one_span_that_is_too_large_is_named_and_costs_no_other(caplog, protocol):
    """One warning with the reason and the remedy, however many there are."""
    refusal = Refusal(413, grpc.StatusCode.RESOURCE_EXHAUSTED, "message larger than max")
    endpoint = Endpoint(100_000, refusal)
    server = http_server if protocol == "http/protobuf" else grpc_server
    with server(endpoint) as url:
        exporter = otlp_exporter(protocol, url)
        spans = [sized(10), sized(200_000, "large"), sized(10), sized(300_000, "large")]
        assert exporter.export(spans) is SpanExportResult.FAILURE
        exporter.shutdown()
    assert endpoint.spans == ["s", "s"]
    assert (exporter.sent, exporter.refused) == (2, 2)
    (warning,) = caplog.messages
    assert f"{url} takes no span of about 200" in warning
    assert "BURR_OTEL_MAX_ATTRIBUTE_BYTES" in warning
    assert "413" in warning or "RESOURCE_EXHAUSTED" in warning


def test_when_nobody_answers_the_rest_of_a_large_batch_is_not_tried():
    """Each try may take ten seconds."""

    class Away(SpanExporter):
        tries = 0

        def export(self, spans):
            self.tries += 1
            return SpanExportResult.FAILURE

    away = Away()
    exporter = QuietExporter(away, "there")
    assert exporter.export([sized(MIB) for _ in range(8)]) is SpanExportResult.FAILURE
    assert away.tries == 1
    assert exporter.refused == 8


def test_batches_keep_the_order_and_a_span_that_is_larger_than_all_has_its_own():
    """What is estimated to be too large for a message is halved before it is sent."""
    batches = []

    class Taking(SpanExporter):
        def export(self, spans):
            batches.append([span.name for span in spans])
            return SpanExportResult.SUCCESS

    sizes = [10, MIB, MIB // 2, 5 * MIB, 10]
    spans = [sized(size, str(number)) for number, size in enumerate(sizes)]
    assert QuietExporter(Taking(), "there").export(spans) is SpanExportResult.SUCCESS
    assert batches == [["0", "1"], ["2"], ["3"], ["4"]]


@pytest.mark.parametrize(
    "attributes",
    [
        {"ascii": "x" * 10_000},
        {"wide": "語" * 10_000},
        {"emoji": "🙂" * 10_000},
        {"bytes": b"x" * 10_000},
        {"list": tuple("word" for _ in range(1_000))},
        {"numbers": tuple(range(1_000))},
        {"nested": {"a": {"b": ["x" * 10_000]}}},
        {f"key{number}": number for number in range(100)},
    ],
    ids=lambda attributes: next(iter(attributes)),
)
@pytest.mark.parametrize("where", ["span", "event"])
def test_sizes_are_close_to_those_of_the_message(attributes, where):
    """Within half and twice of what protobuf makes of it, whatever kind it is."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    event = Event("e", attributes, 1)
    span = ReadableSpan(
        "s",
        SpanContext(1, 1, False, TraceFlags(1)),
        attributes=attributes if where == "span" else {},
        events=[event] if where == "event" else [],
        resource=Resource({}),
    )
    real_bytes = encode_spans([span]).ByteSize()
    assert real_bytes / 2 < size_bytes(span) < 2 * real_bytes + 500


class Raising(SpanExporter):
    """Fails as requests does when a server hangs up, with a chain of causes."""

    def export(self, spans):
        try:
            raise ConnectionResetError("reset by peer")
        except ConnectionResetError as error:
            raise RuntimeError("Connection aborted.") from error


def test_an_exporter_that_raises_is_one_warning_without_a_traceback(caplog, capfd):
    """SDKs before 1.41 would print 120 lines a batch."""
    made = provider._make_provider(
        "proj", [QuietExporter(Raising(), "http://collector:4318")], force_name=False
    )
    for _ in range(3):
        made.get_tracer("t").start_span("s").end()
        made.force_flush()
    made.shutdown()
    (record,) = caplog.records
    assert "(RuntimeError: Connection aborted.)" in record.getMessage()
    assert record.exc_info is None
    assert capfd.readouterr().err == ""


def test_a_closed_grpc_channel_leaves_no_traceback(caplog):
    """What is exported while, or after, the process closes the channel."""
    with grpc_server() as url:
        exporter = otlp_exporter("grpc", url)
        exporter._exporter._channel.close()
        assert exporter.export([sized(10)]) is SpanExportResult.FAILURE
        exporter.shutdown()
    (record,) = caplog.records
    assert "closed channel" in record.getMessage()
    assert record.exc_info is None


def test_an_error_that_grpc_does_not_know_leaves_no_traceback(caplog, capfd):
    """The exporter logs StatusCode.UNKNOWN with 25 lines of gRPC's own code."""

    def unknown(request, headers):
        raise Refusal(500, grpc.StatusCode.UNKNOWN, "something else")

    with grpc_server(unknown) as url:
        exporter = otlp_exporter("grpc", url)
        exporter.export([sized(10)])
        exporter.shutdown()
    (record,) = caplog.records
    assert "something else" in record.getMessage()
    assert record.exc_info is None
    assert "Traceback" not in capfd.readouterr().err


def test_the_sdks_line_of_a_full_queue_is_kept_back(monkeypatch, caplog):
    """Ours says whose queue it is and what helps; see also test_provider."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "2")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    entered, go_on = threading.Event(), threading.Event()

    class Slow(SpanExporter):
        def export(self, spans):
            entered.set()
            go_on.wait(60)
            return SpanExportResult.SUCCESS

    exporter = QuietExporter(Slow(), "there")
    made = provider._make_provider("proj", [exporter], force_name=False)
    for number in range(20):
        made.get_tracer("t").start_span("s").end()
        if number == 1:
            assert entered.wait(60)
    go_on.set()
    made.shutdown()
    exporter.count_anew()  # nothing to tell at exit
    (message,) = caplog.messages
    assert "spans end faster than there takes them: the queue of 2 is full" in message


def test_others_keep_the_sdks_line_of_a_full_queue(caplog):
    """Only what our own processor's queue says is kept back."""
    for name in ("opentelemetry.sdk._shared_internal", "opentelemetry.sdk.trace.export"):
        logging.getLogger(name).warning("Queue full, dropping %s of %s.", "Span", name)
    assert len(caplog.messages) == 2


def test_a_long_reason_is_cut_between_words(caplog):
    """A URL that ends in the middle would be followed in vain."""

    class Wordy(SpanExporter):
        def export(self, spans):
            raise RuntimeError("all of these " * 100)

    QuietExporter(Wordy(), "there").export([])
    reason = caplog.messages[0].partition("(RuntimeError: ")[2].partition(")")[0]
    assert reason.endswith((" all …", " of …", " these …"))
    assert 300 < len(reason) <= 400


def test_six_trackers_of_a_project_make_one_warning_of_an_outage(monkeypatch, tmp_path, caplog):
    """They share a provider, and with it the exporter that warns."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    with http_server(lambda request, headers: Reply(400)) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        trackers = [OtelTracker("proj", tmp_path) for _ in range(6)]
        for number, tracker in enumerate(trackers):
            apps.counter(tracker, f"a{number}").run(halt_after=["finish"])
            tracker.close()
    (message,) = caplog.messages
    assert f"cannot send spans to {url}" in message
    assert "`burr-otel replay` sends it later" in message


def test_an_exporter_of_another_kind_is_quiet_too(monkeypatch, caplog):
    """One that `OTEL_TRACES_EXPORTER` names; the warning says by which name."""
    from burr_otel.spans import exporters

    class Found:
        name = "zipkin"

        @staticmethod
        def load():
            return Raising

    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    monkeypatch.setattr(exporters, "entry_points", lambda **_: [Found])
    made = provider.tracer_provider(None, "shop")
    made.get_tracer("t").start_span("s").end()
    made.force_flush()
    (message,) = caplog.messages
    assert "cannot send spans to OTEL_TRACES_EXPORTER=zipkin (RuntimeError" in message


@pytest.mark.skipif(sys.platform == "win32", reason="gRPC's details differ")
def test_a_refused_key_names_the_variable(caplog, monkeypatch):
    """As before the batches were cut: what to change stands in the warning."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-key=1")

    def refuse(request, headers):
        raise Refusal(401, grpc.StatusCode.UNAUTHENTICATED, "who are you?")

    with grpc_server(refuse) as url:
        exporter = otlp_exporter("grpc", url)
        exporter.export([sized(10)])
        exporter.shutdown()
    assert "correct OTEL_EXPORTER_OTLP_TRACES_HEADERS" in caplog.messages[0]
