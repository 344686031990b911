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
from typing import TYPE_CHECKING, Any, NamedTuple

from burr_otel.store import names, records

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from typing_extensions import Self

__all__ = ["BEGIN", "END", "INHERITED", "ROOT", "Entry", "Index", "fingerprint", "kind_of"]

BEGIN, END, ROOT, INHERITED = 1, 2, 3, 4  # INHERITED: an otel_root that carries a state

_MAGIC = b"burrotl1"
# magic, covered, sound, count, numbers of the newest root's and newest state's entries, log mtime
# (ns), crc of the log's bytes before covered, crc of the header up to here
_HEADER = struct.Struct("<8sQQQqqqII")
_HEADER_BYTES = 64
# sequence id, offset, length, number of the entry where this ascending stretch began,
# fingerprint of the record, kind
_ENTRY = struct.Struct("<qQQIIB7x")
_TAIL_BYTES = 256


class Entry(NamedTuple):
    """One indexed record.

    Attributes:
        kind: `BEGIN`, `END`, `ROOT` or `INHERITED`.
        sequence_id: The step; -1 for a root without state.
        offset: Where its line begins, in bytes.
        length: Of its line, in bytes, with the newline.
        print: Its `fingerprint`.
    """

    kind: int
    sequence_id: int
    offset: int
    length: int
    print: int


class _Header(NamedTuple):
    covered: int = 0
    sound: int = 0
    size: int = 0
    root: int = -1
    state: int = -1
    mtime_ns: int = 0


def fingerprint(line: bytes | tuple[bytes, bytes, bytes]) -> int:
    """A checksum of both ends and the length of a line; its JSON guards the middle.

    Args:
        line: Whole or in pieces, the first of at least 64 bytes.
    """
    if isinstance(line, bytes):
        first, last, length = line[:64], line[-64:], len(line)
    else:
        head, middle, tail = line
        first, last = head[:64], (middle[-64:] + tail)[-64:]
        length = len(head) + len(middle) + len(tail)
    return zlib.crc32(last, zlib.crc32(first, length & 0xFFFFFFFF))


def kind_of(line: bytes, record: Mapping[str, Any] | None = None) -> tuple[int, int] | None:
    """Kind and sequence id of a line that belongs into the index.

    Args:
        line: With or without its newline.
        record: The parsed line, when the caller has it.
    """
    described = records.describe(line)
    if described is None:
        return None
    kind, sequence_id = described
    if kind == records.ROOT:
        record = record or records.check(line)[0] or {}
        if not isinstance(record.get("state"), dict):
            return ROOT, -1
        number = record.get("inherited_sequence_id")
        return INHERITED, number if isinstance(number, int) else -1
    if sequence_id is None or kind not in (records.BEGIN_ENTRY, records.END_ENTRY):
        return None
    return (BEGIN if kind == records.BEGIN_ENTRY else END), sequence_id


class Index:
    """One index file, opened for a moment.

    Args:
        fd: Of the index; the object owns it.
        log_fd: The log it speaks for, open for reading.
    """

    def __init__(self, fd: int, log_fd: int) -> None:
        self._fd, self._log_fd = fd, log_fd
        self._header = self._read_header()

    @classmethod
    def open(cls, folder: str, log_fd: int, *, writable: bool) -> Index:
        """Open a run's index; a writable one is made when it is missing.

        Raises:
            OSError: It cannot be opened.
        """
        flags = os.O_CLOEXEC | os.O_NOFOLLOW
        flags |= os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY
        return cls(os.open(f"{folder}/{names.INDEX}", flags, 0o600), log_fd)

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

    def extend(self, entries: Sequence[Entry], covered: int, *, sound: int | None = None) -> None:
        """Add the records up to `covered`; the caller holds the log's lock.

        The header is written last: entries beyond its count do not exist.

        Args:
            entries: In file order.
            covered: Length of the log that is indexed with them.
            sound: Length of the log that is free of damage. Without it, the added part is, and
                damage that was found earlier is still there.
        """
        header = self._header
        last = self._entry(header.size - 1) if header.size else None
        stretch = last[1] if last else 0
        previous = last[0].sequence_id if last else -1
        root, state, packed = header.root, header.state, []
        for number, entry in enumerate(entries, header.size):
            sequence_id = entry.sequence_id
            if entry.kind in (ROOT, INHERITED):
                root = number
            if entry.kind in (END, INHERITED):
                state = number
            if entry.kind == ROOT:
                sequence_id = previous  # a stretch goes on across it
            elif sequence_id < previous:
                stretch = number
            previous = sequence_id
            packed.append(
                _ENTRY.pack(
                    sequence_id, entry.offset, entry.length, stretch, entry.print, entry.kind
                )
            )
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

    def find(self, kinds: Sequence[int], sequence_id: int | None) -> Iterator[Entry]:
        """Entries of such kinds, newest first: of one step, or of any.

        Stretches of ascending ids are searched by halving, newest stretch first, so that a run
        that was rewound costs one search more for each time.
        """
        high = self._header.size - 1
        if sequence_id is None and set(kinds) <= {ROOT, INHERITED}:
            high = self._header.root  # any number of steps may have come since
        elif sequence_id is None and set(kinds) <= {END, INHERITED}:
            high = self._header.state  # likewise of roots, when nobody takes a step
        while high >= 0:
            entry, low = self._entry(high)
            at = high if sequence_id is None else self._bisect(sequence_id, low, high)
            while at >= low:
                entry, _ = self._entry(at)
                if sequence_id not in (None, entry.sequence_id):
                    break
                if entry.kind in kinds:
                    yield entry
                at -= 1
            high = low - 1

    def before(self, kinds: Sequence[int], offset: int) -> Iterator[Entry]:
        """Entries of such kinds whose lines begin before an offset, newest first."""
        low, high = 0, self._header.size - 1
        while low <= high:  # entries are in file order
            middle = (low + high) // 2
            if self._entry(middle)[0].offset < offset:
                low = middle + 1
            else:
                high = middle - 1
        for number in range(high, -1, -1):
            entry, _ = self._entry(number)
            if entry.kind in kinds:
                yield entry

    def clear(self) -> None:
        """Forget everything."""
        os.ftruncate(self._fd, 0)
        self._header = _Header()

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
            return Entry(0, -1, 0, 0, 0), 0
        sequence_id, offset, length, stretch, checksum, kind = _ENTRY.unpack(raw)
        return Entry(kind, sequence_id, offset, length, checksum), min(stretch, number)

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
            and covered <= log.st_size
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
