"""The messages of an LLM step, as Jaeger's view of model calls shows them."""

import json

import apps
import pytest
from burr.core import State, action
from burr.core.action import streaming_action
from replay_support import assert_same, ours, stored_spans

from burr_otel import OtelTracker
from burr_otel.content import ContentPolicy, shown_messages
from burr_otel.spans import keeper

ASKED, GIVEN = "gen_ai.input.messages", "gen_ai.output.messages"
LLM = ["otel.kind:llm"]


def text(role, content):
    return {"role": role, "parts": [{"type": "text", "content": content}]}


def told(span, name):
    found = span.attributes.get(name)
    return None if found is None else json.loads(found)


@action(reads=["history"], writes=["history"], tags=LLM)
def respond(state: State) -> State:
    return state.append(history={"role": "assistant", "content": "Hello, Ann."})


HISTORY = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "I am Ann."},
]


def test_a_history_in_the_state_gives_what_was_asked_and_what_was_added(tracker, spans):
    """The most common shape: messages are read, and one is appended."""
    app = apps.single(tracker, respond, state={"history": HISTORY})
    app.step()
    app.step()
    tracker.close()
    first, second = (span for span in spans.spans if span.name == "step")
    asked = [text("system", "Be brief."), text("user", "I am Ann.")]
    given = {**text("assistant", "Hello, Ann."), "finish_reason": "stop"}
    assert told(first, ASKED) == asked
    assert told(first, GIVEN) == told(second, GIVEN) == [given]
    assert told(second, ASKED) == [*asked, text("assistant", "Hello, Ann.")]
    assert "burr.truncated" not in first.attributes


def test_a_prompt_and_an_answer_are_messages(tracker, spans):
    """Texts under the names that people give them."""

    @action(reads=[], writes=["answer"], tags=LLM)
    def ask(state: State, prompt: str, temperature: str) -> tuple[dict, State]:
        return {"answer": "42"}, state.update(answer="42")

    app = apps.single(tracker, ask, state={})
    app.step(inputs={"temperature": "hot", "prompt": "What is it?"})
    span = spans.named("step")
    assert told(span, ASKED) == [text("user", "What is it?")]
    assert told(span, GIVEN) == [{**text("assistant", "42"), "finish_reason": "stop"}]


def test_a_stream_gives_its_whole_answer(tracker, spans):
    """As its last item and its state say it."""

    @streaming_action(reads=["question"], writes=["answer"], tags=LLM)
    def stream(state: State):
        yield {"answer": "for"}, None
        yield {"answer": "forty-two"}, state.update(answer="forty-two")

    app = apps.single(tracker, stream, state={"question": "What?"})
    _, container = app.stream_result(halt_after=["step"])
    container.get()
    span = spans.named("step")
    assert told(span, ASKED) == [text("user", "What?")]
    assert told(span, GIVEN)[0]["parts"][0]["content"] == "forty-two"


def test_only_a_step_that_says_so_is_a_models_call(tracker, spans):
    """A plain loop over a history is none, and neither is an LLM step without messages."""
    plain = action(reads=["history"], writes=["history"])(lambda state: state)
    apps.single(tracker, plain, state={"history": HISTORY}).step()
    numbers = action(reads=["history"], writes=["history"], tags=LLM)(lambda state: state)
    apps.single(tracker, numbers, "a2", state={"history": [1, 2]}).step()
    for span in spans.spans:
        assert {ASKED, GIVEN}.isdisjoint(span.attributes)


def test_a_step_that_fails_says_what_it_asked(tracker, spans):
    """And that nothing came."""

    @action(reads=["history"], writes=["history"], tags=LLM)
    def fails(state: State) -> State:
        raise ValueError("no model")

    app = apps.single(tracker, fails, state={"history": HISTORY})
    with pytest.raises(ValueError, match="no model"):
        app.step()
    assert len(told(spans.named("step"), ASKED)) == 2
    assert GIVEN not in spans.named("step").attributes


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({"capture_state": "off"}, None),
        ({"capture_state": "types"}, None),
        ({"redact_keys": ("history",)}, None),
        (
            {"redact_values": ("Ann",)},
            [text("system", "Be brief."), text("user", "I am [redacted].")],
        ),
        (
            {"redactor": lambda path, value: "x" if path.endswith("content") else value},
            [text("system", "x"), text("user", "x")],
        ),
    ],
)
def test_what_hides_the_state_hides_the_messages(spans, clock, tmp_path, settings, asked):
    """Whatever the setting is; what is replayed is the same."""
    made = {"tracer_provider": spans.provider, "clock": clock, **settings}
    with OtelTracker("proj", tmp_path, **made) as tracker:
        apps.single(tracker, respond, state={"history": HISTORY}).step()
    keeper.keeper.finish_all()
    assert told(spans.named("step"), ASKED) == asked
    assert "I am Ann" not in str(dict(spans.named("step").attributes))
    assert_same(ours(spans.spans), stored_spans(tmp_path))


def test_a_long_history_shows_its_newest_messages(tracker, spans):
    """Its earlier ones are on earlier steps, and a chat must not send the square of itself."""
    history = [{"role": "user", "content": f"{n} " + "x" * 500} for n in range(100)]
    apps.single(tracker, respond, state={"history": history}).step()
    span = spans.named("step")
    asked = told(span, ASKED)
    assert asked[-1]["parts"][0]["content"].startswith("99 ")
    assert len(span.attributes[ASKED]) < 6_000
    assert ASKED in span.attributes["burr.truncated"]


def test_a_huge_message_is_cut_to_valid_json(spans, clock, tmp_path):
    """And no longer than any other attribute."""
    made = {"tracer_provider": spans.provider, "clock": clock, "max_attribute_bytes": 1000}
    tracker = OtelTracker("proj", tmp_path, **made)
    history = [{"role": "user", "content": "x" * 1_000_000}]
    apps.single(tracker, respond, state={"history": history}).step()
    span = spans.named("step")
    assert told(span, ASKED)[0]["parts"][0]["content"].startswith("xxx")
    assert len(span.attributes[ASKED]) <= 1000


CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q":1}'}}
FORMS = {
    "OpenAI asks for a tool": (
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        [{"type": "tool_call", "id": "c1", "name": "find", "arguments": '{"q":1}'}],
    ),
    "OpenAI is told what the tool gave": (
        {"role": "tool", "tool_call_id": "c1", "content": "found"},
        [{"type": "tool_call_response", "id": "c1", "response": "found"}],
    ),
    "blocks of text and pictures": (
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "see"},
                {"type": "image_url", "image_url": {"url": "u"}},
            ],
        },
        [
            {"type": "text", "content": "see"},
            {"type": "image_url", "image_url": {"url": "u"}},
        ],
    ),
    "Anthropic asks for a tool": (
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t", "name": "find", "input": {"q": 1}}],
        },
        [{"type": "tool_call", "id": "t", "name": "find", "arguments": {"q": 1}}],
    ),
    "Anthropic is told what the tool gave": (
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t", "content": "found"}],
        },
        [{"type": "tool_call_response", "id": "t", "response": "found"}],
    ),
    "Google's parts": (
        {"role": "model", "parts": [{"text": "hello"}]},
        [{"type": "text", "content": "hello"}],
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_messages_of_the_usual_clients(name):
    """Each is put into the form of the conventions."""
    message, parts = FORMS[name]
    found = shown_messages(ContentPolicy(), "user", ("state", {"history": [message]}))
    assert json.loads(found.value) == [{"role": message["role"], "parts": parts}]


@pytest.mark.parametrize(
    "value",
    [
        [{"role": "user", "content": object()}],
        [{"role": "user", "tool_calls": [None]}],
        [{"role": object(), "content": 1}],
        [{"role": "user", "content": [[], 1, None]}],
        {"role": "user"},
        [[]],
    ],
)
def test_odd_messages_harm_nothing(value):
    """They are shown as well as can be, or not at all."""
    found = shown_messages(ContentPolicy(), "user", ("state", {"history": value}))
    assert found is None or isinstance(json.loads(found.value), list)
