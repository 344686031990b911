"""What an action's tags and definition put on its steps."""

import json
import logging

import apps
import pytest
from burr.core import Action
from burr.core.action import StreamingAction
from burr.core.parallelism import MapStates

from burr_otel.spans import keeper
from burr_otel.spans.facts import KINDS


def tagged(*tags):
    @apps.action(reads=["count"], writes=["count"], tags=list(tags))
    def act(state):
        return state.update(count=1)

    return act


@pytest.mark.parametrize(
    ("tag", "kind", "operation", "extra"),
    [
        (None, "CHAIN", None, {}),
        ("otel.kind:llm", "LLM", "chat", {}),
        ("otel.kind:tool", "TOOL", "execute_tool", {"gen_ai.tool.name": "step"}),
        ("otel.kind:agent", "AGENT", "invoke_agent", {"gen_ai.agent.name": "proj"}),
        ("otel.kind: Retriever", "RETRIEVER", "retrieval", {}),
    ],
)
def test_a_tag_says_what_kind_of_span_a_step_is(tracker, spans, tag, kind, operation, extra):
    """`tags=["otel.kind:tool"]` gives the OpenInference kind and the GenAI operation."""
    apps.single(tracker, tagged(*([tag] if tag else []), "mine")).step()
    found = dict(spans.named("step").attributes)
    assert found["openinference.span.kind"] == kind
    assert found.get("gen_ai.operation.name") == operation
    assert {key: found.get(key) for key in extra} == extra
    keeper.keeper.finish_all()
    root = json.loads(spans.named("invoke_workflow proj").attributes["burr.graph"])
    assert "mine" in root["actions"][0]["tags"]


def test_an_unknown_kind_is_reported_with_what_is_allowed(tracker, spans, caplog):
    """A typing error in the tag is a warning, and the step is shown as a chain."""
    with caplog.at_level(logging.WARNING):
        apps.single(tracker, tagged("otel.kind:robot")).step()
    assert spans.named("step").attributes["openinference.span.kind"] == "CHAIN"
    (message,) = [r.getMessage() for r in caplog.records if r.name == "burr_otel"]
    assert "otel.kind:robot" in message
    assert all(f"otel.kind:{kind}" in message for kind in KINDS)


def test_class_based_actions_say_where_they_are_defined(tracker, spans):
    """`code.*` names the method that does the work."""

    class Add(Action):
        @property
        def reads(self):
            return ["count"]

        @property
        def writes(self):
            return ["count"]

        def run(self, state):
            return {"count": state["count"] + 1}

        def update(self, result, state):
            return state.update(**result)

    apps.single(tracker, Add()).step()
    found = spans.named("step").attributes
    assert found["code.function.name"].endswith("Add.run")
    keeper.keeper.finish_all()
    root = json.loads(spans.named("invoke_workflow proj").attributes["burr.graph"])
    assert root["actions"][0]["file"] == __file__
    assert root["actions"][0]["line"] > 0


class Streamed(StreamingAction):
    reads, writes = [], []

    def stream_run(self, state):
        yield {}

    def update(self, result, state):
        return state


class Branches(MapStates):
    reads, writes = [], ["count"]
    states = action = reduce = None


class More(Branches):
    """It inherits all that it does."""


@pytest.mark.parametrize("kind", [Streamed, Branches, More])
def test_an_action_whose_method_is_inherited_is_named_by_its_class(kind, tracker, spans):
    """Of parallel actions Burr has the code; who reads a trace looks for what the user wrote."""
    apps.single(tracker, kind())
    tracker.close()
    stored = tracker._store.read("a1").graph["otel"]["actions"]["step"]
    method = "stream_run" if kind is Streamed else "run_and_update"
    assert stored["function"] == f"{__name__}.{kind.__qualname__}.{method}"
    assert stored["file"] == __file__
