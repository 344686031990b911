"""What the shell offers while a command is typed, and ``burr-otel completion``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Final

import click
from click.shell_completion import CompletionItem, get_completion_class

from burr_otel.errors import BurrOtelError

_MOST_OFFERED: Final = 100
_SHELLS: Final = ("bash", "zsh", "fish")
# Ids come from anywhere, and bash puts what is offered into the command line as it is, where
# $(...), quotes, spaces and wildcards act. Only what no shell acts on is offered.
_NEEDS_NO_QUOTING: Final = re.compile(r"\w[\w.@+:-]*")


def app_ids(ctx: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:  # noqa: ARG001 - click's signature
    """Ids of runs that begin with what is typed, with their project as help."""
    from burr_otel.view.find import runs

    found = runs(ctx.params["storage_dir"], ctx.params.get("project"))
    return _offered(((run.app_id, run.project) for run in found), typed)


def project_names(ctx: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:  # noqa: ARG001 - click's signature
    """Names of projects that begin with what is typed."""
    from burr_otel.view.find import stores

    names = (store.project for store in stores(ctx.params["storage_dir"]))
    return _offered(((name, None) for name in names), typed)


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
@click.argument("shell", type=click.Choice(_SHELLS))
def command(shell: str) -> None:
    """Print what makes a shell complete commands, options and app ids.

    App ids that would have to be quoted in a shell are not offered.

    \b
    Examples:
      eval "$(burr-otel completion bash)"       # in ~/.bashrc
      eval "$(burr-otel completion zsh)"        # in ~/.zshrc
      burr-otel completion fish > ~/.config/fish/completions/burr-otel.fish
    """
    from burr_otel.cli.app import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"this version of click cannot complete for {shell}.")
    click.echo(kind(cli, {}, "burr-otel", "_BURR_OTEL_COMPLETE").source())
