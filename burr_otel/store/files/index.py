"""The sidecar index: where in the log the steps are. A cache, checked before it is believed.

A header, then entries of a fixed size in file order, one for each begin_entry, end_entry and
otel_root. `covered` is the length of the log that the index speaks for, and `sound` the length that
was found free of damage: a reader that meets damage indexes on, and the next writer mends.
Whatever does not fit (header checksum, bytes before `covered`, a log shorter than that, an entry
whose record reads differently) makes the index worthless, and it is made again from the log.
"""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from typing_extensions import Self

from burr_otel.store.files import names
from burr_otel.store.files.safe import open_regular
from burr_otel.store.port import END, INHERITED, ROOT

_MAGIC: Final = b"burrotl2"
# magic, covered, sound, count, numbers of the newest root's and newest state's entries, log mtime
# (ns), crc of the log's bytes before covered, crc of the header up to here
_HEADER = struct.Struct("<8sQQQqqqII")
_HEADER_BYTES = 64
# sequence id, offset, length, number of the entry where this ascending stretch began, kind
_ENTRY: Final = struct.Struct("<qQQIB3x")
_ROOTS: Final = frozenset((ROOT, INHERITED))
_STATES: Final = frozenset((END, INHERITED))
_TAIL_BYTES: Final = 256
_LEAST_RECORD_BYTES: Final = 16


class Entry(NamedTuple):
    """One indexed record: its kind, its step (-1: none), and where its line is."""

    kind: int
    sequence_id: int
    offset: int
    length: int


class _Header(NamedTuple):
    covered: int = 0
    sound: int = 0
    size: int = 0
    root: int = -1
    state: int = -1
    mtime_ns: int = 0


class Index:
    """One index file, opened for a moment, and the log that it speaks for."""

    def __init__(self, fd: int, log_fd: int) -> None:
        self._fd, self._log_fd = fd, log_fd
        self._header = self._read_header()

    @classmethod
    def open(cls, folder: str, log_fd: int, *, writable: bool) -> Index:
        """Open a run's index; a writable one is made when it is missing."""
        flags = os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY
        return cls(open_regular(f"{folder}/{names.INDEX}", flags), log_fd)

    @classmethod
    def temporary(cls, log_fd: int) -> Index:
        """An index that nobody else sees, for a folder in which nothing may be written."""
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()), log_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file descriptor."""
        os.close(self._fd)

    def reload(self) -> None:
        """Read again what another process may have written."""
        self._header = self._read_header()

    @property
    def covered(self) -> int:
        """Bytes of the log that are indexed."""
        return self._header.covered

    @property
    def sound(self) -> int:
        """Bytes of the log that were found free of damage."""
        return self._header.sound

    def extend(
        self,
        entries: Iterable[tuple[int, int, int, int]],
        covered: int,
        *,
        sound: int | None = None,
    ) -> None:
        """Add the records up to `covered`, as `Entry` has them; the caller holds the log's lock.

        The header is written last: entries beyond its count do not exist. `sound` is the length of
        the log that is free of damage; without it, the added part is, and damage that was found
        earlier is still there.
        """
        header = self._header
        last = self._entry(header.size - 1) if header.size else None
        stretch = last[1] if last else 0
        previous = last[0].sequence_id if last else -1
        root, state, packed = header.root, header.state, []
        for number, (kind, sequence_id, offset, length) in enumerate(entries, header.size):
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
        if packed:
            position = _HEADER_BYTES + header.size * _ENTRY.size
            os.pwrite(self._fd, b"".join(packed), position)
        if sound is None:
            sound = covered if header.sound == header.covered else header.sound
        self._write_header(
            _Header(
                covered,
                sound,
                header.size + len(packed),
                root,
                state,
                os.fstat(self._log_fd).st_mtime_ns,
            )
        )

    def find(self, kinds: Sequence[int], sequence_id: int | None, before: int) -> Iterator[Entry]:
        """Entries of such kinds whose lines begin before an offset, newest first.

        Those of one step are found in stretches of ascending ids, which are searched by halving,
        newest stretch first, so that a run that was rewound costs one search more for each time.
        """
        high = self._last_before(before)
        if sequence_id is None:
            if set(kinds) <= _ROOTS:
                high = min(high, self._header.root)  # any number of steps may have come since
            elif set(kinds) <= _STATES:
                high = min(high, self._header.state)  # likewise of roots, when nobody takes a step
            for number in range(high, -1, -1):
                entry, _ = self._entry(number)
                if entry.kind in kinds:
                    yield entry
            return
        while high >= 0:
            _, low = self._entry(high)
            at = self._bisect(sequence_id, low, high)
            while at >= low:
                entry, _ = self._entry(at)
                if entry.sequence_id != sequence_id:
                    break
                if entry.kind in kinds:
                    yield entry
                at -= 1
            high = low - 1

    def clear(self) -> None:
        """Forget everything."""
        os.ftruncate(self._fd, 0)
        self._header = _Header()

    def _last_before(self, offset: int) -> int:
        """Number of the last entry whose line begins before an offset; -1: there is none."""
        low, high = 0, self._header.size - 1
        if offset >= self._header.covered:
            return high
        while low <= high:  # entries are in file order
            middle = (low + high) // 2
            if self._entry(middle)[0].offset < offset:
                low = middle + 1
            else:
                high = middle - 1
        return high

    def _bisect(self, sequence_id: int, low: int, high: int) -> int:
        """Number of the last entry in [low, high] with at most this id; low - 1 when none."""
        while low <= high:
            middle = (low + high) // 2
            if self._entry(middle)[0].sequence_id <= sequence_id:
                low = middle + 1
            else:
                high = middle - 1
        return high

    def _entry(self, number: int) -> tuple[Entry, int]:
        raw = os.pread(self._fd, _ENTRY.size, _HEADER_BYTES + number * _ENTRY.size)
        if len(raw) < _ENTRY.size:
            # The header is sound and an entry is missing: nothing in here can be believed.
            return Entry(0, -1, 0, 0), 0
        sequence_id, offset, length, stretch, kind = _ENTRY.unpack(raw)
        return Entry(kind, sequence_id, offset, length), min(stretch, number)

    def _read_header(self) -> _Header:
        raw = os.pread(self._fd, _HEADER.size, 0)
        if len(raw) < _HEADER.size:
            return _Header()
        magic, *numbers, tail, checksum = _HEADER.unpack(raw)
        header = _Header(*numbers)
        covered, count, mtime_ns = header.covered, header.size, header.mtime_ns
        log = os.fstat(self._log_fd)
        sound = (
            magic == _MAGIC
            and checksum == zlib.crc32(raw[: _HEADER.size - 4])
            and os.fstat(self._fd).st_size >= _HEADER_BYTES + count * _ENTRY.size
            and count * _LEAST_RECORD_BYTES <= covered <= log.st_size
            # The same length and another time: somebody edited it in place.
            and (covered < log.st_size or mtime_ns == log.st_mtime_ns)
            and tail == self._tail(covered)
        )
        return header if sound else _Header()

    def _write_header(self, header: _Header) -> None:
        body = _HEADER.pack(_MAGIC, *header, self._tail(header.covered), 0)[:-4]
        raw = body + zlib.crc32(body).to_bytes(4, "little")
        os.pwrite(self._fd, raw.ljust(_HEADER_BYTES, b"\0"), 0)
        self._header = header

    def _tail(self, covered: int) -> int:
        start = max(0, covered - _TAIL_BYTES)
        return zlib.crc32(os.pread(self._log_fd, covered - start, start))
