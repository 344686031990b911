"""Chains of records that build on one another: the writer's end, and both ways of reading.

A record with a difference builds on the record before it that the same session wrote. It names its
number in the chain and the checksum of the state that it builds on, and every record of a chain
names that of its own. What does not add up, because a record is lost, damaged or another one than
the writer saw, gives no state; it never gives a wrong one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

from burr_otel.store import delta, records
from burr_otel.store.log import DisplacedError
from burr_otel.store.query import otel_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from burr_otel.store.encoded import EncodedState

__all__ = ["Chain", "Snapshot", "Unfolding", "is_delta", "resolve"]

_MAX_NUMBER = 64  # differences after a whole state
_RECORD_BYTES = 256  # what a record takes beside its state
_MAX_SESSIONS = 16  # whose newest states are kept while a log is read forward
_MAX_FOREIGN = 1024  # records of others that are looked past


class Snapshot(NamedTuple):
    """A state as it goes into a record.

    Attributes:
        state: One JSON object.
        members: Of the `otel` object beside it.
        int64: Whether all integers of the state fit in 64 bits.
    """

    state: bytes
    members: bytes
    int64: bool


class Chain:
    """The states that one session writes, each as what changed since the one before.

    The encoded state is held until the session ends.
    """

    __slots__ = ("_base", "_checksum", "_lock", "_mark", "_number", "_room")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forget()

    def forget(self) -> None:
        """Let go of the held state, so that the next one is written whole."""
        # Where a step is being written at this moment, perhaps by this very thread, its state
        # stays.
        if self._lock.acquire(blocking=False):
            self._forget()
            self._lock.release()

    def _forget(self) -> None:
        self._base: delta.Document | None = None
        self._mark: object | None = None
        self._number = self._room = self._checksum = 0

    def write(
        self,
        state: EncodedState,
        append: Callable[[Snapshot, object | None, object | None], int],
    ) -> int:
        """Write a state.

        Args:
            state: See `encode_state`.
            append: Appends the record of a snapshot: given what it must directly follow and what
                it is to be known as, see `LogFile.append`. Returns the record's length.

        Returns:
            Length of the record in bytes.

        Raises:
            SnapshotError: As `append` raises it.
        """
        if not self._lock.acquire(blocking=False):
            # Another thread's step, or a dropped stream that is finalised within this very method.
            # The log notices that it came between.
            return append(_whole(state, None), None, None)
        try:
            return self._write(state, append)
        except BaseException:
            self._forget()
            raise
        finally:
            self._lock.release()

    def _write(
        self,
        state: EncodedState,
        append: Callable[[Snapshot, object | None, object | None], int],
    ) -> int:
        document = delta.Document(state.pieces(), delta.encode_exact(state.exact))
        base, mark = self._base, object()
        if base is not None and self._number < _MAX_NUMBER:
            body, exact = delta.difference(base, document)
            checksum = document.checksum
            spent = len(body) + len(exact) + _RECORD_BYTES
            if spent <= self._room:
                chain = records.chain_members(checksum, self._number + 1, self._checksum)
                members = b",".join([part for part in (exact, chain) if part])
                try:
                    length = append(Snapshot(body, members, state.int64), self._mark, mark)
                except DisplacedError:
                    pass  # others wrote since: a new chain begins
                else:
                    self._base, self._mark, self._checksum = document, mark, checksum
                    self._number += 1
                    self._room -= spent
                    return length
        checksum = document.checksum
        length = append(_whole(state, checksum), None, mark)
        self._base, self._mark, self._checksum = document, mark, checksum
        self._number, self._room = 0, document.state_bytes
        return length


def _whole(state: EncodedState, checksum: int | None) -> Snapshot:
    exact = b'"exact":%b' % delta.encode_exact(state.exact) if state.exact else b""
    chain = b"" if checksum is None else records.chain_members(checksum)
    members = b",".join([part for part in (exact, chain) if part])
    return Snapshot(state.json, members, state.int64)


class _Link(NamedTuple):
    """Where in which chain a record stands; number 0 has the whole state that it begins with."""

    session: Any
    number: int
    checksum: int
    base_checksum: int | None


def is_delta(record: Mapping[str, Any]) -> bool:
    """Whether a record carries what changed, and not a whole state."""
    return isinstance((otel_of(record) or {}).get("delta"), dict)


def _link(record: Mapping[str, Any]) -> _Link | None:
    otel = otel_of(record)
    if otel is None or record["type"] != records.END_ENTRY or "state_crc" not in otel:
        return None
    change = otel.get("delta", {"number": 0, "base_crc": None})
    try:
        return _Link(otel.get("session"), change["number"], otel["state_crc"], change["base_crc"])
    except (KeyError, TypeError):
        return None


def resolve(record: dict[str, Any], earlier: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """A record with its whole state.

    Args:
        record: With a whole state or a difference.
        earlier: The end_entry records before it, newest first.

    Returns:
        None when what it builds on is not there.
    """
    if not is_delta(record):
        return record
    chain, link = [record], _link(record)
    foreign = 0
    for other in earlier:
        if link is None or link.number <= 0:
            return None
        before = _link(other)
        if before is None or before.session != link.session:
            foreign += 1
            if foreign > _MAX_FOREIGN or (otel_of(other) or {}).get("session") == link.session:
                return None
            continue
        if before.number != link.number - 1 or before.checksum != link.base_checksum:
            return None
        if before.number:
            chain.append(dict(other))
            link = before
            continue
        return _replay(other, before, chain)
    return None


def _replay(
    first: Mapping[str, Any], link: _Link, chain: list[dict[str, Any]]
) -> dict[str, Any] | None:
    document = delta.from_record(first)
    if document.checksum != link.checksum:
        return None
    try:
        for each in reversed(chain):
            document = delta.apply(document, each)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    wanted = _link(chain[0])
    if wanted is None or document.checksum != wanted.checksum:
        return None
    return _made_whole(chain[0], document)


def _made_whole(record: Mapping[str, Any], document: delta.Document) -> dict[str, Any]:
    otel = dict(record["otel"])
    for name in ("delta", "exact", "exact_patch"):
        otel.pop(name, None)
    int64 = otel.pop("int64", None) is True
    patches = delta.decode_exact(document.exact)
    if patches:
        otel["exact"] = patches
    otel["int64"] = int64  # last, where `records.parse` looks for it
    return {**record, "state": document.state(int64=int64), "otel": otel}


class Unfolding:
    """Makes records whole while a log is read forward."""

    def __init__(self) -> None:
        self._newest: OrderedDict[Any, tuple[_Link, delta.Document | bytes]] = OrderedDict()

    def whole(self, record: dict[str, Any], line: bytes) -> dict[str, Any] | None:
        """The record with its whole state.

        Args:
            record: The next sound one of the log.
            line: Its line.

        Returns:
            None when what it builds on is not there.
        """
        if record["type"] != records.END_ENTRY:
            return record
        link = _link(record)
        before, base = self._newest.pop((otel_of(record) or {}).get("session"), (None, b""))
        if link is None:
            return None if is_delta(record) else record
        if not link.number:
            self._keep(link, line)  # parsed again if need be: what we return may be changed
            return record
        document = None if before is None else _next_document(before, base, link, record)
        if document is None:
            return None
        self._keep(link, document)
        return _made_whole(record, document)

    def _keep(self, link: _Link, base: delta.Document | bytes) -> None:
        self._newest[link.session] = link, base
        if len(self._newest) > _MAX_SESSIONS:
            self._newest.popitem(last=False)


def _next_document(
    before: _Link, base: delta.Document | bytes, link: _Link, record: Mapping[str, Any]
) -> delta.Document | None:
    if (before.number, before.checksum) != (link.number - 1, link.base_checksum):
        return None
    try:
        if isinstance(base, bytes):
            base = delta.from_record(records.parse(base))
            if base.checksum != before.checksum:
                return None
        document = delta.apply(base, record)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return document if document.checksum == link.checksum else None
