"""Help texts, versions, exit codes and usage errors, through the real executable."""

import click
import pytest
from cli_support import run

from burr_otel import __version__
from burr_otel.cli import app, cli
from burr_otel.cli.app import EXIT_CODES

CONTEXT = click.Context(cli, info_name="burr-otel")
COMMANDS = cli.list_commands(CONTEXT)


def test_help_lists_every_command_and_exit_code():
    """One page says what there is and what the exit codes mean."""
    result = run("--help")
    assert result.returncode == 0
    assert not result.stderr
    for name in COMMANDS:
        assert f"\n  {name} " in result.stdout
    for code, meaning in EXIT_CODES.items():
        assert f"{code} " in result.stdout
        assert meaning in result.stdout


def test_nothing_asked_for_gives_the_help_page():
    """As most programs do; click's own way is an error, which would be squeezed into one line."""
    result = run()
    assert (result.returncode, result.stdout, result.stderr) == (0, run("--help").stdout, "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name):
    """Each command's help has a summary, an example that begins with the command's name."""
    result = run(name, "--help")
    assert result.returncode == 0
    assert "Example" in result.stdout
    examples = result.stdout.partition("Example")[2].partition("Options:")[0].splitlines()[1:]
    first = next(line for line in examples if line)
    assert first.startswith("    ")
    assert f"burr-otel {name}" in first, "a line each"
    assert "\\b" not in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help_text(name):
    """No option is left to be guessed."""
    command = cli.get_command(CONTEXT, name)
    options = [p for p in command.params if isinstance(p, click.Option)]
    for option in options:
        assert option.help, f"{name} {option.opts[-1]} has no help text"
    if name != "completion":  # its output is a program for the shell
        assert any("--json" in option.opts for option in options), f"{name} has no --json"


def test_version():
    """The version is that of the package."""
    result = run("--version")
    assert result.returncode == 0
    assert __version__ in result.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["shwo"], "shwo"),
        (["list", "--limit", "-3"], "-3"),
        (["list", "--limti", "3"], "--limti"),
        (["show"], "APP_ID"),
    ],
)
def test_wrong_usage_is_named_and_exits_with_2(arguments, named):
    """The message names what is wrong; nothing is printed to standard output."""
    result = run(*arguments)
    assert result.returncode == 2
    assert named in result.stderr
    assert not result.stdout
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", ["check", "demo", "recover"])
def test_a_variable_with_which_the_sdk_cannot_be_imported_is_named(name, tmp_path):
    """One sentence: no traceback, least of all from the command that finds mistakes."""
    arguments = (name, "--storage-dir", tmp_path)
    result = run(*arguments, OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="many")
    assert result.returncode == 1
    assert result.stderr.startswith("Error: OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT must be ")
    assert result.stderr.count("\n") == 1


def test_a_command_that_is_nearly_one_is_named():
    """A typing error is answered with what was probably meant."""
    assert "Did you mean 'replay'" in run("rplay").stderr
    assert "Did you mean" not in run("xyzzy").stderr


def test_the_help_page_says_what_each_command_says():
    """Its summaries stand apart from the commands, which it does not import."""
    for name, (_, summary) in app._COMMANDS.items():
        assert cli.get_command(CONTEXT, name).get_short_help_str(200).rstrip(".") == summary[:-1]


def test_what_was_typed_does_not_act_on_the_terminal():
    """An argument may come from a script that took it from anywhere."""
    for arguments in (["show", "a", "\x1b[2J\nError: b"], ["\x1b[2J"], ["show", "--x\x1b[2J\n"]):
        result = run(*arguments)
        assert result.returncode == 2
        assert "\x1b" not in result.stderr
        assert sum(line.startswith("Error:") for line in result.stderr.splitlines()) == 1
