"""The command group, and how a command ends."""

from __future__ import annotations

import codecs
import difflib
import gc
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click
from click.shell_completion import CompletionItem

from burr_otel._version import __version__
from burr_otel.errors import BurrOtelError, UnknownRunError

FAILED: Final = 1
NO_SUCH_RUN: Final = 3
DIFFERENT: Final = 4
UNREACHED: Final = 5
INTERRUPTED: Final = 128 + signal.SIGINT
PIPE_CLOSED: Final = 128 + signal.SIGPIPE
_STAND_INS: Final = str.maketrans("━╸╺─◆✗⊘…·µ—", "===-*x-~.u-")
_OBJECTS_BETWEEN_COLLECTIONS: Final = 100_000  # a tree of spans stays until the command ends

EXIT_CODES: Final = {
    0: "all went well",
    FAILED: "it failed; the message says why",
    2: "wrong usage",
    NO_SUCH_RUN: "no such project, run or step, or more than one run of that name",
    DIFFERENT: "the two runs differ (diff)",
    UNREACHED: "the endpoint is not there, or not yet (check)",
    INTERRUPTED: "interrupted (Ctrl-C)",
    PIPE_CLOSED: "the reader of the output went away",
}
"""Every exit code of every command."""

# The module and the summary of each command: help and completion of commands import no module.
_COMMANDS: Final = {
    "demo": ("start", "Run a small Burr application and draw its trace."),
    "check": ("start", "Find out whether traces arrive, and if not, what to change."),
    "list": ("list_runs", "List recorded runs, the one written to last first."),
    "show": ("show", "Draw a recorded run as a waterfall."),
    "diff": ("runs", "Show where two runs part."),
    "replay": ("resend", "Send stored runs as traces."),
    "recover": ("resend", "Complete the traces of runs whose process was killed."),
    "open": ("runs", "Print the address of a run's trace in the backend."),
    "test-case": ("runs", "Make a test of a recorded step."),
    "materialize": ("keep", "Write a run with whole states, for the Burr UI."),
    "copy": ("keep", "Copy runs to another folder, database or bucket."),
    "delete": ("keep", "Delete runs: their states, logs and everything beside them."),
    "prune": ("keep", "Delete old runs, to keep a store in bounds, or all runs of one user."),
    "store": ("keep", "Prepare a database or bucket that several machines keep runs in."),
    "completion": ("options", "Print what makes a shell complete commands, options and app ids."),
}


class _LazyGroup(click.Group):
    """A group that imports the module of a command when it is called: ``NAME_command`` there."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in the order of the help page."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module; name the nearest command when there is none of that name."""
        if cmd_name not in _COMMANDS:
            if not ctx.resilient_parsing:
                near = difflib.get_close_matches(cmd_name, _COMMANDS, n=2, cutoff=0.5)
                hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
                ctx.fail(f"No such command {cmd_name!r}.{hint}")
            return None
        module = importlib.import_module(f"burr_otel.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the summaries."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer commands, and the options of the group."""
        fitting = [name for name in _COMMANDS if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*(CompletionItem(name, help=_COMMANDS[name][1]) for name in fitting), *options]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Show the help page when nothing is asked for, and the shell does not complete."""
        if not (args or ctx.resilient_parsing):
            args = ["--help"]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; click itself would exit with 1 when nobody reads its output any more."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise BrokenPipeError from None  # without its number, by which click knows it


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
    """Run a command with these arguments, or those of this process, and exit with its code."""
    # No name or message may stop the output in a terminal that cannot show it.
    codecs.register_error("burr_otel.stand_in", _stand_in)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="burr_otel.stand_in")
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    sys.exit(_run(cli, arguments))


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """Something readable for a character that the terminal cannot show."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    shown = error.object[error.start : error.end].translate(_STAND_INS)
    return shown.encode("ascii", "replace").decode(), error.end


def _run(command: click.Command, arguments: Sequence[str] | None) -> int:
    try:
        result: Any = command.main(arguments, prog_name="burr-otel", standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes standard output once more at exit, and would complain of the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except (click.ClickException, BurrOtelError, OSError) as error:
        return _complain_of(error)
    except ValueError as error:
        if "OTEL_" not in str(error):
            raise
        return _complain_of(error)  # with a bad limit the SDK cannot even be imported
    return result if isinstance(result, int) else 0


def _complain_of(error: Exception) -> int:
    from burr_otel.cli.terminal import complain

    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        if context is not None:
            hint = f"Try '{context.command_path} --help' for help."
            click.echo(f"{context.get_usage()}\n{hint}\n", err=True)
        complain(error.format_message())
        return error.exit_code
    from burr_otel.view.find import NoSingleRunError

    complain(str(error))
    return NO_SUCH_RUN if isinstance(error, UnknownRunError | NoSingleRunError) else FAILED
