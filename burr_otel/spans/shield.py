"""Telemetry never hurts: where errors of our own span work end up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from burr_otel.interrupts import is_interrupt
from burr_otel.printable import logger

_loud = False
_reported: set[str] = set()


def report(where: str, error: Exception) -> None:
    """Log an error of our own, the first time with its traceback, or raise it within `loud`."""
    if _loud or is_interrupt(error):
        raise error
    kind = f"{where}:{type(error).__qualname__}"
    if kind in _reported:
        logger.debug("burr-otel: %s failed again", where, exc_info=error)
        return
    _reported.add(kind)
    logger.warning(
        "burr-otel: %s failed, so this span is incomplete; the run goes on. "
        "Further failures of this kind are logged at DEBUG.",
        where,
        exc_info=error,
    )


@contextlib.contextmanager
def loud() -> Iterator[None]:
    """Raise telemetry errors instead of logging them, for tests."""
    global _loud
    before, _loud = _loud, True
    try:
        yield
    finally:
        _loud = before
