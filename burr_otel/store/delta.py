"""What changed between two states, on their encoded bytes, and the way back.

A state is taken as one piece of JSON a key. Keys that stayed the same are left out; a value that
grew or was changed in one place is written as what stands between the bytes that it shares with
its former self at both ends. Bytes are compared, not values, so a change in place is seen.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

import orjson
from burr.core import serde

from burr_otel.store.encoded import encode_text, encode_tree
from burr_otel.store.piece import Piece

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "STATE_KEY",
    "Document",
    "apply",
    "decode_exact",
    "difference",
    "encode_exact",
    "from_record",
]

# The one key of the `state` of a record that carries a difference. Burr's own client finds no
# deserializer of that name: it refuses such a record, in these words, where it would otherwise
# resume from a part of the state.
STATE_KEY = "burr_otel_delta"
_REFUSAL = "burr_otel_delta (not a whole state: use burr_otel, or burr-otel materialize)"
_OPENING = b"{%b:{%b:%b" % (encode_text(STATE_KEY), encode_text(serde.KEY), encode_text(_REFUSAL))

_EXACT = "exact"
_PATCH_OVERHEAD_BYTES = 32
_SHORTEST_PATCHED_BYTES = 64


class Document:
    """A state as pieces of JSON, with a checksum that grows with them.

    Attributes:
        parts: The JSON of each key of the state, in order.
        exact: The JSON of its patches; see `burr_otel.store.exact`.
    """

    __slots__ = ("_heads", "exact", "parts")

    def __init__(self, parts: Mapping[str, bytes | Piece], exact: bytes) -> None:
        self.parts = {
            name: text if isinstance(text, Piece) else Piece(text) for name, text in parts.items()
        }
        self.exact = exact
        self._heads: dict[str, int] = {}  # checksum of each part but its last byte

    @property
    def checksum(self) -> int:
        """Of all keys and values, in order."""
        pieces = [
            b"%b%d:%d,"
            % (
                encode_text(name),
                len(text),
                text.checksum(max(0, len(text) - 1), len(text), self._head(name)),
            )
            for name, text in self.parts.items()
        ]
        return zlib.crc32(self.exact, zlib.crc32(b"".join(pieces)))

    @property
    def state_bytes(self) -> int:
        """Length of the state's JSON, but for punctuation."""
        return sum(map(len, self.parts.values())) + sum(map(len, self.parts))

    def state(self, *, int64: bool) -> dict[str, Any]:
        """The state as plain data.

        Args:
            int64: Whether all its integers fit in 64 bits.
        """
        loads = orjson.loads if int64 else json.loads
        return {name: loads(bytes(text)) for name, text in self.parts.items()}

    def inherit(self, base: Document) -> dict[str, int]:
        """Take over checksums of what is the same as in another document, or only grew.

        Returns:
            The keys of what is new or not the same, and how many bytes at the beginning are
            known to be.
        """
        changed = {}
        for name, text in self.parts.items():
            before = base.parts.get(name)
            if before is None:
                changed[name] = 0
                continue
            size = len(before)
            if _is_same(before, text):
                self._heads[name] = base._head(name)
                continue
            changed[name] = 0
            if size <= len(text) and text.has(before.slice(0, size - 1), 0):
                head = base._head(name)
                self._heads[name] = text.checksum(size - 1, len(text) - 1, head)
                changed[name] = size - 1
        return changed

    def _head(self, name: str) -> int:
        head = self._heads.get(name)
        if head is None:
            text = self.parts[name]
            head = self._heads[name] = text.checksum(0, max(0, len(text) - 1))
        return head


def encode_exact(patches: Sequence[Any]) -> bytes:
    """The patches of a state as one piece of JSON."""
    return orjson.dumps(list(patches))


def decode_exact(text: bytes) -> list[Any]:
    """Read what `encode_exact` wrote."""
    patches: list[Any] = orjson.loads(text)
    return patches


def from_record(record: Mapping[str, Any]) -> Document:
    """The document that a whole record of ours was written from."""
    exact = encode_exact(record["otel"].get(_EXACT, ()))
    parts = {name: encode_tree(value)[0] for name, value in record["state"].items()}
    return Document(parts, exact)


def difference(base: Document, new: Document) -> tuple[bytes, bytes]:
    """What must be done to `base` to get `new`.

    Returns:
        The `state` of a record, and members of its `otel` object; see `apply`.
    """
    whole, patched = [], []
    for name, shared in new.inherit(base).items():
        before, text = base.parts.get(name), new.parts[name]
        patch = None if before is None else _patch(before, text, shared)
        if patch is None:
            whole.append(b"%b:%b" % (encode_text(name), bytes(text)))
        else:
            patched.append(b"%b:%b" % (encode_text(name), patch))
    members = [_OPENING]
    if whole:
        members.append(b'"set":{%b}' % b",".join(whole))
    if patched:
        members.append(b'"patch":{%b}' % b",".join(patched))
    removed = [name for name in base.parts if name not in new.parts]
    if removed:
        members.append(b'"removed":%b' % orjson.dumps(removed))
    if list(new.parts) != _order(base.parts, new.parts):
        members.append(b'"order":%b' % orjson.dumps(list(new.parts)))
    exact = b""
    if base.exact != new.exact:
        patch = _patch(Piece(base.exact), Piece(new.exact))
        exact = b'"exact":%b' % new.exact if patch is None else b'"exact_patch":%b' % patch
    return b",".join(members) + b"}}", exact


def apply(base: Document, record: Mapping[str, Any]) -> Document:
    """The state that a record's difference makes of the one that it builds on.

    Raises:
        ValueError: The difference does not fit.
        LookupError: Likewise.
        TypeError: Likewise.
    """
    change, otel = record["state"][STATE_KEY], record["otel"]
    parts: dict[str, bytes | Piece] = dict(base.parts)
    for name in change.get("removed", ()):
        del parts[name]
    for name, value in change.get("set", {}).items():
        parts[name] = encode_tree(value)[0]
    for name, patch in change.get("patch", {}).items():
        parts[name] = _patched(bytes(parts[name]), patch)
    if "order" in change:
        parts = {name: parts[name] for name in change["order"]}
    exact = base.exact
    if "exact_patch" in otel:
        exact = _patched(exact, otel["exact_patch"])
    elif _EXACT in otel:
        exact = encode_exact(otel[_EXACT])
    made = Document(parts, exact)
    made.inherit(base)
    return made


def _order(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The order of keys that `apply` gives without being told."""
    kept = [name for name in before if name in after]
    return kept + [name for name in after if name not in before]


def _is_same(left: Piece, right: Piece) -> bool:
    return len(left) == len(right) and right.has(left.slice(0, len(left)), 0)


def _patch(before: Piece, after: Piece, shared: int = 0) -> bytes | None:
    """``[shared at the start, shared at the end, between]``; None when that saves little.

    So many bytes at the start are known to be shared.
    """
    size = len(after)
    if size < _SHORTEST_PATCHED_BYTES:
        return None
    head = _shared_start(before, after, shared)
    tail = _shared_end(before, after, min(len(before), size) - head)
    # What is written is text: it may begin and end only where a character does.
    while head and head < size and after.byte(head) & 0xC0 == 0x80:  # noqa: PLR2004 - UTF-8
        head -= 1
    while tail and after.byte(size - tail) & 0xC0 == 0x80:  # noqa: PLR2004 - UTF-8
        tail -= 1
    between = str(after.slice(head, size - tail), "utf-8")
    patch = b"[%d,%d,%b]" % (head, tail, orjson.dumps(between))
    return patch if len(patch) + _PATCH_OVERHEAD_BYTES < size else None


def _patched(before: bytes, patch: Sequence[Any]) -> bytes:
    head, tail, between = patch
    if not 0 <= head + tail <= len(before):
        raise ValueError("a patch is larger than what it changes")
    view = memoryview(before)
    return b"".join((view[:head], between.encode(), view[len(before) - tail :]))


def _shared_start(left: Piece, right: Piece, low: int = 0) -> int:
    """How many bytes, at least so many, both begin with, by comparing ever smaller halves."""
    high = min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if right.has(left.slice(low, middle), low):
            low = middle
        else:
            high = middle - 1
    return low


def _shared_end(left: Piece, right: Piece, most: int) -> int:
    """How many bytes, at most so many, both end with."""
    ends, right_ends = len(left), len(right)
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if right.has(left.slice(ends - middle, ends - low), right_ends - middle):
            low = middle
        else:
            high = middle - 1
    return low
