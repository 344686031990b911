"""Cutting text to a number of UTF-8 bytes, and writing it as JSON that stays whole.

A cut text keeps its head and says how much is missing::

    Once upon a ti... [9983 more characters]
"""

from __future__ import annotations

import re
from typing import Final

import orjson

__all__ = ["ELLIPSIS", "SMALLEST_ROOM", "clip", "json_text", "scrub"]

ELLIPSIS: Final = "..."
SMALLEST_ROOM: Final = 5
"""Bytes of the shortest stand-in, the JSON string ``"..."``: no value may be given less."""

_SURROGATES = re.compile("[\ud800-\udfff]")
_LONGEST_ESCAPE_BYTES: Final = 6  # \u0000; a UTF-8 sequence has at most 4


def scrub(text: str) -> str:
    """Replace lone surrogates, which no exporter can write as UTF-8, by U+FFFD."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def json_text(text: str, room: int, *, unseen: int = 0) -> tuple[bytes, bool]:
    """Write text as a JSON string of at most `room` bytes.

    Args:
        text: Text without lone surrogates.
        room: Bytes that the string may take, quotes included; at least `SMALLEST_ROOM`.
        unseen: Characters that follow `text` and are left out in any case.

    Returns:
        The JSON string, and whether anything is missing from it.
    """
    data = orjson.dumps(text if len(text) <= room else text[:room])
    if not unseen and len(text) <= room and len(data) <= room:
        return data, False
    total = len(text) + unseen
    keep = room - 2 - len(_more(total))
    if keep < 0:
        return b'"..."', True
    if len(data) - 2 == min(len(text), room):  # one byte a character: nothing can be split
        body = data[1:-1][:keep]
        length = len(body)
    else:
        head, body = _whole_characters(data[1:-1], keep)
        length = len(head)
    return b'"%b%b"' % (body, _more(total - length).encode()), True


def clip(text: str, limit_bytes: int, *, unseen: int = 0) -> tuple[str, bool]:
    """Cut plain text to at most `limit_bytes` of UTF-8.

    Args:
        text: Text without lone surrogates.
        limit_bytes: Bytes that the result may take; at least three.
        unseen: Characters that follow `text` and are left out in any case.

    Returns:
        The text, and whether anything is missing from it.
    """
    data = text[:limit_bytes].encode()
    if not unseen and len(text) <= limit_bytes and len(data) <= limit_bytes:
        return text, False
    total = len(text) + unseen
    keep = limit_bytes - len(_more(total))
    if keep < 0:
        return ELLIPSIS, True
    kept = data[:keep].decode("utf-8", "ignore")
    return kept + _more(total - len(kept)), True


def _more(count: int) -> str:
    return f"... [{count} more characters]"


def _whole_characters(body: bytes, keep: int) -> tuple[str, bytes]:
    """The longest head of a JSON string's inside that has at most `keep` bytes and is valid."""
    longest = min(keep, len(body))
    for end in range(longest, max(longest - _LONGEST_ESCAPE_BYTES, 0), -1):
        head = body[:end]
        try:
            return orjson.loads(b'"%b"' % head), head
        except ValueError:  # the end splits a character
            continue
    return "", b""
