"""Parallel actions on a real Ray cluster, started here: one trace, sent by all its processes."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from otlp_receiver import Receiver, receiving
from programs import run_program
from trees import in_name_order

HEAD = """
import os
import sys

import ray
from burr.integrations.ray import RayExecutor
from parallel_apps import Doubles, Nested, parallel
from process_apps import Fragile, Pids

from burr_otel import OtelTracker

ray.init(
    num_cpus=2,
    object_store_memory=80 * 2**20,
    include_dashboard=False,
    log_to_driver=False,
    _node_ip_address="127.0.0.1",
    _temp_dir=os.environ["TEST_RAY_FOLDER"],
)
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def ray_environ(receiver: Receiver) -> Iterator[dict[str, str]]:
    """Variables of a driver: where to send, a short folder for Ray's sockets, nobody called home."""
    if importlib.util.find_spec("ray") is None:
        reason = 'Ray is not installed; run pip install "burr-otel[ray]"'
        if os.environ.get("BURR_OTEL_REQUIRE_BACKENDS") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    folder = tempfile.mkdtemp(prefix="ray-")  # pytest's own is too long for a socket's path
    yield {
        **receiver.environ,
        "TEST_RAY_FOLDER": folder,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
    }
    shutil.rmtree(folder)


NESTED = """
invoke_workflow proj
  map
    invoke_workflow proj
      inner
        invoke_workflow proj
          double
        invoke_workflow proj
          double
    invoke_workflow proj
      inner
        invoke_workflow proj
          double
        invoke_workflow proj
          double
"""


@pytest.mark.parametrize("snapshots", ["full", "off"])
def test_nested_parallel_actions_on_ray(
    snapshots: str, receiver: Receiver, ray_environ: dict[str, str], tmp_path: pathlib.Path
) -> None:
    """Ray workers, and threads inside them, send their spans under the step that spawned them."""
    code = f"""
with OtelTracker("proj", "runs", snapshots="{snapshots}") as tracker:
    app = parallel(tracker, Nested(), executor=RayExecutor)
    _, _, state = app.run(halt_after=["map"])
    print(state["ns"])
"""
    done = run_program(HEAD + code, tmp_path, **ray_environ)
    assert "[[2, 2], [4, 4]]" in done.stdout
    assert in_name_order(receiver.tree()) == NESTED
    assert len({span.context.trace_id for span in receiver.spans}) == 1


def test_applications_in_several_workers_keep_their_states(
    receiver: Receiver, ray_environ: dict[str, str], tmp_path: pathlib.Path
) -> None:
    """The work is done in other processes, and the store has the state of each of them."""
    code = """
tracker = OtelTracker("proj", "runs")
app = parallel(tracker, Pids(), executor=RayExecutor)
_, _, state = app.run(halt_after=["map"])
children = [each for each in tracker.list_app_ids(None) if each != "a1"]
kept = {tracker.load(None, each)["state"]["n"] for each in children}
print("own", os.getpid() in state["ns"], "kept", kept == set(state["ns"]), len(kept) > 0)
"""
    done = run_program(HEAD + code, tmp_path, **ray_environ)
    assert "own False kept True True" in done.stdout


def test_spans_of_others_in_workers(
    receiver: Receiver, ray_environ: dict[str, str], tmp_path: pathlib.Path
) -> None:
    """They carry the driver's conversation, as Honeycomb's timeline needs it."""
    hook = 'runtime_env={"worker_process_setup_hook": "inside_apps.set_up"},'
    head = HEAD.replace("    include_dashboard=False,", f"    include_dashboard=False, {hook}")
    code = """
import inside_apps

with OtelTracker("proj", "runs") as tracker:
    app = parallel(tracker, inside_apps.Calls(), executor=RayExecutor)
    print(app.run(halt_after=["map"])[2]["ns"])
"""
    done = run_program(head + code, tmp_path, **ray_environ)
    assert "[2, 4]" in done.stdout
    others = [span for span in receiver.spans if span.name in ("call", "call below")]
    assert len(others) == 4
    for span in receiver.spans:
        assert span.attributes["gen_ai.conversation.id"] == "a1"
        assert span.attributes["gen_ai.agent.name"] == "proj"


def test_a_failure_on_ray(
    receiver: Receiver, ray_environ: dict[str, str], tmp_path: pathlib.Path
) -> None:
    """The worker that fails says so; the driver's step fails with Ray's error for it."""
    code = """
app = parallel(OtelTracker("proj", "runs"), Fragile(), ns=[2], executor=RayExecutor)
try:
    app.run(halt_after=["map"])
except ValueError as error:
    print("caught", type(error).__name__)
"""
    done = run_program(HEAD + code, tmp_path, **ray_environ)
    assert "caught RayTaskError(ValueError)" in done.stdout
    outcomes = [(span.name, span.attributes.get("error.type")) for span in receiver.spans]
    assert ("fragile", "ValueError") in outcomes
    assert [span.attributes["burr.outcome"] for span in receiver.spans] == ["error"] * 4


EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "parallel_ray.py"
EXAMPLE_TREE = """
invoke_workflow parallel-ray
  measure_all
    invoke_workflow parallel-ray
      measure
    invoke_workflow parallel-ray
      measure
    invoke_workflow parallel-ray
      measure
"""


def test_the_example(
    receiver: Receiver, ray_environ: dict[str, str], tmp_path: pathlib.Path
) -> None:
    """examples/parallel_ray.py as it stands; its README shows the trace."""
    ray_environ["RAY_TMPDIR"] = ray_environ["TEST_RAY_FOLDER"]
    done = run_program(EXAMPLE.read_text(), tmp_path, **ray_environ)
    assert "lengths: 1 4 26" in done.stdout
    assert receiver.tree() == EXAMPLE_TREE
    assert f"```text{EXAMPLE_TREE}```" in EXAMPLE.with_name("README.md").read_text("utf-8")
