"""examples/fastapi_service: one request, one trace through both services and all steps."""

import asyncio
import contextlib
import gc
import json
import logging
import sys
from pathlib import Path

import httpx
import pytest
from opentelemetry import trace

from burr_otel import OtelTracker
from burr_otel.spans import keeper
from burr_otel.testing import span_tree

EXAMPLE = Path(__file__).parents[1] / "examples" / "fastapi_service"


@pytest.fixture
def chat_module(monkeypatch):
    """The example's modules, importable as its README has it."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import chat
    import facts
    import service

    yield chat
    for module in (chat, facts, service):
        del sys.modules[module.__name__]


@pytest.fixture
def ask(chat_module, spans, tmp_path):
    """Sends a request to the chat service, which talks to the facts service in this process."""
    import facts

    def client(app):
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")

    def start(**settings):
        tracker = OtelTracker("chat", tmp_path, tracer_provider=spans.provider, **settings)
        app = chat_module.create_app(
            tracker, client(facts.create_app(spans.provider)), spans.provider
        )

        async def send(path, message):
            async with client(app) as http:
                return await http.post(path, json={"message": message})

        return tracker, send

    return start


def trees(spans):
    """Each trace as text, by start."""
    by_trace = {}
    for span in spans.spans:
        by_trace.setdefault(span.context.trace_id, []).append(span)
    return [span_tree(each) for each in by_trace.values()]


REQUEST = """\
POST /chat/{conversation}
  invoke_workflow chat
    look_up
      GET
        GET /facts/{topic}
    answer *first_item *end"""


async def test_a_request_is_one_trace_through_both_services(ask, spans):
    """Server, application, steps, client and the other server, in one tree."""
    tracker, send = ask()
    answer = await send("/chat/ann", "What of Jaeger?")
    tracker.close()
    assert answer.text == "Jaeger is the German word for hunter. "
    assert REQUEST in trees(spans)


async def test_the_requests_of_a_conversation_are_linked(ask, spans):
    """The second request is a trace of its own, whose application links to the first one's."""
    tracker, send = ask()
    await send("/chat/ann", "Burr")
    await send("/chat/ann", "otel")
    await send("/chat/bob", "otel")
    tracker.close()
    applications = [span for span in spans.spans if span.name == "invoke_workflow chat"]
    _classifier, first, second, other = applications
    assert len({root.context.trace_id for root in (first, second, other)}) == 3
    last_step = next(span for span in spans.spans if span.name == "answer")
    linked = [link.context.span_id for link in second.links]
    assert linked == [first.context.span_id, last_step.context.span_id]
    assert {link.attributes["burr.link.type"] for link in second.links} == {"resume"}
    assert (first.links, other.links) == ((), ())
    assert len(tracker.load(None, "ann")["state"]["history"]) == 2


async def test_an_application_built_at_start_up_links_with_each_request(ask, spans):
    """By default its steps stay in its own trace, linked to the requests and back."""
    tracker, send = ask()
    assert (await send("/classify", "Why?")).json() == {"kind": "question"}
    assert (await send("/classify", "So.")).json() == {"kind": "remark"}
    tracker.close()
    assert trees(spans) == [  # each drawn by itself
        "\n".join(["invoke_workflow chat", *["  classify ambient→elsewhere"] * 2]),
        *["POST /classify step→elsewhere"] * 2,
    ]
    steps = [span for span in spans.spans if span.name == "classify"]
    requests = [span for span in spans.spans if span.name == "POST /classify"]
    assert [step.links[0].context for step in steps] == [each.context for each in requests]
    assert [each.links[0].context for each in requests] == [step.context for step in steps]


async def test_or_its_steps_are_in_the_trace_of_each_request(ask, spans):
    """`step_parent="ambient"`: the request is the parent, and the step links to its application."""
    tracker, send = ask(step_parent="ambient")
    await send("/classify", "Why?")
    await send("/classify", "So.")
    tracker.close()
    assert trees(spans) == [
        "invoke_workflow chat",
        *["POST /classify\n  classify application→elsewhere"] * 2,
    ]


async def test_a_conversation_with_ambient_steps(ask, spans):
    """Built in the request, its application and its steps are both of the request's trace."""
    tracker, send = ask(step_parent="ambient")
    await send("/chat/ann", "What of Jaeger?")
    tracker.close()
    (tree,) = (each for each in trees(spans) if each.startswith("POST /chat"))
    assert tree == (
        "POST /chat/{conversation}\n"
        "  invoke_workflow chat\n"
        "  look_up application→invoke_workflow chat\n"
        "    GET\n"
        "      GET /facts/{topic}\n"
        "  answer *first_item *end application→invoke_workflow chat"
    )


async def test_log_lines_name_the_step_that_wrote_them(ask, spans, caplog):
    """The filter of the example writes the ids that are current inside the action."""
    import service

    caplog.handler.addFilter(service.SpanOfLogLine())
    caplog.set_level(logging.INFO)
    tracker, send = ask()
    await send("/chat/ann", "What of Jaeger?")
    tracker.close()
    lines = {record.getMessage(): record.span_id for record in caplog.records}
    by_id = {f"{span.context.span_id:016x}": span.name for span in spans.spans}
    assert by_id[lines["looking up jaeger"]] == "look_up"
    assert by_id[lines["answering with 7 words"]] == "answer"
    assert by_id[lines["asked for jaeger"]] == "GET /facts/{topic}"
    assert len({record.trace_id for record in caplog.records if record.name != "httpx"}) == 1


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
async def test_a_client_that_hangs_up_ends_the_stream(
    chat_module, spans, tmp_path, caplog, spec_version
):
    """The step ends, without error, with the words sent so far; nothing stays current or open."""
    import facts

    local = httpx.AsyncClient(
        transport=httpx.ASGITransport(facts.create_app(spans.provider)), base_url="http://test"
    )
    tracker = OtelTracker("chat", tmp_path, tracer_provider=spans.provider)
    app = chat_module.create_app(tracker, local, spans.provider)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": spec_version},
        "method": "POST",
        "path": "/chat/ann",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    gone = asyncio.Event()
    body = [json.dumps({"message": "Jaeger"}).encode()]

    async def receive():
        if body:
            return {"type": "http.request", "body": body.pop()}
        await gone.wait()
        return {"type": "http.disconnect"}

    sent = []

    async def send(message):
        sent.append(message.get("body"))
        if len(sent) == 3:  # the head and two words
            gone.set()
            if spec_version == "2.4":
                raise OSError
            await asyncio.Event().wait()

    with contextlib.suppress(Exception):  # the server's business
        await app(scope, receive, send)
    del app
    gc.collect()
    for _ in range(10):  # the loop closes the generators that it finds dropped
        await asyncio.sleep(0)
    keeper.keeper.sweep()
    tracker.close()
    answer = spans.named("answer")
    assert answer.attributes["burr.outcome"] in ("cancelled", "abandoned")
    assert answer.attributes["burr.stream.items"] == 2
    assert answer.status.is_unset
    assert not any(span.end_time is None for span in spans.spans)
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert "detach" not in caplog.text
