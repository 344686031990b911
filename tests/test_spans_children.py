"""Spans of others inside a step, recorded for the Burr UI."""

import json
import threading

import apps
import pytest
from burr.tracking.server.schema import Step

from burr_otel import OtelTracker


@pytest.fixture
def recording(spans, clock, tmp_path):
    return OtelTracker(
        "proj", tmp_path, tracer_provider=spans.provider, clock=clock, record_child_spans=True
    )


def ui_spans(tmp_path):
    """The spans of the first step as Burr's UI backend reads them: depth, name, ended."""
    lines = (tmp_path / "proj" / "a1" / "log.jsonl").read_bytes().splitlines()
    (step,) = Step.from_logs(lines)
    return [
        (s.begin_entry.span_id.count("."), s.begin_entry.span_name, s.end_entry is not None)
        for s in step.spans
    ], step.attributes


def test_spans_of_others_become_burr_span_records(recording, spans, tmp_path):
    """An HTTP span with an LLM span inside, below the step and below an inner span."""
    http = spans.provider.get_tracer("http")

    @apps.action(reads=["count"], writes=["count"])
    def call(state, __tracer):
        with http.start_as_current_span("POST /llm") as span:
            span.set_attribute("http.status_code", 200)
            with http.start_as_current_span("chat gpt"):
                pass
        with __tracer("prepare"), http.start_as_current_span("GET /doc"):
            pass
        return state.update(count=1)

    apps.single(recording, call).step()
    found, attributes = ui_spans(tmp_path)
    assert found == [
        (0, "POST /llm", True),
        (1, "chat gpt", True),
        (0, "prepare", True),
        (1, "GET /doc", True),
    ]
    assert ("http.status_code", 200) in [(a.key, a.value) for a in attributes]


def test_a_span_that_outlives_its_step_is_recorded_to_its_end(recording, spans, tmp_path):
    """What has begun inside the step is not lost when it ends later, in another thread."""
    http = spans.provider.get_tracer("http")
    left = []

    @apps.action(reads=["count"], writes=["count"])
    def call(state):
        left.append(http.start_span("background"))
        return state.update(count=1)

    apps.single(recording, call).step()
    thread = threading.Thread(target=left[0].end)
    thread.start()
    thread.join()
    assert ui_spans(tmp_path)[0] == [(0, "background", True)]


def test_spans_outside_steps_are_not_recorded(recording, spans, tmp_path):
    """Neither spans around the run, nor those of other applications of the provider."""
    http = spans.provider.get_tracer("http")
    app = apps.single(recording, apps.count)
    with http.start_as_current_span("request"):
        app.step()
        with http.start_as_current_span("after"):
            pass
    assert ui_spans(tmp_path)[0] == []


def test_off_by_default(tracker, spans, tmp_path):
    """Without the setting the log holds Burr's own records only."""

    @apps.action(reads=["count"], writes=["count"])
    def call(state):
        with spans.provider.get_tracer("http").start_as_current_span("GET /"):
            return state.update(count=1)

    apps.single(tracker, call).step()
    kinds = [
        json.loads(line)["type"]
        for line in (tmp_path / "proj" / "a1" / "log.jsonl").read_text().splitlines()
    ]
    assert kinds == ["otel_root", "begin_entry", "end_entry"]
