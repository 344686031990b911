"""What a tracker is to `initialize_from`: finding, loading, listing and deleting recorded runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from burr.core.persistence import BaseStateLoader, PersistedStateData

from burr_otel.config import DEFAULT_STORAGE_DIR, OtelConfig
from burr_otel.errors import ConfigError
from burr_otel.store import Store, is_url, without_password
from burr_otel.store.snapshot import AsyncStoreLoader


class RunLoader(BaseStateLoader):
    """Burr's loader, and what its `LocalTrackingClient` has beside it; `OtelTracker` sets these."""

    config: OtelConfig
    _store: Store
    _clock: Callable[[], int]

    @classmethod
    def get_storage_path(cls, project: str, storage_dir: str | os.PathLike[str]) -> str:
        """Folder of a project's runs.

        Raises:
            ConfigError: The runs are in a database or bucket, so they have no folder.
        """
        if is_url(storage_dir):
            raise ConfigError(
                f"{without_password(storage_dir)} keeps no files, so project {project!r} has no "
                "folder there. `burr-otel copy` and `burr-otel materialize` write runs to folders."
            )
        return str(Path(storage_dir).expanduser() / project)

    @classmethod
    def app_log_exists(
        cls, project: str, app_id: str, storage_dir: str | os.PathLike[str] = DEFAULT_STORAGE_DIR
    ) -> bool:
        """Whether anything has been recorded for an application.

        Args:
            project: Name of the project.
            app_id: The application's id.
            storage_dir: As in the constructor.
        """
        return Store(project, os.fspath(storage_dir)).exists(app_id)

    @classmethod
    def load_state(
        cls,
        project: str,
        app_id: str,
        sequence_id: int = -1,
        storage_dir: str | os.PathLike[str] = DEFAULT_STORAGE_DIR,
    ) -> tuple[dict[str, Any], str]:
        """The recorded state and action of a step; deprecated in Burr, use `load`.

        Args:
            project: Name of the project.
            app_id: The application's id.
            sequence_id: Which step; ``-1``: the latest.
            storage_dir: As in the constructor.

        Returns:
            The state as a dictionary, and the name of the action that made it.

        Raises:
            UnknownRunError: No such run.
            UnknownSequenceError: No such step.
        """
        return Store(project, os.fspath(storage_dir)).load_state(app_id, sequence_id)

    def list_app_ids(self, partition_key: str | None, **kwargs: Any) -> list[str]:
        """Ids of the recorded applications of a partition key (`None`: those without one)."""
        return self._store.list_app_ids(partition_key)

    def list_partition_keys(self) -> list[str | None]:
        """Partition keys of the recorded applications; None stands for those without one."""
        return self._store.list_partition_keys()

    def delete(self, app_id: str, partition_key: str | None = None) -> None:
        """Delete a recorded application: its state, its log and its links to others' logs.

        Args:
            app_id: The application's id.
            partition_key: The application's own.

        Raises:
            UnknownRunError: There is no such run; the error names the nearest ones.
            RunInUseError: A process that lives has it open.
            RunLockedError: Another session holds it with ``exclusive=True``.
            OSError: It cannot be deleted.
        """
        dead_before_ns = self.config.dead_before_ns(self._clock())
        self._store.delete(app_id, partition_key, dead_before_ns=dead_before_ns)

    def load(
        self,
        partition_key: str | None,
        app_id: str | None,
        sequence_id: int | None = None,
        **kwargs: Any,
    ) -> PersistedStateData | None:
        """The state after a step, for ``initialize_from``.

        Args:
            partition_key: The application's own; another one finds nothing.
            app_id: The application's id.
            sequence_id: Which step. Default: the latest one.
            **kwargs: Ignored, as in Burr.

        Returns:
            Burr's ``PersistedStateData``; `None` for an unknown run, for another partition key and
            for a run without a finished step that inherited no state.

        Raises:
            UnknownSequenceError: The run has no such finished step (a ``ValueError``, as in Burr).
        """
        return None if app_id is None else self._store.load(partition_key, app_id, sequence_id)

    def async_loader(self) -> AsyncStoreLoader:
        """A loader over the same store for ``abuild()``, which refuses a synchronous one.

        It reads off the event loop.
        """
        return AsyncStoreLoader(self._store)
