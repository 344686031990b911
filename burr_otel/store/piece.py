"""A stretch of a large text that is looked at in place: a copy would be new memory each time."""

from __future__ import annotations

import zlib

__all__ = ["Piece"]


class Piece:
    """Bytes within bytes.

    Args:
        source: What it is a part of; the whole when nothing else is said.
        start: Where it begins there.
        end: And where it ends.
    """

    __slots__ = ("_end", "_source", "_start")

    def __init__(self, source: bytes, start: int = 0, end: int | None = None) -> None:
        self._source, self._start = source, start
        self._end = len(source) if end is None else end

    def __len__(self) -> int:
        return self._end - self._start

    def __bytes__(self) -> bytes:
        return self._source[self._start : self._end]

    def slice(self, start: int, end: int) -> memoryview:
        """What stands between two places, neither of them counted from the end."""
        return memoryview(self._source)[self._start + start : self._start + end]

    def byte(self, at: int) -> int:
        """One byte, counted from the start."""
        return self._source[self._start + at]

    def has(self, text: memoryview, at: int) -> bool:
        """Whether a text stands at a place, which leaves room for it."""
        # The one comparison with a part of bytes that is a memcmp.
        return self._source.startswith(text, self._start + at)

    def checksum(self, start: int, end: int, before: int = 0) -> int:
        """Of a stretch, continuing that of what stands before it."""
        return zlib.crc32(self.slice(start, end), before)
