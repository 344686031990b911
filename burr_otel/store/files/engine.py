"""Local files as an engine: ``{storage_dir}/{project}/{app_id}/``."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from burr_otel.errors import ConfigError, InvalidIdentifierError
from burr_otel.printable import first_time, logger
from burr_otel.store.files import disk
from burr_otel.store.files.disk import check_folder, has_log
from burr_otel.store.files.run import FileRun, open_run, open_runs
from burr_otel.store.names import TEMPORARY_PREFIX, check_app_id, is_project
from burr_otel.store.port import ALL, Durability, Engine, NewRun, Partition, RunLog, Wanted

_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


class FileEngine(Engine):
    """The runs below a storage directory; see `Engine`."""

    answers_late = False

    def __init__(self, storage_dir: str | os.PathLike[str]) -> None:
        self.place = _expanded(storage_dir)

    def folder_of(self, project: str, app_id: str) -> str:
        """The folder that a run has, unless another partition's run of that app id has it."""
        return f"{self.place}/{project}/{check_app_id(app_id)}"

    def prepare(self, *, dry_run: bool) -> list[str]:  # noqa: ARG002 - as `Engine`
        """Nothing: folders are made when they are needed."""
        return [f"{self.place} is a folder and needs no preparation."]

    def projects(self) -> list[str]:
        """Names of folders that can be projects."""
        with os.scandir(self.place) as entries:
            found = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        return sorted(filter(is_project, found))

    def runs(self, project: str, partition_key: Partition = ALL) -> Iterator[FileRun]:
        """All runs of a project, or of one partition of it."""
        runs = self._runs(project)
        return (r for r in runs if partition_key is ALL or r.partition_key == partition_key)

    def _runs(self, project: str, *, suffixed: bool = False) -> Iterator[FileRun]:
        """The runs of a project, or those whose folder has not the plain name."""
        folder = f"{self.place}/{project}"
        if not check_folder(folder):
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                has_suffix = disk.PARTITION_SUFFIX.search(entry.name) is not None
                if entry.name.startswith(TEMPORARY_PREFIX) or (suffixed and not has_suffix):
                    continue
                try:
                    if not entry.is_dir(follow_symlinks=False) or not has_log(entry.path):
                        continue
                except PermissionError:  # another user's
                    if first_time("unreadable", entry.path):
                        logger.warning("%s is passed over: it may not be read", entry.path)
                    continue
                run = open_run(project, entry.name, entry.path)
                if has_suffix:
                    run.app_id = run.identity()[0] or entry.name
                yield run

    def find(
        self, project: str, app_id: str, partition_key: Partition, _ahead: Wanted | None = None
    ) -> FileRun | None:
        """A run; with `ALL` the one that has the plain name, or else the first by name."""
        folders = self._folders(project, app_id, partition_key)
        run = self._existing(project, app_id, next(folders))
        if run is not None:
            own_id, told = run.identity()
            shared = disk.share_folder(own_id or app_id, app_id)
            if not shared and (partition_key is ALL or told in (None, (partition_key,))):
                return run
        if partition_key is not ALL:
            return self._existing(project, app_id, next(folders))
        others = [run for run in self._runs(project, suffixed=True) if run.app_id == app_id]
        return min(others, key=lambda each: each.folder, default=None)

    def create(self, new: NewRun, *, durability: Durability) -> tuple[RunLog, bool]:
        """Make a run's folder unless it is there."""
        project, app_id, partition_key = new[:3]
        folders = [*self._folders(project, app_id, partition_key)]
        if check_folder(folders[-1]) and not check_folder(folders[0]):
            del folders[0]  # the plain name is free again: it has its own all the same
        for folder in folders:
            if not check_folder(folder):
                disk.make_folders(Path(folder).parent, sync=durability == "fsync")
                files = {disk.LOG: b"", disk.GRAPH: new.graph, disk.METADATA: new.metadata}
                if disk.make_run(folder, files, durability=durability):
                    return open_run(project, app_id, folder), True
            run = open_run(project, app_id, folder)
            own_id, told = run.identity()
            if disk.share_folder(own_id or app_id, app_id):
                raise InvalidIdentifierError(
                    f"app id {app_id!r} would share a folder with the run {own_id!r}: this file "
                    "system does not tell their names apart. Choose another app id."
                )
            if told in (None, (partition_key,)):
                _warn_if_writable(folder)
                return run, False
        raise InvalidIdentifierError(f"{folder} is the folder of another run than {app_id!r}.")

    def delete(self, run: RunLog) -> None:
        """Delete a run's folder, and what killed deletions left of others of the project."""
        run.close()
        folder = Path(run.place)
        doomed = folder.with_name(f"{TEMPORARY_PREFIX}deleted")
        temporary = disk.temporary_name(doomed / folder.name)
        while True:
            try:
                with contextlib.suppress(FileExistsError):
                    doomed.mkdir(0o700)
                check_folder(str(doomed))
                folder.rename(temporary)
                break
            except FileNotFoundError:
                if not folder.exists():
                    raise
                continue  # another deletion has taken `doomed` away
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                shutil.rmtree(folder)  # where it is: a full disk has no room for another folder
                break
        shutil.rmtree(doomed, ignore_errors=True)  # of all deletions; follows no link
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(temporary)  # a file came into it as it was renamed, or it says why not
        with contextlib.suppress(OSError):
            doomed.rmdir()

    def close(self) -> None:
        """Close the logs of this process."""
        for run in open_runs():
            run.close()

    def _existing(self, project: str, app_id: str, folder: str) -> FileRun | None:
        """The run in a folder that has a log."""
        if not check_folder(folder) or not has_log(folder):
            return None
        _warn_if_writable(folder)
        return open_run(project, app_id, folder)

    def _folders(self, project: str, app_id: str, partition_key: Partition) -> Iterator[str]:
        """The folder that a run has, and the one that it has if another partition's has that."""
        plain = self.folder_of(project, app_id)
        _warn_if_writable(self.place)
        check_folder(f"{self.place}/{project}")
        yield plain
        if partition_key is not ALL:
            yield f"{self.place}/{project}/{disk.partition_name(app_id, partition_key)}"


def _expanded(storage_dir: str | os.PathLike[str]) -> str:
    """A storage directory with ``~`` expanded."""
    path = os.fspath(storage_dir)
    found = os.path.expanduser(path)  # noqa: PTH111 - as Burr resolves it
    if path.startswith("~") and found.startswith("~"):
        raise ConfigError(
            f"storage directory {path!r} cannot be found: there is no home directory (neither HOME "
            "nor an entry for the user). Set HOME or BURR_OTEL_STORAGE_DIR, or pass storage_dir."
        )
    return found


def _warn_if_writable(folder: str) -> None:
    """Warn once of a folder in which others can write: what a log names is imported by a load."""
    try:
        info = os.stat(folder)  # noqa: PTH116 - the storage directory itself may be a link
    except OSError:
        return
    if not info.st_mode & _WRITABLE_BY_OTHERS or not first_time("writable", folder):
        return
    try:
        owner = pwd.getpwuid(info.st_uid).pw_name
    except KeyError:
        owner = str(info.st_uid)
    logger.warning(
        "%s can be written by others (owner %s, mode %04o). Whoever writes there decides what a "
        "resume loads and imports: run `chmod go-w` on it.",
        folder,
        owner,
        stat.S_IMODE(info.st_mode),
    )
