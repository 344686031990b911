"""Noticing that two sessions of one run really run at once, from what stands in the log."""

from __future__ import annotations

import contextlib
from typing import Final

from burr_otel.printable import logger_of_lines
from burr_otel.records import BEGIN_ENTRY
from burr_otel.store.port import RunLog
from burr_otel.store.query import Query, otel_of

logger = logger_of_lines(__name__)

_MOST_WARNED: Final = 10_000
_BEGINS: Final = Query((BEGIN_ENTRY,))
_warned: set[str] = set()


def warn_of_overlap(run: str, session: str, log: RunLog, start: int, end: int) -> None:
    """Warn, once a run, if between two steps of a session lies one of another session.

    Sessions that follow one another are the normal case and stay silent.
    """
    if run in _warned or len(_warned) >= _MOST_WARNED:
        return
    other = _other_session(session, log, start, end)
    if other is not None:
        _warned.add(run)
        logger.warning(
            "%s: sessions %s and %s run steps of it at once, so its history is a mixture "
            "of both. Give each its own app id, or use exclusive=True.",
            run,
            session,
            other,
        )


def _other_session(own: str, log: RunLog, start: int, end: int) -> str | None:
    """The session whose step lies between, if any."""
    with contextlib.suppress(OSError):
        for line in log.newest(_BEGINS.numbers, None, end):
            if line.position < start:
                break
            record = _BEGINS.match(line.data)
            session = (otel_of(record) or {}).get("session")
            if record is not None and session != own:
                return str(session or "of another tracker")
    return None
