"""The queries of docs/backends.md and Jaeger's links find what they say, in real backends."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import subprocess
import time
import urllib.request
from typing import Any

import pytest
from burr.core import ApplicationBuilder, State, action
from jaeger_api import Jaeger
from phoenix_api import Phoenix
from processes import wait_for
from sending import sending_provider

from burr_otel import OtelTracker
from burr_otel.testing import FakeClock

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "backends.md").read_text("utf-8")
JAEGER = re.search(r"## Jaeger.*?```bash\n(.*?)```", PAGE, re.DOTALL).group(1)
PHOENIX = re.search(r"```python-filter\n(.*?)```", PAGE, re.DOTALL).group(1)


@action(reads=[], writes=["question"])
def ask(state: State, question: str) -> State:
    return state.update(question=question)


def answering(clock: FakeClock, takes_s: float, error: Exception | None) -> Any:
    @action(reads=["question"], writes=["answer"])
    def answer(state: State) -> State:
        clock.advance(takes_s)
        if error:
            raise error
        return state.update(answer="42")

    return answer


def run(tracker: OtelTracker, clock: FakeClock, app_id: str, takes_s: float, error: Any) -> None:
    application = (
        ApplicationBuilder()
        .with_actions(ask=ask, answer=answering(clock, takes_s, error))
        .with_transitions(("ask", "answer"))
        .with_identifiers(app_id=app_id)
        .with_entrypoint("ask")
        .with_tracker(tracker)
        .build()
    )
    with contextlib.suppress(ValueError):
        application.run(halt_after=["answer"], inputs={"question": "?"})


def send(endpoint: str, folder: pathlib.Path) -> None:
    """A quick run, a slow one, a failed one."""
    clock = FakeClock(time.time_ns())
    with (
        sending_provider("support-bot", "grpc", endpoint) as (provider, _),
        OtelTracker("support-bot", folder, tracer_provider=provider, clock=clock) as tracker,
    ):
        run(tracker, clock, "conversation-7", 0.1, None)
        run(tracker, clock, "slow", 3.0, None)
        run(tracker, clock, "failed", 0.1, ValueError("no answer"))


@pytest.fixture(scope="module")
def jaeger_with_runs(jaeger: Jaeger, tmp_path_factory: pytest.TempPathFactory) -> Jaeger:
    send(f"http://{jaeger.grpc_endpoint}", tmp_path_factory.mktemp("runs"))
    jaeger.wait_for_traces("support-bot", 3)
    return jaeger


@pytest.fixture(scope="module")
def phoenix_with_runs(phoenix: Phoenix, tmp_path_factory: pytest.TempPathFactory) -> Phoenix:
    send(phoenix.grpc_endpoint, tmp_path_factory.mktemp("runs"))
    return phoenix


@pytest.mark.parametrize(("line", "found"), [(0, "slow"), (1, "failed"), (2, "conversation-7")])
def test_jaeger(jaeger_with_runs: Jaeger, line: int, found: str) -> None:
    """Each command, as it stands, finds just the one run."""
    command = [each for each in JAEGER.splitlines() if each.startswith("curl")][line]
    here = command.replace("localhost:16686", f"127.0.0.1:{jaeger_with_runs.ports.query}")
    assert here != command

    def app_ids() -> list[Any]:
        done = subprocess.run(here, shell=True, capture_output=True, check=True, timeout=60)
        return [
            {
                tag["value"]
                for span in trace["spans"]
                for tag in span["tags"]
                if tag["key"] == "burr.app_id"
            }
            for trace in json.loads(done.stdout)["data"]
        ]

    assert wait_for(f"what {command} finds", lambda: app_ids() or None) == [{found}]


@pytest.mark.parametrize("number", [0, 1])
def test_jaegers_links(jaeger_with_runs: Jaeger, number: int) -> None:
    """What a link of dashboards/jaeger-ui.json opens is a search for just the one run."""
    file = pathlib.Path(__file__).parents[2] / "dashboards" / "jaeger-ui.json"
    url = json.loads(file.read_text("utf-8"))["linkPatterns"][number]["url"]
    on_the_span = {"burr.project": "support-bot"}
    url = re.sub(r"#\{([^}]+)\}", lambda name: on_the_span.get(name[1], "conversation-7"), url)
    api = f"http://127.0.0.1:{jaeger_with_runs.ports.query}/api/traces{url.removeprefix('/search')}"

    def traces() -> list[Any]:
        with urllib.request.urlopen(api, timeout=30) as response:
            return json.load(response)["data"]

    [trace] = wait_for(f"what {url} finds", lambda: traces() or None)
    values = {
        t["value"] for span in trace["spans"] for t in span["tags"] if t["key"] == "burr.app_id"
    }
    assert values == {"conversation-7"}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (0, ["answer"]),
        (1, ["answer", "invoke_workflow support-bot"]),
        (2, ["answer", "ask", "invoke_workflow support-bot"]),
    ],
)
def test_phoenix(phoenix_with_runs: Phoenix, line: int, found: list[str]) -> None:
    """Each expression, in the filter of the page's own query, finds just those spans."""
    condition = PHOENIX.splitlines()[line]
    query = """query ($condition: String!) { projects { edges { node {
        spans(first: 100, filterCondition: $condition) { edges { node { name attributes } } } } } } }"""
    request = urllib.request.Request(
        f"{phoenix_with_runs.http_endpoint}/graphql",
        json.dumps({"query": query, "variables": {"condition": condition}}).encode(),
        {"content-type": "application/json"},
    )

    def names() -> list[str] | None:
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        spans = [
            edge["node"]["name"]
            for project in answer["data"]["projects"]["edges"]
            for edge in project["node"]["spans"]["edges"]
            # Other tests have sent runs to the same Phoenix.
            if json.loads(edge["node"]["attributes"])["burr"]["project"] == "support-bot"
        ]
        return sorted(spans) if len(spans) >= len(found) else None

    assert wait_for(f"what {condition} finds", names) == found
