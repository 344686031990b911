"""The lines of a file, forward and backward, in time that grows with its length alone.

A record has no NULs. Blocks of nothing else, which a file system that lost power leaves, are told
as lines without bytes, so that a gigabyte of them takes no memory. Leading spaces are left out: a
mended stretch of damage is blanked, newline included, and so stands before the next record.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from burr_otel.store.port import Line

MAX_BLOCK_BYTES: Final = 4 * 1024 * 1024
_BACKWARD_BYTES: Final = 16 * 1024  # a load needs little more than the last record
_FORWARD_BYTES: Final = 256 * 1024
_SPACE: Final = ord(" ")


def lines_forward(fd: int, start: int, end: int) -> Iterator[Line]:  # noqa: C901 - one loop
    """Lines of a file from one offset to another, in memory of one line and one block."""
    at, blank_from = start, -1
    held: list[bytes] = []
    block = _FORWARD_BYTES
    while at < end:
        chunk = os.pread(fd, min(block, end - at), at)
        if not chunk:
            break
        lines = chunk.split(b"\n")
        line_end, at = at, at + len(chunk)
        if len(lines) == 1:
            block = min(block * 2, MAX_BLOCK_BYTES)
            if chunk.count(0) == len(chunk):
                if held:
                    yield _line(line_end, held, complete=False)
                held, blank_from = [], -1
                yield Line(line_end, at, b"", complete=False)
                continue
        else:
            block = _FORWARD_BYTES
            for line in lines[:-1]:
                held.append(line)
                line_end += len(line) + 1
                yield _line(line_end, held, complete=True)
                held, blank_from = [], -1
        if held or lines[-1].count(_SPACE) < len(lines[-1]):
            held.append(lines[-1])
        elif lines[-1] and blank_from < 0:
            blank_from = line_end
    if held:
        yield _line(at, held, complete=False)
    elif blank_from >= 0:
        yield Line(blank_from, at, b" ", complete=False)


def lines_backward(fd: int, end: int, stop: int = 0) -> Iterator[Line]:
    """Lines of a file from its end back to `stop`, last line first."""
    at, line_end, block, complete = end, end, _BACKWARD_BYTES, False
    held: list[bytes | int] = []  # of the line that goes on to the left, last part first
    while at > stop:
        size = min(block, at - stop)
        chunk = os.pread(fd, size, at - size)
        at -= size
        pieces = chunk.split(b"\n")
        if len(pieces) == 1:
            block = min(block * 2, MAX_BLOCK_BYTES)
            if chunk.count(0) == size:
                if held or complete:
                    yield _line(line_end, _in_order(held), complete=complete)
                held, complete, line_end = [], False, at
                yield Line(at, at + size, b"", complete=False)
            else:  # many spaces are a text's, or blanked damage: their number is enough
                held.append(size if chunk.count(_SPACE) == size else chunk)
            continue
        block = _BACKWARD_BYTES
        position = at + size
        for piece in reversed(pieces[1:]):
            position -= len(piece)
            parts = _in_order([*held, piece])
            if complete or any(parts):
                yield _line(line_end, parts, complete=complete)
            held, complete, line_end = [], True, position
            position -= 1
        held = [pieces[0]]
    parts = _in_order(held)
    if complete or any(parts):
        yield _line(line_end, parts, complete=complete)


def _in_order(held: list[bytes | int]) -> list[bytes]:
    """The parts of a line from left to right, without long runs of spaces before it."""
    while len(held) > 1 and (isinstance(held[-1], int) or not held[-1].strip(b" ")):
        held.pop()
    return [part if isinstance(part, bytes) else b" " * part for part in reversed(held)]


def _line(line_end: int, parts: list[bytes], *, complete: bool) -> Line:
    data = b"".join(parts)
    if complete:
        data += b"\n"
    data = data.lstrip(b" ") or data
    return Line(line_end - len(data), line_end, data, complete)
