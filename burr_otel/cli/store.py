"""``burr-otel store``."""

from __future__ import annotations

import click
from rich.text import Text

from burr_otel.cli import options
from burr_otel.cli.terminal import lines, output, print_json
from burr_otel.store.engines import open_engine


@click.command("store")
@click.argument("action", metavar="init", type=click.Choice(["init"]))
@click.argument("url")
@click.option(
    "--print", "only_print", is_flag=True, help="Print what would be done, and do nothing."
)
@options.as_json
def command(action: str, url: str, only_print: bool, as_json: bool) -> None:  # noqa: ARG001
    """Prepare a database or bucket that several machines keep runs in.

    In PostgreSQL it makes the tables, or upgrades those of an earlier burr-otel; that needs a role
    that may create a schema, which applications need not. With a bucket it finds out whether the
    server refuses a second create. Doing it again does no harm.

    \b
    Examples:
      burr-otel store init postgresql://owner@db.example/burr
      burr-otel store init postgresql://owner@db.example/burr --print
    """
    engine = open_engine(url)
    done = engine.prepare(dry_run=only_print)
    if as_json:
        print_json({"place": engine.place, "done": not only_print, "lines": done})
        return
    lines(output(), (Text(each) for text in done for each in text.splitlines()))
