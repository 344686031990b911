"""Libraries that bring providers, processors or readers of their own, in one process with us."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import textwrap
from collections.abc import Iterator

import pytest
from otlp_receiver import Receiver, receiving
from programs import run_program


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def need(module: str) -> None:
    """Skip or fail the test when a neighbour is not installed."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # of the package that it is in
        found = None
    if found is None:
        reason = f'{module} is not installed; run pip install "burr-otel[neighbours]"'
        if os.environ.get("BURR_OTEL_REQUIRE_BACKENDS") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


def names(receiver: Receiver) -> list[str]:
    return sorted(span.name for span in receiver.spans)


RUN = ["count", "count", "count", "finish", "invoke_workflow proj"]

TREE = """
request
  invoke_workflow proj
    step
      outer
        inner
          helper
    step
      outer
        inner
          helper
"""
# What each neighbour's own code stands before and after; `provider` is what it made.
WITHIN = """
import apps
from burr_otel import OtelTracker
from opentelemetry import context, trace
before = context.get_current()
with trace.get_tracer("user").start_as_current_span("request"):
    with OtelTracker("proj", "runs", baggage_keys=("tenant",)) as tracker:
        app = apps.single(tracker, apps.traced)
        app.step()
        app.step()
assert context.get_current() == before, context.get_current()
assert not trace.get_current_span().get_span_context().is_valid
assert tracker.load(None, "a1")["state"]["count"] == 2
getattr(trace.get_tracer_provider(), "force_flush", bool)()
"""
OTLP = """
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
"""


def run_beside(
    code: str, receiver: Receiver, folder: pathlib.Path, *, after: str = "", **environ: str
) -> str:
    """Run `WITHIN` after a neighbour's own code; what was printed, nothing being complained of."""
    program = OTLP + textwrap.dedent(code) + WITHIN + after
    done = run_program(program, folder, **receiver.environ, **environ)
    assert done.stderr == ""
    return done.stdout


def test_logfire(receiver: Receiver, tmp_path: pathlib.Path) -> None:
    """Its provider can be neither hashed nor compared; the run is in it, beside its own spans."""
    need("logfire")
    code = """
    import apps, logfire
    from burr_otel import OtelTracker
    logfire.configure(send_to_logfire=False, console=False)
    with logfire.span("request"), OtelTracker("proj", "runs", record_child_spans=True) as tracker:
        apps.counter(tracker).run(halt_after=["finish"])
    """
    done = run_program(code, tmp_path, **receiver.environ)
    assert done.stderr == ""
    assert names(receiver) == sorted([*RUN, "request"])


def test_phoenix_register(receiver: Receiver, tmp_path: pathlib.Path) -> None:
    """Its provider drops its exporter when a processor is added its own way."""
    need("phoenix.otel")
    code = """
    import os, apps
    from burr_otel import OtelTracker
    from phoenix.otel import register
    endpoint = os.environ.pop("OTEL_EXPORTER_OTLP_ENDPOINT") + "/v1/traces"
    provider = register(endpoint=endpoint, protocol="http/protobuf", verbose=False, batch=True)
    with OtelTracker("proj", "runs", record_child_spans=True) as tracker:
        apps.counter(tracker).run(halt_after=["finish"])
    with provider.get_tracer("other").start_as_current_span("theirs"):
        pass
    """
    done = run_program(code, tmp_path, **receiver.environ)
    assert done.stderr == ""
    assert names(receiver) == sorted([*RUN, "theirs"])


def test_prometheus(receiver: Receiver, tmp_path: pathlib.Path) -> None:
    """However many trackers were closed, a scrape has each series once."""
    need("opentelemetry.exporter.prometheus")
    code = """
    import apps, collections
    from burr_otel import OtelTracker
    from opentelemetry import metrics
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider
    from prometheus_client import REGISTRY, generate_latest
    metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))
    for number in range(20):
        with OtelTracker("proj", "runs") as tracker:
            apps.counter(tracker, f"a{number}").run(halt_after=["finish"])
    lines = [l for l in generate_latest(REGISTRY).decode().splitlines() if l.startswith("burr")]
    series = collections.Counter(line.rsplit(" ", 1)[0] for line in lines)
    print(len(series) > 5, max(series.values()))
    """
    assert run_program(code, tmp_path, **receiver.environ).stdout == "True 1\n"


# --- processors and exporters of others on a provider -----------------------------------------


def test_langfuse(receiver: Receiver, tmp_path: pathlib.Path) -> None:
    """Its span processor, which takes spans of models only, takes every one of ours."""
    need("langfuse")
    code = """
    from langfuse._client.span_processor import LangfuseSpanProcessor
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    provider = TracerProvider()
    trace.set_tracer_provider(provider)
    provider.add_span_processor(LangfuseSpanProcessor(
        public_key="pk", secret_key="sk", base_url="http://127.0.0.1:9",
        span_exporter=OTLPSpanExporter(),
    ))
    """
    run_beside(code, receiver, tmp_path)
    # All but the caller's own span, which has nothing to do with models.
    ours = textwrap.dedent(TREE.replace("\nrequest", "", 1))
    assert receiver.tree() == ours.replace(" proj", " proj <parent elsewhere>", 1)


def test_baggage_processor(receiver: Receiver, tmp_path: pathlib.Path) -> None:
    """It sets attributes on our spans when they start."""
    need("opentelemetry.processor.baggage")
    code = """
    from opentelemetry import baggage, context, trace
    from opentelemetry.processor.baggage import ALLOW_ALL_BAGGAGE_KEYS, BaggageSpanProcessor
    from opentelemetry.sdk.trace import TracerProvider
    provider = TracerProvider()
    trace.set_tracer_provider(provider)
    provider.add_span_processor(BaggageSpanProcessor(ALLOW_ALL_BAGGAGE_KEYS))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    context.attach(baggage.set_baggage("tenant", "acme"))
    """
    run_beside(code, receiver, tmp_path)
    assert receiver.tree() == TREE
    assert {span.attributes["tenant"] for span in receiver.spans} == {"acme"}


def test_console_exporter(receiver: Receiver, tmp_path: pathlib.Path) -> None:
    """It prints each of our spans as JSON."""
    code = """
    import json, sys
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter
    provider = TracerProvider()
    trace.set_tracer_provider(provider)
    one_line = lambda span: span.to_json(indent=None) + "\\n"
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=one_line)))
    """
    printed = [json.loads(line) for line in run_beside(code, receiver, tmp_path).splitlines()]
    assert sorted(span["name"] for span in printed) == sorted(
        line.strip() for line in TREE.strip().splitlines()
    )
    ids = {span["context"]["span_id"] for span in printed}
    assert [span["name"] for span in printed if span["parent_id"] not in ids] == ["request"]


def test_openinference(receiver: Receiver, tmp_path: pathlib.Path) -> None:
    """What `using_attributes` sets is on every span of ours."""
    need("openinference.instrumentation")
    code = """
    from openinference.instrumentation import TracerProvider, using_attributes
    from opentelemetry import trace
    provider = TracerProvider()
    trace.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    using = using_attributes(session_id="s", user_id="u", metadata={"a": 1}, tags=["beta"])
    using.__enter__()
    """
    run_beside(code, receiver, tmp_path)
    assert receiver.tree() == TREE
    for span in receiver.spans[1:]:
        assert span.attributes["session.id"] == "s"
        assert span.attributes["user.id"] == "u"
        assert span.attributes["metadata"] == '{"a": 1}'
        assert span.attributes["tag.tags"] == ("beta",)


# --- libraries that make the provider ---------------------------------------------------------


def test_traceloop(receiver: Receiver, tmp_path: pathlib.Path) -> None:
    """OpenLLMetry's set-up makes the provider, instruments what it knows, and gets our spans."""
    need("traceloop.sdk")
    code = """
    from traceloop.sdk import Traceloop
    Traceloop.init(
        app_name="app", disable_batch=True, exporter=OTLPSpanExporter(), telemetry_enabled=False
    )
    """
    program = OTLP + textwrap.dedent(code) + WITHIN
    done = run_program(program, tmp_path, **receiver.environ)
    assert "burr" not in done.stderr.lower()
    assert receiver.tree() == TREE


SENTRY = """
import sentry_sdk
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from sentry_sdk.integrations.opentelemetry import SentryPropagator, SentrySpanProcessor
from sentry_sdk.transport import Transport
sent = []
class Keep(Transport):
    def capture_envelope(self, envelope):
        sent.append(envelope)
def tell():
    sentry_sdk.flush()
    for envelope in sent:
        event = envelope.get_transaction_event()
        if event:
            print(event["transaction"], *(span["description"] for span in event["spans"]), sep=",")
sentry_sdk.init(
    dsn="http://key@127.0.0.1:9/1", instrumenter="otel", traces_sample_rate=1.0,
    transport=Keep, default_integrations=False,
)
provider = TracerProvider()
trace.set_tracer_provider(provider)
propagate.set_global_textmap(SentryPropagator())
provider.add_span_processor(SentrySpanProcessor())
"""


def test_sentry(receiver: Receiver, tmp_path: pathlib.Path) -> None:
    """Its processor sends a transaction with the root of a trace, and all of ours are in it."""
    need("sentry_sdk")
    code = SENTRY + "provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))\n"
    printed = run_beside(code, receiver, tmp_path, after="tell()")
    assert receiver.tree() == TREE
    assert sorted(printed.strip().split(",")) == names(receiver)


IDLES = """
import apps, time
from burr_otel import OtelTracker
from burr_otel.spans.keeper import keeper
now = time.time_ns()  # Sentry drops transactions of long ago
tracker = OtelTracker("proj", "runs", {setting} clock=lambda: now)
app = apps.single(tracker, apps.count)
app.step()
now += 10 * 10**9
keeper.sweep()
app.step()
tracker.close()
tell()
"""


@pytest.mark.parametrize(
    ("setting", "sent"),
    [
        ("root_linger=None,", ["invoke_workflow proj,step,step"]),
        ("", ["invoke_workflow proj,step", "step"]),
    ],
)
def test_what_comes_after_the_root_in_sentry(
    setting: str, sent: list[str], receiver: Receiver, tmp_path: pathlib.Path
) -> None:
    """A transaction of its own; `root_linger=None` keeps an application that idles in one piece."""
    need("sentry_sdk")
    done = run_program(SENTRY + IDLES.format(setting=setting), tmp_path, **receiver.environ)
    assert done.stdout.splitlines() == sent


MLFLOW = {
    "MLFLOW_USE_DEFAULT_TRACER_PROVIDER": "false",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_ENABLE_OTLP_EXPORTER": "false",
}
TELL_MLFLOW = """
mlflow.flush_trace_async_logging()
found = mlflow.get_trace(mlflow.get_last_active_trace_id())
print(",".join(sorted(span.name for span in found.data.spans)))
"""


def test_mlflow(receiver: Receiver, tmp_path: pathlib.Path) -> None:
    """Its provider, shared, takes our spans into a trace of its own."""
    need("mlflow")
    within = WITHIN.replace('trace.get_tracer("user").start_as_current_span', "mlflow.start_span")
    program = "import mlflow\nmlflow.set_tracking_uri('file:./mlruns')\n" + within + TELL_MLFLOW
    done = run_program(program, tmp_path, **receiver.environ, **MLFLOW)
    assert "burr" not in done.stderr
    expected = sorted(line.strip() for line in TREE.strip().splitlines())
    assert done.stdout == ",".join(expected) + "\n"


def test_datadog(receiver: Receiver, tmp_path: pathlib.Path) -> None:
    """Its context's `detach` does nothing, and its spans take no links once they have begun."""
    need("ddtrace")
    code = """
    import ddtrace.auto
    from ddtrace.trace import TraceFilter, tracer as datadog
    ended = []
    class Keep(TraceFilter):
        def process_trace(self, spans):
            ended.extend(spans)
    datadog.configure(trace_processors=[Keep()])
    """
    after = """
    datadog.flush()
    by_id = {span.span_id: span for span in ended}
    def depth(span):
        return 1 + depth(by_id[span.parent_id]) if span.parent_id in by_id else 0
    for span in sorted(ended, key=lambda span: span.start_ns):
        print("  " * depth(span) + span.resource)
    """
    printed = run_beside(
        code,
        receiver,
        tmp_path,
        after=textwrap.dedent(after),
        DD_TRACE_OTEL_ENABLED="true",
        DD_TRACE_AGENT_URL="http://127.0.0.1:9",
        DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
        DD_REMOTE_CONFIGURATION_ENABLED="false",
        DD_CRASHTRACKING_ENABLED="false",
    )
    assert f"\n{printed}" == TREE
