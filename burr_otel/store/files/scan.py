"""The lines of a file, forward and backward, in time that grows with its length alone.

A record has no NULs. Blocks of nothing else, which a file system that lost power leaves, are told
as lines without bytes, so that a gigabyte of them takes no memory. Leading spaces are left out: a
mended stretch of damage is blanked, newline included, and so stands before the next record.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from burr_otel.store.port import Line

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_BLOCK_BYTES", "lines_backward", "lines_forward"]

MAX_BLOCK_BYTES: Final = 4 * 1024 * 1024
_BACKWARD_BYTES: Final = 16 * 1024  # a load needs little more than the last record
_FORWARD_BYTES: Final = 256 * 1024


def lines_forward(fd: int, start: int, end: int) -> Iterator[Line]:
    """Lines of a file from one offset to another, in memory of one line and one block."""
    at = begin = start
    held: list[bytes] = []
    block = _FORWARD_BYTES
    while at < end:
        chunk = os.pread(fd, min(block, end - at), at)
        if not chunk:
            break
        at += len(chunk)
        if b"\n" not in chunk:
            block = min(block * 2, MAX_BLOCK_BYTES)
            if chunk.count(0) < len(chunk):
                held.append(chunk)
                continue
            if held:
                yield _line(begin, b"".join(held), complete=False)
            begin = at
            held = []
            yield Line(at - len(chunk), at, b"", complete=False)
            continue
        block = _FORWARD_BYTES
        lines = chunk.split(b"\n")
        lines[0] = b"".join((*held, lines[0]))
        for line in lines[:-1]:
            yield _line(begin, line + b"\n", complete=True)
            begin += len(line) + 1
        held = [lines[-1]] if lines[-1] else []
    if held:
        yield _line(begin, b"".join(held), complete=False)


def lines_backward(fd: int, end: int, stop: int = 0) -> Iterator[Line]:
    """Lines of a file from its end back to `stop`, last line first."""
    at, block, complete = end, _BACKWARD_BYTES, False
    held: list[bytes] = []  # of the line that goes on to the left, last part first
    while at > stop:
        size = min(block, at - stop)
        chunk = os.pread(fd, size, at - size)
        at -= size
        pieces = chunk.split(b"\n")
        if len(pieces) == 1:
            block = min(block * 2, MAX_BLOCK_BYTES)
            if chunk.count(0) < len(chunk):
                held.append(chunk)
                continue
            data = b"".join(reversed(held))
            if data or complete:
                yield _line(at + size, data + b"\n" * complete, complete=complete)
            held, complete = [], False
            yield Line(at, at + size, b"", complete=False)
            continue
        block = _BACKWARD_BYTES
        position = at + size
        for piece in reversed(pieces[1:]):
            held.append(piece)
            position -= len(piece)
            data = b"".join(reversed(held))
            if data or complete:
                yield _line(position, data + b"\n" * complete, complete=complete)
            held, complete = [], True
            position -= 1
        held = [pieces[0]]
    data = b"".join(reversed(held))
    if data or complete:
        yield _line(stop, data + b"\n" * complete, complete=complete)


def _line(position: int, data: bytes, *, complete: bool) -> Line:
    stripped = data.lstrip(b" ") or data
    return Line(position + len(data) - len(stripped), position + len(data), stripped, complete)
