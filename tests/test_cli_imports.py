"""Commands that only look at files start at once: they import neither Burr nor a tracing SDK."""

import json
import subprocess
import sys

import pytest
from cli_support import RECORDED, environment

HEAVY = ["burr", "opentelemetry", "pydantic", "grpc", "requests"]
REPORT = f"""
import sys
from burr_otel.cli import main
try:
    main()
except SystemExit as exited:
    found = [name for name in {HEAVY!r} if name in sys.modules]
    print(f"\\n{{exited.code}} {{found}}")
"""
WHERE = ("--storage-dir", str(RECORDED))
RUN = ("chat-1-giraffe", "-p", "demo_chatbot", *WHERE)


def imported(*arguments, **variables):
    """Exit code of a command, what it printed, and which heavy packages it imported."""
    done = subprocess.run(
        [sys.executable, "-c", REPORT, *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    printed, _, last = done.stdout.rstrip().rpartition("\n")
    return printed, last


def completed(*words):
    """The same for a completion in bash."""
    return imported(
        _BURR_OTEL_COMPLETE="bash_complete",
        COMP_WORDS=" ".join(["burr-otel", *words]),
        COMP_CWORD=str(len(words)),
    )


def test_help_imports_nothing_heavy():
    """Nor anything that draws."""
    printed, last = imported("--help")
    assert "materialize" in printed
    assert last == "0 []"


@pytest.mark.parametrize("words", [("sh",), ("completion", "b")])
def test_completion_of_commands_imports_nothing_heavy(words):
    """It runs at every tab."""
    printed, last = completed(*words)
    assert "plain," in printed
    assert last == "0 []"


# --- reading runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", *WHERE),
        ("list", "--json", *WHERE),
        ("show", *RUN),
        ("show", "--json", *RUN),
        ("show", "--step", "0", *RUN),
        ("show", "--html", "-", *RUN),
        ("diff", "chat-1-giraffe", *RUN),
        ("show", "--help"),
        ("diff", "--help"),
        ("prune", "--keep", "1", "--dry-run", *WHERE),
        ("prune", "--help"),
        ("delete", "--help"),
        ("copy", "--help"),
    ],
)
def test_looking_at_files_imports_nothing_heavy(arguments):
    """Logs are JSON: they are read without Burr."""
    printed, last = imported(*arguments)
    assert printed
    assert last == "0 []"


@pytest.mark.parametrize(
    "words",
    [
        ("show", *WHERE, "chat-"),
        ("diff", *WHERE, "chat-"),
        ("delete", *WHERE, "chat-"),
        ("copy", *WHERE, "chat-"),
        ("prune", *WHERE, "-p", "demo"),
        ("list", *WHERE, "-p", "demo"),
        ("show", "--fol"),
        ("recover", "--js"),
    ],
)
def test_completion_of_ids_and_options_imports_nothing_heavy(words):
    """Names of folders, and options of a command."""
    printed, last = completed(*words)
    assert "plain," in printed
    assert last == "0 []"


# --- the package ----------------------------------------------------------------------------------


def package(code):
    done = subprocess.run(
        [sys.executable, "-c", f"import json, sys\nimport burr_otel\n{code}"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout)


def test_the_package_imports_nothing_until_a_name_is_used():
    """`import burr_otel` alone costs nothing; a name brings what it needs."""
    found = package(
        f"before = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "burr_otel.SnapshotError\n"
        f"then = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "from burr_otel import OtelTracker\n"
        "print(json.dumps([before, then, 'burr' in sys.modules, OtelTracker.__name__]))"
    )
    assert found == [[], [], True, "OtelTracker"]


def test_all_names_are_there_and_listed():
    """Whatever `__all__` promises comes, by `import *` too, and `dir` names it beforehand."""
    code = (
        "listed = set(dir(burr_otel)) >= set(burr_otel.__all__)\n"
        "from burr_otel import *\n"
        "print(json.dumps([listed, all(name in globals() for name in burr_otel.__all__)]))"
    )
    assert package(code) == [True, True]


def test_a_name_that_is_not_there_is_an_attribute_error():
    """As of any module, so that `hasattr` and a misspelt import work."""
    import burr_otel

    assert not hasattr(burr_otel, "OtelTrakcer")
    with pytest.raises(ImportError, match="OtelTrakcer"):
        exec("from burr_otel import OtelTrakcer")
