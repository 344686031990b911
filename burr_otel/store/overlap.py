"""Noticing that two sessions of one run really run at once, from what stands in the log."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from burr_otel.printable import logger_of_lines
from burr_otel.records import BEGIN_ENTRY
from burr_otel.store.query import Query, otel_of

if TYPE_CHECKING:
    from burr_otel.store.port import RunLog

__all__ = ["Overlap"]

logger = logger_of_lines(__name__)

_MOST_WARNED: Final = 10_000
_BEGINS: Final = Query((BEGIN_ENTRY,))
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

    def step_began(self, start: int, end: int, log: RunLog) -> None:
        """Likewise for a begin_entry."""
        if start == self._end and self._foreign < 0 and self._stepped:
            self._end = end  # the usual case; (-1, -1) where nothing is known changes nothing
            return
        self.wrote(start, end)
        foreign, self._foreign = self._foreign, -1
        if self._stepped and foreign >= 0 and self._run not in _warned:
            other = self._other_session(log, foreign, start)
            if other is not None and len(_warned) < _MOST_WARNED:
                _warned.add(self._run)
                logger.warning(
                    "%s: sessions %s and %s run steps of it at once, so its history is a mixture "
                    "of both. Give each its own app id, or use exclusive=True.",
                    self._run,
                    self._session,
                    other,
                )
        self._stepped = True

    def _other_session(self, log: RunLog, start: int, end: int) -> str | None:
        """The session whose step lies between, if any."""
        with contextlib.suppress(OSError):
            for line in log.newest(_BEGINS.numbers, None, end):
                if line.position < start:
                    break
                record = _BEGINS.match(line.data)
                session = (otel_of(record) or {}).get("session")
                if record is not None and session != self._session:
                    return str(session or "of another tracker")
        return None
