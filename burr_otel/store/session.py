"""One application's writing of one run."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson

from burr_otel import forks
from burr_otel.errors import RunLockedError, SnapshotError, StoreError
from burr_otel.interrupts import is_interrupt
from burr_otel.printable import logger
from burr_otel.records import (
    BEGIN_ENTRY,
    ROOT,
    BeginRoot,
    BeginStep,
    EndRoot,
    EndStep,
    Record,
    SpanIds,
)
from burr_otel.records.write import encode, encode_begin_step, encode_end_step
from burr_otel.store import port
from burr_otel.store.delta import Chain, Snapshot, whole_snapshot
from burr_otel.store.encoded import EncodedState, Growing
from burr_otel.store.handed import Handed
from burr_otel.store.port import Claim, DisplacedError, Durability, RunLog, StoreAnswer
from burr_otel.store.process import this_owner
from burr_otel.store.reading import newest_record, newest_records, otel_of

_INT64: Final = {True: b'"int64":true', False: b'"int64":false'}
_MOST_COPIED_BYTES: Final = 64 * 1024  # more goes to the system in pieces
_UNUSED: Final = -1  # generation of a session that has not written yet
_KEPT: Final = ("app_id", "partition_key", "parent_pointer", "spawning_parent_pointer", "graph")
_MOST_WARNED: Final = 10_000
_mixed_runs: set[str] = set()  # of which it was said that sessions run at once
_generation = 0  # counts forks: a session belongs to the process that opened it


class Session:
    """Appends the records of one application; made by `Store.open_session`.

    Safe to use from several threads. After a fork, the child's copy writes nothing. `run` is
    ``project/app_id``. `handed` has what was handed over, by step, until it is settled. `method` is
    the execute call in progress, ``step`` or ``run``, if its end calls `settle`; else None. There a
    server's answer to a step's end is waited for, and in a ``run`` that end is written together
    with the next step's begin. `grown_from` tells of the large values of the state that was written
    last, or that the first step found.
    """

    __slots__ = (
        "__weakref__", "_begin", "_chain", "_claim", "_durability", "_end", "_ended", "_exclusive",
        "_forked_from", "_generation", "_log", "_mixed", "_tag", "_told", "grown_from", "handed",
        "method", "run", "session_id",
    )  # fmt: skip

    def __init__(
        self,
        log: RunLog,
        session_id: str,
        durability: Durability,
        *,
        claim: Claim | None,
        exclusive: bool,
        delta: bool,
        forked_from: str | None = None,
    ) -> None:
        self.run, self.session_id = f"{log.project}/{log.app_id}", session_id
        self._log, self._durability = log, durability
        self._chain = Chain() if delta else None
        self._claim, self._exclusive = claim, exclusive
        self._tag = b'"session":%b' % orjson.dumps(session_id)
        self._end = self._begin = -1  # of our newest record, and newest begin of a step
        self._mixed = False  # whether others have written since that
        self._generation = _generation if forked_from is None else _UNUSED
        self._ended = self._told = False
        self._forked_from = forked_from
        self.handed: dict[int, Handed] = {}
        self.method: str | None = None
        self.grown_from: dict[str, Growing] | None = None

    def fork(self, session_id: str) -> Session:
        """In a forked child: a session of the child's own, which begins with its first step."""
        return Session(
            self._log,
            session_id,
            self._durability,
            claim=None,
            exclusive=self._exclusive,
            delta=self._chain is not None,
            forked_from=self.session_id,
        )

    def begin(self, record: BeginRoot, more: bytes, entry: tuple[int, int]) -> None:
        """Record that the session begins, and mark it as open."""
        line = encode(record, self._tag, more)
        # Never buffered: without a first record, other processes do not see the run.
        durability: Durability = "fsync" if self._durability == "fsync" else "flush"
        self._log.append(line, entry, durability=durability)
        if record.kind != "fork":
            self.mark_open(record.origin and record.origin.ids, record.time_ns, ended=False)

    def _begin_forked(self, time_ns: int) -> None:
        """The first step in a forked child: only now is it known that the child writes at all."""
        parent, self._forked_from = self._forked_from, None
        record = newest_record(
            self._log, (ROOT,), accept=lambda r: (otel_of(r) or {}).get("session") == parent
        )
        fields = {key: value for key, value in (record or {}).items() if key in _KEPT}
        fields |= {"owner": this_owner(), "forked_from": parent}
        self._log.repair()
        self.begin(BeginRoot(fields, time_ns, kind="fork"), b"", (port.ROOT, -1))

    # --- steps -------------------------------------------------------------------------------

    def begin_step(self, record: BeginStep, *, later: bool = False) -> None:
        """Record that a step begins; `later`: somebody asks what was `handed` over."""
        if self._generation != _generation:
            if self._generation != _UNUSED:
                raise SnapshotError(
                    self.run,
                    f"session {self.session_id} belongs to the process that process {os.getpid()} "
                    "was forked from; build the application in the child",
                    sequence_id=record.sequence_id,
                )
            self._generation = _generation
        try:
            if self._exclusive and self._claim is None:
                self._claim = self._log.claim(self.session_id)
            if self._forked_from is not None:
                self._begin_forked(record.time_ns)
            line, entry = encode_begin_step(record, self._tag), (port.BEGIN, record.sequence_id)
            append: Callable[..., Any] = self._log.append
            if later:
                append = functools.partial(self._log.put, soon=True)  # type: ignore[attr-defined]
            elif not self._exclusive and not self.handed:
                append = getattr(self._log, "send", append)
            placed = append(line, entry, durability=self._durability)
        except (OSError, StoreError) as error:
            failure = SnapshotError(self.run, error, sequence_id=record.sequence_id)
            raise next(self.settle(), failure) from error
        if isinstance(placed, StoreAnswer):
            self.handed[record.sequence_id] = Handed(placed, self._begun)
            return
        for lost in self.settle():
            raise lost
        self._begun(*placed)

    def begin_with(self, state: EncodedState) -> None:
        """Note values that the first step found: another session has written them."""
        self.grown(state)
        self.grown_from = state.grown

    def grown(self, state: EncodedState) -> dict[str, tuple[int, int]]:
        """How many bytes and items of large lists and texts are as this session wrote them last."""
        return state.go_on_from(self.grown_from or {}, keep=self._chain is not None)

    def end_step(self, record: EndStep, state: EncodedState, *, exact: bool) -> int:
        """Record that a step has ended, with the state after it; the record's length in bytes."""
        int64 = _INT64[exact and state.int64]
        chain = self._chain
        if chain is None or not chain.lock.acquire(blocking=False):
            # Another thread writes a step, or a dropped stream is finalised inside this method:
            # this state is written whole, and the log tells the other that something came between.
            length = self._append_end(record, whole_snapshot(state), int64)
        else:
            snapshot: Snapshot | None = None
            try:
                snapshot = chain.next(state)
                try:
                    length = self._append_end(record, snapshot, int64)
                    handed = self.handed.get(record.sequence_id)
                    if handed is not None:
                        handed.again = functools.partial(self._end_anew, record, state, int64)
                except DisplacedError:  # others wrote since: a new chain begins
                    snapshot = chain.whole(state)
                    length = self._append_end(record, snapshot, int64)
            except BaseException:
                snapshot = None
                raise
            finally:
                chain.newest = snapshot
                chain.lock.release()
        self.grown_from = state.grown
        return length

    def _end_anew(self, record: EndStep, state: EncodedState, int64: bytes) -> None:
        """Hand a step's end over again, whole: others came between."""
        if self._chain is not None:
            snapshot = self._chain.whole(state)
            self._append_end(record, snapshot, int64)
            self._chain.newest = snapshot

    def _append_end(self, record: EndStep, snapshot: Snapshot, int64: bytes) -> int:
        pieces, members, after, mark, *_ = snapshot
        line = encode_end_step(record, self._tag, pieces, b",%b%b" % (members, int64))
        length = sum(map(len, line))
        if self._generation != _generation:
            return length  # the parent writes what it began
        handed = self.handed.get(record.sequence_id)
        method = None if self._durability == "none" else self.method
        append: Callable[..., Any] = self._log.append
        if handed is not None and handed.is_awaited:
            append = functools.partial(self._log.put, soon=True)  # type: ignore[attr-defined]
        elif method == "step":
            append = getattr(self._log, "send", append)
        elif method == "run" and hasattr(self._log, "put"):
            append = functools.partial(self._log.put, soon=False)
        try:
            written = append(
                b"".join(line) if length < _MOST_COPIED_BYTES else line,
                (port.END, record.sequence_id),
                durability=self._durability,
                after=after,
                mark=mark,
            )
            if isinstance(written, StoreAnswer):
                self.handed[record.sequence_id] = Handed(
                    written, self._placed, before=handed, is_awaited=True
                )
                return length
            begun = self.handed.pop(record.sequence_id, None)
            if begun is not None and (error := begun.settle()) is not None:
                raise error
        except (OSError, StoreError) as error:
            raise SnapshotError(self.run, error, sequence_id=record.sequence_id) from error
        self._placed(*written)
        return length

    def answers(self, sequence_id: int) -> Iterator[StoreAnswer]:
        """What to wait for until a step's newest record is kept; `SnapshotError`: it is not."""
        while (handed := self.handed.get(sequence_id)) is not None and handed.placed is not None:
            yield handed.answer
            error = handed.answer.error()
            placed, handed.placed = handed.placed, None  # None: another thread asked, too
            if handed.before is not None:
                error = handed.before.settle() or error
            if isinstance(error, DisplacedError) and handed.again is not None:
                if placed is not None:
                    handed.again()
                continue
            if error is None:
                if placed is not None:
                    placed(*handed.answer.place())
                continue
            if self._chain is not None:
                self._chain.forget()
            if not isinstance(error, OSError | StoreError):
                raise error
            raise SnapshotError(self.run, error, sequence_id=sequence_id) from error

    def settle(self) -> Iterator[SnapshotError]:
        """Wait until all is kept that was handed over or held back; yields what is lost."""
        for sequence_id in list(self.handed):
            try:
                for answer in self.answers(sequence_id):
                    if not answer.is_there:
                        with contextlib.suppress(OSError, StoreError):  # as the answer will say
                            self._log.flush()
            except SnapshotError as failure:  # noqa: PERF203 - of each step
                yield failure
            finally:
                self.handed.pop(sequence_id, None)

    def leave(self, sequence_id: int) -> None:
        """Ask no more for a step's newest record: if it is an end and is lost, that is logged."""
        handed = self.handed.pop(sequence_id, None)
        if handed is not None and handed.placed is not None and handed.is_awaited:
            answer = handed.answer
            answer.then(functools.partial(self._log_lost, answer, sequence_id))

    def _log_lost(self, answer: StoreAnswer, sequence_id: int) -> None:
        if (error := answer.error()) is not None:
            logger.error("%s", SnapshotError(self.run, error, sequence_id=sequence_id))

    def append(self, record: Record) -> None:
        """Append a record that no resume needs; a failure is told once and otherwise ignored."""
        if self._generation != _generation:
            return
        try:
            self._placed(*self._log.append(encode(record, self._tag), durability=self._durability))
        except Exception as error:
            if is_interrupt(error):
                raise
            if not self._told:
                self._told = True
                logger.warning(
                    "%s: records of spans, attributes or streams are dropped, because they cannot "
                    "be written: %s",
                    self.run,
                    error,
                )

    # --- where records lie, and what lies between --------------------------------------------

    def _placed(self, start: int, end: int) -> None:
        """A record lies there; (-1, -1): not known."""
        if start >= 0:
            self._mixed = self._mixed or start != self._end
            self._end = end

    def _begun(self, start: int, end: int) -> None:
        """A begin lies there; warn, once a run, if others have begun a step since our last one."""
        self._placed(start, end)
        if self._mixed and self._begin >= 0 and len(_mixed_runs) < _MOST_WARNED:
            other = None if self.run in _mixed_runs else self._other_session(start)
            if other is not None:
                _mixed_runs.add(self.run)
                logger.warning(
                    "%s: sessions %s and %s run steps of it at once, so its history is a mixture "
                    "of both. Give each its own app id, or use exclusive=True.",
                    self.run,
                    self.session_id,
                    other,
                )
        self._begin, self._mixed = start, False

    def _other_session(self, before: int) -> str | None:
        """The session, if any, whose step has begun since the newest of ours."""
        with contextlib.suppress(OSError):
            for position, record in newest_records(self._log, (BEGIN_ENTRY,), before=before):
                if position <= self._begin:
                    break
                session = (otel_of(record) or {}).get("session")
                if session != self.session_id:
                    return str(session or "of another tracker")
        return None

    # --- the end -----------------------------------------------------------------------------

    def end(self, record: EndRoot) -> None:
        """Record that the session has ended and give an exclusive run free; idempotent."""
        if not self._ended:
            self._ended = True
            self.append(record)
            self.unmark()
        self.close()

    def mark_open(self, ids: SpanIds | None, time_ns: int, *, ended: bool = True) -> None:
        """Mark the session as open: again, while a step runs, or when it begins."""
        otel: dict[str, Any] = {"time_unix_nano": time_ns, "ended": ended}
        if ids is not None:
            otel["trace_id"], otel["span_id"] = f"{ids.trace_id:032x}", f"{ids.span_id:016x}"
            otel["flags"] = ids.flags
            if ids.trace_state:
                otel["trace_state"] = ids.trace_state
        marker = orjson.dumps({"owner": this_owner(), "otel": otel})
        try:
            self._log.mark_open(self.session_id, marker)
        except (OSError, StoreError) as error:
            if not ended and isinstance(error, FileNotFoundError | RunLockedError):
                raise  # the run has been deleted as the session began, or is being deleted
            logger.warning("%s: a session cannot be marked as open: %s", self.run, error)

    def unmark(self) -> None:
        """Take away the mark that the session is open."""
        if self._generation != _generation:
            return
        try:
            self._log.unmark(self.session_id)
        except (OSError, StoreError) as error:
            logger.warning("%s: a session stays marked as open: %s", self.run, error)

    def close(self) -> None:
        """Flush all records and release file and claim, until a later step; idempotent."""
        if self._generation != _generation:
            return
        if self._chain is not None:
            self._chain.forget()
            self.grown_from = None  # it holds what the chain does
        for lost in self.settle():  # another hook kept ours from being told
            logger.error("%s", lost)
        try:
            self._log.close()
        except (OSError, StoreError) as error:
            logger.warning("%s: its last records could not be kept: %s", self.run, error)
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.release()


def _after_fork_in_child() -> None:
    global _generation
    _generation += 1


forks.in_child(_after_fork_in_child)
