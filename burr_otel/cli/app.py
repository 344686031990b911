"""The command group, and how a command ends."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from burr_otel._version import __version__
from burr_otel.cli.terminal import complain, prepare
from burr_otel.errors import BurrOtelError, UnknownRunError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EXIT_CODES", "cli", "main"]

FAILED: Final = 1
NO_SUCH_RUN: Final = 3
DIFFERENT: Final = 4
UNREACHED: Final = 5
INTERRUPTED: Final = 128 + signal.SIGINT
PIPE_CLOSED: Final = 128 + signal.SIGPIPE

EXIT_CODES: Final = {
    0: "all went well",
    FAILED: "it failed; the message says why",
    2: "wrong usage",
    NO_SUCH_RUN: "no such run or step, or more than one run of that name",
    DIFFERENT: "the two runs differ (diff)",
    UNREACHED: "the endpoint is not there, or not yet (check)",
    INTERRUPTED: "interrupted (Ctrl-C)",
    PIPE_CLOSED: "the reader of the output went away",
}
"""Every exit code of every command."""

# A command's module is imported only when it is called: Burr takes half a second to import, which
# shell completion and `list` need not pay.
_COMMANDS: Final = {
    "demo": "burr_otel.cli.demo",
    "check": "burr_otel.cli.check",
    "list": "burr_otel.cli.list_runs",
    "show": "burr_otel.cli.show",
    "diff": "burr_otel.cli.diff",
    "replay": "burr_otel.cli.replay",
    "recover": "burr_otel.cli.recover",
    "open": "burr_otel.cli.open_trace",
    "materialize": "burr_otel.cli.materialize",
    "completion": "burr_otel.cli.complete",
}


class _LazyGroup(click.Group):
    """A group whose commands live in modules of their own, as ``command``."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in the order of the help page."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command's module."""
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = importlib.import_module(module).command
        return command


_EPILOG: Final = "\b\nExit codes:\n" + "\n".join(
    f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES.items()
)


@click.command(
    cls=_LazyGroup,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="burr-otel", help="Show the version and exit.")
def cli() -> None:
    """Look at the recorded runs of Burr applications.

    Runs are read from the files that OtelTracker (or Burr's LocalTrackingClient) wrote, below
    ~/.burr unless --storage-dir says otherwise. No server is needed.

    \b
    Example:
      burr-otel demo
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its code (see `EXIT_CODES`).

    Args:
        arguments: What follows the program's name; those of this process when absent.
    """
    prepare()
    sys.exit(_run(cli, arguments))


def _run(command: click.Command, arguments: Sequence[str] | None) -> int:
    try:
        result: Any = command.main(arguments, prog_name="burr-otel", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as exited:
        return exited.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        _give_up_output()
        return PIPE_CLOSED
    except (BurrOtelError, OSError) as error:
        complain(str(error))
        return NO_SUCH_RUN if _names_no_single_run(error) else FAILED
    return result if isinstance(result, int) else 0


def _names_no_single_run(error: Exception) -> bool:
    from burr_otel.view.find import AmbiguousRunError  # noqa: PLC0415 - as for the commands
    from burr_otel.view.steps import UnknownStepError  # noqa: PLC0415 - likewise

    return isinstance(error, UnknownRunError | AmbiguousRunError | UnknownStepError)


def _give_up_output() -> None:
    # The interpreter flushes standard output once more at exit, and would complain about the pipe.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
