"""Attributes that the context around a run asks for: wanted baggage, OpenInference's own."""

from __future__ import annotations

import json
import sys
import types

import apps
import pytest
from burr.core.action import streaming_action
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.baggage.propagation import W3CBaggagePropagator

from burr_otel import OtelTracker
from burr_otel.testing import capture_spans, span_tree


@pytest.fixture
def openinference(monkeypatch):
    """What `using_attributes` does, where the library may be absent; a dict to be filled."""
    said = {}
    module = types.SimpleNamespace(get_attributes_from_context=lambda: iter(said.items()))
    monkeypatch.setitem(sys.modules, "openinference.instrumentation", module)
    return said


def traced_under(context, tmp_path, **settings):
    """The spans of a run with inner spans, in a context."""
    token = otel_context.attach(context)
    try:
        with (
            capture_spans() as spans,
            OtelTracker("proj", tmp_path, tracer_provider=spans.provider, **settings) as tracker,
        ):
            apps.single(tracker, apps.traced).step()
    finally:
        otel_context.detach(token)
    assert len(spans.spans) == 5
    return spans.spans


def test_wanted_baggage_is_on_every_span(tmp_path):
    """The root, the step and what is inside; baggage that nobody named stays out."""
    context = baggage.set_baggage("tenant", "acme", baggage.set_baggage("secret", "x"))
    for span in traced_under(context, tmp_path, baggage_keys=("tenant",)):
        assert span.attributes["tenant"] == "acme"
        assert "secret" not in span.attributes


def test_what_openinference_says_is_on_every_span(openinference, tmp_path):
    """Its session and user take the place of ours; the conversation stays the run."""
    openinference.update({"session.id": "web-1", "user.id": "u-1", "tag.tags": ["beta"]})
    for span in traced_under(otel_context.get_current(), tmp_path, user_id_from_partition_key=True):
        assert span.attributes["session.id"] == "web-1"
        assert span.attributes["user.id"] == "u-1"
        assert span.attributes["tag.tags"] == ("beta",)
        assert span.attributes["gen_ai.conversation.id"] == "a1"


def test_the_log_tells_the_same(openinference, tmp_path):
    """What a replay shows of the root and of an inner span is in their records."""
    openinference["session.id"] = "web-1"
    traced_under(otel_context.get_current(), tmp_path)
    lines = (tmp_path / "proj" / "a1" / "log.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    said = {each["type"] for each in records if "web-1" in json.dumps(each)}
    assert said == {"otel_root", "begin_entry", "end_span"}


def test_a_current_span_without_a_context_is_as_none(tmp_path):
    """MLflow leaves one where it could not begin its own; the run is traced all the same."""
    spans = traced_under(trace.set_span_in_context(trace.NonRecordingSpan(None)), tmp_path)
    assert span_tree(spans).splitlines()[0] == "invoke_workflow proj"
    assert [line.lstrip() for line in span_tree(spans).splitlines()[1:]] == [
        "step",
        "outer",
        "inner",
        "helper",
    ]


def sent_inside(tmp_path, spans, act, **settings):
    """What the propagators put into a request's headers where `act` calls `send`."""
    headers = []

    def send():
        carrier = {}
        W3CBaggagePropagator().inject(carrier)
        headers.append(carrier.get("baggage"))

    tracker = OtelTracker("my-shop", tmp_path, tracer_provider=spans.provider, **settings)
    act(tracker, send)
    send()
    tracker.close()
    return headers


def step_and_stream(tracker, send):
    """Send in a step, in a span inside it, between steps, and in a stream."""

    @apps.action(reads=["count"], writes=["count"])
    def act(state, __tracer):
        send()
        with __tracer("inner"):
            send()
        return state.update(count=1)

    @streaming_action(reads=["count"], writes=["count"])
    def stream(state):
        send()
        yield {"count": 1}, None
        send()
        yield {"count": 2}, state.update(count=2)

    apps.single(tracker, act, "ann").step()
    send()
    _, items = apps.single(tracker, stream, "ben").stream_result(halt_after=["step"])
    for _ in items:
        send()


def test_calls_inside_a_step_carry_conversation_and_agent_if_asked(tmp_path):
    """Beside what was baggage before, and nowhere else."""
    token = otel_context.attach(baggage.set_baggage("tenant", "acme"))
    try:
        with capture_spans() as spans:
            found = sent_inside(tmp_path, spans, step_and_stream, send_baggage=True)
            off = sent_inside(tmp_path / "off", spans, step_and_stream)
    finally:
        otel_context.detach(token)
    outside = "tenant=acme"
    agent = "gen_ai.agent.name=my-shop"
    ann = f"tenant=acme,gen_ai.conversation.id=ann,{agent}"
    ben = f"tenant=acme,gen_ai.conversation.id=ben,{agent}"
    assert found == [ann, ann, outside, ben, outside, ben, outside]
    assert set(off) == {outside}
