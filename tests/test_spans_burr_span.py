"""`BurrSpan` beside the SDK's own spans: processors and exporters must not see a difference."""

import gc

import apps
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags

from burr_otel import OtelTracker
from burr_otel.content import ContentPolicy
from burr_otel.spans import burr_span
from burr_otel.spans.burr_span import BurrSpan
from burr_otel.spans.describe import SpanContent, SpanEvent, SpanStatus
from burr_otel.spans.scope import link_ids
from burr_otel.spans.start import SpanStarter
from burr_otel.testing import FixedIds

NOW = 1_700_000_000_000_000_000
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.one_of(
    texts,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(texts, max_size=3).map(tuple),
)
attributes = st.dictionaries(texts.filter(bool), values, max_size=8)
events = st.lists(st.tuples(texts, attributes, st.integers(NOW, NOW + 1000)), max_size=4)
contexts = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.booleans(),
    st.just(TraceFlags(1)),
)
links = st.lists(st.tuples(contexts, attributes), max_size=4)
statuses = st.one_of(
    st.just(Status(StatusCode.UNSET)), st.builds(Status, st.just(StatusCode.ERROR), texts)
)
limits = st.builds(
    SpanLimits,
    max_span_attributes=st.sampled_from([None, 3, 128]),
    max_events=st.sampled_from([None, 2, 128]),
    max_links=st.sampled_from([None, 2, 128]),
    max_event_attributes=st.sampled_from([None, 1]),
    max_span_attribute_length=st.sampled_from([None, 4]),
    max_attribute_length=st.sampled_from([None, 4]),
)


def collected(span_limits=None):
    exporter = InMemorySpanExporter()
    provider = TracerProvider(
        resource=Resource({"service.name": "s"}),
        id_generator=FixedIds(),
        span_limits=span_limits,
        shutdown_on_exit=False,
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("burr_otel", "1", schema_url="http://x"), exporter


def start(tracer, content=None, span_links=(), parent=None):
    content = content or SpanContent("name", {}, [], SpanStatus(), [])
    span = SpanStarter(tracer, ContentPolicy()).start(
        content.name, parent, {}, link_ids(span_links), ({},), NOW
    )
    span.begin(lambda: content, parent, {})
    return span


@given(attributes, events, links, links, statuses, limits)
def test_otlp_bytes_equal_those_of_an_sdk_span(
    told, happened, first_links, later_links, status, span_limits
):
    """The encoder makes the same of both, also within limits of the provider."""
    tracer, exporter = collected(span_limits)
    theirs = tracer.start_span("name", links=[Link(*each) for each in first_links], start_time=NOW)
    theirs.set_attributes(told)
    for name, event_attributes, time_ns in happened:
        theirs.add_event(name, event_attributes, time_ns)
    for each in later_links:
        theirs.add_link(*each)
    theirs.set_status(status)
    theirs.end(NOW + 2000)

    tracer, ours_exporter = collected(span_limits)
    content = SpanContent(
        "name",
        dict(told),
        [SpanEvent(*each) for each in happened],
        SpanStatus(status.status_code.name, status.description),
        link_ids(Link(*each) for each in later_links),
    )
    ours = start(tracer, content, [Link(*each) for each in first_links])
    ours.finish(lambda: content, NOW + 2000)

    (expected,), (found,) = exporter.get_finished_spans(), ours_exporter.get_finished_spans()
    assert encode_spans([found]).SerializeToString() == encode_spans([expected]).SerializeToString()
    assert found.to_json() == expected.to_json()


def test_attributes_are_derived_when_they_are_first_read_and_only_once():
    """The step's own thread pays for nothing that nobody looks at."""
    tracer, _ = collected()
    asked = []

    def describe():
        asked.append(1)
        return SpanContent("name", {"a": 1}, [], SpanStatus(), [])

    span = start(tracer)
    span._source = span._source._replace(processor=SpanProcessor())
    span.finish(describe, NOW + 1)
    assert asked == []
    assert span.attributes == {"a": 1}
    assert span.to_json()
    assert asked == [1]


def test_what_others_set_is_kept_as_data_for_the_record():
    """Name, attributes, events, links and status of other code go into the record of the end."""
    tracer, _ = collected()
    span = start(tracer)
    span.update_name("other")
    span.set_attribute("k", (1, 2))
    span.add_event("e", {"x": "y"}, NOW)
    span.add_link(SpanContext(1, 2, False, TraceFlags(1)), {"l": 1})
    span.set_status(StatusCode.OK)
    span.set_status(StatusCode.ERROR, "too late")
    data = span.user_data()
    assert data["name"] == "other"
    assert data["attributes"] == [["k", [1, 2]]]
    assert data["events"] == [["e", NOW, {"map": [["x", "y"]]}]]
    assert data["status"] == ["OK", None]
    assert data["links"][0]["span_id"] == f"{2:016x}"
    assert span.attributes["k"] == (1, 2)


def test_an_exception_that_other_code_records_is_redacted_and_cannot_raise():
    """`use_span` records what passes through it, whatever its text does."""

    class HostileError(Exception):
        def __str__(self):
            raise RuntimeError("never")

    tracer, exporter = collected()
    span = start(tracer)
    span.record_exception(HostileError())
    with pytest.raises(ValueError, match="hunter2"), trace.use_span(span):
        raise ValueError("password=hunter2")
    span.end(NOW + 1)
    (found,) = exporter.get_finished_spans()
    assert [e.name for e in found.events] == ["exception", "exception"]
    assert "hunter2" not in found.events[1].attributes["exception.message"]


def test_writing_to_an_ended_span_is_ignored(caplog):
    """As with the SDK's spans: a warning, and nothing more."""
    tracer, _ = collected()
    span = start(tracer)
    span.finish(lambda: SpanContent("n", {}, [], SpanStatus(), []), NOW + 1)
    span.set_attribute("a", 1)
    span.end()
    assert not span.is_recording()
    assert dict(span.attributes) == {}
    assert "ended" in caplog.text


def test_bytes_held_by_spans_that_nobody_exports_are_bounded(monkeypatch):
    """Beyond the bound a span is described at once; a dropped span gives its bytes back."""
    gc.collect()
    before = burr_span._held_bytes  # by spans of other tests
    monkeypatch.setattr(burr_span, "_MOST_HELD_BYTES", before + 10_000)
    tracer, _ = collected()
    derived, kept = [], []

    def describe():
        derived.append(1)
        return SpanContent("n", {}, [], SpanStatus(), [])

    for _ in range(20):
        span = start(tracer)
        span._source = span._source._replace(processor=SpanProcessor())
        span.finish(describe, NOW + 1, 2_000)
        kept.append(span)
    assert len(derived) == 15
    assert burr_span._held_bytes - before == 10_000
    kept.clear()
    del span
    gc.collect()
    assert burr_span._held_bytes == before


def test_a_span_processor_that_raises_at_the_start_costs_no_span(caplog):
    """A step begins whatever the processors of others do."""

    class Raises(SimpleSpanProcessor):
        def on_start(self, span, parent_context=None):
            raise RuntimeError("no")

    tracer, exporter = collected()
    tracer.span_processor.add_span_processor(Raises(InMemorySpanExporter()))
    span = start(tracer)
    assert isinstance(span, BurrSpan)
    span.finish(lambda: SpanContent("n", {}, [], SpanStatus(), []), NOW + 1)
    assert len(exporter.get_finished_spans()) == 1


def test_the_resource_is_made_json_once_and_not_for_each_span(spans, tmp_path, monkeypatch):
    """An encoder hashes the resource of every span; ours and the SDK's stay in one group."""
    app = apps.counter(OtelTracker("proj", tmp_path, tracer_provider=spans.provider))
    app.run(halt_after=["finish"])
    hashed = []
    hash_of = Resource.__hash__
    monkeypatch.setattr(Resource, "__hash__", lambda self: hashed.append(self) or hash_of(self))
    ours = spans.spans
    encode_spans(ours)
    assert hashed == []
    spans.provider.get_tracer("theirs").start_span("theirs").end()
    [group] = encode_spans(spans.spans).resource_spans
    assert [len(scope.spans) for scope in group.scope_spans] == [len(ours), 1]
