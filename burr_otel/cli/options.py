"""Options that several commands share, what the shell offers for them, and how results print."""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar, cast

import click
from click.shell_completion import CompletionItem, shell_complete

from burr_otel.cli.app import FAILED
from burr_otel.cli.terminal import CommandResult, complain, output, print_json, print_parts
from burr_otel.config import ENV_PREFIX
from burr_otel.errors import BurrOtelError
from burr_otel.view.find import Where

DEFAULT_STORAGE_DIR: Final = "~/.burr"

F = TypeVar("F", bound=Callable[..., Any])

_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_MOST_OFFERED: Final = 100
# Ids come from anywhere, and bash puts what is offered into the command line as it is, where
# $(...), quotes, spaces and wildcards act. Only what no shell acts on is offered.
_NEEDS_NO_QUOTING: Final = re.compile(r"\w[\w.@+:-]*")


# --- values -------------------------------------------------------------------------------------


def moment(text: str) -> int:
    """An age such as ``2h``, or a date or time, in nanoseconds since the epoch."""
    text = text.strip()
    age = _AGO.fullmatch(text)  # no capital letters: an M may be meant for months
    if age:
        return time.time_ns() - int(float(age[1]) * _UNIT_S[age[2]] * 1e9)
    try:
        # Python 3.10 does not read a Z. A time without a zone is the reader's own.
        return int(dt.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()) * 10**9
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{text!r} is no time. Use an age such as 45s, 30m, 2h, 3d or 1w, "
            "or a date or time such as 2025-01-31 or 2025-01-31T14:00."
        ) from None


def size(text: str) -> int:
    """A number of bytes, such as ``500M`` or ``5G``."""
    found = _SIZE.fullmatch(text.strip().upper())
    if not found:
        raise click.BadParameter(f"{text!r} is no size. Use a number of bytes, or 500M, 5G, 1.5T.")
    return int(float(found[1]) * 1024 ** "BKMGT".index(found[2] or "B"))


# --- what the shell offers ----------------------------------------------------------------------


def app_ids(ctx: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Ids of runs that begin with what is typed, with their project as help."""
    found = Where(ctx.params["storage_dir"], ctx.params.get("project")).runs()
    return _offered(((run.app_id, run.project) for run in found), typed)


def _projects(ctx: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Names of projects that begin with what is typed."""
    found = Where(ctx.params["storage_dir"]).stores()
    return _offered(((store.project, None) for store in found), typed)


def _offered(names: Iterator[tuple[str, str | None]], typed: str) -> list[CompletionItem]:
    fitting = (
        CompletionItem(name, help=told)
        for name, told in names
        if name.startswith(typed) and _NEEDS_NO_QUOTING.fullmatch(name)
    )
    try:
        return list(itertools.islice(fitting, _MOST_OFFERED))
    except (BurrOtelError, OSError):
        return []  # nobody wants an error message in the middle of typing


@click.command("completion")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion_command(shell: str) -> None:
    """Print what makes a shell complete commands, options and app ids.

    App ids that would have to be quoted in a shell are not offered.

    \b
    Examples:
      eval "$(burr-otel completion bash)"       # in ~/.bashrc
      eval "$(burr-otel completion zsh)"        # in ~/.zshrc
      burr-otel completion fish > ~/.config/fish/completions/burr-otel.fish
    """
    from burr_otel.cli.app import cli

    shell_complete(cli, {}, "burr-otel", "_BURR_OTEL_COMPLETE", f"{shell}_source")


# --- arguments and options ----------------------------------------------------------------------

one_run = click.argument("app_id", shell_complete=app_ids)
some_runs = click.argument("app_id", nargs=-1, shell_complete=app_ids)
storage_dir = click.option(
    "--storage-dir",
    metavar="DIR|URL",
    default=DEFAULT_STORAGE_DIR,
    envvar=f"{ENV_PREFIX}STORAGE_DIR",
    show_envvar=True,
    is_eager=True,  # the completion of project and app id looks there
    show_default=True,
    help="Where runs are kept.",
)
since = click.option(
    "--since",
    type=moment,
    metavar="TIME",
    help="Only runs written to since: an age such as 30m, 2h or 3d, or a date or time.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
unredacted = click.option(
    "--unredacted",
    is_flag=True,
    help="Show values as they were recorded, secrets too; else as spans show them.",
)
_project = click.option(
    "-p",
    "--project",
    metavar="NAME",
    shell_complete=_projects,
    help="Look in this project only.  [default: all]",
)
_partition = click.option(
    "--partition", metavar="KEY", help="Only runs of this partition key ('': none).  [default: all]"
)


def where(function: F) -> F:
    """``--project``, ``--partition`` and ``--storage-dir``, given as one `Where`."""

    @functools.wraps(function)
    def command(
        *, storage_dir: str, project: str | None, partition: str | None, **given: Any
    ) -> Any:
        return function(where=Where(storage_dir, project, partition), **given)

    return cast("F", _project(_partition(storage_dir(command))))


def printed(function: Callable[..., CommandResult]) -> Callable[..., int]:
    """``--json``, and the printing of what the command gives."""

    @functools.wraps(function)
    def command(*, as_json: bool, **given: Any) -> int:
        result = function(**given)
        if not as_json:
            print_parts(output(), result.parts)
            print_parts(output(stderr=True), result.notes)
        elif result.data is not None:
            print_json(result.data)
        for problem in result.problems:
            complain(problem)
        failed = FAILED if result.problems else 0
        return failed if result.exit_code is None else result.exit_code

    return as_json(command)
