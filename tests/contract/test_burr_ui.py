"""The Burr UI's real server on a store of ours: everything is listed and shown."""

import os
import shutil
import subprocess
from pathlib import Path

import apps
import httpx
import parallel_apps
import pytest
from burr.core import State, action
from servers import serve
from store_support import log_records

from burr_otel import OtelTracker


@action(reads=[], writes=["hostile", "big", "keys", "nested"])
def hostile(state: State) -> State:
    return state.update(
        hostile=[float("nan"), float("inf"), "\ud800", {"__burr_serde__": "pydantic"}],
        big=2**200,
        keys={1: "a", "1": "b", None: "c", (1, 2): "d"},
        nested=[[[[]]]],
    )


def fill(storage_dir):
    """Runs of every kind."""
    with OtelTracker("shown", storage_dir) as tracker:
        apps.counter(tracker, "counter", partition_key="alice").run(halt_after=["finish"])
        apps.single(tracker, apps.traced, "spans").step()
        stream = apps.single(tracker, apps.stream, "stream")
        for _ in stream.stream_result(halt_after=["step"])[1]:
            pass
        failing = apps.single(tracker, apps.boom, "failing")
        with pytest.raises(ValueError, match="kaputt"):
            failing.step()
        apps.single(tracker, hostile, "hostile", state={}).step()
        parallel_apps.parallel(tracker, parallel_apps.Doubles(), "parent").step()
        source = apps.counter(tracker, "source", upto=5)
        source.run(halt_after=["finish"])
        fork = apps.resumed(
            tracker, "fork", upto=5, fork_from_app_id="source", fork_from_sequence_id=1
        )
        fork.run(halt_after=["finish"])
        apps.counter(tracker, "torn").run(halt_after=["finish"])
    with Path(storage_dir, "shown", "torn", "log.jsonl").open("ab") as file:
        file.write(b'\0\0\0\n{"type":"end_entry","sequ')
    with OtelTracker("shown", storage_dir) as tracker:
        apps.resumed(tracker, "torn")


@pytest.fixture(
    scope="module",
    params=["burr.tracking.server.backend.LocalBackend", "burr_otel.ui.StoreBackend"],
    ids=["burrs-own-backend", "our-backend"],
)
def address(tmp_path_factory, request):
    """Of a Burr UI server on a filled store, read by Burr's own backend, and by ours."""
    storage_dir = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OTEL_TRACES_EXPORTER", "none")
        fill(str(storage_dir))
    # Its demo applications look for keys and write to the home directory.
    env = {"burr_path": str(storage_dir), "HOME": str(storage_dir), "OPENAI_API_KEY": "none"}
    env |= {"BURR_BACKEND_IMPL": request.param, "BURR_OTEL_STORAGE_DIR": str(storage_dir)}
    with serve("burr.tracking.server.run:app", env=env, cwd=storage_dir) as url:
        assert httpx.get(f"{url}/ready", timeout=60).json() == {"ready": True}
        yield url


@pytest.fixture
def run(address):
    """What the UI asks the server for one run."""

    def ask(app_id, partition_key="__none__"):
        answer = httpx.get(f"{address}/api/v0/shown/{app_id}/{partition_key}/apps", timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask


def test_projects_and_runs_are_listed(address):
    """Every run with its number of steps, its partition and its parents."""
    assert [each["name"] for each in httpx.get(f"{address}/api/v0/projects").json()] == ["shown"]
    page = httpx.get(f"{address}/api/v0/shown/__none__/apps").json()
    listed = {each["app_id"]: each for each in page["applications"]}
    named = {"counter", "spans", "stream", "failing", "hostile", "parent", "source", "fork", "torn"}
    children = set(listed) - named
    assert named <= set(listed)
    assert len(children) == 2
    assert {listed[child]["spawning_parent_pointer"]["app_id"] for child in children} == {"parent"}
    assert listed["counter"]["partition_key"] == "alice"
    assert listed["fork"]["parent_pointer"]["app_id"] == "source"
    assert {name: listed[name]["num_steps"] for name in ("counter", "source", "fork", "torn")} == {
        "counter": 4,
        "source": 6,
        "fork": 6,
        "torn": 4,
    }
    of_alice = httpx.get(f"{address}/api/v0/shown/alice/apps").json()["applications"]
    assert [each["app_id"] for each in of_alice] == ["counter"]


def test_steps_are_shown_with_states_and_graph(run):
    """Before and after each step, and the graph that they walk."""
    shown = run("counter", "alice")
    assert [step["step_start_log"]["action"] for step in shown["steps"]] == ["count"] * 3 + [
        "finish"
    ]
    last = shown["steps"][-1]["step_end_log"]
    assert (last["state"]["answer"], last["result"], last["exception"]) == (
        30,
        {"answer": 30},
        None,
    )
    assert shown["application"]["entrypoint"] == "count"
    assert "def finish" in shown["application"]["actions"][1]["code"]
    assert len(shown["application"]["transitions"]) == 2


def test_spans_attributes_and_streams_are_shown(run):
    """Inside their step."""
    [step] = run("spans")["steps"]
    spans = {span["begin_entry"]["span_name"]: span for span in step["spans"]}
    assert {"outer", "inner", "helper"} <= set(spans)
    assert all(span["end_entry"] is not None for span in spans.values())
    outer = spans["outer"]["begin_entry"]["span_id"]
    assert spans["inner"]["begin_entry"]["parent_span_id"] == outer
    logged = {each["key"]: (each["value"], each["span_id"]) for each in step["attributes"]}
    assert logged["nested"] == ({"a": 1}, outer)
    assert logged["on_step"] == (True, None)
    [step] = run("stream")["steps"]
    assert [event["type"] for event in step["streaming_events"]] == [
        "begin_stream",
        "first_item_stream",
        "end_stream",
    ]
    assert step["streaming_events"][-1]["items_streamed"] == 3


def test_failures_forks_and_children_are_shown(run):
    """With the traceback, and links in both directions."""
    [step] = run("failing")["steps"]
    assert "ValueError: kaputt" in step["step_end_log"]["exception"]
    parent = run("parent")
    assert {each["event_type"] for each in parent["children"]} == {"spawn_start"}
    assert len(parent["children"]) == 2
    child = run(parent["children"][0]["child"]["app_id"])
    assert child["spawning_parent_pointer"]["app_id"] == "parent"
    assert [each["child"]["app_id"] for each in run("source")["children"]] == ["fork"]
    fork = run("fork")
    assert fork["parent_pointer"] == {
        "type": "pointer_data", "app_id": "source", "sequence_id": 1, "partition_key": None,
    }  # fmt: skip
    assert fork["steps"][0]["step_start_log"]["sequence_id"] == 2


def test_hostile_values_reach_the_browser_as_strict_json(run):
    """The server answers with stand-ins where JSON has no such value."""
    [step] = run("hostile")["steps"]
    state = step["step_end_log"]["state"]
    assert state["hostile"][:3] == [None, None, "�"]
    assert state["big"] == 2**200
    assert sorted(state["keys"].values()) == ["a", "b", "c", "d"]


def test_a_run_with_a_torn_tail_is_shown_after_it_was_opened_again(run):
    """The NULs and the torn record are in a file of their own."""
    assert len(run("torn")["steps"]) == 4


def test_a_person_sees_the_run_in_a_browser(address, tmp_path):
    """The page of one run in headless Chromium: its steps and its graph."""
    browser = shutil.which("chromium")
    if browser is None:
        if os.environ.get("BURR_OTEL_REQUIRE_BACKENDS") == "1":
            pytest.fail("chromium is not installed; run scripts/install_backends.sh chromium")
        pytest.skip("chromium is not installed; run scripts/install_backends.sh chromium")
    picture = tmp_path / "burr-ui.png"
    done = subprocess.run(
        [
            browser,
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-sync", "--disable-component-update"),
            f"--user-data-dir={tmp_path / 'browser'}",
            "--window-size=1700,1000",
            "--virtual-time-budget=20000",
            f"--screenshot={picture}",
            "--dump-dom",
            f"{address}/project/shown/alice/counter",
        ],
        env={"PATH": os.environ["PATH"], "HOME": os.fspath(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    for text in ("counter", "alice", "count", "finish"):
        assert text in done.stdout
    assert picture.stat().st_size > 20_000


def test_every_line_of_every_log_is_strict_json(tmp_path, monkeypatch):
    """What the server's answers rest on."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    fill(str(tmp_path))
    logs = list((tmp_path / "shown").glob("*/log.jsonl"))
    assert len(logs) == 11
    for log in logs:
        assert all("type" in record for record in log_records(log))
