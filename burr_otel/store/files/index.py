"""The sidecar index: where in the log the steps are. A cache, checked before it is believed.

A header, then entries of a fixed size in file order, one for each begin_entry, end_entry and
otel_root. `covered` is the length of the log that the index speaks for, which was found free of
damage. Whatever does not fit (header checksum, bytes before `covered`, a log shorter than that, an
entry whose record reads differently) makes the index worthless, and it is made again from the log.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from burr_otel.store.files import disk
from burr_otel.store.port import END, INHERITED, ROOT

_MAGIC: Final = b"burrotl3"
# magic, covered, count, numbers of the newest root's and newest state's entries, log mtime (ns),
# crc of the log's bytes before covered, crc of the header up to here
_HEADER = struct.Struct("<8sQQqqqII")
_HEADER_BYTES = 64
# sequence id, offset, length, number of the entry where this ascending stretch began, kind
_ENTRY: Final = struct.Struct("<qQQIB3x")
_ROOTS: Final = frozenset((ROOT, INHERITED))
_STATES: Final = frozenset((END, INHERITED))
_TAIL_BYTES: Final = 256

Noted = tuple[int, int, int, int]
"""Of a record its kind, its step (-1: none), and where its line is: offset and length."""


class _Entry(NamedTuple):
    sequence_id: int
    offset: int
    length: int
    stretch: int
    kind: int


class _Header(NamedTuple):
    covered: int = 0
    size: int = 0
    root: int = -1
    state: int = -1
    mtime_ns: int = 0


class Index:
    """One index file, opened for a moment, and the log that it speaks for.

    Where none can be kept it is empty, and a log is merely slower to read.
    """

    def __init__(self, folder: str, log_fd: int, *, writable: bool) -> None:
        self._log_fd, self._fd = log_fd, -1
        flags = os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY
        with contextlib.suppress(OSError):
            self._fd = disk.open_regular(f"{folder}/{disk.INDEX}", flags)
        self.reload()

    def close(self) -> None:
        """Release the file descriptor; what is left is empty."""
        fd, self._fd, self._header = self._fd, -1, _Header()
        if fd >= 0:
            os.close(fd)

    @property
    def is_kept(self) -> bool:
        """Whether there is a file, in which an addition stays."""
        return self._fd >= 0

    @property
    def covered(self) -> int:
        """Bytes of the log that are indexed."""
        return self._header.covered

    def reload(self) -> None:
        """Read the header, which another process may have written."""
        self._header = _Header()
        raw = os.pread(self._fd, _HEADER.size, 0) if self.is_kept else b""
        if len(raw) < _HEADER.size:
            return
        magic, *numbers, tail, checksum = _HEADER.unpack(raw)
        header, log = _Header(*numbers), os.fstat(self._log_fd)
        if (
            magic == _MAGIC
            and checksum == zlib.crc32(raw[: _HEADER.size - 4])
            and os.fstat(self._fd).st_size >= _HEADER_BYTES + header.size * _ENTRY.size
            and header.covered <= log.st_size
            # The same length and another time: somebody edited it in place.
            and (header.covered < log.st_size or header.mtime_ns == log.st_mtime_ns)
            and tail == self._tail(header.covered)
        ):
            self._header = header

    def extend(self, noted: Iterable[Noted], covered: int) -> None:
        """Add the records up to `covered`; the caller holds the log's lock."""
        if not self.is_kept:
            return
        _, size, root, state, _ = self._header
        last = self._entry(size - 1) if size else _Entry(-1, 0, 0, 0, 0)
        stretch, previous, packed = last.stretch, last.sequence_id, []
        for number, (kind, sequence_id, offset, length) in enumerate(noted, size):
            if kind in _ROOTS:
                root = number
            if kind in _STATES:
                state = number
            if kind == ROOT:
                sequence_id = previous  # noqa: PLW2901 - a stretch goes on across it
            elif sequence_id < previous:
                stretch = number
            previous = sequence_id
            packed.append(_ENTRY.pack(sequence_id, offset, length, stretch, kind))
        data, at = b"".join(packed), _HEADER_BYTES + size * _ENTRY.size
        if os.pwrite(self._fd, data, at) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        mtime_ns = os.fstat(self._log_fd).st_mtime_ns
        # Last: entries beyond its count do not exist.
        self._header = _Header(covered, size + len(packed), root, state, mtime_ns)
        body = _HEADER.pack(_MAGIC, *self._header, self._tail(covered), 0)[:-4]
        raw = body + zlib.crc32(body).to_bytes(4, "little")
        os.pwrite(self._fd, raw.ljust(_HEADER_BYTES, b"\0"), 0)

    def find(self, kinds: Sequence[int], sequence_id: int | None, before: int) -> Iterator[Noted]:
        """Records of such kinds whose lines begin before an offset, newest first."""
        header = self._header
        high = header.size - 1
        if before < header.covered:
            high = bisect_left(range(header.size), before, key=lambda n: self._entry(n).offset) - 1
        if sequence_id is None:
            if set(kinds) <= _ROOTS:
                high = min(high, header.root)  # any number of steps may have come since
            elif set(kinds) <= _STATES:
                high = min(high, header.state)  # likewise of roots, when nobody takes a step
        # Stretches of ascending ids are searched by halving, the newest first: a run that was
        # rewound costs one search more for each time.
        while high >= 0:
            low, at = 0, high
            if sequence_id is not None:
                low = self._entry(high).stretch
                ids = range(low, high + 1)
                at = low - 1 + bisect_right(ids, sequence_id, key=lambda n: self._entry(n)[0])
            while at >= low:
                entry = self._entry(at)
                if sequence_id not in (None, entry.sequence_id):
                    break
                if entry.kind in kinds:
                    yield entry.kind, entry.sequence_id, entry.offset, entry.length
                at -= 1
            high = low - 1

    def clear(self) -> None:
        """Forget everything."""
        os.ftruncate(self._fd, 0)
        self._header = _Header()

    def _entry(self, number: int) -> _Entry:
        raw = os.pread(self._fd, _ENTRY.size, _HEADER_BYTES + number * _ENTRY.size)
        if len(raw) < _ENTRY.size:
            # The header is sound and an entry is missing: nothing in here can be believed.
            return _Entry(-1, 0, 0, 0, 0)
        entry = _Entry._make(_ENTRY.unpack(raw))
        return entry._replace(stretch=min(entry.stretch, number))

    def _tail(self, covered: int) -> int:
        start = max(0, covered - _TAIL_BYTES)
        return zlib.crc32(os.pread(self._log_fd, covered - start, start))
