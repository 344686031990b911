"""What burr-otel raises.

BurrOtelError
├── ConfigError (ValueError)          a setting, argument or BURR_OTEL_* value that cannot be used
│   └── InvalidIdentifierError        a project or app id that cannot be a folder name
├── SnapshotError                     the state of a step could not be kept
├── RunLockedError                    exclusive=True, and another session holds the run
└── StoreError                        the store cannot be read
    ├── RunInUseError                 a run whose owner lives cannot be deleted or copied
    ├── StateLoadError                a stored state cannot be made into values again
    ├── UnknownRunError (KeyError)    no such run
    └── UnknownSequenceError (ValueError)  the run has no such finished step
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from burr_otel.printable import printable


class BurrOtelError(Exception):
    """Base of everything that this package raises on purpose."""


class ConfigError(BurrOtelError, ValueError):
    """A setting that cannot be used; the message names it, its value and what is allowed."""


class InvalidIdentifierError(ConfigError):
    """A project or app id that cannot be the name of a folder below the storage directory."""


class SnapshotError(BurrOtelError):
    """A step's state could not be kept, so a resume would not see it.

    Attributes:
        run: ``project/app_id`` of the run.
        key: The state key that could not be written, or ``None`` when the whole record failed.
        sequence_id: The step, or ``None`` for the state at creation.
    """

    def __init__(
        self, run: str, cause: object, *, key: str | None = None, sequence_id: int | None = None
    ) -> None:
        self.run, self.key, self.sequence_id = run, key, sequence_id
        super().__init__(self.describe(cause))

    def describe(self, cause: object) -> str:
        """The message with another text for the cause, which may hold what must not be shown."""
        step = "its creation" if self.sequence_id is None else f"step {self.sequence_id}"
        what = f"the state of {step}" if self.key is None else f"state key {self.key!r} of {step}"
        why = str(cause).removesuffix(".")
        return printable(
            f"{self.run}: {what} could not be kept: {why}. A resume starts from the last step "
            'that was. Mend the cause, or pass on_snapshot_error="warn" to go on without it; '
            "where no state is wanted, set BURR_OTEL_SNAPSHOTS=off."
        )


class RunLockedError(BurrOtelError):
    """Another session holds a run that was opened with ``exclusive=True``.

    Attributes:
        run: ``project/app_id`` of the run.
        holder: Session id of the holder.
        host: Host name of the holder.
        pid: Process id of the holder on that host.
    """

    def __init__(self, run: str, *, holder: str, host: str, pid: int) -> None:
        self.run, self.holder, self.host, self.pid = run, holder, host, pid
        super().__init__(
            f"{printable(run)} is held by session {holder} of process {pid} on {host}. Wait until "
            "it ends (the claim dies with its process), or build without exclusive=True."
        )


class StoreError(BurrOtelError):
    """The store cannot be used: damaged files, no such database, a schema that is too old."""


class RunInUseError(StoreError):
    """A session of the run is open, and the process that it belongs to lives."""

    def __init__(self, run: str, session_id: str, owner: Mapping[str, object]) -> None:
        where = f"open in process {owner.get('pid')} on {owner.get('host')}"
        super().__init__(
            f"{printable(run)} is in use: its session {printable(session_id)} is "
            f"{where if owner else 'just beginning'}. Close the tracker or end that process."
        )


def _show(run: str) -> str:
    project, _, app_id = run.partition("/")
    return f"burr-otel show {shlex.quote(app_id)} --project {project}"


class StateLoadError(StoreError):
    """A stored state that cannot be made into values again, mostly because a class has changed.

    Attributes:
        run: ``project/app_id`` of the run.
        sequence_id: The step, or ``None`` for the state at creation.
        key: The state key, or ``None`` when no single key is to blame.
        kind: The class that the value was an object of, where the store tells it.
    """

    def __init__(
        self, run: str, sequence_id: int | None, *, key: str | None, kind: str | None, cause: str
    ) -> None:
        self.run, self.sequence_id, self.key, self.kind = run, sequence_id, key, kind
        step = "its creation" if sequence_id is None else f"step {sequence_id}"
        what = f"the state of {step}" if key is None else f"state key {key!r} of {step}"
        of_class = f" ({printable(kind)})" if kind else ""
        raw = _show(run)
        if sequence_id is not None:
            raw += f" --step {sequence_id} --unredacted"
        super().__init__(
            f"{printable(run)}: {what}{of_class} cannot be loaded: {printable(cause)}. "
            "If the class was renamed, moved or changed, make it importable under its old name, or "
            "register a deserializer that reads the old form (burr.core.serde). "
            f"`{printable(raw)}` shows the state as it is stored."
        )


class UnknownRunError(StoreError, KeyError):
    """No run of that id; the message names the nearest ones.

    Attributes:
        app_id: What was asked for.
        nearest: Ids that are close to it, best first.
    """

    def __init__(self, app_id: str, where: str, nearest: Sequence[str] = ()) -> None:
        self.app_id, self.nearest = app_id, tuple(nearest)
        hint = f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
        self.message = f"no run {app_id!r} under {where}.{hint}"
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message  # KeyError would print its repr


class UnknownSequenceError(StoreError, ValueError):
    """The run has no finished step of that sequence id; a ``ValueError``, as in Burr."""

    def __init__(self, run: str, sequence_id: int) -> None:
        self.run, self.sequence_id = run, sequence_id
        super().__init__(
            f"Sequence number {sequence_id} not found for {printable(run)}: "
            f"no finished step has it. `{printable(_show(run))}` lists its steps."
        )
