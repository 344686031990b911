"""A real Burr run in a real Phoenix: over its API, and on its page in a headless browser."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from installed import absent
from phoenix_api import Phoenix
from processes import wait_for
from sending import sending_provider

from burr_otel import OtelTracker
from burr_otel.demo import build_demo, run_demo
from burr_otel.trace_url import TracePlace, read_template, trace_url

APP_ID = "demo-phoenix"


@pytest.fixture(scope="module")
def demo_spans(
    phoenix: Phoenix, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[dict[str, Any]]]:
    """The demo's run, sent to Phoenix and read back."""
    folder = tmp_path_factory.mktemp("runs")
    with sending_provider("phoenix", "grpc", phoenix.grpc_endpoint) as (provider, kept):
        tracker = OtelTracker("demo", folder, tracer_provider=provider, openinference_content=True)
        run_demo(build_demo(tracker, APP_ID, wait=lambda _seconds: None))
        tracker.close()
    sent = kept.get_finished_spans()
    return phoenix.spans(sent[0].context.trace_id, count=len(sent))


def test_phoenix_has_the_run_as_a_session_of_chains(
    demo_spans: list[dict[str, Any]], phoenix: Phoenix
) -> None:
    """Root and steps are chains with their state, grouped under the application as a session."""
    root = next(span for span in demo_spans if span["parent_id"] is None)
    steps = [span for span in demo_spans if span["parent_id"] == root["context"]["span_id"]]
    assert root["name"] == "invoke_workflow demo"
    assert [step["name"] for step in steps][:3] == ["receive_question", "classify", "search_docs"]
    assert {span["span_kind"] for span in (root, *steps)} == {"CHAIN"}
    assert {span["attributes"]["session.id"] for span in demo_spans} == {APP_ID}
    answer = next(step for step in steps if step["name"] == "write_answer")
    assert json.loads(answer["attributes"]["output.value"])["answer"].startswith("Sure")
    [failed] = [step for step in steps if step["status_code"] == "ERROR"]
    assert failed["name"] == "look_up_order"
    assert "closed the connection" in failed["status_message"]
    assert [event["name"] for event in failed["events"]] == ["exception"]
    url = f"{phoenix.http_endpoint}/v1/projects/default/sessions"
    with urllib.request.urlopen(url, timeout=30) as response:
        sessions = [session["session_id"] for session in json.load(response)["data"]]
    assert APP_ID in sessions


def looked_at(page: str, expected: str, folder: pathlib.Path) -> str:
    """What a browser shows of a page, once `expected` stands on it; a picture is kept beside."""
    browser = shutil.which("chromium")
    if browser is None:
        absent("chromium", "chromium")
    picture = folder / "phoenix.png"

    def look() -> str | None:
        done = subprocess.run(
            [
                browser,
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
                *("--no-first-run", "--disable-background-networking", "--disable-sync"),
                *("--disable-component-update", "--force-prefers-reduced-motion"),
                f"--user-data-dir={folder / 'browser'}",
                "--window-size=1900,1150",
                "--virtual-time-budget=40000",
                f"--screenshot={picture}",
                "--dump-dom",
                page,
            ],
            env={"PATH": os.environ["PATH"], "HOME": os.fspath(folder)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.stdout if expected in done.stdout else None

    shown = wait_for(f"Phoenix's page to show {expected!r}", look)
    assert picture.stat().st_size > 0
    return shown


def test_phoenix_shows_the_run(
    demo_spans: list[dict[str, Any]], phoenix: Phoenix, tmp_path: pathlib.Path
) -> None:
    """A person who opens the trace sees every step, and the answer of the step that they choose."""
    with urllib.request.urlopen(f"{phoenix.http_endpoint}/v1/projects", timeout=30) as response:
        [project] = [p["id"] for p in json.load(response)["data"] if p["name"] == "default"]
    answer = next(span for span in demo_spans if span["name"] == "write_answer")
    page = (
        f"{phoenix.http_endpoint}/projects/{project}/traces/{answer['context']['trace_id']}"
        f"?selectedSpanNodeId={answer['id']}"
    )
    shown = looked_at(page, "Sure, that is easy.", tmp_path)
    for name in ("invoke_workflow demo", *{span["name"] for span in demo_spans}):
        assert name in shown


def test_the_address_of_the_preset_leads_to_the_trace(
    demo_spans: list[dict[str, Any]], phoenix: Phoenix, tmp_path: pathlib.Path
) -> None:
    """`phoenix=...` in BURR_OTEL_TRACE_URL; Phoenix finds the project of the trace itself."""
    trace_id = demo_spans[0]["context"]["trace_id"]
    place = TracePlace(trace_id, "demo", APP_ID, 0, 0)
    page = trace_url(read_template(f"phoenix={phoenix.http_endpoint}"), place)
    shown = looked_at(page, "look_up_order", tmp_path)
    assert "write_answer" in shown
