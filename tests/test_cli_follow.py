"""`burr-otel show --follow`, beside a program that runs step by step."""

import json
import subprocess
import sys

import pytest
from cli_support import Terminal, command, environment, run, without_colour

PROGRAM = """
import sys
from burr.core import ApplicationBuilder, State, action
from burr.tracking import LocalTrackingClient
from burr_otel import OtelTracker

@action(reads=[], writes=["word"])
def say(state: State, word: str) -> State:
    if word == "wait":
        print("waiting", flush=True)
        word = sys.stdin.readline().strip()
    if word == "fail":
        raise ValueError("told to")
    return state.update(word=word)

client = OtelTracker if sys.argv[2] == "ours" else LocalTrackingClient
app = (
    ApplicationBuilder().with_actions(say).with_transitions(("say", "say")).with_entrypoint("say")
    .with_identifiers(app_id="a1").with_tracker(client("proj", sys.argv[1])).build()
)
for line in sys.stdin:
    try:
        app.step(inputs={"word": line.strip()})
    except ValueError:
        pass
    print("done", flush=True)
"""


class Writer:
    """A program that takes a step for each line that it is given."""

    def __init__(self, folder, client="ours"):
        program = folder / "program.py"  # plain Burr needs to read an action's source
        program.write_text(PROGRAM)
        self._process = subprocess.Popen(
            [sys.executable, program, folder, client],
            env=environment(OTEL_TRACES_EXPORTER="none", BURR_OTEL_ROOT_LINGER="none"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def step(self, word, answer="done"):
        self.begin(word)
        assert self._process.stdout.readline().strip() == answer

    def begin(self, word):
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def end(self):
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def kill(self):
        self._process.kill()
        self.end()


@pytest.fixture
def writer(tmp_path):
    started = []

    def start(client="ours"):
        started.append(Writer(tmp_path, client))
        return started[-1]

    yield start
    for each in started:
        each.kill()


def followed(folder, *more):
    return ("show", "a1", "--storage-dir", folder, "--follow", *more)


def test_a_terminal_shows_steps_as_they_come(tmp_path, writer):
    """New steps appear, a running one is drawn as running, and the end of the process ends it."""
    program = writer()
    program.step("one")
    with Terminal(*followed(tmp_path)) as terminal:
        terminal.read_until("0 say")
        program.step("two")
        terminal.read_until("1 say")
        program.step("wait", answer="waiting")
        terminal.read_until("… ")
        assert "running" in terminal.drawn
        program.step("three")
        program.step("fail")
        terminal.read_until("ValueError: told to")
        program.end()
        assert terminal.finish() == 0
        # the last picture stays, and is the same that `show` draws afterwards
        last = without_colour(terminal.drawn).rpartition("proj/a1  ")[2].partition("\x1b")[0]
    shown = run("show", "a1", "--storage-dir", tmp_path, COLUMNS="80").stdout
    assert shown == f"proj/a1  {last}"


def test_a_killed_program_ends_it_too(tmp_path, writer):
    """The step that it was in is shown as crashed."""
    program = writer()
    program.step("one")
    with Terminal(*followed(tmp_path)) as terminal:
        program.step("wait", answer="waiting")
        terminal.read_until("1 say")
        program.kill()
        assert terminal.finish() == 0
        assert "crashed" in terminal.drawn


def test_control_c_ends_it(tmp_path, writer):
    """As any program that runs until it is stopped; the cursor is given back."""
    program = writer()
    program.step("one")
    with Terminal(*followed(tmp_path)) as terminal:
        terminal.read_until("0 say")
        terminal.press("\x03")
        assert terminal.finish() == 130
        assert terminal.drawn.rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in terminal.drawn
        assert "Traceback" not in terminal.drawn


def test_without_a_terminal_each_ended_step_is_a_line(tmp_path, writer):
    """In a log or a pipe nothing is drawn over."""
    program = writer()
    program.step("one")
    process = subprocess.Popen(
        command(*followed(tmp_path)), env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline().startswith("0 say  ")
    program.step("fail")
    line = process.stdout.readline()
    assert line.startswith("1 say  ")
    assert line.rstrip().endswith("failed  ValueError: told to")
    program.end()
    rest, _ = process.communicate(timeout=60)
    assert rest == ""
    assert process.returncode == 0


def test_json_gives_each_ended_step_as_a_line(tmp_path, writer):
    """For programs that want to act on steps."""
    program = writer()
    program.step("one")
    program.step("two")
    program.end()
    result = run(*followed(tmp_path, "--json"))
    assert result.returncode == 0
    assert [json.loads(line)["sequence_id"] for line in result.stdout.splitlines()] == [0, 1]


def test_a_run_of_plain_burr_is_followed_until_control_c(tmp_path, writer):
    """Its log never says that the application has ended."""
    program = writer("burr's")
    program.step("one")
    with Terminal(*followed(tmp_path)) as terminal:
        terminal.read_until("0 say")
        program.step("two")
        terminal.read_until("1 say")
        terminal.press("\x03")
        assert terminal.finish() == 130


def test_follow_excludes_the_other_forms(tmp_path):
    """One form at a time."""
    assert run(*followed(tmp_path, "--step", "1")).returncode == 2
    assert run(*followed(tmp_path, "--html", "x")).returncode == 2
