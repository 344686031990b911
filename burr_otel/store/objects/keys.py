"""What objects are called, and what stands at the head of a batch of records.

Below the URL are ``run/{project}/{partition}/{app id}`` (a run's metadata), for runs with a
partition key ``app/{project}/{app id}/{partition}``, and everything else of a run in the folder
``data/{project}/{partition}/{app id}``.

Its records are in batches, ``log/{position}.{kinds}``. The position is that of the batch's first
record in the run in bytes, counted down from 2^64, so that the newest is listed first. The kinds
are those of the batch *before* it, with their lowest and highest sequence id: a listing tells where
a step is, and yet two writers that have seen the same batches give their next one the same name,
which only one of them can create.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from burr_otel.store.objects.bucket import Listed
from burr_otel.store.port import BEGIN, END, INHERITED, ROOT, Line

NO_PARTITION: Final = "=none"
_SAFE: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
_MOST_CHARACTERS: Final = 200
_HASHED: Final = "=h"
_ESCAPE: Final = re.compile(r"=([0-9A-F]{2})")

_LETTERS: Final = {BEGIN: "B", END: "E", ROOT: "R", INHERITED: "I"}
_KINDS: Final = re.compile(r"(x|[BERI]{1,4})(?:_(-?\d{1,20})_(-?\d{1,20}))?")
HEAD_BYTES: Final = 80
_HEAD: Final = re.compile(rb"burr-otel 1 [0-9a-f]{16} ([xBERI0-9_-]{1,50}) *\n")
_LAST: Final = 2**64 - 1


def escaped(text: str) -> str:
    """One part of an object's name that stands for any text; a long text's hash."""
    safe = "".join(chr(byte) if byte in _SAFE else f"={byte:02X}" for byte in text.encode())
    if safe.startswith("."):
        safe = f"=2E{safe[1:]}"
    if len(safe) <= _MOST_CHARACTERS:
        return safe
    return f"{safe[:100]}{_HASHED}{hashlib.sha256(text.encode()).hexdigest()[:40]}"


def partition_part(partition_key: str | None) -> str:
    """The part of a name that stands for a partition key."""
    return NO_PARTITION if partition_key is None else escaped(partition_key)


def unescaped(name: str) -> str | None:
    """The text that a part stands for; None: only its hash is there."""
    if _HASHED in name:
        return None
    parts = _ESCAPE.split(name)
    parts[1::2] = [chr(int(part, 16)) for part in parts[1::2]]
    try:
        return "".join(parts).encode("latin-1").decode()
    except UnicodeError:
        return None


class Kinds(NamedTuple):
    """Which records are in a batch, as names and heads tell it."""

    letters: str
    numbers: tuple[int, int] | None = None  # the lowest and the highest sequence id

    @classmethod
    def of(cls, entries: Sequence[tuple[int, int] | None]) -> Kinds:
        """Those of the entries of records; see `RunLog.append`."""
        known = [entry for entry in entries if entry is not None]
        numbers = [number for kind, number in known if kind != ROOT]
        letters = "".join(sorted({_LETTERS[kind] for kind, _ in known}))
        return cls(letters or NOTHING.letters, (min(numbers), max(numbers)) if numbers else None)

    @classmethod
    def read(cls, text: str) -> Kinds:
        """From a text that anybody may have written; what it does not tell is anything."""
        found = _KINDS.fullmatch(text)
        if found is None:
            return ANYTHING
        return cls(found[1], (int(found[2]), int(found[3])) if found[2] else None)

    def __str__(self) -> str:
        return "_".join(map(str, (self.letters, *(self.numbers or ()))))

    def may_have(self, kinds: Sequence[int], sequence_id: int | None) -> bool:
        """Whether such a record can be in the batch."""
        if not any(_LETTERS[kind] in self.letters for kind in kinds):
            return False
        if sequence_id is None or self.numbers is None:
            return True
        return self.numbers[0] <= sequence_id <= self.numbers[1]


NOTHING: Final = Kinds("x")
ANYTHING: Final = Kinds("BERI")


class Batch(NamedTuple):
    """A batch in a listing: its place in the run, and the kinds of the one before."""

    listed: Listed
    start: int
    before: Kinds

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.start + length(self.listed.size_bytes)


def length(size_bytes: int) -> int:
    """How long the records of a batch are."""
    return max(0, size_bytes - HEAD_BYTES)


def batch_name(start: int, before: Kinds) -> str:
    """Name of the batch that begins there."""
    return f"{_LAST - start:016x}.{before}"


def name_before(position: int) -> str:
    """A name behind those of all batches that begin at the position or later."""
    return f"{_LAST - position + 1:016x}"


def read_batch(listed: Listed) -> Batch | None:
    """The batch of that name; None: somebody else put it there."""
    position, _, kinds = listed.path.rpartition("/")[2].partition(".")
    try:
        return Batch(listed, _LAST - int(position, 16), Kinds.read(kinds))
    except ValueError:
        return None


def new_head(kinds: Kinds) -> bytes:
    """What a new batch begins with, and its writer knows it by."""
    return f"{f'burr-otel 1 {secrets.token_hex(8)} {kinds}':<{HEAD_BYTES - 1}}\n".encode()


def read_head(data: bytes) -> Kinds:
    """The kinds that the head of a batch names."""
    found = _HEAD.fullmatch(data, 0, HEAD_BYTES)
    return ANYTHING if found is None else Kinds.read(found[1].decode())


def lines(start: int, data: bytes) -> Iterator[Line]:
    """The lines of a batch, without its head."""
    at = HEAD_BYTES
    while at < len(data):
        newline = data.find(b"\n", at)
        stop = newline + 1 if newline >= 0 else len(data)
        begin = start + at - HEAD_BYTES
        yield Line(begin, begin + stop - at, data[at:stop], newline >= 0)
        at = stop
