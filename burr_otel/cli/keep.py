"""Commands that copy and delete runs, and prepare the places that keep them."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

from burr_otel.cli import options
from burr_otel.cli.app import INTERRUPTED
from burr_otel.cli.terminal import LONGEST_LINE, CommandResult, bar
from burr_otel.config import OtelConfig
from burr_otel.errors import BurrOtelError, RunInUseError, RunLockedError, UnknownRunError
from burr_otel.store import Store, StoredRun, is_url, open_engine, without_password
from burr_otel.store.copying import RunCopy, write_plain
from burr_otel.store.files.engine import FileEngine
from burr_otel.store.port import Engine
from burr_otel.store.stored_run import check_unused, runs_beyond
from burr_otel.view.find import Where
from burr_otel.view.text import one_line, plural

_DELETED: Final = "deleted"
_DELETABLE: Final = "would be deleted"
_IN_USE: Final = "in use"
_SUFFIX: Final = "-plain"


def _names(run: StoredRun) -> dict[str, Any]:
    return {"project": run.project, "app_id": run.app_id, "partition_key": run.partition_key}


def _dead_before_ns() -> int:
    """Who may be dead and is silent since then is taken for dead."""
    return OtelConfig.resolve().dead_before_ns(time.time_ns())


@click.command("copy")
@options.some_runs
@click.option("--to", metavar="DIR|URL", required=True, help="Where the runs are to be kept, too.")
@options.where
@options.printed
def copy_command(app_id: tuple[str, ...], to: str, where: Where) -> CommandResult:
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
    target, found = open_engine(to), where.chosen(app_id)
    told = list(_copies(found, target))
    target.close()
    done = [each for each in told if each["problem"] is None]
    problems = [
        f"{each['project']}/{each['app_id']} is not copied: {each['problem']}"
        for each in told
        if each["problem"] is not None
    ]
    copied = f"{plural(len(done), 'run')} copied to {without_password(to)}."
    return CommandResult(told, map(_copy_line, done), [copied], problems)


def _copies(found: Sequence[StoredRun], target: Engine) -> Iterator[dict[str, Any]]:
    """Copy runs one by one; what became of each."""
    before, dead_before_ns = 0, _dead_before_ns()
    with bar("copying", 2 * sum(run.size_bytes for run in found)) as moved:
        for number, run in enumerate(found):
            copy, problem, size_bytes = RunCopy(run.log, target), None, run.size_bytes
            try:
                for done in copy.make(dead_before_ns):
                    moved(before + done, f"{number:,} of {plural(len(found), 'run')}")
            except (BurrOtelError, OSError) as error:
                problem = str(error)
            before += 2 * size_bytes
            yield {
                **_names(run),
                "records": copy.records,
                "added": copy.added,
                "size_bytes": copy.size_bytes,
                "left_out_bytes": copy.left_out_bytes,
                "problem": problem,
            }


def _copy_line(each: dict[str, Any]) -> str:
    name = one_line(f"{each['project']}/{each['app_id']}")
    new = "" if each["added"] == each["records"] else f", {each['added']:,} new"
    torn = f", {each['left_out_bytes']:,} torn bytes left out" if each["left_out_bytes"] else ""
    return f"{name}  {plural(each['records'], 'record')}, {each['size_bytes']:,} bytes{new}{torn}"


@click.command("delete")
@click.argument("app_id", nargs=-1, required=True, shell_complete=options.app_ids)
@options.where
@options.printed
def delete_command(app_id: tuple[str, ...], where: Where) -> CommandResult:
    """Delete runs: their states, logs and everything beside them.

    Takes whole app ids. When one of them names no run, or more than one, nothing is deleted. A run
    whose process lives is left alone. What a fork inherited is its own, and the traces that were
    sent stay in the backend. Sub-applications are runs of their own.

    \b
    Examples:
      burr-otel delete demo-1f3a9c02
      burr-otel delete chat-7 chat-8 --project support
    """
    found = [each.run for each in where.find_each(app_id)]
    for typed, run in zip(app_id, found, strict=True):
        if run.app_id != typed:  # the beginning of an id is good enough to look, not to delete
            raise UnknownRunError(typed, without_password(where.storage_dir), [run.app_id])
    return _delete([(0, run) for run in found], where.storage_dir)


@click.command("prune")
@click.option(
    "--older-than",
    type=options.moment,
    metavar="TIME",
    help="Delete runs not written to since: an age such as 30d or 12h, or a date or time.",
)
@click.option(
    "--keep", type=click.IntRange(min=0), metavar="N", help="Keep the N newest runs, delete others."
)
@click.option(
    "--max-bytes",
    type=options.size,
    metavar="SIZE",
    help="Keep the newest runs whose records take no more together, such as 500M or 5G; delete "
    "others.",
)
@click.option("--dry-run", is_flag=True, help="Only tell what would be deleted.")
@options.where
@options.printed
def prune_command(
    older_than: int | None,
    keep: int | None,
    max_bytes: int | None,
    dry_run: bool,
    where: Where,
) -> CommandResult:
    """Delete old runs, to keep a store in bounds, or all runs of one user.

    A run stays when it is within every bound that is given, among the runs of --project and
    --partition. Its age is that of its newest record. Runs whose process lives are left alone. At
    least one of --older-than, --keep, --max-bytes and --partition is needed; without another bound,
    all runs of the partition are deleted.

    \b
    Examples:
      burr-otel prune --older-than 30d --dry-run
      burr-otel prune --older-than 30d --keep 1000 --max-bytes 5G
      burr-otel prune --partition user-7
    """
    if (older_than, keep, max_bytes) == (None, None, None):
        if where.partition is None:
            raise click.UsageError(
                "which runs? Give --older-than, --keep, --max-bytes or --partition."
            )
        keep = 0
    bounds = older_than, keep, max_bytes
    beyond = runs_beyond(where.runs(), *bounds)
    return _delete(beyond, where.storage_dir, dry_run=dry_run, passes_over=_IN_USE, bounds=bounds)


def _delete(
    found: Sequence[tuple[int, StoredRun]],
    storage_dir: str,
    *,
    dry_run: bool = False,
    passes_over: str = "",
    bounds: tuple[int | None, ...] = (),
) -> CommandResult:
    """Delete runs one by one, or look which could be, until Ctrl-C; one status is no problem."""
    told: list[dict[str, Any]] = []
    exit_code, dead_before_ns = None, _dead_before_ns()
    with bar("deleting", len(found)) as moved:
        for changed_ns, run in found:
            moved(len(told), f"{len(told):,} of {plural(len(found), 'run')}")
            facts = {**_names(run), "size_bytes": run.size_bytes}
            status, reason = _DELETABLE if dry_run else _DELETED, None
            try:
                if dry_run:
                    check_unused(run.log, dead_before_ns)
                else:
                    store, key = Store(run.project, storage_dir), run.partition_key
                    now = store.read(run.app_id, key)
                    if now.place != run.place:
                        continue  # it is gone, and its key with it: another partition's is found
                    # One that was written to since it was listed is the newest by now.
                    is_newest = bool(bounds) and now.changed_ns != changed_ns
                    if is_newest and not runs_beyond([now], *bounds):
                        continue
                    store.delete(run.app_id, key, dead_before_ns=dead_before_ns)
            except UnknownRunError:
                continue  # somebody else has deleted it
            except (BurrOtelError, OSError) as error:
                in_use = isinstance(error, RunInUseError | RunLockedError)
                status, reason = _IN_USE if in_use else "not deleted", str(error)
            except KeyboardInterrupt:
                exit_code = INTERRUPTED
                break
            told.append({**facts, "status": status, "reason": reason})
    gone = [each for each in told if each["reason"] is None]
    size = f"{plural(len(gone), 'run')}, {sum(each['size_bytes'] for each in gone):,} bytes"
    summary = f"Would delete {size}." if dry_run else f"Deleted {size}."
    problems = [
        f"{each['project']}/{each['app_id']} is not deleted: {each['reason']}"
        for each in told
        if each["reason"] is not None and each["status"] != passes_over
    ]
    return CommandResult(told, map(_deletion_line, told), [summary], problems, exit_code)


def _deletion_line(each: dict[str, Any]) -> str:
    key = "" if each["partition_key"] is None else f" (partition {each['partition_key']})"
    name = one_line(f"{each['project']}/{each['app_id']}{key}")
    return f"{name}  {each['size_bytes']:,} bytes  {each['status']}"


@click.command("materialize")
@options.one_run
@click.option(
    "--to",
    metavar="DIR",
    help=f"Storage directory of the copy.  [default: the run's own with {_SUFFIX}: "
    f"{options.DEFAULT_STORAGE_DIR}{_SUFFIX}]",
)
@click.option("--replace", is_flag=True, help="Replace an earlier copy.")
@options.where
@options.printed
def materialize_command(app_id: str, to: str | None, replace: bool, where: Where) -> CommandResult:
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
    run, own = where.find(app_id).run, where.storage_dir
    own = options.DEFAULT_STORAGE_DIR if is_url(own) else str(Path(own))
    target_dir = Path(to or f"{own}{_SUFFIX}").expanduser().absolute()
    target = Path(FileEngine(target_dir).folder_of(run.project, run.app_id))
    copied = write_plain(run, target, replace=replace)
    names = {"project": run.project, "app_id": run.app_id, "folder": str(target)}
    data = {**names, **copied._asdict()}
    line = f"{one_line(target, LONGEST_LINE)}  {plural(copied.steps, 'step')}, "
    line += f"{copied.log_bytes:,} bytes"
    hint = f"In the Burr UI: burr_path={shlex.quote(str(target_dir))} burr"
    problem = (
        f"the state of {plural(len(copied.lost), 'step')} could not be made again, because a "
        f"record that it builds on is damaged. The copy lacks: {', '.join(map(str, copied.lost))}."
    )
    return CommandResult(data, [line], [hint], [problem] if copied.lost else [])


@click.command("store")
@click.argument("action", metavar="init", type=click.Choice(["init"]))
@click.argument("url")
@click.option(
    "--print", "only_print", is_flag=True, help="Print what would be done, and do nothing."
)
@options.printed
def store_command(action: str, url: str, only_print: bool) -> CommandResult:  # noqa: ARG001
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
    data = {"place": engine.place, "done": not only_print, "lines": done}
    return CommandResult(data, (line for text in done for line in text.splitlines()))
