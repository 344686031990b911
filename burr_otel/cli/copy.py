"""``burr-otel copy``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import click
from rich.text import Text

from burr_otel.cli import options
from burr_otel.cli.app import FAILED
from burr_otel.cli.bar import bar
from burr_otel.cli.complete import app_ids
from burr_otel.cli.terminal import complain, lines, output, print_json
from burr_otel.config import OtelConfig
from burr_otel.errors import BurrOtelError
from burr_otel.store import StoredRun, without_password
from burr_otel.store.copying import RunCopy
from burr_otel.store.engines import open_engine
from burr_otel.view.text import one_line, plural


@click.command("copy")
@click.argument("app_id", nargs=-1, shell_complete=app_ids)
@click.option("--to", metavar="DIR|URL", required=True, help="Where the runs are to be kept, too.")
@options.where
@options.as_json
def command(app_id: tuple[str, ...], to: str, where: options.Where, as_json: bool) -> int | None:
    """Copy runs to another folder, database or bucket.

    Byte for byte, and compared afterwards: a copied run loads, shows, replays and resumes there
    like the original, which stays as it is. Named runs come with those that they spawned; without
    an APP_ID, --project copies all of its runs. The same command again goes on after an
    interruption, and adds what runs have got since. Runs whose process lives are left out.

    \b
    Examples:
      burr-otel copy chat-7 --to postgresql://burr@db.example.com/runs
      burr-otel copy --project support --to s3://bucket/burr
      burr-otel copy --project support --storage-dir s3://bucket/burr --to ~/.burr
    """
    if not app_id and where.project is None:
        raise click.UsageError("which runs? Give an APP_ID or --project.")
    from burr_otel.replay.read import choose

    target = open_engine(to)
    found = choose(where.storage_dir, app_id, where.project, None, where.partition)
    told = list(_copies(found, to))
    done = [each for each in told if each["problem"] is None]
    if as_json:
        print_json(told)
    else:
        lines(output(), map(_line, done))
        copied = f"{plural(len(done), 'run')} copied to {without_password(to)}."
        lines(output(stderr=True), [Text(one_line(copied, limit=1000))])
    for each in told:
        if each["problem"] is not None:
            complain(f"{each['project']}/{each['app_id']} is not copied: {each['problem']}")
    target.close()
    return FAILED if len(done) < len(told) else None


def _copies(found: Sequence[StoredRun], to: str) -> Iterator[dict[str, Any]]:
    """Copy runs one by one; what became of each."""
    target, recover_after_s = open_engine(to), OtelConfig.resolve().recover_after
    before = 0
    with bar("copying", 2 * sum(run.size_bytes for run in found)) as moved:
        for number, run in enumerate(found):
            copy, problem, size_bytes = RunCopy(run.log, target), None, run.size_bytes
            try:
                for done in copy.make(now_ns=time.time_ns(), recover_after_s=recover_after_s):
                    moved(before + done, f"{number:,} of {plural(len(found), 'run')}")
            except (BurrOtelError, OSError) as error:
                problem = str(error)
            before += 2 * size_bytes
            yield {
                "project": run.project,
                "app_id": run.app_id,
                "partition_key": run.partition_key,
                "records": copy.records,
                "added": copy.added,
                "size_bytes": copy.size_bytes,
                "left_out_bytes": copy.left_out_bytes,
                "problem": problem,
            }


def _line(each: dict[str, Any]) -> Text:
    size = f"{plural(each['records'], 'record')}, {each['size_bytes']:,} bytes"
    new = "" if each["added"] == each["records"] else f", {each['added']:,} new"
    torn = f", {each['left_out_bytes']:,} torn bytes left out" if each["left_out_bytes"] else ""
    return Text(f"{one_line(f'''{each['project']}/{each['app_id']}''')}  {size}{new}{torn}")
