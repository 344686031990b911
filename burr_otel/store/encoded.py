"""A state as the strict JSON of each of its top-level keys."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from burr_otel.records import checksum, encode_json

# Burr's own keys in a state; all others are the user's.
SEQUENCE_ID: Final = "__SEQUENCE_ID"
PRIOR_STEP: Final = "__PRIOR_STEP"

GROWING_BYTES: Final = 1024  # of a shorter value nobody asks what is new
_QUOTE: Final = ord('"')
_GROWING_TYPES: Final = (list, str)
_LARGE_BYTES: Final = 64 * 1024  # a copy of so many bytes costs more than a further piece
_MOST_PIECES: Final = 512  # `writev` takes 1,024

_key_json: Final = functools.lru_cache(1024)(encode_json)  # states have few keys


class Growing(NamedTuple):
    """What is kept of a large list or text to tell whether a later one goes on from it.

    Length and checksum of its JSON without the last byte, its items or characters, and the last
    few of those bytes; all of its JSON where differences are written, which are made of it.
    """

    shared_bytes: int
    checksum: int
    items: int
    ending: bytes
    text: bytes | None


class EncodedState:
    """A state as it stands in a record.

    `fragments` has the JSON of every key, in order, `exact` the patches for what JSON cannot carry
    (see `burr_otel.store.exact`). `int64` is whether every integer fits in 64 bits, so that fast
    parsers read it right. `heads` (checksums of fragments without their last byte) and `grown` are
    filled by `go_on_from`.
    """

    __slots__ = (
        "_values", "exact", "fragments", "grown", "heads", "inexact", "int64", "longest_bytes",
    )  # fmt: skip

    def __init__(
        self,
        fragments: dict[str, bytes],
        values: Mapping[str, Any],
        exact: Sequence[Any] = (),
        inexact: Collection[str] = (),
        *,
        int64: bool = True,
    ) -> None:
        self.fragments, self.exact, self.int64 = fragments, exact, int64
        self.inexact = inexact
        self.heads: dict[str, int] = {}
        self.grown: dict[str, Growing] = {}
        self._values = values
        self.longest_bytes = max(map(len, fragments.values()), default=0)

    def go_on_from(
        self, known: Mapping[str, Growing], *, keep: bool = False
    ) -> dict[str, tuple[int, int]]:
        """Fill `heads` and `grown`, and tell of large values that go on from earlier ones.

        Gives how many bytes of their JSON and how many items or characters did not change.
        """
        found = {}
        for key, fragment in self.fragments.items():
            if len(fragment) < GROWING_BYTES or key in self.inexact:
                continue
            value = self._values[key]
            if type(value) not in _GROWING_TYPES:
                continue
            shared, before, items, ending, text = known.get(key, (0, 0, 0, b"", None))
            if (
                0 < shared < len(fragment)
                and fragment.endswith(ending, 0, shared)
                and (fragment[0] == _QUOTE or fragment[shared] in b",]")
                and (
                    checksum(memoryview(fragment)[:shared]) == before
                    if text is None
                    else fragment.startswith(memoryview(text)[:shared])
                )
            ):
                found[key] = shared, items
                head = head_checksum(fragment, before, shared)
            else:
                head = head_checksum(fragment)
            self.heads[key] = head
            text = fragment if keep else None
            self.grown[key] = Growing(len(fragment) - 1, head, len(value), fragment[-17:-1], text)
        return found

    def is_exact(self, key: str) -> bool:
        """Whether the value is plain JSON: exact types, and integers of 64 bits."""
        return key in self.fragments and key not in self.inexact


def object_pieces(fragments: Mapping[str, bytes]) -> list[bytes]:
    """A JSON object, with large fragments uncopied between the rest."""
    pieces: list[bytes] = []
    opening, members = b"{", []
    for key, fragment in fragments.items():
        if len(fragment) < _LARGE_BYTES:
            members.append(b"%b:%b" % (_key_json(key), fragment))
        else:
            members.append(b"%b:" % _key_json(key))
            pieces += (opening + b",".join(members), fragment)
            opening, members = b"", [b""]  # what follows begins with a comma
    pieces.append(b"%b%b}" % (opening, b",".join(members)))
    return pieces if len(pieces) <= _MOST_PIECES else [b"".join(pieces)]


def head_checksum(fragment: bytes, before: int = 0, start: int = 0) -> int:
    """CRC of a fragment from `start` to its last byte, which it leaves out."""
    return checksum(memoryview(fragment)[start : max(start, len(fragment) - 1)], before)
