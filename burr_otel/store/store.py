"""The runs of one project: finding, loading and opening them."""

from __future__ import annotations

import difflib
import enum
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from burr_otel.errors import UnknownRunError, UnknownSequenceError
from burr_otel.store import names, records
from burr_otel.store.loading import LogReader
from burr_otel.store.log import Durability, flush_log, open_log
from burr_otel.store.opening import Opening, open_session, partition_of
from burr_otel.store.query import otel_of
from burr_otel.store.snapshot import persisted_state, plain_state
from burr_otel.store.stored_run import StoredRun

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from burr.core.persistence import PersistedStateData

    from burr_otel.store.session import Session

__all__ = ["RunHistory", "Store"]


class AllPartitions(enum.Enum):
    """Stands for every partition, and none."""

    ALL = enum.auto()


ALL = AllPartitions.ALL
_STATE_KINDS = (records.END_ENTRY, records.ROOT)


class RunHistory(NamedTuple):
    """What a resumed run needs to know of its past.

    Attributes:
        last_root: The `otel` object of the newest otel_root record.
        last_step: That of the newest finished step; None in a log of Burr's own client.
        last_sequence_id: Of the newest finished step.
    """

    last_root: dict[str, Any] | None
    last_step: dict[str, Any] | None
    last_sequence_id: int | None


class Store:
    """The runs of one project below one storage directory.

    Makes no file until a session is opened. Can be pickled, and shared by threads.

    Args:
        project: 1 to 255 letters, digits, ``_``, ``-`` or ``:``.
        storage_dir: Where projects are; ``~`` is expanded.
        serde_kwargs: Passed to Burr's serializers and deserializers.
        durability: What a record survives: ``"none"`` nothing, ``"flush"`` the death of the
            process, ``"fsync"`` power loss.
        exclusive: Whether a second session of a run is refused.
        delta: Whether records carry what changed against the one before, and a whole state only
            now and then.
        clock: Gives nanoseconds since the epoch.

    Attributes:
        project: As given.
        path: The project's folder.

    Raises:
        InvalidIdentifierError: The project cannot be a folder name.
    """

    def __init__(
        self,
        project: str,
        storage_dir: str | os.PathLike[str] = "~/.burr",
        *,
        serde_kwargs: Mapping[str, Any] | None = None,
        durability: Durability = "flush",
        exclusive: bool = False,
        delta: bool = False,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.project = names.check_project(project)
        self.path = names.project_path(project, storage_dir)
        self._serde_kwargs = dict(serde_kwargs or {})
        self._durability: Durability = durability
        self._exclusive = exclusive
        self._delta = delta
        self._clock = clock

    def run_path(self, app_id: str) -> Path:
        """The folder of a run, whether it exists or not.

        Raises:
            InvalidIdentifierError: The app id cannot be a folder name.
        """
        return self.path / names.check_app_id(app_id)

    def exists(self, app_id: str) -> bool:
        """Whether the run has a log with something in it.

        Raises:
            InvalidIdentifierError: The app id cannot be a folder name.
        """
        run = self._existing(app_id)
        return run is not None and os.lstat(f"{run}/{names.LOG}").st_size > 0

    def list_app_ids(self, partition_key: str | AllPartitions | None = ALL) -> list[str]:
        """App ids of the project's runs, sorted.

        Takes time in proportion to the number of runs; with a partition key, each run's
        metadata is read.

        Args:
            partition_key: Only runs of this partition, or of none; without it, all runs.
        """
        found = []
        try:
            entries = os.scandir(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return []
        with entries:
            for entry in entries:
                if entry.name.startswith(names.TEMPORARY_PREFIX):
                    continue
                if not entry.is_dir(follow_symlinks=False) or not has_log(entry.path):
                    continue
                if partition_key is ALL or partition_of(entry.path) == (partition_key,):
                    found.append(entry.name)
        return sorted(found)

    def load(
        self, partition_key: str | None, app_id: str | None, sequence_id: int | None = None
    ) -> PersistedStateData | None:
        """Load a state as Burr's `initialize_from` wants it, from a bounded part of the log.

        Args:
            partition_key: Must be the run's own.
            app_id: None loads nothing.
            sequence_id: A finished step; None: the one that finished last, in the order of the
                log.

        Returns:
            Burr's `PersistedStateData`; None when there is no such run in that partition, or no
            step of it has finished.

        Raises:
            InvalidIdentifierError: The app id cannot be a folder name.
            UnknownSequenceError: The run has no such finished step.
        """
        run = None if app_id is None else self._existing(app_id)
        if app_id is None or run is None:
            return None
        own = partition_of(run)
        if own is not None and own != (partition_key,):
            return None
        with LogReader(run) as log:
            record = log.newest(_STATE_KINDS, sequence_id=sequence_id, with_state=True)
            if record is None:
                if sequence_id is None or not log.size:
                    return None
                raise UnknownSequenceError(f"{self.project}/{app_id}", sequence_id)
        return persisted_state(
            record,
            partition_key=partition_key,
            app_id=app_id,
            created_ns=os.lstat(f"{run}/{names.LOG}").st_ctime_ns,
            serde_kwargs=self._serde_kwargs,
        )

    def load_state(self, app_id: str, sequence_id: int = -1) -> tuple[dict[str, Any], str]:
        """The state and position of a step as plain data, as Burr's `load_state` gives it.

        Args:
            app_id: Of the run.
            sequence_id: A finished step; -1: the one that finished last.

        Raises:
            InvalidIdentifierError: The app id cannot be a folder name.
            UnknownRunError: There is no such run.
            UnknownSequenceError: The run has no such finished step.
        """
        run = self._known(app_id)
        wanted = None if sequence_id == -1 else sequence_id
        with LogReader(run) as log:
            record = log.newest(_STATE_KINDS, sequence_id=wanted, with_state=True)
        if record is None:
            raise UnknownSequenceError(f"{self.project}/{app_id}", sequence_id)
        return plain_state(record)

    def history(self, app_id: str) -> RunHistory | None:
        """What a new session of the run should link to; None for an unknown run.

        Raises:
            InvalidIdentifierError: The app id cannot be a folder name.
        """
        run = self._existing(app_id)
        if run is None:
            return None
        with LogReader(run) as log:
            root = log.newest((records.ROOT,))
            step = log.newest((records.END_ENTRY,))
        return RunHistory(otel_of(root), otel_of(step), step["sequence_id"] if step else None)

    def find_step(self, app_id: str, sequence_id: int | None) -> dict[str, Any] | None:
        """The newest begin_entry or end_entry record of a step, without its state.

        Args:
            app_id: Of the run.
            sequence_id: None: the step that finished last.

        Raises:
            InvalidIdentifierError: The app id cannot be a folder name.
        """
        run = self._existing(app_id)
        if run is None:
            return None
        kinds: tuple[str, ...] = (records.END_ENTRY,)
        if sequence_id is not None:
            kinds = (records.BEGIN_ENTRY, records.END_ENTRY)
        with LogReader(run) as log:
            record = log.newest(kinds, sequence_id=sequence_id)
        return None if record is None else {k: v for k, v in record.items() if k != "state"}

    def read(self, app_id: str) -> StoredRun:
        """Everything that is stored of a run, whatever its condition.

        Raises:
            InvalidIdentifierError: The app id cannot be a folder name.
            UnknownRunError: There is no such run; the error names the nearest ones.
        """
        return StoredRun(self.project, app_id, Path(self._known(app_id)))

    def mend(self, app_id: str) -> list[str]:
        """Mend the log that a killed process left torn, so that Burr's own readers can read it.

        The next session of the run does that anyway. A record that a live process is writing is
        waited for.

        Returns:
            What was damaged and where its bytes were saved.

        Raises:
            InvalidIdentifierError: The app id cannot be a folder name.
            UnknownRunError: There is no such run; the error names the nearest ones.
            OSError: The log cannot be mended.
        """
        return [str(damage) for damage in open_log(self._known(app_id)).repair()]

    def open_session(
        self,
        app_id: str,
        *,
        partition_key: str | None,
        state: Any,
        application_graph: Any,
        parent_pointer: Any,
        spawning_parent_pointer: Any,
        session_id: str,
        otel: Mapping[str, Any],
        time_ns: int,
    ) -> Session:
        """Open a run for writing: make or mend its files and record the session.

        Args:
            app_id: Of the run.
            partition_key: Its partition.
            state: Of the application at creation; kept when it was inherited and no finished
                step of the run holds it.
            application_graph: Burr's `ApplicationGraph`.
            parent_pointer: Where it was forked from.
            spawning_parent_pointer: The step that it is a part of.
            session_id: Unique among the sessions of the run.
            otel: Ids of the root span.
            time_ns: Nanoseconds since the epoch.

        Returns:
            The session.

        Raises:
            InvalidIdentifierError: App id or partition key cannot be used, or the run belongs to
                another partition.
            RunLockedError: ``exclusive=True``, and another session holds the run.
            SnapshotError: The files cannot be written.
        """
        return open_session(
            Opening(
                run=f"{self.project}/{names.check_app_id(app_id)}",
                folder=str(self.run_path(app_id)),
                app_id=app_id,
                partition_key=partition_key,
                session_id=session_id,
                durability=self._durability,
                exclusive=self._exclusive,
                delta=self._delta,
                serde_kwargs=self._serde_kwargs,
            ),
            state=state,
            application_graph=application_graph,
            pointers=(parent_pointer, spawning_parent_pointer),
            otel=otel,
            time_ns=time_ns,
        )

    def _known(self, app_id: str) -> str:
        run = self._existing(app_id)
        if run is None:
            nearest = difflib.get_close_matches(app_id, self.list_app_ids(), n=3)
            raise UnknownRunError(app_id, str(self.path), nearest)
        return run

    def _existing(self, app_id: str) -> str | None:
        """The run's folder when it has a log."""
        run = str(self.run_path(app_id))
        if not names.check_run_folder(run) or not has_log(run):
            return None
        flush_log(run)
        return run


def has_log(run: str) -> bool:
    """Whether a folder is a run's: the parents of untracked runs have no log."""
    try:
        return stat.S_ISREG(os.lstat(f"{run}/{names.LOG}").st_mode)
    except FileNotFoundError:
        return False
