"""Chains of records that build on one another: the writer's end, and both ways of reading.

A record with a difference builds on the record before it that the same session wrote. It names its
number in the chain and the checksum of the state that it builds on, and every record of a chain
names that of its own. What does not add up, because a record is lost, damaged or another one than
the writer saw, gives no state; it never gives a wrong one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import orjson

from burr_otel.records import END_ENTRY, parse
from burr_otel.store import delta
from burr_otel.store.encoded import EncodedState, object_pieces
from burr_otel.store.lines import otel_of

_MAX_NUMBER: Final = 64  # differences after a whole state
_RECORD_BYTES = 256  # what a record takes beside its state
_MOST_SESSIONS: Final = 16  # whose newest states are kept while a log is read forward
_MOST_FOREIGN: Final = 1024  # records of others that are looked past
_CHANGES: Final = frozenset(("delta", "exact", "exact_patch"))
_UNSOUND: Final = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


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
    document: delta.DeltaState | None = None
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

    __slots__ = ("_newest", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._newest: Snapshot | None = None

    def forget(self) -> None:
        """Let go of the held state, so that the next one is written whole."""
        # Where a step is being written at this moment, perhaps by this very thread, its state
        # stays.
        if self.lock.acquire(blocking=False):
            self._newest = None
            self.lock.release()

    def keep(self, snapshot: Snapshot | None) -> None:
        """This one has been written and is built on next; None: nothing is."""
        self._newest = snapshot

    def next(self, state: EncodedState) -> Snapshot:
        """The snapshot to be written: a difference where one can be and pays."""
        base = self._newest
        if base is None or base.document is None or base.number >= _MAX_NUMBER:
            return self.whole(state)
        document, number = _document(state), base.number + 1
        pieces, change, exact = delta.difference(base.document, document)
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
        room = document.state_bytes
        return Snapshot(pieces, members, mark=object(), document=document, room=room)


def _document(state: EncodedState) -> delta.DeltaState:
    return delta.DeltaState(state.fragments, orjson.dumps(state.exact), state.heads)


class _Link(NamedTuple):
    """Where in which chain a record stands; number 0 has the whole state that it begins with."""

    session: str
    number: int
    checksum: int
    base_checksum: int | None

    def follows(self, before: _Link) -> bool:
        """Whether its record builds on that one."""
        return (before.number, before.checksum) == (self.number - 1, self.base_checksum)


def _is_delta(record: Mapping[str, Any]) -> bool:
    """Whether a record carries what changed, and not a whole state."""
    return isinstance((otel_of(record) or {}).get("delta"), dict)


def _link(record: Mapping[str, Any]) -> _Link | None:
    otel = otel_of(record)
    if otel is None or record["type"] != END_ENTRY or "state_crc" not in otel:
        return None
    change = otel.get("delta", {"number": 0, "base_crc": None})
    try:
        link = _Link(otel["session"], change["number"], otel["state_crc"], change["base_crc"])
    except (KeyError, TypeError):
        return None
    if type(link.number) is not int or not isinstance(link.session, str):
        return None
    return link if (link.number > 0) == ("delta" in otel) else None


def resolve(record: dict[str, Any], earlier: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """A record with its whole state; None when what it builds on is not there.

    `earlier` are the records of finished steps before it, newest first.
    """
    if not _is_delta(record):
        return record
    chain: list[Mapping[str, Any]] = [record]
    link, foreign = _link(record), 0
    for other in earlier:
        if link is None or foreign > _MOST_FOREIGN:
            break
        if (otel_of(other) or {}).get("session") != link.session:
            foreign += 1
            continue
        before = _link(other)
        if before is None or not link.follows(before):
            break
        link = before
        if not link.number:
            try:
                document = delta.from_record(other)
                for each in reversed(chain):
                    document = delta.apply(document, each)
                return _made_whole(record, document)
            except _UNSOUND:
                break
        chain.append(other)
    return None


def _made_whole(record: Mapping[str, Any], document: delta.DeltaState) -> dict[str, Any]:
    otel = {key: value for key, value in record["otel"].items() if key not in _CHANGES}
    patches = orjson.loads(document.exact)
    if patches:
        otel["exact"] = patches
    return {**record, "state": document.state(int64=otel.get("int64") is True), "otel": otel}


class Unfolding:
    """Makes records whole while a log is read forward."""

    def __init__(self) -> None:
        # By session. Whole states are kept as lines, since what we return may be changed.
        self._newest: OrderedDict[str, tuple[_Link, delta.DeltaState | bytes]] = OrderedDict()

    def whole(self, record: dict[str, Any], line: bytes) -> dict[str, Any] | None:
        """The next record of the log with its whole state; None: what it builds on is lost."""
        link = _link(record)
        if link is None:
            return None if record["type"] == END_ENTRY and _is_delta(record) else record
        before, base = self._newest.pop(link.session, (None, b""))
        made: dict[str, Any] = record
        kept: delta.DeltaState | bytes = line
        if link.number:
            if before is None or not link.follows(before):
                return None
            try:
                document = delta.from_record(parse(base)) if isinstance(base, bytes) else base
                kept = delta.apply(document, record)
                made = _made_whole(record, kept)
            except _UNSOUND:
                return None
        self._newest[link.session] = link, kept
        if len(self._newest) > _MOST_SESSIONS:
            self._newest.popitem(last=False)
        return made
