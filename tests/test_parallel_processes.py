"""One trace over processes, and nothing lost when they are killed as soon as their task is done."""

import pytest
from otlp_receiver import receiving
from programs import run_program
from trees import in_name_order

HEAD = """
import sys
import parallel_apps
import process_apps
from burr_otel import OtelTracker

if __name__ == "__main__":
    tracker = OtelTracker("proj", "runs")
"""


@pytest.fixture
def receiver():
    with receiving() as found:
        yield found


ONE_PROCESS_FOR_EACH = """
invoke_workflow proj
  map
    invoke_workflow proj
      step
    invoke_workflow proj
      step
"""


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_a_pool_of_processes(receiver, tmp_path, method):
    """A tracker pickled into a process: one trace, all of it sent, however the process started."""
    code = f"""
    app = parallel_apps.parallel(tracker, process_apps.in_processes)
    _, _, state = app.run(halt_after=["map"], inputs={{"method": "{method}"}})
    print(state["ns"])
    """
    done = run_program(HEAD + code, tmp_path, **receiver.environ)
    assert "[2, 4]" in done.stdout
    assert in_name_order(receiver.tree()) == ONE_PROCESS_FOR_EACH


def test_forks_that_end_at_once(receiver, tmp_path):
    """`os.fork` inside an action, and `os._exit` right after the sub-application."""
    code = """
    parallel_apps.parallel(tracker, process_apps.in_forks).run(halt_after=["map"])
    """
    run_program(HEAD + code, tmp_path, **receiver.environ)
    assert in_name_order(receiver.tree()) == ONE_PROCESS_FOR_EACH


def test_burrs_own_tasks_do_not_pickle(receiver, tmp_path):
    """Burr 0.43 gives the executor a local function: plain `ProcessPoolExecutor` cannot take it.

    The error is Burr's and reaches the user; our spans say so.
    """
    # One task: with two, Python 3.12.1 and 3.13.0 may wait for ever in the executor's `shutdown`
    # (https://github.com/python/cpython/issues/125451). A program, which has an end in any case.
    code = """
    app = parallel_apps.parallel(
        tracker, parallel_apps.Doubles(), ns=[1], executor=ProcessPoolExecutor
    )
    try:
        app.run(halt_after=["map"])
    except (AttributeError, pickle.PicklingError) as error:
        print(type(error).__name__, error)
    """
    imports = "import pickle\nfrom concurrent.futures import ProcessPoolExecutor\n"
    done = run_program(imports + HEAD + code, tmp_path, **receiver.environ)
    assert "execute_task" in done.stdout
    [step] = [span for span in receiver.spans if span.name == "map"]
    assert step.attributes["error.type"].rpartition(".")[2] == done.stdout.split()[0]


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
def test_nested_parallel_actions_in_processes_that_are_killed(receiver, tmp_path, snapshots):
    """Processes, and threads inside them; each process is killed when its results are there.

    Without a store the tracker's copy alone says where it was made.
    """
    code = f"""
    tracker = OtelTracker("proj", "runs", snapshots="{snapshots}")
    app = parallel_apps.parallel(
        tracker, parallel_apps.Nested(), executor=process_apps.KillingExecutor
    )
    _, _, state = app.run(halt_after=["map"])
    print(state["ns"])
    """
    done = run_program(HEAD + code, tmp_path, **receiver.environ)
    assert "[[2, 2], [4, 4]]" in done.stdout
    assert in_name_order(receiver.tree()) == NESTED
    assert len({span.context.trace_id for span in receiver.spans}) == 1
    assert (tmp_path / "runs").exists() == (snapshots == "full")


def test_a_step_that_fails_in_another_process(receiver, tmp_path):
    """The error is on the sub-application's spans, sent by the process that had it."""
    code = """
    app = parallel_apps.parallel(
        tracker, process_apps.Fragile(), executor=process_apps.KillingExecutor
    )
    try:
        app.run(halt_after=["map"])
    except ValueError as error:
        print("caught", error)
    """
    done = run_program(HEAD + code, tmp_path, **receiver.environ)
    assert "caught two" in done.stdout
    assert (
        in_name_order(receiver.tree())
        == """
invoke_workflow proj [error] (two)
  map [error] (two)
    invoke_workflow proj
      fragile
    invoke_workflow proj [error] (two)
      fragile [error] (two)
"""
    )


def test_a_worker_without_a_collector_goes_on(tmp_path):
    """Nothing listens: results come back, with one warning a process."""
    code = """
    app = parallel_apps.parallel(
        tracker, parallel_apps.Doubles(), ns=[1, 2, 3, 4], executor=process_apps.KillingExecutor
    )
    _, _, state = app.run(halt_after=["map"])
    print(state["ns"])
    """
    done = run_program(
        HEAD + code,
        tmp_path,
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
    )
    assert "[2, 4, 6, 8]" in done.stdout
    assert 1 <= done.stderr.count("cannot send spans") <= 3, done.stderr
