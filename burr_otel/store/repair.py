"""Finding and mending damage in a log.

Bytes after the last newline are the record that a killed writer was writing: they are saved to
``log.jsonl.torn-N`` and cut off. Damage in the middle (NULs, blank lines, things that are no
records) is saved and then blanked with spaces, newline included, so that it becomes leading white
space of the next line: every reader takes that, and no offset changes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from burr_otel.store import records
from burr_otel.store.index import Entry, fingerprint, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Damage", "Line", "lines_backward", "lines_forward", "mend", "mend_tail", "parts"]

_BLOCK_BYTES = 16 * 1024  # backward; a load needs little more than the last record
_FORWARD_BYTES = 256 * 1024
_MAX_BLOCK_BYTES = 4 * 1024 * 1024
_BATCH_ENTRIES = 4096


class Line(NamedTuple):
    """A line of a log: where it begins, its bytes, and whether its newline is there."""

    offset: int
    data: bytes
    complete: bool


class Damage(NamedTuple):
    """A damaged part of a log and what was done about it."""

    offset: int
    length: int
    reason: str
    saved_to: str | None

    def __str__(self) -> str:
        kept = f"saved to {self.saved_to}" if self.saved_to else "nothing in it to save"
        return f"{self.length} damaged bytes at offset {self.offset} ({self.reason}); {kept}"


class Part(NamedTuple):
    """A sound line or a damaged stretch.

    Attributes:
        offset: Where it begins.
        data: Its bytes.
        complete: Whether its newline is there.
        record: The parsed line; None: it is damaged.
        reason: What the damage is.
    """

    offset: int
    data: bytes
    complete: bool
    record: dict[str, Any] | None
    reason: str


def parts(fd: int, start: int, end: int) -> Iterator[Part]:
    """A log from one offset, where a line begins, to another: what is sound and what is not."""
    for offset, data, complete in lines_forward(fd, start, end):
        record, reason = records.check(data)
        salvaged = records.salvage(data) if record is None else None
        if salvaged is not None:
            at, record = salvaged
            yield Part(offset, data[:at], False, None, "bytes before a record")
            yield Part(offset + at, data[at:], complete, record, "")
            continue
        if record is None and not complete:
            reason = f"torn line, {reason}"
        yield Part(offset, data, complete, record, reason)


def lines_forward(fd: int, start: int, end: int) -> Iterator[Line]:
    """Lines of a file from one offset to another, in memory of one line and one block."""
    rest, at, block = b"", start, _FORWARD_BYTES
    while at < end:
        chunk = os.pread(fd, min(block, end - at), at)
        if not chunk:
            break
        offset, rest = at - len(rest), rest + chunk
        at += len(chunk)
        lines = rest.split(b"\n")
        rest = lines.pop()
        block = min(block * 2, _MAX_BLOCK_BYTES) if not lines else _FORWARD_BYTES
        for line in lines:
            yield Line(offset, line + b"\n", complete=True)
            offset += len(line) + 1
    if rest:
        yield Line(at - len(rest), rest, complete=False)


def lines_backward(fd: int, end: int, stop: int = 0) -> Iterator[Line]:
    """Lines of a file from its end back to `stop`, last line first."""
    at, rest, block, complete = end, b"", _BLOCK_BYTES, False
    while at > stop:
        size = min(block, at - stop)
        chunk = os.pread(fd, size, at - size)
        at -= size
        if b"\n" not in chunk:
            rest, block = chunk + rest, min(block * 2, _MAX_BLOCK_BYTES)
            continue
        block = _BLOCK_BYTES
        lines = (chunk + rest).split(b"\n")
        offset = at + len(chunk) + len(rest)
        for line in reversed(lines[1:]):
            offset -= len(line)
            if complete or line:
                yield Line(offset, line + b"\n" if complete else line, complete)
            offset -= 1
            complete = True
        rest = lines[0]
    if rest or complete:
        yield Line(stop, rest + b"\n" if complete else rest, complete)


def mend(
    fd: int, path: str, start: int, index: Callable[[list[Entry], int], None] | None = None
) -> tuple[list[Damage], int]:
    """Mend a log from `start` to its end; the caller holds its lock.

    Args:
        fd: The log, open for reading and appending.
        path: Its path; torn bytes are saved beside it.
        start: Where the unchecked part begins; a line begins there.
        index: Given the index entries of the sound records, batch by batch, with the length of
            the log that they cover.

    Returns:
        The damage that was mended, and how far the log is sound now. What a program that takes no
        lock has appended meanwhile lies beyond.

    Raises:
        OSError: The log cannot be read or changed.
    """
    size = end = os.fstat(fd).st_size
    damage: list[Damage] = []
    entries: list[Entry] = []
    bad: tuple[int, int, str] | None = None  # adjoining damage: offset, length, first reason
    for part in parts(fd, start, size):
        data = part.data
        if part.record is None:
            offset, length, reason = bad or (part.offset, 0, part.reason)
            bad = offset, length + len(data), reason
            continue
        if bad:
            damage.append(_save(fd, path, *bad))
            _blank(path, *bad[:2])
            bad = None
        if not part.complete:  # only its newline is missing
            os.write(fd, b"\n")
            data += b"\n"
            end += 1
        described = kind_of(data, part.record)
        if described is not None:
            entries.append(Entry(*described, part.offset, len(data), fingerprint(data)))
        if index and len(entries) >= _BATCH_ENTRIES:
            index(entries, part.offset + len(data))
            entries = []
    if bad:
        damage.append(_save(fd, path, *bad))
        end = bad[0]
        if os.fstat(fd).st_size == size:
            os.ftruncate(fd, end)
            os.fsync(fd)
        else:  # a program that takes no lock has gone on behind it: cut nothing off
            _blank(path, *bad[:2])
    if index:
        index(entries, end)
    return damage, end


def mend_tail(fd: int, path: str) -> None:
    """Mend only the last line of a file of lines, such as ``children.jsonl``.

    The caller holds its lock.

    Raises:
        OSError: It cannot be read or changed.
    """
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        mend(fd, path, next(lines_backward(fd, size)).offset)


def _blank(path: str, offset: int, length: int) -> None:
    """Overwrite a damaged stretch with spaces."""
    # The descriptor appends; only another one can write in the middle.
    other = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for at in range(offset, offset + length, _MAX_BLOCK_BYTES):
            os.pwrite(other, b" " * min(_MAX_BLOCK_BYTES, offset + length - at), at)
        os.fsync(other)
    finally:
        os.close(other)


def _save(fd: int, path: str, offset: int, length: int, reason: str) -> Damage:
    """Copy a damaged stretch, synced, to the first free ``torn-N``; white space is not kept."""
    target = -1
    name = None
    try:
        for at in range(offset, offset + length, _MAX_BLOCK_BYTES):
            chunk = os.pread(fd, min(_MAX_BLOCK_BYTES, offset + length - at), at)
            if target < 0 and not chunk.strip():
                continue
            if target < 0:
                target, name = _free_name(path)
            _write_all(target, chunk)
        if target >= 0:
            os.fsync(target)
    finally:
        if target >= 0:
            os.close(target)
    return Damage(offset, length, reason, name)


def _free_name(path: str) -> tuple[int, str]:
    number = 0
    while True:
        number += 1
        name = f"{path}.torn-{number}"
        try:
            return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), name
        except FileExistsError:
            continue


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
