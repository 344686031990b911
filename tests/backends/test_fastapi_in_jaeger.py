"""examples/fastapi_service as two real processes, with real requests, read back from Jaeger."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import sys
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from jaeger_api import Jaeger
from opentelemetry.trace import SpanKind
from processes import Server, free_ports, running

from burr_otel.testing import span_tree

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "fastapi_service"


class Services:
    """The chat and the facts service, each a process of its own."""

    def __init__(self, jaeger: Jaeger, folder: pathlib.Path, **chat: str) -> None:
        self.ports = dict(zip(("chat", "facts"), free_ports(2), strict=True))
        shared = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{jaeger.grpc_endpoint}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "BURR_OTEL_ROOT_LINGER": "0.2",
        }
        facts_url = f"http://127.0.0.1:{self.ports['facts']}"
        self.facts = self._server("facts", folder, shared)
        self.chat = self._server(
            "chat",
            folder,
            {
                **shared,
                "FACTS_URL": facts_url,
                "BURR_OTEL_STORAGE_DIR": str(folder / "runs"),
                **chat,
            },
        )

    def _server(self, name: str, folder: pathlib.Path, env: dict[str, str]) -> Server:
        port = str(self.ports[name])
        command = [sys.executable, "-m", "uvicorn", "--factory", f"{name}:main"]
        return Server(
            name,
            [*command, "--app-dir", EXAMPLE, "--host", "127.0.0.1", "--port", port],
            health_url=f"http://127.0.0.1:{port}/openapi.json",
            folder=folder,
            env=env,
        )

    def post(self, path: str, message: str) -> str:
        """Send a message and read the whole answer."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports['chat']}{path}",
            json.dumps({"message": message}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.read().decode()

    @staticmethod
    def ids(server: Server, text: str) -> list[tuple[str, str]]:
        """Trace id and span id of each log line that ends so."""
        pattern = rf"trace_id=([0-9a-f]+) span_id=([0-9a-f]+) {re.escape(text)}$"
        return re.findall(pattern, server.log(), re.MULTILINE)


@pytest.fixture
def services(jaeger: Jaeger, tmp_path: pathlib.Path) -> Iterator[Callable[..., Services]]:
    """Starts both services; they are asked to end, as a service manager does, at the end."""
    with contextlib.ExitStack() as stack:

        def start(**chat: str) -> Services:
            found = Services(jaeger, tmp_path, **chat)
            stack.enter_context(running(found.facts))
            stack.enter_context(running(found.chat))
            return found

        yield start


REQUEST = """
POST /chat/{conversation}
  invoke_workflow chat
    look_up
      GET
        GET /facts/{topic}
    answer *first_item *end
"""


def test_a_request_is_one_trace_through_both_services(
    services: Callable[..., Services], jaeger: Jaeger
) -> None:
    """Two requests of a conversation: each one whole trace, linked, found by a log line's ids."""
    running_services = services()
    assert running_services.post("/chat/ann", "What of Jaeger?").endswith("hunter. ")
    assert running_services.post("/chat/ann", "And Burr?").startswith("A burr")
    [(first_id, look_up_id)] = running_services.ids(running_services.chat, "looking up jaeger")
    [(second_id, _)] = running_services.ids(running_services.chat, "looking up burr")

    first, second = jaeger.trace(first_id, spans=6), jaeger.trace(second_id, spans=6)

    for read in (first, second):
        assert read.warnings == {}
        [root] = read.roots
        assert root.kind is SpanKind.SERVER
        names = {span.name: span.resource.attributes["service.name"] for span in read.spans}
        assert names.pop("GET /facts/{topic}") == "facts"
        assert set(names.values()) == {"chat"}
    assert f"\n{span_tree(first.spans)}\n" == REQUEST
    tree = re.sub(" resume→elsewhere", "", span_tree(second.spans))
    assert f"\n{tree}\n" == REQUEST
    # The conversation: the second request's application links to the first one's.
    [application] = second.named("invoke_workflow chat")
    linked = {link.context.span_id for link in application.links}
    assert linked == {
        first.named("invoke_workflow chat")[0].context.span_id,
        first.named("answer")[0].context.span_id,
    }
    # Log lines: in the action of one service and in the other service.
    [look_up] = first.named("look_up")
    assert look_up_id == f"{look_up.context.span_id:016x}"
    [fact] = first.named("GET /facts/{topic}")
    [ids] = running_services.ids(running_services.facts, "asked for jaeger")
    assert ids == (first_id, f"{fact.context.span_id:016x}")


@pytest.mark.parametrize(
    ("step_parent", "tree"),
    [
        ("application", "\nPOST /classify step→elsewhere\n"),
        ("ambient", "\nPOST /classify\n  classify application→elsewhere\n"),
    ],
)
def test_an_application_built_at_start_up(
    services: Callable[..., Services], jaeger: Jaeger, step_parent: str, tree: str
) -> None:
    """Run in many requests: linked with each of them, or part of the trace of each."""
    running_services = services(BURR_OTEL_STEP_PARENT=step_parent)
    for message in ("Why?", "How?"):
        assert running_services.post("/classify", message) == '{"kind":"question"}'
    step_traces = [
        ids[0] for ids in running_services.ids(running_services.chat, "it is a question")
    ]
    running_services.chat.stop()
    if step_parent == "ambient":
        assert len(set(step_traces)) == 2
        for trace_id in step_traces:
            read = jaeger.trace(trace_id, spans=2)
            assert f"\n{span_tree(read.spans)}\n" == tree
        return
    # The steps are with their application, which was ended and sent when the service was.
    [trace_id] = set(step_traces)
    read = jaeger.trace(trace_id, spans=3)
    assert [span.name for span in read.spans] == ["invoke_workflow chat", "classify", "classify"]
    for step in read.named("classify"):
        [request] = step.links
        found = jaeger.trace(request.context.trace_id)
        assert f"\n{span_tree(found.spans)}\n" == tree
        [back] = found.spans[0].links
        assert back.context.span_id == step.context.span_id
