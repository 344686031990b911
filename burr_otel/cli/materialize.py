"""``burr-otel materialize``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

import click
from rich.text import Text

from burr_otel.cli import options
from burr_otel.cli.app import FAILED
from burr_otel.cli.complete import app_ids
from burr_otel.cli.terminal import complain, lines, output, print_json
from burr_otel.store import is_url
from burr_otel.store.files.engine import FileEngine
from burr_otel.store.materialize import write_plain
from burr_otel.view.text import clean, one_line, plural

_SUFFIX: Final = "-plain"
_MOST_NAMED: Final = 10
_LONGEST_PATH: Final = 4096


@click.command("materialize")
@click.argument("app_id", shell_complete=app_ids)
@click.option(
    "--to",
    metavar="DIR",
    help=f"Storage directory of the copy.  [default: the run's own with {_SUFFIX}: "
    f"{options.DEFAULT_STORAGE_DIR}{_SUFFIX}]",
)
@click.option("--replace", is_flag=True, help="Replace an earlier copy.")
@options.where
@options.as_json
def command(
    app_id: str, to: str | None, replace: bool, where: options.Where, as_json: bool
) -> int | None:
    """Write a run with whole states, for the Burr UI.

    A run that was recorded with snapshots="delta" holds, step by step, what changed. This writes a
    copy of it in the layout of Burr's own tracker, with the whole state after each step: for the
    Burr UI, for LocalTrackingClient, and for whoever reads the files. The run stays as it is; the
    copy is in a storage directory of its own, where no other command mistakes it for the run.

    \b
    Examples:
      burr-otel materialize demo-1f3a9c02
      burr-otel materialize demo-1f3a9c02 --replace
      burr-otel materialize demo-1f3a9c02 --to /tmp/for-burr-ui
      burr_path=~/.burr-plain burr
    """
    run = where.run(app_id)
    own = where.storage_dir
    own = options.DEFAULT_STORAGE_DIR if is_url(own) else str(Path(own))
    target_dir = Path(to or f"{own}{_SUFFIX}").expanduser().absolute()
    target = Path(FileEngine(target_dir).folder_of(run.project, run.app_id))
    copied = write_plain(run, target, replace=replace)
    if as_json:
        found = {"project": run.project, "app_id": run.app_id, "folder": str(target)}
        numbers = {"steps": copied.steps, "log_bytes": copied.log_bytes}
        print_json({**found, **numbers, "lost": list(copied.lost)})
    else:
        size = f"{plural(copied.steps, 'step')}, {copied.log_bytes:,} bytes"
        lines(output(), [Text(f"{one_line(target, _LONGEST_PATH)}  {size}")])
        hint = f"In the Burr UI: burr_path={shlex.quote(str(target_dir))} burr"
        lines(output(stderr=True), [Text(clean(hint))])
    if copied.lost:
        named = ", ".join(map(str, copied.lost[:_MOST_NAMED]))
        more = len(copied.lost) - _MOST_NAMED
        rest = f" and {more:,} more" if more > 0 else ""
        complain(
            f"the state of {plural(len(copied.lost), 'step')} could not be made again, because a "
            f"record that it builds on is damaged: {named}{rest}. The copy lacks them."
        )
        return FAILED
    return None
