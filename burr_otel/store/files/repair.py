"""Finding and mending damage in a log.

Bytes after the last newline are the record that a killed writer was writing: they are saved to
``log.jsonl.torn-N`` and cut off. Damage in the middle (NULs, blank lines, things that are no
records) is saved and then blanked with spaces, newline included, so that it becomes leading white
space of the next line: every reader takes that, and no offset changes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, NamedTuple

from burr_otel.store.files.index import Entry
from burr_otel.store.files.safe import open_regular
from burr_otel.store.files.scan import MAX_BLOCK_BYTES, lines_backward, lines_forward
from burr_otel.store.lines import entry_of, sound_parts

_BATCH_ENTRIES: Final = 4096


class Damage(NamedTuple):
    """A damaged part of a log and what was done about it."""

    offset: int
    length: int
    reason: str
    saved_to: str | None

    def __str__(self) -> str:
        kept = f"saved to {self.saved_to}" if self.saved_to else "nothing in it to save"
        return f"{self.length} damaged bytes at offset {self.offset} ({self.reason}); {kept}"


def mend(  # noqa: C901, PLR0912 - one case each
    fd: int, path: str, start: int, index: Callable[[list[Entry], int], None] | None = None
) -> tuple[list[Damage], int]:
    """Mend a log from `start`, where a line begins, to its end; the caller holds its lock.

    Torn bytes are saved beside `path`. `index` is given the entries of the sound records, batch by
    batch, with the length of the log that they cover. Gives the damage that was mended, and how far
    the log is sound now: what a program that takes no lock has appended meanwhile lies beyond.
    """
    size = end = os.fstat(fd).st_size
    damage: list[Damage] = []
    entries: list[Entry] = []
    bad: tuple[int, int, str] | None = None  # adjoining damage: where it begins and ends, and why
    for part in sound_parts(lines_forward(fd, start, size)):
        if part.record is None:
            begin = max(part.position, start)
            bad = (bad[0], part.end, bad[2]) if bad else (begin, part.end, part.reason)
            continue
        if bad and bad[0] < bad[1]:
            damage.append(_save(fd, path, *bad))
            _overwrite(path, bad[0], bad[1])
        bad = None
        start = part.end
        if not part.complete:  # only its newline is missing
            start += 1
            if part.end == size:
                os.write(fd, b"\n")
                end += 1
            else:  # NULs follow
                _overwrite(path, part.end, start, b"\n")
        entry = entry_of(part.data, part.record)
        if entry is not None:
            entries.append(Entry(*entry, part.position, start - part.position))
        if index and len(entries) >= _BATCH_ENTRIES:
            index(entries, start)
            entries = []
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
        index(entries, end)
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
    other = open_regular(path, os.O_WRONLY)
    try:
        for at in range(start, end, MAX_BLOCK_BYTES):
            os.pwrite(other, byte * min(MAX_BLOCK_BYTES, end - at), at)
        os.fsync(other)
    finally:
        os.close(other)


def _save(fd: int, path: str, start: int, end: int, reason: str) -> Damage:
    """Copy a damaged stretch, synced, to the first free ``torn-N``; white space is not kept."""
    target = -1
    name = None
    try:
        for at in range(start, end, MAX_BLOCK_BYTES):
            chunk = os.pread(fd, min(MAX_BLOCK_BYTES, end - at), at)
            if target < 0 and not chunk.strip():
                continue
            if target < 0:
                target, name = _free_name(path)
                first = at
            if chunk.count(0) < len(chunk):
                _write_all(target, chunk, at - first)
            else:  # a hole, which takes no room
                os.ftruncate(target, at - first + len(chunk))
        if target >= 0:
            os.fsync(target)
    finally:
        if target >= 0:
            os.close(target)
    return Damage(start, end - start, reason, name)


def _free_name(path: str) -> tuple[int, str]:
    number = 0
    while True:
        number += 1
        name = f"{path}.torn-{number}"
        try:
            return open_regular(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL), name
        except FileExistsError:
            continue


def _write_all(fd: int, data: bytes, at: int) -> None:
    while data:
        written = os.pwrite(fd, data, at)
        data, at = data[written:], at + written
