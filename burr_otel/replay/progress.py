"""How far an interrupted replay came, so that the next one need not begin again.

A small file of the user's, one for each place that runs are sent to from a storage directory. It
lives only while a replay is not done: one that reaches its end takes it away.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from typing_extensions import Self

from burr_otel.store import is_url, without_password

_OLDEST_S: Final = 24 * 3600.0  # whoever was interrupted longer ago may not remember


def state_folder() -> Path:
    """Where programs of this user keep what they can do without."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "burr-otel"


class Progress:
    """Which runs of a storage directory have been sent whole to a destination."""

    def __init__(
        self,
        folder: Path,
        destination: str,
        storage_dir: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        kept = without_password(storage_dir)
        if not is_url(storage_dir):
            kept = os.path.realpath(Path(storage_dir).expanduser())
        place = json.dumps([destination, kept])
        self._path = folder / f"replay-{hashlib.sha256(place.encode()).hexdigest()[:16]}.jsonl"
        self._clock = clock
        self._done: dict[tuple[str, str], int] = {}
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        """Read what there is; another replay's file that is in use is left alone."""
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = self._path.open("a+", encoding="utf-8")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                return self
            self._file = file
            self._read(file)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self, file: IO[str]) -> None:
        if self._clock() - os.fstat(file.fileno()).st_mtime > _OLDEST_S:
            file.truncate(0)
            return
        file.seek(0)
        for line in file:
            with contextlib.suppress(ValueError, TypeError):  # torn, or of another version
                project, app_id, size_bytes = json.loads(line)
                self._done[project, app_id] = size_bytes

    def has(self, project: str, app_id: str, size_bytes: int) -> bool:
        """Whether a run has been sent when its log was as long as it is."""
        return self._done.get((project, app_id)) == size_bytes

    def note(self, project: str, app_id: str, size_bytes: int) -> None:
        """Note that a run has been sent."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # then the next replay sends it again
                self._file.write(json.dumps([project, app_id, size_bytes]) + "\n")
                self._file.flush()

    def restart(self) -> None:
        """Forget what an earlier replay has sent."""
        self._done.clear()
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.truncate(0)

    def finish(self) -> None:
        """The replay has come to its end."""
        self.restart()
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
