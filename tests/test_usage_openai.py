"""Token usage as the OpenAI instrumentation tells it: on steps, roots, metrics, `show` and `list`."""

import asyncio
import json

import apps
import openai
import parallel_apps
import pytest
from burr.core import action
from burr.core.action import streaming_action
from cli_support import run
from openai_stand_in import serving
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from burr_otel import OtelTracker

ASKED = [{"role": "user", "content": "Hello?"}]
NAMES = ("input_tokens", "output_tokens", "calls")
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture
def url(spans):
    """Where the model is, with the client instrumented."""
    OpenAIInstrumentor().instrument(tracer_provider=spans.provider)
    with serving() as found:
        yield found
    OpenAIInstrumentor().uninstrument()


def usage(span):
    return tuple(span.attributes.get(f"burr.usage.{name}") for name in NAMES)


def root(spans):
    return spans.named("invoke_workflow proj")


def ask(url, model="gpt-4o-mini", **more):
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        found = client.chat.completions.create(model=model, messages=ASKED, **more)
        return list(found) if more.get("stream") else found


def test_calls_are_added_up_on_step_and_root(tracker, spans, url):
    """Two in one step, one in the next; ours never carry `gen_ai.usage.*`, which counts twice."""

    @action(reads=["count"], writes=["count"])
    def act(state):
        for _ in range(2 - state["count"]):
            ask(url)
        return state.update(count=state["count"] + 1)

    app = apps.single(tracker, act)
    app.step()
    app.step()
    tracker.close()
    steps = [span for span in spans.spans if span.name == "step"]
    assert [usage(span) for span in steps] == [(18, 24, 2), (9, 12, 1)]
    assert usage(root(spans)) == (27, 36, 3)
    for span in (*steps, root(spans)):
        assert not any(key.startswith("gen_ai.usage") for key in span.attributes)


def test_a_streamed_call_counts_when_its_last_chunk_has_come(tracker, spans, url):
    """In an action that reads it whole, and in one that passes it on."""

    @action(reads=["count"], writes=["count"])
    def whole(state):
        ask(url, **STREAMED)
        return state.update(count=1)

    @streaming_action(reads=["count"], writes=["text"])
    def passed_on(state):
        text = ""
        with openai.OpenAI(base_url=url, api_key="none") as client:
            chunks = client.chat.completions.create(model="m", messages=ASKED, **STREAMED)
            for chunk in chunks:
                for choice in chunk.choices:
                    text += choice.delta.content or ""
                    yield {"text": choice.delta.content}, None
        yield {"text": text}, state.update(text=text)

    apps.single(tracker, whole, "a1").step()
    _, items = apps.single(tracker, passed_on, "a2").stream_result(halt_after=["step"])
    assert items.get()[0]["text"] == "Hello there."
    steps = [span for span in spans.spans if span.name == "step"]
    assert [usage(span) for span in steps] == [(9, 12, 1)] * 2


async def test_asynchronous_calls_and_streams(tracker, spans, url):
    """Several at once, and an asynchronous stream."""

    @action(reads=["count"], writes=["count"])
    async def act(state):
        async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
            create = client.chat.completions.create
            await asyncio.gather(*(create(model="m", messages=ASKED) for _ in range(3)))
        return state.update(count=1)

    @streaming_action(reads=["count"], writes=["text"])
    async def passed_on(state):
        text = ""
        async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
            create = client.chat.completions.create
            async for chunk in await create(model="m", messages=ASKED, **STREAMED):
                for choice in chunk.choices:
                    text += choice.delta.content or ""
                    yield {"text": choice.delta.content}, None
        yield {"text": text}, state.update(text=text)

    await apps.single(tracker, act, "a1").astep()
    _, items = await apps.single(tracker, passed_on, "a2").astream_result(halt_after=["step"])
    assert (await items.get())[0]["text"] == "Hello there."
    steps = [span for span in spans.spans if span.name == "step"]
    assert [usage(span) for span in steps] == [(27, 36, 3), (9, 12, 1)]


def test_a_failed_call_and_a_stream_without_usage_count_nothing(tracker, spans, url):
    """What is not told is not guessed."""

    @action(reads=["count"], writes=["count"])
    def act(state):
        with pytest.raises(openai.InternalServerError):
            ask(url, "broken")
        ask(url, stream=True)
        return state.update(count=1)

    apps.single(tracker, act).step()
    tracker.close()
    assert usage(spans.named("step")) == usage(root(spans)) == (None, None, None)


def test_branches_have_their_own(tracker, spans, url):
    """A branch's usage is on its own application and step, and not again on the spawning one."""

    @action(reads=["n"], writes=["n"])
    def branch(state):
        ask(url)
        return state

    class Branches(parallel_apps.Doubles):
        def action(self, state, inputs):
            return branch

    parallel_apps.parallel(tracker, Branches()).run(halt_after=["map"])
    tracker.close()
    found = [usage(span) for span in spans.spans if span.name in ("branch", "map")]
    assert sorted(map(str, found)) == ["(9, 12, 1)", "(9, 12, 1)", "(None, None, None)"]


def test_metric_show_and_list(spans, clock, tmp_path, url):
    """The same numbers everywhere."""
    reader = InMemoryMetricReader()

    @action(reads=["count"], writes=["count"])
    def act(state):
        ask(url)
        return state.update(count=1)

    with OtelTracker(
        "proj",
        tmp_path,
        tracer_provider=spans.provider,
        meter_provider=MeterProvider([reader]),
        clock=clock,
    ) as tracker:
        apps.single(tracker, act).step()
    points = {
        point.attributes["gen_ai.token.type"]: point.value
        for of_resource in reader.get_metrics_data().resource_metrics
        for of_scope in of_resource.scope_metrics
        for metric in of_scope.metrics
        if metric.name == "burr.usage.tokens"
        for point in metric.data.data_points
    }
    assert points == {"input": 9, "output": 12}
    assert "9 tokens in, 12 out" in run("show", "a1", "--storage-dir", tmp_path).stdout
    (listed,) = json.loads(run("list", "--json", "--storage-dir", tmp_path).stdout)
    assert listed["usage"] == {"input_tokens": 9, "output_tokens": 12, "calls": 1}
    assert "9 / 12" in run("list", "--storage-dir", tmp_path).stdout
