"""Noticing that two sessions of one run really run at once, from what stands in the log."""

from __future__ import annotations

import contextlib
import logging
import os

from burr_otel.store import records
from burr_otel.store.repair import lines_backward

__all__ = ["Overlap"]

logger = logging.getLogger(__name__)

_MAX_READ_BYTES = 256 * 1024
_MAX_WARNED = 10_000
_warned: set[str] = set()


class Overlap:
    """Sees steps of others between two steps of this session: that is a warning, once a run.

    Sessions that follow one another are the normal case and stay silent.
    """

    __slots__ = ("_end", "_foreign", "_run", "_session", "_stepped")

    def __init__(self, run: str, session: str) -> None:
        self._run, self._session = run, session
        self._end = -1  # of this session's newest record
        self._foreign = -1  # where records of others begin, since this session's last step
        self._stepped = False

    def wrote(self, start: int, end: int) -> None:
        """This session's record lies there; (-1, -1): not known."""
        if start < 0:
            return
        if self._end >= 0 and start != self._end and self._foreign < 0:
            self._foreign = self._end
        self._end = end

    def step_began(self, start: int, end: int, path: str) -> None:
        """Likewise for a begin_entry."""
        if start == self._end and self._foreign < 0 and self._stepped:
            self._end = end  # the usual case; (-1, -1) where nothing is known changes nothing
            return
        self.wrote(start, end)
        foreign, self._foreign = self._foreign, -1
        if self._stepped and foreign >= 0 and self._run not in _warned:
            other = self._other_session(path, foreign, start)
            if other is not None and len(_warned) < _MAX_WARNED:
                _warned.add(self._run)
                logger.warning(
                    "%s: sessions %s and %s run steps of it at once, so its history is a mixture "
                    "of both. Give each its own app id, or use exclusive=True.",
                    self._run,
                    self._session,
                    other,
                )
        self._stepped = True

    def _other_session(self, path: str, start: int, end: int) -> str | None:
        """The session whose step lies between, if any."""
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                for line in lines_backward(fd, end, max(start, end - _MAX_READ_BYTES)):
                    described = records.describe(line.data)
                    if described is None or described[0] != records.BEGIN_ENTRY:
                        continue
                    record = records.check(line.data)[0] or {}
                    otel = record.get("otel")
                    session = otel.get("session") if isinstance(otel, dict) else None
                    if session != self._session:
                        return str(session or "of another tracker")
            finally:
                os.close(fd)
        return None
