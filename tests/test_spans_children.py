"""Spans of others inside a step: stamped, counted, and recorded for the Burr UI on request."""

import asyncio
import contextlib
import contextvars
import gc
import json
import threading
from types import SimpleNamespace

import apps
import pytest
from burr.tracking.server.schema import Step
from opentelemetry import trace

from burr_otel import OtelConfig, OtelTracker
from burr_otel.content import ContentPolicy
from burr_otel.spans import shield
from burr_otel.spans.inside import child_spans
from burr_otel.view.content import ShownContent
from burr_otel.view.steps import read_step


@pytest.fixture
def recording(spans, clock, tmp_path):
    return OtelTracker(
        "proj", tmp_path, tracer_provider=spans.provider, clock=clock, child_spans="record"
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


def test_what_a_recorded_span_says_is_shown(recording, spans, tmp_path):
    """Its attributes, and its exception or what its status says, with secrets hidden."""
    http = spans.provider.get_tracer("http")

    @apps.action(reads=["count"], writes=["count"])
    def call(state):
        with contextlib.suppress(ConnectionError), http.start_as_current_span("chat"):
            raise ConnectionError("429 for api_key=sesame123")
        with http.start_as_current_span("GET ?api_key=sesame123") as span:
            span.set_attributes({"error.type": "503", "password": "sesame123", "retries": 2})
            span.set_status(trace.Status(trace.StatusCode.ERROR, "busy"))
        return state.update(count=1)

    with recording as tracker:
        apps.single(tracker, call).step()
    drawn = str(tracker.run("a1"))
    assert "ConnectionError: 429 for api_key=[redacted]" in drawn
    assert "503: busy" in drawn
    step = read_step(ShownContent(tracker._store.read("a1"), ContentPolicy(), details=True), 0)
    found = [child for child, _ in step.span.walk()][-1].attributes
    assert (found["password"], found["retries"]) == ("[redacted]", 2)
    assert "sesame123" not in drawn


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


def test_deep_nesting_writes_a_log_that_grows_with_the_spans(recording, spans, tmp_path):
    """Not with their square: beyond some depth, spans stand beside their parents in the UI."""
    http = spans.provider.get_tracer("http")

    @apps.action(reads=["count"], writes=["count"])
    def call(state, depth):
        with contextlib.ExitStack() as stack:
            for number in range(depth):
                stack.enter_context(http.start_as_current_span(f"s{number}"))
        return state.update(count=1)

    def log_bytes(depth, app_id):
        apps.single(recording, call.bind(depth=depth), app_id).step()
        return (tmp_path / "proj" / app_id / "log.jsonl").stat().st_size

    sizes = [log_bytes(depth, f"a{depth}") for depth in (100, 200, 400)]
    assert sizes[2] - sizes[1] < 2.2 * (sizes[1] - sizes[0])
    lines = (tmp_path / "proj" / "a400" / "log.jsonl").read_bytes().splitlines()
    (step,) = Step.from_logs(lines)
    parents = {s.begin_entry.span_id: s.begin_entry.parent_span_id for s in step.spans}
    assert len(parents) == 400
    assert len(set(parents.values())) == 400  # each its own, also where the depth ends


def test_spans_that_never_end_are_not_kept(recording, spans):
    """What an instrumentation forgets is garbage like any other object."""
    http = spans.provider.get_tracer("http")

    @apps.action(reads=["count"], writes=["count"])
    def call(state):
        for _ in range(100):
            http.start_span("forgotten")
        return state.update(count=1)

    apps.single(recording, call).step()
    gc.collect()
    assert len(child_spans(spans.provider)._places) == 0


def test_what_begins_below_a_background_span_after_the_step_is_not_recorded(
    recording, spans, tmp_path
):
    """Else a background loop would grow the log of a run that is over; it is stamped all the same."""
    http = spans.provider.get_tracer("http")
    left = []

    @apps.action(reads=["count"], writes=["count"])
    def call(state):
        left.append(http.start_span("background"))
        return state.update(count=1)

    apps.single(recording, call).step()
    for _ in range(3):
        http.start_span("later", trace.set_span_in_context(left[0])).end()
    left[0].end()
    assert ui_spans(tmp_path)[0] == [(0, "background", True)]
    later = [span for span in spans.spans if span.name == "later"]
    assert [span.attributes["gen_ai.conversation.id"] for span in later] == ["a1"] * 3


# --- stamp ----------------------------------------------------------------------------------------

STAMP = {"gen_ai.conversation.id": "a1", "gen_ai.agent.name": "proj"}


def stamps(span):
    return {key: span.attributes[key] for key in STAMP if key in span.attributes}


def test_spans_of_others_carry_conversation_and_agent(tracker, spans):
    """Directly inside, below one another, below an inner span, on threads that copied the context."""
    http = spans.provider.get_tracer("http")

    def work(name):
        with http.start_as_current_span(name):
            pass

    @apps.action(reads=["count"], writes=["count"])
    def call(state, __tracer):
        with http.start_as_current_span("outer"), http.start_as_current_span("nested"):
            pass
        with __tracer("inner"):
            work("below inner")
        thread = threading.Thread(target=contextvars.copy_context().run, args=(work, "in a thread"))
        thread.start()
        thread.join()
        return state.update(count=1)

    with http.start_as_current_span("request"):
        apps.single(tracker, call).step()
        work("after")
    found = {span.name: stamps(span) for span in spans.spans if span.name != "step"}
    inside = {"outer", "nested", "below inner", "in a thread"}
    assert {name for name, stamp in found.items() if stamp == STAMP} >= inside
    assert found["request"] == found["after"] == {}


async def test_tasks_inside_a_step(tracker, spans):
    """`asyncio.gather` copies the context."""
    http = spans.provider.get_tracer("http")

    async def ask(name):
        with http.start_as_current_span(name):
            await asyncio.sleep(0)

    @apps.action(reads=["count"], writes=["count"])
    async def call(state):
        await asyncio.gather(*(ask(f"q{number}") for number in range(3)))
        return state.update(count=1)

    await apps.single(tracker, call).astep()
    assert [stamps(spans.named(f"q{number}")) for number in range(3)] == [STAMP] * 3


def test_what_an_instrumentation_says_itself_stands(tracker, spans):
    """An agent framework knows its own conversation and agent better."""
    llm = spans.provider.get_tracer("llm")

    @apps.action(reads=["count"], writes=["count"])
    def call(state):
        with llm.start_as_current_span("agent", attributes={"gen_ai.agent.name": "theirs"}):
            pass
        return state.update(count=1)

    apps.single(tracker, call).step()
    assert stamps(spans.named("agent")) == {**STAMP, "gen_ai.agent.name": "theirs"}


def test_the_processor_is_added_once_and_not_when_off(spans, tmp_path):
    """However many trackers share the provider; `off` leaves the provider as it is."""
    held = spans.provider._active_span_processor
    for _ in range(3):
        off = OtelTracker("proj", tmp_path, tracer_provider=spans.provider, child_spans="off")
        apps.single(off, apps.count).step()
    assert len(held._span_processors) == 1
    for number in range(3):
        each = OtelTracker("proj", tmp_path, tracer_provider=spans.provider)
        apps.single(each, apps.count, f"a{number}").step()
    assert len(held._span_processors) == 2


def test_the_earlier_name_of_the_setting(monkeypatch):
    """`record_child_spans=True` and its variable still record."""
    assert OtelConfig().child_spans == "stamp"
    assert OtelConfig.resolve(settings={"record_child_spans": True}).child_spans == "record"
    monkeypatch.setenv("BURR_OTEL_RECORD_CHILD_SPANS", "1")
    assert OtelConfig.resolve().child_spans == "record"


# --- usage ----------------------------------------------------------------------------------------


class Counting:
    """A step that adds up what it is told."""

    run = SimpleNamespace(identity={"gen_ai.conversation.id": "a1", "gen_ai.agent.name": "proj"})
    sequence_id, child_records = 0, None

    def __init__(self):
        self.told = []

    def add_usage(self, input_tokens, output_tokens):
        self.told.append((input_tokens, output_tokens))


class BurrSpan(trace.NonRecordingSpan):
    """A Burr span as `ChildSpans` sees it."""

    def __init__(self):
        super().__init__(trace.SpanContext(1, 2, False, trace.TraceFlags(1)))
        self.burr_step = Counting()


@pytest.fixture
def inside(spans):
    """A tracer, and the step that is current."""
    child_spans(spans.provider)
    span = BurrSpan()
    with trace.use_span(span):
        yield spans.provider.get_tracer("llm"), span.burr_step


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"gen_ai.usage.input_tokens": 7, "gen_ai.usage.output_tokens": 3}, [(7, 3)]),
        ({"gen_ai.usage.prompt_tokens": 7, "gen_ai.usage.completion_tokens": 3}, [(7, 3)]),
        ({"llm.token_count.prompt": 7, "llm.token_count.completion": 3}, [(7, 3)]),
        ({"gen_ai.usage.input_tokens": 7}, [(7, 0)]),  # an embedding
        ({"gen_ai.usage.input_tokens": "7", "gen_ai.usage.output_tokens": -1}, []),
        ({"gen_ai.usage.input_tokens": True, "gen_ai.usage.prompt_tokens": 7}, [(7, 0)]),
        ({"http.status_code": 200}, []),
    ],
)
def test_token_usage_of_calls_is_told_to_the_step(inside, said, told):
    """By the current names, the earlier ones and OpenInference's; nonsense counts as nothing."""
    tracer, step = inside
    with tracer.start_as_current_span("chat") as span:
        span.set_attributes(said)
    assert step.told == told


def test_what_an_outer_span_only_sums_up_is_not_counted_twice(inside):
    """An agent span has the sum of its calls, and two instrumentations may see one call."""
    tracer, step = inside

    def call(name, tokens):
        return tracer.start_as_current_span(name, attributes={"gen_ai.usage.input_tokens": tokens})

    with call("agent", 30), tracer.start_as_current_span("tool"):
        with call("framework's chat", 10), call("client's chat", 10):
            pass
        with call("chat", 20):
            pass
    with call("another", 5):
        pass
    assert step.told == [(10, 0), (20, 0), (5, 0)]


def test_a_step_that_raises_is_ours_to_report(inside, monkeypatch):
    """The action's own span ends as if nobody looked."""
    tracer, step = inside
    reported = []
    monkeypatch.setattr(shield, "report", lambda where, error: reported.append(error))
    monkeypatch.setattr(step, "add_usage", lambda *_: 1 / 0)
    monkeypatch.delattr(Counting, "run")
    with tracer.start_as_current_span("chat", attributes={"gen_ai.usage.input_tokens": 1}) as span:
        pass
    assert not span.is_recording()
    assert [type(error) for error in reported] == [AttributeError, ZeroDivisionError]
