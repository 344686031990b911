"""Processes that end by `os._exit`: what they made has been sent, and the log says finished."""

import json

import pytest
from otlp_receiver import receiving
from programs import run_program

HEAD = """
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

import apps
from burr_otel import OtelTracker

def child(name):
    apps.counter(OtelTracker("proj", "runs"), app_id=name).run(halt_after=["finish"])
    return os.getpid()

if __name__ == "__main__":
"""

# Neither the time without activity nor the queue's timer may be what ends and sends.
PATIENT = {"BURR_OTEL_ROOT_LINGER": "none", "OTEL_BSP_SCHEDULE_DELAY": "600000"}

RUN = ["invoke_workflow proj", "count", "count", "count", "finish"]


@pytest.fixture
def receiver():
    with receiving() as found:
        yield found


def run(code, tmp_path, receiver, **environ):
    """Run `code` as the main program's; its output."""
    indented = "\n".join(f"    {line}" for line in code.strip().splitlines())
    done = run_program(HEAD + indented, tmp_path, **receiver.environ, **PATIENT, **environ)
    assert done.stderr == ""
    return done.stdout


def assert_finished(tmp_path, receiver, *names):
    """All spans of these runs have arrived, and their logs say that they ended."""
    for name in names:
        found = [s.name for s in receiver.spans if s.attributes["burr.app_id"] == name]
        assert sorted(found) == sorted(RUN), name
        log = (tmp_path / "runs" / "proj" / name / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["type"] for line in log][-1] == "otel_root_end", name
    assert len(receiver.spans) == len(RUN) * len(names)


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_a_child_process_sends_what_it_made(tmp_path, receiver, method):
    """However it was started; `atexit` does not run in children that are forked."""
    code = f"""
process = multiprocessing.get_context("{method}").Process(target=child, args=("c",))
process.start()
process.join()
print(process.exitcode)
"""
    assert run(code, tmp_path, receiver) == "0\n"
    assert_finished(tmp_path, receiver, "c")


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_a_pool_of_processes_sends_what_it_made(tmp_path, receiver, method):
    """`ProcessPoolExecutor`, whose workers serve several runs each."""
    code = f"""
context = multiprocessing.get_context("{method}")
with ProcessPoolExecutor(2, mp_context=context) as pool:
    print(os.getpid() in set(pool.map(child, ["c1", "c2", "c3", "c4"])))
"""
    assert run(code, tmp_path, receiver) == "False\n"
    assert_finished(tmp_path, receiver, "c1", "c2", "c3", "c4")


def test_a_multiprocessing_pool_that_is_closed_and_joined(tmp_path, receiver):
    """Not one that is left by `with`, which kills its workers."""
    code = """
pool = multiprocessing.get_context("fork").Pool(2)
print(os.getpid() in pool.map(child, ["c1", "c2"]))
pool.close()
pool.join()
"""
    assert run(code, tmp_path, receiver) == "False\n"
    assert_finished(tmp_path, receiver, "c1", "c2")


def test_a_child_of_a_parent_that_traces_as_well(tmp_path, receiver):
    """It sends its own, not its parent's, over connections of its own."""
    code = """
child("before")
process = multiprocessing.get_context("fork").Process(target=child, args=("c",))
process.start()
process.join()
child("after")
"""
    run(code, tmp_path, receiver)
    assert_finished(tmp_path, receiver, "before", "c", "after")


def test_a_child_of_a_child(tmp_path, receiver):
    """Each generation registers anew."""
    code = """
def parent(name):
    child(f"{name}-parent")
    process = multiprocessing.get_context("fork").Process(target=child, args=(f"{name}-child",))
    process.start()
    process.join()

process = multiprocessing.get_context("fork").Process(target=parent, args=("c",))
process.start()
process.join()
"""
    run(code, tmp_path, receiver)
    assert_finished(tmp_path, receiver, "c-parent", "c-child")


@pytest.mark.parametrize("end", ["sys.exit(3)", "raise ValueError('kaputt')"])
def test_a_child_that_fails_after_its_run(tmp_path, receiver, end):
    """Its finalisers run all the same."""
    code = f"""
def failing():
    sys.stderr = open(os.devnull, "w")
    child("c")
    {end}

process = multiprocessing.get_context("fork").Process(target=failing)
process.start()
process.join()
print(process.exitcode)
"""
    assert run(code, tmp_path, receiver) == ("3\n" if "exit" in end else "1\n")
    assert_finished(tmp_path, receiver, "c")


@pytest.mark.parametrize("given", ["argument", "global"])
def test_the_users_own_provider_is_flushed_in_a_child(tmp_path, receiver, given):
    """Its exit handler does not run there either; it is not shut down."""
    code = f"""
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
given = provider
if "{given}" == "global":
    trace.set_tracer_provider(provider)
    given = None

def with_provider():
    tracker = OtelTracker("proj", "runs", tracer_provider=given)
    apps.counter(tracker, app_id="c").run(halt_after=["finish"])

process = multiprocessing.get_context("fork").Process(target=with_provider)
process.start()
process.join()
"""
    run(code, tmp_path, receiver)
    assert_finished(tmp_path, receiver, "c")


def test_an_endpoint_that_is_away_does_not_hold_a_child(tmp_path, receiver):
    """One warning, and the child ends."""
    code = """
process = multiprocessing.get_context("fork").Process(target=child, args=("c",))
process.start()
process.join(60)
print(process.exitcode)
"""
    indented = "\n".join(f"    {line}" for line in code.strip().splitlines())
    environ = {**receiver.environ, **PATIENT, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1"}
    done = run_program(HEAD + indented, tmp_path, **environ)
    assert done.stdout == "0\n"
    assert done.stderr.count("\n") == 1
    assert "cannot send spans to http://localhost:1" in done.stderr
