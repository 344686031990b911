"""Names and messages of others in our log lines and errors: they cannot begin a line of their own.

An app id may hold newlines and terminal escape sequences, and a log names whatever its writer
wished.
"""

from __future__ import annotations

import logging
from typing import Final


def printable(text: str) -> str:
    """`text` on one line, with what a terminal would act on written as an escape."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _to_one_line(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    if not message.isprintable():
        record.msg, record.args = printable(message), None
    return True


logger = logging.getLogger("burr_otel")
"""Our logger, of which every message is one printable line."""

logger.addFilter(_to_one_line)

_MOST_WARNED: Final = 10_000
_warned: set[tuple[str, ...]] = set()


def first_time(*parts: str) -> bool:
    """Whether this process has not warned of these parts yet."""
    if parts in _warned or len(_warned) >= _MOST_WARNED:
        return False
    _warned.add(parts)
    return True
