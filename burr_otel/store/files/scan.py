"""The lines of a file, forward and backward, in time that grows with its length alone; and mended.

A record has no NULs. Blocks of nothing else, which a file system that lost power leaves, are told
as lines without bytes, so that a gigabyte of them takes no memory. Leading spaces are left out: a
mended stretch of damage is blanked, newline included, and so stands before the next record: every
reader takes that, and no offset changes. What was cut off or blanked is in ``log.jsonl.torn-N``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Final

from burr_otel.store.files import disk
from burr_otel.store.files.disk import MAX_BLOCK_BYTES
from burr_otel.store.files.index import Noted
from burr_otel.store.port import Line
from burr_otel.store.reading import entry_of, sound_parts

_BACKWARD_BYTES: Final = 16 * 1024  # a load needs little more than the last record
_FORWARD_BYTES: Final = 256 * 1024
_SPACE: Final = ord(" ")
BATCH_ENTRIES: Final = 4096
_SETTLE_S = 0.002
_SETTLE_TRIES: Final = 25


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


def settle(fd: int) -> None:
    """Wait while a program that takes no lock is writing a line, as Burr's client does in pieces.

    A line that nobody adds to for a moment is torn.
    """
    for _ in range(_SETTLE_TRIES):
        size = os.fstat(fd).st_size
        if not size or os.pread(fd, 1, size - 1) == b"\n":
            return
        time.sleep(_SETTLE_S)
        if os.fstat(fd).st_size == size:
            return


def mend(  # noqa: C901, PLR0912 - one case each
    fd: int, path: str, start: int, index: Callable[[list[Noted], int], None] | None = None
) -> tuple[list[str], int]:
    """Mend a log from `start`, where a line begins, to its end; the caller holds its lock.

    `index` is given the sound records, batch by batch, with the length of the log that they cover.
    Tells what was mended, and how far the log is sound now: what a program that takes no lock has
    appended meanwhile lies beyond.
    """
    size = end = os.fstat(fd).st_size
    damage: list[str] = []
    noted: list[Noted] = []
    bad: tuple[int, int, str] | None = None  # adjoining damage: where it begins and ends, and why
    for part in sound_parts(lines_forward(fd, start, size)):
        if part.record is None:
            begin = max(part.position, start)
            bad = (bad[0], part.end, bad[2]) if bad else (begin, part.end, part.reason)
            continue
        if bad and bad[0] < bad[1]:
            damage.append(_save(fd, path, *bad))
            _overwrite(path, bad[0], bad[1])
        bad, start = None, part.end
        if not part.complete:  # only its newline is missing
            start += 1
            if part.end == size:
                os.write(fd, b"\n")
                end += 1
            else:  # NULs follow
                _overwrite(path, part.end, start, b"\n")
        entry = entry_of(part.data, part.record)
        if entry is not None:
            noted.append((*entry, part.position, start - part.position))
        if index and len(noted) >= BATCH_ENTRIES:
            index(noted, start)
            noted = []
    if bad:
        end = bad[0]
        if bad[0] < bad[1]:
            damage.append(_save(fd, path, *bad))
        if os.fstat(fd).st_size == size:
            os.ftruncate(fd, end)
            os.fsync(fd)
        else:  # a program that takes no lock has gone on behind it: cut nothing off
            _overwrite(path, bad[0], bad[1])
    if index:
        index(noted, end)
    return damage, end


def mend_tail(fd: int, path: str) -> None:
    """Mend only the last line of a file of lines, such as ``children.jsonl``.

    The caller holds its lock.
    """
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        mend(fd, path, next(lines_backward(fd, size)).position)


def _overwrite(path: str, start: int, end: int, byte: bytes = b" ") -> None:
    """Overwrite a damaged stretch."""
    # The descriptor appends; only another one can write in the middle.
    with disk.opened(path, os.O_WRONLY) as fd:
        for at in range(start, end, MAX_BLOCK_BYTES):
            os.pwrite(fd, byte * min(MAX_BLOCK_BYTES, end - at), at)
        os.fsync(fd)


def _save(fd: int, path: str, start: int, end: int, reason: str) -> str:
    """Copy a damaged stretch, synced, to the first free ``torn-N``; leading blanks are not kept."""
    told = f"{end - start} damaged bytes at offset {start} ({reason})"
    while start < end:
        chunk = os.pread(fd, min(MAX_BLOCK_BYTES, end - start), start)
        if chunk.strip():
            break
        start += len(chunk) or end
    else:
        return f"{told}; nothing in it to save"
    number = 1
    while os.path.lexists(f"{path}.torn-{number}"):
        number += 1
    name = f"{path}.torn-{number}"
    with disk.opened(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as target:
        for at in range(start, end, MAX_BLOCK_BYTES):
            chunk = os.pread(fd, min(MAX_BLOCK_BYTES, end - at), at)
            if chunk.count(0) < len(chunk):
                disk.write_all(target, chunk)
            else:  # a hole, which takes no room
                os.lseek(target, len(chunk), os.SEEK_CUR)
                os.ftruncate(target, at + len(chunk) - start)
        os.fsync(target)
    return f"{told}; saved to {name}"
