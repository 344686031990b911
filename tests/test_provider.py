"""Which provider is used, and what bad OTEL_* values say."""

import dataclasses
import logging
import os
import queue
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import apps
import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from programs import in_child

import burr_otel
from burr_otel import ConfigError, OtelTracker
from burr_otel.spans import exporters, provider
from burr_otel.spans.quiet import QuietExporter


@pytest.fixture(autouse=True)
def _own_providers(monkeypatch):
    monkeypatch.setattr(provider, "_own", {})


def python(code, tmp_path, **env):
    """Run a program that finds our test applications; its output and errors."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
            "HOME": str(tmp_path),
            "OTEL_TRACES_EXPORTER": "otlp",
            **env,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout, done.stderr


def test_the_argument_wins(spans, tmp_path):
    """`tracer_provider=` is used whatever the global one is."""
    tracker = OtelTracker("proj", tmp_path, tracer_provider=spans.provider)
    apps.counter(tracker).step()
    assert [s.name for s in spans.spans] == ["count"]


@pytest.mark.parametrize("kind", ["tracer", "meter"])
def test_what_is_no_provider_is_refused_at_once(kind, tmp_path):
    """A tracer in place of its provider, or a name: the build would blame the store for it."""
    for wrong in (getattr(trace if kind == "tracer" else metrics, f"get_{kind}")("mine"), "mine"):
        with pytest.raises(
            ConfigError, match=f"is no provider; use one that has get_{kind}"
        ) as error:
            OtelTracker("proj", tmp_path, **{f"{kind}_provider": wrong})
        assert repr(wrong) in str(error.value)


def test_our_own_provider_names_service_and_host(monkeypatch):
    """`service.name` is the project unless set; Jaeger wants `host.name`."""
    own = provider.tracer_provider(None, "shop")
    assert own.resource.attributes["service.name"] == "shop"
    assert own.resource.attributes["host.name"]
    assert provider.tracer_provider(None, "shop") is own
    monkeypatch.setenv("OTEL_SERVICE_NAME", "checkout")
    assert provider.tracer_provider(None, "b").resource.attributes["service.name"] == "checkout"
    monkeypatch.delenv("OTEL_SERVICE_NAME")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=web,team=a")
    found = provider.tracer_provider(None, "c").resource.attributes
    assert (found["service.name"], found["team"]) == ("web", "a")


def test_phoenix_files_the_runs_under_the_project(monkeypatch):
    """By this attribute of the resource; all land in `default` otherwise."""
    name = "openinference.project.name"
    assert provider.tracer_provider(None, "shop").resource.attributes[name] == "shop"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "web")
    assert provider.tracer_provider(None, "b").resource.attributes[name] == "b"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", f"{name}=theirs")
    assert provider.tracer_provider(None, "c").resource.attributes[name] == "theirs"


def test_the_global_provider_is_never_replaced():
    """Making our own leaves the global one unset."""
    provider.tracer_provider(None, "shop")
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon", "allowed are grpc and http/protobuf"),
        ("OTEL_TRACES_EXPORTER", "zipkins", "names no installed exporter"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "no spans are made"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "no spans are made"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many", "no spans are made"),
    ],
)
def test_bad_otel_values_warn_and_name_value_and_remedy(monkeypatch, caplog, variable, value, says):
    """A typing error in a variable is one warning that says what happens instead."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv(variable, value)
    with caplog.at_level(logging.WARNING):
        provider.tracer_provider(None, "shop")
    (record,) = [r for r in caplog.records if r.name == "burr_otel"]
    assert variable in record.getMessage()
    assert value in record.getMessage()
    assert says in record.getMessage()


def test_a_configuration_file_is_said_not_to_be_read(monkeypatch, caplog):
    """`OTEL_CONFIG_FILE`: one warning, with what reads it; none when there is none."""
    provider.tracer_provider(None, "shop")
    assert not caplog.records
    monkeypatch.setattr(provider, "_own", {})
    monkeypatch.setenv("OTEL_CONFIG_FILE", "otel.yaml")
    for project in ("shop", "shop", "other"):
        provider.tracer_provider(None, project)
    (message,) = caplog.messages
    assert "OTEL_CONFIG_FILE='otel.yaml'" in message
    assert "opentelemetry-instrument" in message


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_what_is_sent_is_compressed_unless_a_variable_says_otherwise(monkeypatch, protocol):
    """Snapshots of state compress well; `OTEL_EXPORTER_OTLP_COMPRESSION` has the last word."""
    kind, made = protocol.partition("/")[0], []
    monkeypatch.setattr(
        f"opentelemetry.exporter.otlp.proto.{kind}.trace_exporter.OTLPSpanExporter",
        lambda **options: made.append(repr(options.get("compression")).lower()),
    )
    exporters.otlp_exporter(protocol, "http://localhost:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    exporters.otlp_exporter(protocol, "http://localhost:1")
    compressed, plain = made
    assert "gzip" in compressed
    assert "gzip" not in plain


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_an_empty_variable_counts_as_unset(monkeypatch, protocol, caplog):
    """As the specification has it; the exporters themselves would send to an empty address."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.setenv(name, "")
    (made,) = exporters.exporters_from_environ()
    sent_to = {"grpc": "localhost:4317", "http/protobuf": "http://localhost:4318/v1/traces"}
    assert made._exporter._endpoint == sent_to[protocol]
    made.shutdown()
    assert not caplog.records


def test_a_global_provider_counts_when_it_is_set_before_an_application_is_built(
    monkeypatch, spans, tmp_path
):
    """Also after the tracker was made; an application keeps the provider that it was built with."""
    tracker = OtelTracker("proj", tmp_path)
    early = apps.counter(tracker, "early")
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: spans.provider)
    late = apps.counter(tracker, "late")
    for app in (early, late):
        app.run(halt_after=["finish"])
    tracker.close()
    assert {span.attributes["burr.app_id"] for span in spans.spans} == {"late"}
    assert len(spans.spans) == 5


def test_a_global_provider_that_cannot_be_loaded_costs_the_spans_only(monkeypatch, tmp_path):
    """`OTEL_PYTHON_TRACER_PROVIDER` names one that is not installed: everything is stored."""
    monkeypatch.setenv("OTEL_PYTHON_TRACER_PROVIDER", "nonsense")
    tracker = OtelTracker("proj", tmp_path)
    apps.counter(tracker).run(halt_after=["finish"])
    tracker.close()
    assert tracker.load(None, "a1")["state"]["answer"] == 30


def test_sdk_disabled_makes_no_spans_and_keeps_snapshots(monkeypatch, tmp_path):
    """`OTEL_SDK_DISABLED=true`: nothing is traced, everything is stored."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    tracker = OtelTracker("proj", tmp_path)
    apps.counter(tracker).run(halt_after=["finish"])
    assert tracker.load(None, "a1")["state"]["answer"] == 30


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"protocol": "udp"}, "protocol='udp'"),
        ({"endpoint": "localhost:4317"}, "endpoint='localhost:4317'"),
        ({"headers": {"x-key": os.environ.get("NOT_SET")}}, "'x-key' has no text but a NoneType"),
    ],
)
def test_configure_refuses_what_it_cannot_use(arguments, says):
    """The error names the value and what is allowed."""
    with pytest.raises(ConfigError, match=says):
        burr_otel.configure("svc", **arguments)


def test_configure_sets_the_global_provider_once(tmp_path):
    """`configure` makes the provider global and returns it; a second call is refused.

    It says once that it reads no configuration file, where one is named.
    """
    out, err = python(
        """
        from opentelemetry import trace
        import burr_otel
        made = burr_otel.configure("svc", "http://localhost:1", "http/protobuf")
        print(trace.get_tracer_provider() is made, made.resource.attributes["service.name"])
        try:
            burr_otel.configure("svc")
        except burr_otel.ConfigError as error:
            print(error)
        """,
        tmp_path,
        OTEL_CONFIG_FILE="otel.yaml",
    )
    assert out.startswith("True svc\n")
    assert "already set" in out
    assert err.count("OTEL_CONFIG_FILE='otel.yaml' is not read") == 1


@pytest.mark.parametrize(
    ("protocol", "endpoint"),
    [("grpc", "http://localhost:1"), ("http/protobuf", "http://localhost:1")],
)
def test_nothing_listening_costs_one_warning(tmp_path, protocol, endpoint):
    """The run is unaffected, one warning names the way."""
    out, err = python(
        """
        import apps
        from burr_otel import OtelTracker
        tracker = OtelTracker("proj", ".burr")
        for n in range(20):
            _, _, state = apps.counter(tracker, app_id=f"a{n}").run(halt_after=["finish"])
        print(state["answer"])
        """,
        tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
    )
    assert err.count("\n") == 1, err
    assert f"cannot send spans to {endpoint}" in err
    assert "burr-otel replay" in err
    assert out == "30\n"


class Failing(SpanExporter):
    """Fails, logs as the OTLP exporters do, then succeeds."""

    def __init__(self):
        bad, good = SpanExportResult.FAILURE, SpanExportResult.SUCCESS
        self._results = iter([bad, bad, good, bad])

    def export(self, spans):
        logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter").error("no route")
        return next(self._results)


def test_an_outage_is_one_warning_and_the_next_one_another(caplog):
    """The exporter's own lines are kept back, and the warning quotes the reason."""
    exporter = QuietExporter(Failing(), "http://collector:4317")
    with caplog.at_level(logging.INFO):
        for _ in range(4):
            exporter.export([])
    first, over, second = (r.getMessage() for r in caplog.records)
    assert "http://collector:4317 (no route)" in first
    assert "takes spans again" in over
    assert "http://collector:4317 (no route)" in second


class Gate(SpanExporter):
    """Takes a batch only when told to; then as told."""

    def __init__(self):
        self.entered, self.answers = threading.Semaphore(0), queue.SimpleQueue()

    def export(self, spans):
        self.entered.release()
        return self.answers.get(timeout=60)


def test_what_a_full_queue_drops_is_counted_and_said(monkeypatch, caplog):
    """Of 1,000 spans 10 are refused, the newest 100 wait and are sent, and 890 are dropped."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
    gate = Gate()
    exporter = QuietExporter(gate, "http://collector:4317")
    made = provider._make_provider("proj", [exporter], force_name=False)
    tracer = made.get_tracer("t")
    for _ in range(10):
        tracer.start_span("s").end()
    assert gate.entered.acquire(timeout=60)
    for _ in range(990):
        tracer.start_span("s").end()
    gate.answers.put(SpanExportResult.FAILURE)
    for _ in range(10):
        gate.answers.put(SpanExportResult.SUCCESS)
    made.shutdown()
    exporter.tell_of_losses()
    refused, dropping, over, total = (
        r.getMessage() for r in caplog.records if r.name == "burr_otel"
    )
    assert "cannot send spans to http://collector:4317" in refused
    assert "queue of 100 is full" in dropping
    assert "takes spans again. Meanwhile 890 were lost" in over
    assert total.startswith(
        "900 of 1000 spans did not get to http://collector:4317: 10 were refused"
    )
    assert "and 890 never sent" in total
    assert "burr-otel replay" in total


def test_a_forked_child_counts_from_nothing():
    """The SDK's batch processor clears its queue there."""
    exporter = QuietExporter(Gate(), "http://collector:4317")
    made = provider._make_provider("proj", [exporter], force_name=False)
    exporter.ended = 5

    def work():
        made.get_tracer("t").start_span("s").end()
        assert exporter.ended == 1

    assert in_child(work) == 0


def test_other_exporters_keep_their_log_lines(caplog):
    """Only what is logged while our own exporter sends is kept back."""
    with caplog.at_level(logging.INFO):
        logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter").error("theirs")
    assert caplog.messages == ["theirs"]


class Hostile(SpanExporter):
    def export(self, spans):
        raise RuntimeError("exporter broke")


@pytest.mark.parametrize("where", ["exporter", "on_start", "on_end"])
def test_a_broken_exporter_or_processor_never_reaches_the_run(where, tmp_path, caplog):
    """The user's result is what it would be; what failed is logged."""
    from opentelemetry.sdk.trace import SpanProcessor

    class Broken(SpanProcessor):
        def on_start(self, span, parent_context=None):
            if where == "on_start":
                raise RuntimeError("processor broke")

        def on_end(self, span):
            if where == "on_end":
                raise RuntimeError("processor broke")

    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(Hostile()) if where == "exporter" else Broken())
    tracker = OtelTracker("proj", tmp_path, tracer_provider=made)
    _, _, state = apps.counter(tracker).run(halt_after=["finish"])
    assert state["answer"] == 30
    assert tracker.load(None, "a1")["state"]["answer"] == 30
    assert "broke" in caplog.text


class _Stuck(TracerProvider):
    """Its flush hangs until it is told to go on."""

    def __init__(self):
        super().__init__(shutdown_on_exit=False)
        self.go_on, self.flushes = threading.Event(), 0

    def force_flush(self, timeout_millis=30_000):
        self.flushes += 1
        return self.go_on.wait(60)


def test_an_endpoint_that_hangs_is_waited_for_once(monkeypatch, tmp_path):
    """`close` gives up, and does not pile up attempts; afterwards it flushes again."""
    monkeypatch.setattr(provider, "_LONGEST_S", 0.01)
    stuck = _Stuck()
    tracker = OtelTracker("proj", tmp_path, tracer_provider=stuck)
    for _ in range(5):
        tracker.close()
    assert stuck.flushes == 1
    stuck.go_on.set()
    assert provider._sending[stuck].flushed.wait(60)
    tracker.close()
    assert stuck.flushes == 2


class _BackingOff(SpanExporter):
    """Refuses a batch, then tries the next one again and again until it is shut down."""

    def __init__(self):
        self.seen, self._stopped, self.gave_up = [], threading.Event(), threading.Event()

    def export(self, spans):
        if self.seen:
            self._stopped.wait(60)
            self.seen.append("refused")
            self.gave_up.set()
        else:
            self.seen.append("refused")
        return SpanExportResult.FAILURE

    def shutdown(self):
        self.seen.append("shut down")
        self._stopped.set()


def test_retries_are_not_waited_for_at_the_end(monkeypatch):
    """An exporter that tries again is shut down in between; the SDK would wait for its last try."""
    monkeypatch.setattr(provider, "_STRUGGLING_S", 0.01)
    exporter = _BackingOff()
    quiet = QuietExporter(exporter, "http://collector:4317")
    made = provider._make_provider("svc", [quiet], force_name=False)
    made.get_tracer("t").start_span("a").end()
    made.force_flush()
    made.get_tracer("t").start_span("b").end()
    provider._shut_down(made, provider._sending[made])
    assert exporter.gave_up.wait(60)
    assert exporter.seen[:3] == ["refused", "shut down", "refused"]


def test_closing_at_exit_is_harmless(tmp_path):
    """Python 3.12 starts no thread at interpreter exit; a `close` there ends the spans all the same."""
    code = """
    import atexit
    import apps
    from burr_otel import OtelTracker
    tracker = OtelTracker("proj", ".burr")
    app = apps.counter(tracker)
    app.step()
    atexit.register(tracker.close)
    """
    out, err = python(code, tmp_path, OTEL_TRACES_EXPORTER="console")
    assert err == ""
    assert '"name": "invoke_workflow proj"' in out


@dataclasses.dataclass  # unhashable, and comparing two is an error of ours
class Unhashable(trace.TracerProvider):
    """As Logfire's provider, which wraps one of the SDK."""

    provider: TracerProvider
    __hash__ = None

    def __eq__(self, other):
        raise AssertionError("providers are not compared")

    def get_tracer(self, *arguments, **named):
        return self.provider.get_tracer(*arguments, **named)

    def add_span_processor(self, processor):
        self.provider.add_span_processor(processor)

    def force_flush(self, timeout_millis=30_000):
        return self.provider.force_flush(timeout_millis)


@dataclasses.dataclass
class UnhashableMeters(metrics.MeterProvider):
    """Likewise."""

    __hash__ = None

    def __eq__(self, other):
        raise AssertionError("providers are not compared")

    def get_meter(self, *arguments, **named):
        return metrics.NoOpMeter("none")


def test_providers_that_cannot_be_hashed_or_compared(spans, tmp_path):
    """Logfire's; several trackers and applications, and a child-span processor."""
    given = Unhashable(spans.provider)
    for number in range(2):
        with OtelTracker(
            "proj",
            tmp_path,
            tracer_provider=given,
            meter_provider=UnhashableMeters(),
            record_child_spans=True,
        ) as tracker:
            for _ in range(2):
                apps.counter(tracker, f"a{number}").run(halt_after=["finish"])
    assert len(spans.spans) == 20


class Replacing(TracerProvider):
    """As Phoenix's: a processor that is added replaces the exporter that is there."""

    def add_span_processor(self, span_processor):
        self._active_span_processor._span_processors = ()
        super().add_span_processor(span_processor)


def test_adding_our_processor_replaces_none(tmp_path):
    """Phoenix's provider would drop its exporter, and send nothing from then on."""
    exporter = InMemorySpanExporter()
    theirs = Replacing(shutdown_on_exit=False)
    theirs.add_span_processor(SimpleSpanProcessor(exporter))
    with OtelTracker("proj", tmp_path, tracer_provider=theirs, record_child_spans=True) as tracker:
        apps.counter(tracker).run(halt_after=["finish"])
    assert len(exporter.get_finished_spans()) == 5


def test_closing_leaves_the_users_metrics_alone(spans, tmp_path):
    """A flush makes a Prometheus reader collect beside its scrapes, and serve duplicates."""

    class Meters(UnhashableMeters):
        def force_flush(self, timeout_millis=30_000):
            raise AssertionError("not ours to flush")

    with OtelTracker(
        "proj", tmp_path, tracer_provider=spans.provider, meter_provider=Meters()
    ) as tracker:
        apps.counter(tracker).run(halt_after=["finish"])
    assert len(spans.spans) == 5


def test_a_child_that_is_forked_during_a_flush_flushes_itself(tmp_path):
    """The thread that would have said that the flush is over is the parent's."""
    stuck = _Stuck()
    sending = provider._sending[stuck]
    sending.flushed = threading.Event()

    def work():
        stuck.go_on.set()
        OtelTracker("proj", tmp_path, tracer_provider=stuck).close()
        assert stuck.flushes == 1

    assert in_child(work) == 0
