"""What changed between two states, on their encoded bytes, and the way back.

A state is taken as one piece of JSON a key. Keys that stayed the same are left out. Of a value that
grew or was changed in one place, only what stands between the bytes that it shares with its former
self at both ends is written. Bytes are compared, not values, so a change in place is seen.

The `state` of such a record is for people, too: the new value of a key, the new items of a list,
the new part of a text. ``otel.delta`` says how to join it to the earlier state: ``{"number",
"base_crc", "marker", "joins": {KEY: [kind, head, tail]}, "removed": [KEY], "order": [KEY]}``, where
the new part stands between the first `head` and the last `tail` bytes of the earlier JSON.

A record with a difference builds on the record before it that the same session wrote. It names its
number in the chain and the checksum of the state that it builds on, and every record of a chain
names that of its own. What does not add up, because a record is lost, damaged or another one than
the writer saw, gives no state; it never gives a wrong one.
"""

from __future__ import annotations

import json
import re
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from burr_otel.records import encode_json
from burr_otel.store.encoded import EncodedState, head_checksum, object_pieces

# A key in the `state` of a record that carries a difference. Burr's own client finds no
# deserializer of that name: it refuses such a record, in these words, where it would otherwise
# resume from a part of the state.
STATE_KEY: Final = "burr_otel_delta"
_REFUSAL: Final = (
    b'{"__burr_serde__":"burr_otel_delta (only what changed, not a whole state: use burr_otel, '
    b'or burr-otel materialize)"}'
)
_JSON, _ITEMS, _TEXT = "json", "items", "text"  # how a new part is written
_PATCH_OVERHEAD_BYTES: Final = 48
_SHORTEST_PATCHED_BYTES: Final = 64
_MAX_NUMBER: Final = 64  # differences after a whole state
_RECORD_BYTES = 256  # what a record takes beside its state
_TEXT_OR_EXPONENT: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|(?<=[0-9])e\+?(?=[0-9])')


class DeltaState:
    """A state as the JSON of each key, and of its patches, with checksums that grow with them."""

    __slots__ = ("_checksum", "_heads", "exact", "parts")

    def __init__(
        self, parts: dict[str, bytes], exact: bytes, heads: dict[str, int] | None = None
    ) -> None:
        self.parts, self.exact = parts, exact
        self._heads = {} if heads is None else heads  # checksum of each part but its last byte
        self._checksum = -1

    @property
    def checksum(self) -> int:
        """Of all keys and values, in order."""
        if self._checksum < 0:
            pieces = [
                b"%b%d:%d," % (encode_json(key), len(text), zlib.crc32(text[-1:], self._head(key)))
                for key, text in self.parts.items()
            ]
            self._checksum = zlib.crc32(self.exact, zlib.crc32(b"".join(pieces)))
        return self._checksum

    def state(self, *, int64: bool) -> dict[str, Any]:
        """The state as plain data."""
        loads = orjson.loads if int64 else json.loads
        return {name: loads(text) for name, text in self.parts.items()}

    def inherit(self, base: DeltaState) -> dict[str, int]:
        """Take over checksums of what is the same as in another document, or only grew.

        Gives the keys of what is new or changed, and how many bytes at the beginning are known to
        be the same.
        """
        changed = {}
        for name, text in self.parts.items():
            before = base.parts.get(name)
            if before == text:
                self._heads[name] = base._head(name)
                continue
            changed[name] = 0
            if before is None:
                continue
            size = len(before) - 1
            if size < len(text) and text.startswith(memoryview(before)[:size]):
                changed[name] = size
                if name not in self._heads:
                    self._heads[name] = head_checksum(text, base._head(name), size)
        return changed

    def _head(self, name: str) -> int:
        head = self._heads.get(name)
        if head is None:
            head = self._heads[name] = head_checksum(self.parts[name])
        return head


def difference(base: DeltaState, new: DeltaState) -> tuple[list[bytes], bytes, bytes]:
    """What must be done to `base` to get `new`.

    Gives the `state` of a record in pieces, members of ``otel.delta``, and what ``otel`` says of
    the patches.
    """
    written: dict[str, bytes] = {}
    joins: dict[str, tuple[str, int, int]] = {}
    for name, shared in new.inherit(base).items():
        before, text = base.parts.get(name), new.parts[name]
        patch = None if before is None else _patch(before, text, shared)
        if patch is None:
            written[name] = text
        else:
            kind, written[name] = _new_part(patch[2])
            joins[name] = kind, patch[0], patch[1]
    marker = STATE_KEY
    while marker in written:
        marker += "~"
    members = [b'"marker":%b' % encode_json(marker)]
    if joins:
        members.append(b'"joins":%b' % orjson.dumps(joins))
    removed = [name for name in base.parts if name not in new.parts]
    if removed:
        members.append(b'"removed":%b' % orjson.dumps(removed))
    if list(new.parts) != _order(base.parts, new.parts):
        members.append(b'"order":%b' % orjson.dumps(list(new.parts)))
    exact = b""
    if base.exact != new.exact:
        patch = _patch(base.exact, new.exact, 0)
        if patch is None:
            exact = b'"exact":%b,' % new.exact
        else:
            exact = b'"exact_patch":[%d,%d,%b],' % (
                *patch[:2],
                orjson.dumps(str(patch[2], "utf-8")),
            )
    return object_pieces({marker: _REFUSAL, **written}), b",".join(members), exact


def apply(base: DeltaState | None, record: Mapping[str, Any]) -> DeltaState:
    """The state that a record makes of the one before, or, without one, tells whole.

    An error if it does not have the record's checksum in any way in which `orjson` writes numbers.
    """
    for encode in (encode_json, _encode_otherwise):
        if base is None:
            parts = {name: encode(value) for name, value in record["state"].items()}
            document = DeltaState(parts, orjson.dumps(record["otel"].get("exact", [])))
        else:
            document = _applied(base, record, encode)
        if document.checksum == record["otel"]["state_crc"]:
            return document
    raise ValueError("a state does not have the checksum that its record gives")


def _encode_otherwise(value: Any) -> bytes:
    """As `encode_json`, but with the exponents of the other versions of `orjson`.

    1e16 is written 1e+16 since a late 3.11 release.
    """
    exponent = b"e" if b"e+" in orjson.dumps(1e16) else b"e+"
    return _TEXT_OR_EXPONENT.sub(
        lambda found: found[0] if found[0][:1] == b'"' else exponent, encode_json(value)
    )


def _applied(
    base: DeltaState, record: Mapping[str, Any], encode: Callable[[Any], bytes]
) -> DeltaState:
    otel, state = record["otel"], record["state"]
    change = otel["delta"]
    parts = dict(base.parts)
    if "marker" in change:
        joins = change.get("joins", {})
        own = {name: value for name, value in state.items() if name != change["marker"]}
    else:  # of an earlier version
        change = state[STATE_KEY]
        patches = change.get("patch", {})
        joins = {name: (_JSON, *patch[:2]) for name, patch in patches.items()}
        own = {**change.get("set", {}), **{name: patch[2] for name, patch in patches.items()}}
    for name in change.get("removed", ()):
        del parts[name]
    for name, value in own.items():
        join = joins.get(name)
        parts[name] = encode(value) if join is None else _joined(parts[name], join, value, encode)
    if "order" in change:
        parts = {name: parts[name] for name in change["order"]}
    exact = base.exact
    if "exact_patch" in otel:
        head, tail, between = otel["exact_patch"]
        exact = _joined(exact, (_JSON, head, tail), between, encode)
    elif "exact" in otel:
        exact = orjson.dumps(otel["exact"])
    made = DeltaState(parts, exact)
    made.inherit(base)
    return made


def _order(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The order of keys that `apply` gives without being told."""
    kept = [name for name in before if name in after]
    return kept + [name for name in after if name not in before]


def _new_part(between: memoryview) -> tuple[str, bytes]:
    """The new part of a value as JSON that a person can read, and how it is written."""
    text = bytes(between)
    tries = [(_TEXT, b'"%b"' % text)]
    if text.startswith(b","):
        tries.insert(0, (_ITEMS, b"[%b]" % text[1:]))
    for kind, shown in tries:
        try:
            if orjson.dumps(orjson.loads(shown)) == shown:  # as the reader will write it
                return kind, shown
        except ValueError:  # noqa: PERF203 - two tries at most
            continue
    return _JSON, orjson.dumps(text.decode())


def _joined(
    before: bytes, join: Sequence[Any], value: Any, encode: Callable[[Any], bytes]
) -> bytes:
    kind, head, tail = join
    if type(head) is not int or type(tail) is not int or min(head, tail) < 0:
        raise ValueError("counts of a patch must be numbers from 0 on")
    if head + tail > len(before):
        raise ValueError("a patch is larger than what it changes")
    if kind == _ITEMS and isinstance(value, list):
        between = b",%b" % encode(value)[1:-1]
    elif kind == _TEXT and isinstance(value, str):
        between = encode_json(value)[1:-1]
    elif kind == _JSON and isinstance(value, str):
        between = value.encode()
    else:
        raise ValueError(f"a {type(value).__name__} is no new part of kind {kind!r}")
    view = memoryview(before)
    return b"".join((view[:head], between, view[len(before) - tail :]))


def _patch(before: bytes, after: bytes, shared: int) -> tuple[int, int, memoryview] | None:
    """Bytes shared at the start and at the end, and what is between; None when that saves little.

    So many bytes at the start are known to be shared.
    """
    size = len(after)
    if size < _SHORTEST_PATCHED_BYTES:
        return None
    head = _shared_start(before, after, shared)
    tail = _shared_end(before, after, min(len(before), size) - head)
    # What is written is text: it may begin and end only where a character does.
    while head and head < size and after[head] & 0xC0 == 0x80:  # noqa: PLR2004 - UTF-8
        head -= 1
    while tail and after[size - tail] & 0xC0 == 0x80:  # noqa: PLR2004 - UTF-8
        tail -= 1
    between = size - head - tail
    return None if between + _PATCH_OVERHEAD_BYTES >= size else (
        head, tail, memoryview(after)[head : size - tail]
    )  # fmt: skip


def _shared_start(left: bytes, right: bytes, low: int = 0) -> int:
    """How many bytes, at least so many, both begin with, by comparing ever smaller halves."""
    view, high = memoryview(left), min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        # The one comparison with a part of bytes that is a memcmp.
        if right.startswith(view[low:middle], low):
            low = middle
        else:
            high = middle - 1
    return low


def _shared_end(left: bytes, right: bytes, most: int) -> int:
    """How many bytes, at most so many, both end with."""
    view, low, high = memoryview(left), 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if right.startswith(view[len(left) - middle : len(left) - low], len(right) - middle):
            low = middle
        else:
            high = middle - 1
    return low


# --- the chain that a session writes --------------------------------------------------------------


class Snapshot(NamedTuple):
    """A state as it goes into a record: the pieces of one JSON object, and members of ``otel``.

    The rest places it in a chain: what its record must directly follow and what it is known as
    (see `RunLog.append`), its document, its number, and how many bytes the differences behind it
    may take.
    """

    pieces: list[bytes]
    members: bytes
    after: object | None = None
    mark: object | None = None
    document: DeltaState | None = None
    number: int = 0
    room: int = 0


def whole_snapshot(state: EncodedState) -> Snapshot:
    """A state that builds on nothing and is not built on."""
    exact = b'"exact":%b,' % orjson.dumps(state.exact) if state.exact else b""
    return Snapshot(object_pieces(state.fragments), exact)


class Chain:
    """The states that one session writes, each as what changed since the one before.

    The newest encoded state is held until the session ends. Who writes one holds `lock`.
    """

    __slots__ = ("lock", "newest")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.newest: Snapshot | None = None  # that was written, and is built on next

    def forget(self) -> None:
        """Let go of the held state, so that the next one is written whole."""
        # Where a step is being written at this moment, perhaps by this very thread, its state
        # stays.
        if self.lock.acquire(blocking=False):
            self.newest = None
            self.lock.release()

    def next(self, state: EncodedState) -> Snapshot:
        """The snapshot to be written: a difference where one can be and pays."""
        base = self.newest
        if base is None or base.document is None or base.number >= _MAX_NUMBER:
            return self.whole(state)
        document, number = _document(state), base.number + 1
        pieces, change, exact = difference(base.document, document)
        room = base.room - sum(map(len, pieces)) - len(exact) - _RECORD_BYTES
        if room < 0:
            return self.whole(state)
        checksums = document.checksum, number, base.document.checksum
        members = b'"state_crc":%d,"delta":{"number":%d,"base_crc":%d,%b},' % (*checksums, change)
        return Snapshot(pieces, exact + members, base.mark, object(), document, number, room)

    def whole(self, state: EncodedState) -> Snapshot:
        """A snapshot that a new chain begins with."""
        pieces, exact, *_ = whole_snapshot(state)
        document = _document(state)
        members = b'%b"state_crc":%d,' % (exact, document.checksum)
        room = sum(map(len, pieces))
        return Snapshot(pieces, members, mark=object(), document=document, room=room)


def _document(state: EncodedState) -> DeltaState:
    return DeltaState(state.fragments, orjson.dumps(state.exact), state.heads)
