"""The lines of a file, forward and backward, in time that grows with its length alone; and mended.

A record has no NULs. Blocks of nothing else, which a file system that lost power leaves, are told
as lines without bytes, so that a gigabyte of them takes no memory. Leading spaces are left out: a
mended stretch of damage is blanked, newline included, and so stands before the next record: every
reader takes that, and no offset changes. What was cut off or blanked is in ``log.jsonl.torn-N``.
"""

from __future__ import annotations

import io
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
BATCH_ENTRIES: Final = 4096
_SETTLE_S = 0.002
_SETTLE_TRIES: Final = 25


def lines_forward(fd: int, start: int, end: int) -> Iterator[Line]:
    """Lines of a file from one offset to another, in memory of one line and one block."""
    at = line_start = start
    held: list[bytes] = []  # of the line that goes on to the right
    while at < end and (chunk := os.pread(fd, min(_FORWARD_BYTES, end - at), at)):
        for piece in io.BytesIO(chunk):
            at += len(piece)
            if not piece.strip(b"\0"):
                if held:
                    yield _line(at - len(piece), held)
                held, line_start = [], at
                yield Line(at - len(piece), at, b"", complete=False)
                continue
            if held or piece.strip(b" "):
                held.append(piece)
            if piece.endswith(b"\n"):
                yield _line(at, held)
                held, line_start = [], at
    if held:
        yield _line(at, held)
    elif line_start < at:
        yield Line(line_start, at, b" ", complete=False)


def lines_backward(fd: int, end: int, stop: int = 0) -> Iterator[Line]:
    """Lines of a file from its end back to `stop`, last line first."""
    at = line_end = end
    block = _BACKWARD_BYTES
    held: list[bytes | int] = []  # of the line that goes on to the left, last part first
    while at > stop:
        start = max(stop, at - block)
        chunk = os.pread(fd, at - start, start)
        # Of a long line, ever more is read at once.
        block = _BACKWARD_BYTES if b"\n" in chunk else min(block * 2, MAX_BLOCK_BYTES)
        if not chunk.strip(b"\0"):
            if held:
                yield _line(line_end, _in_order(held))
            yield Line(start, at, b"", complete=False)
            held, at, line_end = [], start, start
            continue
        for piece in reversed(list(io.BytesIO(chunk))):
            if held and piece.endswith(b"\n"):
                yield _line(line_end, _in_order(held))
                held, line_end = [], at
            # Many spaces are a text's, or blanked damage: their number is enough.
            held.append(piece if piece.strip(b" ") else len(piece))
            at -= len(piece)
    if held:
        yield _line(line_end, _in_order(held))


def _in_order(held: list[bytes | int]) -> list[bytes]:
    """The parts of a line from left to right, without long runs of spaces before it."""
    while len(held) > 1 and isinstance(held[-1], int):
        held.pop()
    return [part if isinstance(part, bytes) else b" " * part for part in reversed(held)]


def _line(line_end: int, parts: list[bytes]) -> Line:
    data = b"".join(parts)
    data = data.lstrip(b" ") or data
    return Line(line_end - len(data), line_end, data, data.endswith(b"\n"))


def settle(fd: int) -> None:
    """Wait while a program that takes no lock adds to a line, as Burr's client does, in pieces."""
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
    """Mend only the last line of a file of lines; the caller holds its lock."""
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
