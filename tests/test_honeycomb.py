"""Everything that we send is acceptable to Honeycomb; a wrong key is said once and loses nothing."""

import contextlib
import logging

import apps
import inside_apps
import pytest
from burr.core import State, action, application
from honeycomb_stand_in import CLASSIC_KEY, KEY, dataset_of, honeycomb
from hostile import ZOO
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from scenarios import SCENARIOS

from burr_otel import OtelTracker
from burr_otel.check.run import check
from burr_otel.cli import main
from burr_otel.demo import DEMO_PROJECT, build_demo, run_demo
from burr_otel.spans import keeper, provider
from burr_otel.spans.exporters import otlp_exporter
from burr_otel.testing import manual_roots

PROTOCOLS = ("grpc", "http/protobuf")
WRONG = "hcaik_" + "0" * 58


@pytest.fixture
def send_to(monkeypatch):
    """Variables that make a process send to an endpoint."""

    def set_variables(endpoint, protocol, headers):
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", headers)
        monkeypatch.setattr(provider, "_own", {})

    return set_variables


@contextlib.contextmanager
def sending(protocol, name="proj"):
    """A provider as the tracker makes one, and the ids of the spans that have ended in it."""
    made = TracerProvider(resource=Resource({"service.name": name}), shutdown_on_exit=False)
    kept = InMemorySpanExporter()
    made.add_span_processor(SimpleSpanProcessor(kept))
    made.add_span_processor(BatchSpanProcessor(otlp_exporter(protocol), max_queue_size=100_000))
    ids = []
    with manual_roots():
        yield made, ids
        keeper.keeper.finish_all()
        assert made.force_flush()
        ids += [f"{s.context.span_id:016x}" for s in kept.get_finished_spans()]
    made.shutdown()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_span_of_the_scenarios_and_the_demo(protocol, send_to, tmp_path):
    """Each arrives once, in the dataset of the service, within every limit."""
    with honeycomb(protocol, KEY) as (stand_in, endpoint):
        send_to(endpoint, protocol, f"x-honeycomb-team={KEY}")
        with sending(protocol, " shop ") as (made, ids):
            for name, scenario in SCENARIOS.items():
                scenario.run(
                    lambda name=name, **settings: OtelTracker(
                        "proj", tmp_path / name, tracer_provider=made, **settings
                    ),
                    made.get_tracer("service"),
                )
                keeper.keeper.finish_all()
            with OtelTracker(DEMO_PROJECT, tmp_path, tracer_provider=made) as tracker:
                run_demo(build_demo(tracker, wait=lambda seconds: None))
    assert sorted(stand_in.span_ids) == sorted(ids)
    assert stand_in.violations == []
    assert {event.dataset for event in stand_in.events} == {"shop"}
    kinds = {event.fields.get("meta.annotation_type") for event in stand_in.events}
    assert kinds == {None, "span_event", "link"}


NEEDED = {"gen_ai.conversation.id", "gen_ai.agent.name"}  # by its Agent Timeline


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_span_of_a_run_lacks_conversation_and_agent(protocol, send_to, tmp_path):
    """Ours, and all of others inside a step: threads, tasks, streams, branches."""
    with honeycomb(protocol, KEY) as (stand_in, endpoint):
        send_to(endpoint, protocol, f"x-honeycomb-team={KEY}")
        with sending(protocol) as (made, _):
            with OtelTracker("proj", tmp_path, tracer_provider=made) as tracker:
                inside_apps.run_all(tracker, made.get_tracer("http"))
            for name, scenario in SCENARIOS.items():
                scenario.run(
                    lambda name=name, **settings: OtelTracker(
                        "proj", tmp_path / name, tracer_provider=made, **settings
                    ),
                    made.get_tracer("service"),
                )
                keeper.keeper.finish_all()
    spans = {
        e.fields["trace.span_id"]: e.fields for e in stand_in.events if "trace.span_id" in e.fields
    }
    of_runs = [fields for fields in spans.values() if is_of_a_run(fields, spans)]
    assert [fields["name"] for fields in of_runs if not fields.keys() >= NEEDED] == []
    others = {fields["name"] for fields in of_runs if fields["library.name"] == "http"}
    places = ("an inner span", "a thread", "a task", "a branch", "an async branch")
    assert {f"in {place}{below}" for place in places for below in ("", " below")} < others
    assert {
        "before an item",
        "after an item",
        "before an async item",
        "after an async item",
    } < others
    outside = [fields for fields in spans.values() if fields["name"].startswith("in the consumer")]
    assert len(outside) == 4
    assert all(NEEDED.isdisjoint(fields) for fields in outside)


def is_of_a_run(fields, spans):
    """Whether a span is one of ours, or somewhere below one of our steps."""
    while fields is not None:
        if "burr.app_id" in fields:
            return True
        fields = spans.get(fields.get("trace.parent_id"))
    return False


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_hostile_and_huge_values(protocol, send_to, tmp_path, monkeypatch):
    """Whatever an action takes, logs and raises stays within the limits of an event."""
    # Burr formats all inputs and the exception of a failing step for its log, without bound.
    monkeypatch.setattr(application, "_format_BASE_ERROR_MESSAGE", lambda *_: "failed")
    monkeypatch.setattr(application.logger, "disabled", True)

    @action(reads=["count"], writes=["kept"])
    def everywhere(state: State, given, __tracer) -> tuple:
        with __tracer("inner") as inner:
            inner.log_attributes(**{f"key-{n}": given for n in range(20)})
        __tracer.log_attributes(one=given, many=[given] * 3)
        raise ValueError(given)

    with honeycomb(protocol, KEY) as (stand_in, endpoint):
        send_to(endpoint, protocol, f"x-honeycomb-team={KEY}")
        with sending(protocol) as (made, ids):
            tracker = OtelTracker("proj", tmp_path, tracer_provider=made, snapshots="off")
            huge = [
                ("huge", lambda: "x" * 10_000_000),
                ("keys", lambda: dict.fromkeys(range(9999))),
            ]
            for number, (_, make) in enumerate([*ZOO, *huge]):
                try:
                    value = make()
                except pytest.skip.Exception:  # of an optional library
                    continue
                with contextlib.suppress(Exception):  # it raises, and Burr may refuse a value
                    apps.single(tracker, everywhere, f"a{number}").step(inputs={"given": value})
            tracker.close()
    assert len(ids) > len(ZOO)
    assert sorted(stand_in.span_ids) == sorted(ids)
    assert stand_in.violations == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_wrong_key_is_said_once_and_a_replay_brings_every_span(
    protocol, send_to, tmp_path, caplog
):
    """One message that names what to change; with the right key nothing is missing."""
    with honeycomb(protocol, KEY) as (stand_in, endpoint):
        send_to(endpoint, protocol, f"x-honeycomb-team={WRONG}")
        with caplog.at_level(logging.WARNING), sending(protocol) as (made, ids):
            tracker = OtelTracker("proj", tmp_path, tracer_provider=made)
            with tracker:
                for number in range(3):
                    apps.counter(tracker, f"a{number}").run(halt_after=["finish"])
                    made.force_flush()
        [warning] = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert "correct OTEL_EXPORTER_OTLP_HEADERS" in warning
        assert "`burr-otel replay`" in warning
        assert WRONG not in warning
        assert stand_in.events == []
        [found] = check(str(tmp_path)).problems
        assert "correct x-honeycomb-team in OTEL_EXPORTER_OTLP_HEADERS" in found.sentence
        assert "unknown API key" in found.sentence

        send_to(endpoint, protocol, f"x-honeycomb-team={KEY}")
        with pytest.raises(SystemExit) as ended:
            main(["replay", "--to", _to(endpoint, protocol), "--storage-dir", str(tmp_path)])
        assert not ended.value.code
    assert len(ids) == 15
    assert sorted(stand_in.span_ids) == sorted(ids)
    assert stand_in.violations == []


def _to(endpoint, protocol):
    return endpoint if protocol == "grpc" else f"{endpoint}/v1/traces"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ("", "missing_header"),
        (f"x-honeycomb-team={CLASSIC_KEY}", "missing_header"),
        (f"x-honeycomb-team={WRONG}", "bad_key"),
        (f"x-honeycomb-team={CLASSIC_KEY},x-honeycomb-dataset=old", None),
    ],
)
def test_keys(protocol, headers, name, send_to, tmp_path):
    """A missing, a classic and an unknown key, as `burr-otel check` tells them."""
    with honeycomb(protocol, KEY, CLASSIC_KEY) as (stand_in, endpoint):
        send_to(endpoint, protocol, headers)
        found = check(str(tmp_path)).problems
    assert [problem.name for problem in found] == ([name] if name else [])
    assert {event.dataset for event in stand_in.events} == (set() if name else {"old"})


@pytest.mark.parametrize(
    ("service", "dataset"),
    [
        ("shop", "shop"),
        (" shop ", "shop"),
        ("", "unknown_service"),
        ("unknown_service:python", "unknown_service"),
        (None, "unknown_service"),
    ],
)
def test_datasets(service, dataset):
    """The rules of the stand-in are Honeycomb's."""
    assert dataset_of(service) == dataset


def test_the_stand_in_sees_what_is_too_large(send_to):
    """Spans beyond the limits are counted, so that a clean run means something."""
    with honeycomb("grpc", KEY) as (stand_in, endpoint):
        send_to(endpoint, "grpc", f"x-honeycomb-team={KEY}")
        with sending("grpc") as (made, _):
            tracer = made.get_tracer("other")
            tracer.start_span("long", attributes={"text": "x" * 65_536}).end()
            large = {f"key-{n}": "x" * 60_000 for n in range(20)}
            tracer.start_span("large", attributes=large).end()
            tracer.start_span("late", start_time=2 * 10**18).end(2 * 10**18 - 1)
    said = "; ".join(stand_in.violations)
    for part in ("text of 65536 bytes", "an event of 12", "the time 2000000", "negative"):
        assert part in said
