"""Every snippet of README and docs is executed here, or names the test that does, or says why not.

A block of Python runs after those above it on its page. A block of shell is run by bash; programs
in it are stand-ins that note how they were called, and each call is then checked: burr-otel's are
run in this process, requirements must be ones that we have, files must exist.
"""

import ast
import importlib.metadata
import json
import logging
import re
import subprocess
from pathlib import Path

import apps
import pytest
from burr.core import ApplicationBuilder, action
from click.testing import CliRunner
from opentelemetry import trace
from opentelemetry.instrumentation.logging import LoggingInstrumentor
from opentelemetry.util.re import parse_env_headers
from packaging.requirements import Requirement
from snippets import PAGES, ROOT, snippets

from burr_otel import OtelTracker, semconv
from burr_otel.cli import cli
from burr_otel.demo import build_demo, run_demo

pytestmark = pytest.mark.one_python

SNIPPETS = snippets()
RUN_ID = "demo-1f3a9c02"  # the run that the pages speak of
OUTPUT = "text"  # what a program prints: nothing to run


def of(*languages):
    """Parameters: the blocks of these languages that are run here."""
    return [
        pytest.param(each, id=str(each))
        for each in SNIPPETS
        if each.language in languages and not each.elsewhere
    ]


def test_every_block_is_run_somewhere_or_says_why_not():
    """A block of a language that nothing here runs needs a marker; a named test must exist."""
    assert len(SNIPPETS) > 30
    for snippet in SNIPPETS:
        known = snippet.language in {"python", "bash", "json", OUTPUT}
        assert known or snippet.elsewhere, f"{snippet} is run by no test"
        if snippet.tested:
            test = (ROOT / snippet.tested).read_text("utf-8")
            assert Path(snippet.page).name in test, f"{snippet.tested} does not read {snippet.page}"
    fences = sum(
        len(re.findall(r"^```", (ROOT / page).read_text("utf-8"), re.MULTILINE)) for page in PAGES
    )
    assert fences == 2 * len(SNIPPETS), "a block that the pattern of snippets.py does not see"


# --- Python -------------------------------------------------------------------------------------


def build_app(tracker):
    """The application that README's test builds."""
    namespace = {}
    code = next(each.code for each in SNIPPETS if each.page == "README.md")
    exec(code.partition("tracker = ")[0], namespace)
    return (
        ApplicationBuilder()
        .with_actions(namespace["ask"], namespace["answer"])
        .with_transitions(("ask", "answer"))
        .with_entrypoint("ask")
        .with_tracker(tracker)
        .build()
    )


def an_application():
    """A tracker and the id of an application that it has traced."""
    tracker = OtelTracker("shop")
    return {"tracker": tracker, "app_id": build_app(tracker).uid}


def presumed():
    """Names that the text around a block speaks of."""
    return {
        "README.md": {"build_app": build_app},
        "docs/command-line.md": {"logger": logging.getLogger("order"), **an_application()},
        "docs/privacy.md": {"EMAIL": re.compile(r"\S+@\S+"), "OtelTracker": OtelTracker},
        "docs/processes.md": {
            "build_application": apps.answering,
            "customer_id": "ann",
            "OtelTracker": OtelTracker,
        },
        "docs/spans.md": {"action": action, "OtelTracker": OtelTracker},
    }


@pytest.mark.parametrize(
    "page", sorted({each.page for each in SNIPPETS if each.language == "python"})
)
def test_python(page, monkeypatch, tmp_path):
    """All Python of a page, from its beginning; functions named test_ are called as pytest would."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HONEYCOMB_API_KEY", "k")
    made = []
    monkeypatch.setattr(trace, "set_tracer_provider", made.append)
    namespace = presumed().get(page, {})
    try:
        for snippet in SNIPPETS:
            if (snippet.page, snippet.language) == (page, "python") and not snippet.elsewhere:
                tree = ast.parse(snippet.code)
                ast.increment_lineno(tree, snippet.line)
                exec(compile(tree, ROOT / page, "exec"), namespace)
        for name in [name for name in namespace if name.startswith("test_")]:
            namespace[name](tmp_path / name)
    finally:
        LoggingInstrumentor().uninstrument()
        if "BurrInstrumentor" in namespace:
            namespace["BurrInstrumentor"]().uninstrument()
        for provider in made:
            provider.shutdown()
    if page == "README.md":
        assert len(made) == 1, "configure() made the global provider"
        assert namespace["what_if"].state["answer"] == "I will look into it: Where is my order?"


# --- shell --------------------------------------------------------------------------------------

STAND_IN = """#!/bin/sh
exec > "$(mktemp "$CALLS/$(date +%s%N).XXXX")"
printf '%s\\0' "${0##*/}" "$@"
printf '\\n'
pwd
env | grep -E '^(OTEL_|BURR_OTEL_)' || true
"""


def requirements(arguments):
    """What ``pip install`` is asked for exists, and our extras are those of pyproject.toml."""
    assert arguments[0] == "install"
    table = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    ours = set(re.findall(r"^(\w+) = \[", table.partition("\n[")[0], re.MULTILINE))
    for each in arguments[1:]:
        if each == "../burr-otel":  # a checkout elsewhere
            continue
        requirement = Requirement(each.replace(".", "burr-otel", 1) if each[0] == "." else each)
        if requirement.name == "burr-otel":
            assert requirement.extras <= ours
        else:
            importlib.metadata.version(requirement.name)


def a_program(arguments):
    """Python is given a file that exists; app.py stands for the reader's own."""
    assert (ROOT / arguments[0]).is_file() or arguments[0] == "app.py"


def served(arguments, folder):
    """The factory that uvicorn is given is in the folder."""
    module, _, function = arguments[arguments.index("--factory") + 1].partition(":")
    assert f"def {function}(" in (Path(folder) / f"{module}.py").read_text("utf-8")


def configurations(arguments):
    """Each configuration of the collector is a file of ours, or starts with ``yaml:``."""
    named = [arguments[n + 1] for n, each in enumerate(arguments) if each == "--config"]
    assert named
    for each in named:
        assert each.startswith("yaml:") or (ROOT / each).is_file()


def ours(arguments, environ):
    """Runs burr-otel in this process; what would leave this machine is only parsed."""
    command = cli.get_command(None, arguments[0])
    assert command, f"no command {arguments[0]}"
    leaves = {"--to", "--browser"} & set(arguments) or "OTEL_EXPORTER_OTLP_ENDPOINT" in environ
    leaves = leaves or "://" in " ".join([*arguments, environ.get("BURR_OTEL_STORAGE_DIR", "")])
    if leaves:
        command.make_context(arguments[0], list(arguments[1:]))
        return
    done = CliRunner().invoke(cli, arguments, env=environ)
    assert done.exit_code == 0, done.output


def called(program, arguments, folder, environ):
    """Check one call."""
    if program == "burr-otel":
        ours(arguments, environ)
    elif program == "pip":
        requirements(arguments)
    elif program == "python":
        a_program(arguments)
    elif program == "opentelemetry-instrument":
        assert arguments[0] == "python"
        a_program(arguments[1:])
    elif program == "uvicorn":
        served(arguments, folder)
    elif program == "otelcol-contrib":
        configurations(arguments)
    elif program == "docker":
        assert arguments[:2] == ["run", "--rm"]
        assert arguments[-1] == "jaegertracing/jaeger"
    else:
        assert program in {"burr", "curl", "pytest"}


PROGRAMS = [
    "burr",
    "burr-otel",
    "curl",
    "docker",
    "opentelemetry-instrument",
    "otelcol-contrib",
    "pip",
    "pytest",
    "python",
    "uvicorn",
]


@pytest.fixture
def run_bash(tmp_path, monkeypatch):
    """Runs shell in the repository's folder with stand-ins; returns the calls, and OTEL_* at the end."""
    monkeypatch.setenv("HOME", str(tmp_path))
    tracker = OtelTracker("burr-otel-demo")
    run_demo(build_demo(tracker, RUN_ID, wait=lambda _: None))
    tracker.close()
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()
    for program in PROGRAMS:
        (stand_ins / program).write_text(STAND_IN)
        (stand_ins / program).chmod(0o755)
    (tmp_path / "calls").mkdir()

    def run(code):
        environ = {
            "PATH": f"{stand_ins}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "CALLS": str(tmp_path / "calls"),
            "HONEYCOMB_API_KEY": "k",
            "LANGFUSE_PUBLIC_KEY": "pk-lf",
            "LANGFUSE_SECRET_KEY": "sk-lf",
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{code}\nwait\nenv -0"],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        calls = []
        for call in sorted((tmp_path / "calls").iterdir()):
            words, _, rest = call.read_text().partition("\0\n")
            folder, *variables = rest.splitlines()
            calls.append((words.split("\0"), folder, dict(v.split("=", 1) for v in variables)))
        return calls, dict(v.split("=", 1) for v in done.stdout.split("\0") if "=" in v)

    return run


@pytest.mark.parametrize("snippet", of("bash"))
def test_bash(snippet, run_bash):
    """Every command of the block can be given so; OTLP headers can be read by the exporters."""
    calls, environ = run_bash(snippet.code)
    assert calls or "export " in snippet.code
    for (program, *arguments), folder, variables in calls:
        called(program, arguments, folder, variables)
    headers = environ.get("OTEL_EXPORTER_OTLP_HEADERS")
    if headers:
        assert set(parse_env_headers(headers)) <= {
            "authorization",
            "x-honeycomb-team",
            "x-langfuse-ingestion-version",
        }


# --- data ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("snippet", of("json"))
def test_json(snippet):
    """Queries of Honeycomb: known operators, and columns that we or Honeycomb fill."""
    query = json.loads(snippet.code)
    columns = {each["column"] for each in query["filters"]} | set(query["breakdowns"])
    columns |= {each["column"] for each in query["calculations"] if "column" in each}
    names = {value for name, value in vars(semconv).items() if name.isupper()}
    assert columns <= names | {"duration_ms", "name", "trace.trace_id"}
    assert {each["op"] for each in query["filters"]} <= {"exists", "=", "in"}
    assert {each["op"] for each in query["calculations"]} <= {"P95", "HEATMAP", "COUNT", "MAX"}


@pytest.mark.parametrize("snippet", [s for s in SNIPPETS if s.language in {"traceql", "promql"}])
def test_queries_that_are_not_run_name_our_attributes(snippet):
    """Renamed attributes must be renamed there too; Prometheus has _ for dots."""
    names = {value for value in vars(semconv).values() if isinstance(value, str)}
    if snippet.language == "traceql":
        found = set(re.findall(r"span\.([\w.]+)", snippet.code))
    else:
        names = {name.replace(".", "_") for name in names}
        found = {name for name in re.findall(r"burr_\w+", snippet.code) if "steps_" not in name}
        found = {re.sub(r"(_seconds)?(_bucket|_total)$", "", name) for name in found}
    assert found
    assert found <= names


def test_no_page_names_a_variable_that_is_not_ours():
    """BURR_OTEL_* variables on the pages are settings, or options of the commands."""
    from burr_otel.config import OtelConfig

    known = {f"BURR_OTEL_{name.upper()}" for name in OtelConfig.__dataclass_fields__}
    commands = [cli.get_command(None, name) for name in cli.list_commands(None)]
    known |= {str(each.envvar) for command in commands for each in command.params}
    for page in PAGES:
        for name in re.findall(r"BURR_OTEL_[A-Z_]+\b", (ROOT / page).read_text("utf-8")):
            assert name in known or name.endswith("_"), f"{page}: {name}"
