"""The README names every command; docs/command-line.md every option and exit code."""

import re
from pathlib import Path

import click
import pytest

from burr_otel.cli import cli
from burr_otel.cli.app import EXIT_CODES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
SECTION = README.partition("## On the command line")[2].partition("\n## ")[0]
PAGE = (ROOT / "docs" / "command-line.md").read_text("utf-8")
CONTEXT = click.Context(cli, info_name="burr-otel")
COMMANDS = cli.list_commands(CONTEXT)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name):
    """A command without a line in the README is a command that nobody finds."""
    assert re.search(rf"^\| `burr-otel {name}\b", SECTION, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented(name):
    """Each long option stands on the page."""
    command = cli.get_command(CONTEXT, name)
    for option in command.params:
        if isinstance(option, click.Option):
            long = max(option.opts, key=len)
            assert f"`{long}" in PAGE, f"{name} {long} is not in docs/command-line.md"


def test_no_command_or_option_is_documented_that_is_not_there():
    """What was renamed or removed must go from the texts too."""
    commands = re.findall(r"^\| `burr-otel ([\w-]+)", SECTION, re.MULTILINE)
    assert sorted(commands) == sorted(COMMANDS)
    options = {
        opt
        for name in COMMANDS
        for param in cli.get_command(CONTEXT, name).params
        for opt in param.opts
    }
    for option in set(re.findall(r"`(--[a-z-]+)", SECTION + PAGE)):
        assert option in {*options, "--help"}, f"{option} is no option of any command"


def test_every_exit_code_is_documented():
    """In the order of their numbers."""
    table = PAGE.partition("| exit code |")[2].partition("\n\n")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == list(
        EXIT_CODES
    )
