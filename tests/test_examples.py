"""The programs of examples/: each runs without any server, and its trace is as its text says."""

import runpy
import sys
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from otlp_receiver import receiving
from programs import run_program

from burr_otel.store import Store

EXAMPLES = Path(__file__).parents[1] / "examples"
NEEDS_RAY = "parallel_ray"  # tests/backends/test_ray.py


@pytest.fixture
def run_example(spans, monkeypatch, tmp_path, capsys):
    """Runs an example in a home of its own, with its spans captured; returns what it printed."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: spans.provider)

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.fixture
def store(tmp_path):
    """The runs that an example left in its home."""
    return lambda project: Store(project, str(tmp_path / ".burr"))


QUICKSTART = """
invoke_workflow quickstart
  ask
  count_words
    split
  long_answer
"""


def test_quickstart(run_example, spans):
    """The branch taken, and a span of the user's own below its step."""
    out = run_example("quickstart")
    assert out.startswith("You asked with 8 words")
    assert spans.tree() == QUICKSTART


STREAMING = """
invoke_workflow streaming
  choose
  tell *first_item *end
invoke_workflow streaming [abandoned]
  choose
  tell [abandoned] *first_item *end
invoke_workflow streaming
  choose
  tell *first_item *end
"""


def test_streaming(run_example, spans):
    """Read to the end, dropped, and asynchronous."""
    out = run_example("streaming")
    assert "A burr ... enough\n" in out
    assert spans.tree() == STREAMING
    tells = [span for span in spans.spans if span.name == "tell"]
    assert [span.attributes["burr.stream.items"] for span in tells] == [16, 2, 16]


RESUME_AND_FORK = """
invoke_workflow resume-and-fork [error] (the weather service does not answer)
  choose_city
  look_up [error] (the weather service does not answer)
invoke_workflow resume-and-fork resume→invoke_workflow resume-and-fork resume→look_up
  look_up
  advise
invoke_workflow resume-and-fork fork→look_up
  advise
"""


def test_resume_and_fork(run_example, spans, store):
    """The failed step is run again, the fork begins behind it, and both are linked."""
    out = run_example("resume_and_fork")
    assert out.startswith(
        "goes on at: look_up\n"
        "Bergen: rain later. Take an umbrella.\n"
        "Bergen: rain later. Take nothing.\n"
    )
    assert spans.tree() == RESUME_AND_FORK
    assert len(store("resume-and-fork").list_app_ids(None)) == 2


MIGRATION = """
invoke_workflow migration
  add
"""


def test_migrate_from_local_tracker(run_example, spans):
    """What the old tracker wrote goes on under ours, and the old one reads what we wrote."""
    out = run_example("migrate_from_local_tracker")
    assert "in the basket: bread milk\nLocalTrackingClient reads: bread milk\n" in out
    assert spans.tree() == MIGRATION


CHATBOT = """
invoke_workflow chatbot
  prompt
  respond
    chat gpt-4o-mini
  prompt
  respond
    chat gpt-4o-mini
"""


def test_chatbot(run_example, spans, store):
    """The model's call is below its step, and the next run remembers the conversation."""
    run_example("chatbot", "bob", "Who are you?", "Why?")
    OpenAIInstrumentor().uninstrument()
    assert spans.tree() == CHATBOT
    calls = [span for span in spans.spans if span.name.startswith("chat ")]
    assert [call.attributes["gen_ai.usage.output_tokens"] for call in calls] == [12, 12]
    out = run_example("chatbot", "bob", "And before?")
    OpenAIInstrumentor().uninstrument()
    assert "That is your question 3. The first was 'Who are you?'." in out
    assert len(store("chatbot").load(None, "bob")["state"]["history"]) == 6


def test_honeycomb_without_a_key_sends_nothing(run_example, spans):
    """It says so, and runs."""
    out = run_example("honeycomb")
    assert out.startswith("HONEYCOMB_API_KEY is not set: nothing is sent.")
    assert len([span for span in spans.spans if span.name == "price"]) == 3


def test_honeycomb_sends_to_the_dataset_without_values_of_the_state(tmp_path):
    """With a key: every span arrives, by the service's name, and says types for values."""
    with receiving() as receiver:
        done = run_program(
            (EXAMPLES / "honeycomb.py").read_text(),
            tmp_path,
            HONEYCOMB_API_KEY="k",
            HONEYCOMB_ENDPOINT=receiver.environ["OTEL_EXPORTER_OTLP_ENDPOINT"],
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        )
    assert done.stderr == ""
    assert len(receiver.spans) == 9
    assert {span.resource.attributes["service.name"] for span in receiver.spans} == {
        "burr-otel-example"
    }
    prices = [span for span in receiver.spans if span.name == "price"]
    assert {span.attributes["burr.state.written"] for span in prices} == {'{"price":"float"}'}


@pytest.mark.parametrize("tree", [QUICKSTART, STREAMING, RESUME_AND_FORK, MIGRATION, CHATBOT])
def test_the_traces_shown_are_those_that_are_made(tree):
    """examples/README.md shows each tree that a test above compares with."""
    assert f"```text{tree}```" in (EXAMPLES / "README.md").read_text("utf-8")


def test_every_example_is_described_and_tested():
    """Each has a row in the README, a section in examples/README.md and a test."""
    root = EXAMPLES.parent
    readme = (root / "README.md").read_text("utf-8")
    sections = (EXAMPLES / "README.md").read_text("utf-8")
    here = Path(__file__).read_text("utf-8")
    for program in sorted(EXAMPLES.glob("*.py")):
        assert f"(examples/{program.name})" in readme
        assert f"\n## {program.name}\n" in sections
        assert program.stem == NEEDS_RAY or f'run_example("{program.stem}"' in here
        assert len(program.read_text("utf-8").splitlines()) <= 100
