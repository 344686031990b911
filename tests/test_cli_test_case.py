"""`burr-otel test-case`: a recorded step becomes a test that pytest runs."""

import ast
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import apps
import pytest
from burr.core import Action, ApplicationContext, State, action
from burr.core.action import streaming_action
from cli_support import environment, run
from pydantic import BaseModel

from burr_otel import OtelTracker
from burr_otel.testing import RecordedStep


class Order(BaseModel):
    number: int
    items: list[str]


@action(reads=["orders", "sizes"], writes=["orders", "total"])
def order(state: State, new: Order, price: float = 2.5) -> tuple[dict, State]:
    orders = [*state["orders"], new]
    total = price * sum(len(each.items) for each in orders)
    return {"total": total}, state.update(orders=orders, total=total)


@action(reads=["orders"], writes=["orders"])
def broken(state: State, number: int) -> State:
    return state.update(orders=[each for each in state["orders"] if each.number / number > 1])


@action(reads=["count"], writes=["count"])
async def acount(state: State, by: int) -> State:
    return state.update(count=state["count"] + by)


@streaming_action(reads=["count"], writes=["count"])
def stream(state: State):
    yield {"count": 0}, None
    yield {"count": state["count"] + 1}, state.update(count=state["count"] + 1)


@streaming_action(reads=["count"], writes=["count"])
async def astream(state: State):
    yield {"count": 0}, None
    yield {"count": state["count"] + 1}, state.update(count=state["count"] + 1)


@action(reads=["count"], writes=["count"])
def asks(state: State, client: object, password: str, __context: ApplicationContext) -> State:
    return state.update(count=state["count"] + len(client.name))


class Count(BaseModel):
    count: int


@action.pydantic(reads=["count"], writes=["count"])
async def typed(state: Count) -> Count:
    state.count += 1
    return state


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


@pytest.fixture
def make(spans, clock, tmp_path):
    def tracker(**settings):
        made = {"tracer_provider": spans.provider, "clock": clock, **settings}
        return OtelTracker("proj", tmp_path / "runs", **made)

    return tracker


@pytest.fixture
def test_case(tmp_path):
    """Runs the command; gives what it said and the two files."""

    def make(*arguments, status=0, **variables):
        where = ("--storage-dir", tmp_path / "runs", "-o", tmp_path / "made")
        done = run("test-case", *arguments, *where, **variables)
        assert done.returncode == status, done.stderr
        files = sorted((tmp_path / "made").glob("*")) if (tmp_path / "made").exists() else []
        return done, files

    return make


def pytested(tmp_path):
    """What pytest says of the files."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path / "made"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(Path(__file__).parent)),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def run_two(tracker, step, state, **inputs):
    """An application whose step runs twice, so that the second one's state is recorded."""
    app = apps.single(tracker, step, state=state)
    app.step(inputs=inputs)
    app.step(inputs=inputs)
    return app


def test_a_failing_step_becomes_a_failing_test_in_one_command(make, spans, test_case, tmp_path):
    """By its span's id, as copied from Jaeger; it passes once the action is mended."""
    with make() as tracker:
        app = apps.single(tracker, broken, state={"orders": [Order(number=4, items=["tea"])]})
        app.step(inputs={"number": 1})
        with pytest.raises(ZeroDivisionError):
            app.step(inputs={"number": 0})
    failed = max((s for s in spans.spans if s.name == "step"), key=lambda s: s.start_time)
    done, files = test_case(f"{failed.context.span_id:016x}")
    assert [file.suffix for file in files] == [".json", ".py"]
    assert "secrets too" in done.stderr
    code = files[1].read_text()
    assert "from test_cli_test_case import broken\n" in code
    status, said = pytested(tmp_path)
    assert status == 1
    assert "ZeroDivisionError" in said
    assert "1 failed" in said
    data = json.loads(files[0].read_text())
    assert data["raised"]["type"] == "ZeroDivisionError"
    data["inputs"]["values"]["number"] = 1
    files[0].write_text(json.dumps(data))
    assert pytested(tmp_path)[0] == 0


def test_a_step_that_worked_is_compared(make, test_case, tmp_path):
    """State, inputs and result come back as what they were: models, tuples of sizes, sets."""
    state = {"orders": [], "total": 0, "sizes": {1, 2}}
    with make() as tracker:
        run_two(tracker, order, state, new=Order(number=1, items=["tea", "milk"]), price=3.0)
    _, files = test_case("a1", "--step", 1)
    step = RecordedStep.beside(str(files[1]), {"allowlist": ["test_cli_test_case"]})
    assert step.expected["written"]["orders"] == [Order(number=1, items=["tea", "milk"])] * 2
    assert step.expected["result"] == {"total": 12.0}
    assert step._values("state")["sizes"] == {1, 2}
    status, said = pytested(tmp_path)
    assert (status, "1 passed" in said) == (0, True), said
    data = json.loads(files[0].read_text())
    data["written"]["values"]["total"] = 13.0
    files[0].write_text(json.dumps(data))
    assert "12.0" in pytested(tmp_path)[1]


@pytest.mark.parametrize("snapshots", ["full", "delta"])
async def test_every_kind_of_action(make, test_case, tmp_path, snapshots):
    """Asynchronous, streams of both kinds, class-based, of pydantic models."""
    with make(snapshots=snapshots) as tracker:
        for name, step in (
            ("acount", acount),
            ("stream", stream),
            ("astream", astream),
            ("add", Add()),
            ("typed", typed),
        ):
            app = apps.single(tracker, step, name)
            for _ in range(2):
                if name == "astream":
                    _, container = await app.astream_result(halt_after=["step"])
                    await container.get()
                elif name == "stream":
                    _, container = app.stream_result(halt_after=["step"])
                    container.get()
                else:
                    await app.astep(inputs={"by": 3} if name == "acount" else {})
            test_case(name)
    status, said = pytested(tmp_path)
    assert (status, "5 passed" in said) == (0, True), said


class Client:
    name = "four"


def test_what_is_no_data_is_asked_for(make, test_case, tmp_path):
    """A client among the inputs is left to the user, who finds its name in the code."""
    with make() as tracker:
        run_two(tracker, asks, {"count": 0}, client=Client(), password="hunter2hunter2")
    _, files = test_case("a1")
    code = files[1].read_text()
    assert "NOT_RECORDED = {'client': None}" in code
    assert pytested(tmp_path)[0] == 1
    given = code.replace("{'client': None}", "{'client': __import__('test_cli_test_case').Client}")
    files[1].write_text(given)
    status, said = pytested(tmp_path)
    assert status == 0, said


def test_redacted_on_request(make, test_case):
    """What spans hide is hidden in the data; else it is there, and the command says so."""
    secret = "sk-ant-api03-NeverToBeSeenAnywhere0123456789abcdef"
    with make() as tracker:
        inputs = {"client": Client(), "password": "hunter2hunter2"}
        run_two(tracker, asks, {"count": 0, "token": secret}, **inputs)
    done, files = test_case("a1", "--redacted")
    text = files[0].read_text()
    assert "hunter2" not in text
    assert "[redacted]" in text
    assert not done.stderr
    _, files = test_case("a1", "--replace")
    assert "hunter2" in files[0].read_text()
    assert files[0].stat().st_mode & 0o777 == 0o600


def test_the_last_failure_is_meant_else_the_last_step(make, test_case, spans):
    """Where no step is named."""
    with make() as tracker:
        app = apps.single(tracker, broken, state={"orders": [Order(number=4, items=[])]})
        app.step(inputs={"number": 1})
        with pytest.raises(ZeroDivisionError):
            app.step(inputs={"number": 0})
        app.step(inputs={"number": 2})
    trace_id = f"{spans.spans[0].context.trace_id:032x}"
    _, files = test_case(trace_id)
    assert json.loads(files[0].read_text())["sequence_id"] == 1


@action(reads=["count"], writes=["count"])
def dies(state: State) -> State:
    if state["count"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return state.update(count=1)


def test_a_step_whose_process_died_in_it(test_case, tmp_path):
    """Its end is not known: the test runs it on the state that it found."""
    code = f"""
    import apps, test_cli_test_case
    from burr_otel import OtelTracker
    tracker = OtelTracker("proj", {str(tmp_path / "runs")!r})
    app = apps.single(tracker, test_cli_test_case.dies)
    app.step()
    app.step()
    """
    died = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment(PYTHONPATH=str(Path(__file__).parent)),
        check=False,
    )
    assert died.returncode == -signal.SIGKILL
    _, files = test_case("a1")
    data = json.loads(files[0].read_text())
    assert (data["sequence_id"], data["outcome"]) == (1, "crashed")
    assert data["state"]["values"] == {"count": 1}
    assert files[1].read_text().endswith("    STEP.run(dies)\n")
    assert "None if its process died" in files[1].read_text()


HOSTILE = 'x"""\nimport os; os.system("touch owned")\n"""{evil}'


def test_names_of_a_log_never_become_code(make, test_case, tmp_path):
    """Actions, app ids, inputs and keys are data, whatever they are."""
    with make() as tracker:
        app = (
            apps.builder(tracker, "a'\\\"b", **{HOSTILE: asks})
            .with_transitions((HOSTILE, HOSTILE))
            .with_state(**{"count": 0, HOSTILE: 1})
            .with_entrypoint(HOSTILE)
            .build()
        )
        for _ in range(2):
            app.step(inputs={"client": Client(), "password": HOSTILE})
    log = next((tmp_path / "runs").glob("proj/*/log.jsonl"))
    graph = next((tmp_path / "runs").glob("proj/*/graph.json"))
    text = graph.read_text().replace("test_cli_test_case.asks", "os;evil.asks")
    _, files = test_case("a'")
    tree = ast.parse(files[1].read_text())
    kinds = [type(node).__name__ for node in tree.body]
    assert kinds == ["Expr", "ImportFrom", "ImportFrom", "Assign", "Assign", "FunctionDef"]
    assert not {"os.system", "{evil}"} & set(files[1].read_text().split())
    graph.write_text(text)
    log.touch()
    done, _ = test_case("a'", "--replace", status=1)
    assert "no test can import" in done.stderr
    for given in ("os;evil:f", "a:b:c", "import:f", "nothing", "m:f()"):
        done, _ = test_case("a'", "--replace", "--action", given, status=1)
        assert "--action MODULE:NAME" in done.stderr
    test_case("a'", "--replace", "--action", "test_cli_test_case:asks")
    assert not (tmp_path / "owned").exists()


def test_what_cannot_be_a_test_says_why(make, test_case):
    """A function inside another, an unknown step, files that are there, an unrecorded state."""

    @action(reads=["count"], writes=["count"])
    def local(state):
        return state.update(count=1)

    with make() as tracker:
        run_two(tracker, local, {"count": 0})
        apps.counter(tracker, "a2").run(halt_after=["finish"])
    assert "no test can import" in test_case("a1", status=1)[0].stderr
    assert "has no step 9" in test_case("a2", "--step", 9, status=3)[0].stderr
    done, _ = test_case("a2", "--step", 0, status=1)
    assert "'count' is not recorded" in done.stderr
    test_case("a2")
    assert "--replace" in test_case("a2", status=1)[0].stderr
    test_case("a2", "--replace")


def test_a_file_for_burrs_own_test_cases(make, test_case, tmp_path):
    """Which Burr's helper reads."""
    from burr.testing import load_test_cases

    with make() as tracker:
        apps.counter(tracker, "a2").run(halt_after=["finish"])
    _, files = test_case("a2", "--burr")
    cases, names = load_test_cases(str(files[0]))
    assert len(files) == 1
    assert names[0].startswith("finish-")
    before, after = cases[0]
    assert (before["count"], after["answer"]) == (3, 30)


def test_json_names_the_files(make, test_case):
    """For scripts."""
    with make() as tracker:
        apps.counter(tracker, "a2").run(halt_after=["finish"])
    done, files = test_case("a2", "--json")
    assert sorted(json.loads(done.stdout)["files"]) == [str(file) for file in files]
