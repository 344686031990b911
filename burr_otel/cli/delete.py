"""``burr-otel delete``, and the deleting of `burr-otel prune`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import click
from rich.text import Text

from burr_otel.cli import options
from burr_otel.cli.app import FAILED, INTERRUPTED
from burr_otel.cli.bar import bar
from burr_otel.cli.complete import app_ids
from burr_otel.cli.terminal import complain, lines, output, print_json
from burr_otel.config import OtelConfig
from burr_otel.errors import BurrOtelError, RunInUseError, RunLockedError, UnknownRunError
from burr_otel.store import Store, StoredRun, without_password
from burr_otel.store.markers import check_unused
from burr_otel.view.text import one_line, plural

DELETED: Final = "deleted"
DELETABLE: Final = "would be deleted"
IN_USE: Final = "in use"
_NOT_DELETED: Final = "not deleted"


class Fate(NamedTuple):
    """What became of a run."""

    project: str
    app_id: str
    partition_key: str | None
    size_bytes: int
    status: str
    reason: str | None = None


@click.command("delete")
@click.argument("app_id", nargs=-1, required=True, shell_complete=app_ids)
@options.where
@options.as_json
def command(app_id: tuple[str, ...], where: options.Where, as_json: bool) -> int | None:
    """Delete runs: their states, logs and everything beside them.

    Takes whole app ids. When one of them names no run, or more than one, nothing is deleted. A run
    whose process lives is left alone. What a fork inherited is its own, and the traces that were
    sent stay in the backend. Sub-applications are runs of their own.

    \b
    Examples:
      burr-otel delete demo-1f3a9c02
      burr-otel delete chat-7 chat-8 --project support
    """
    found = [_exact(where, each) for each in app_id]
    fates, interrupted = delete_runs(found, where.storage_dir, dry_run=False)
    if as_json:
        print_json([each._asdict() for each in fates])
    else:
        lines(output(), [fate_line(each) for each in fates])
    kept = [each for each in fates if each.status != DELETED]
    for each in kept:
        complain(f"not deleted: {each.reason}")
    if interrupted:
        return INTERRUPTED
    return FAILED if kept else None


def delete_runs(
    found: Sequence[StoredRun], storage_dir: str, *, dry_run: bool
) -> tuple[list[Fate], bool]:
    """Delete runs one by one, or look which could be; their fates, and whether Ctrl-C came."""
    now_ns, recover_after_s = time.time_ns(), OtelConfig.resolve().recover_after
    fates: list[Fate] = []
    with bar("deleting", len(found)) as moved:
        for run in found:
            moved(len(fates), f"{len(fates):,} of {plural(len(found), 'run')}")
            told = run.project, run.app_id, run.partition_key, run.size_bytes
            try:
                if dry_run:
                    check_unused(run.log, now_ns=now_ns, recover_after_s=recover_after_s)
                else:
                    Store(run.project, storage_dir).delete(
                        run.app_id,
                        run.partition_key,
                        now_ns=now_ns,
                        recover_after_s=recover_after_s,
                    )
                fates.append(Fate(*told, DELETABLE if dry_run else DELETED))
            except (RunInUseError, RunLockedError) as error:
                fates.append(Fate(*told, IN_USE, str(error)))
            except (BurrOtelError, OSError) as error:
                fates.append(Fate(*told, _NOT_DELETED, str(error)))
            except KeyboardInterrupt:
                return fates, True
    return fates, False


def fate_line(fate: Fate) -> Text:
    """A run, and what became of it."""
    key = "" if fate.partition_key is None else f" (partition {fate.partition_key})"
    name = one_line(f"{fate.project}/{fate.app_id}{key}")
    return Text(f"{name}  {fate.size_bytes:,} bytes  {fate.status}")


def _exact(where: options.Where, app_id: str) -> StoredRun:
    run = where.run(app_id)
    if run.app_id != app_id:  # the beginning of an id is good enough to look, not to delete
        raise UnknownRunError(app_id, without_password(where.storage_dir), [run.app_id])
    return run
