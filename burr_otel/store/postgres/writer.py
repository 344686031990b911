"""Writing records: a bounded queue, groups that are written in one statement, and one thread.

Whoever waits for a record writes it, with all that is queued before it, when nobody else is using
the connection; else it waits for the thread, which writes what has gathered meanwhile.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import queue
import threading
import time
import weakref
from collections import deque
from typing import Any, Final

import psycopg
from psycopg import errors

from burr_otel.errors import RunLockedError, StoreError
from burr_otel.printable import logger
from burr_otel.store.port import DisplacedError, StoreAnswer
from burr_otel.store.postgres.batch import LOOK, Item, Record, Statement, Tail, insertion
from burr_otel.store.postgres.database import LOST, Database, Sent
from burr_otel.store.process import Patience, begin_anew_after_fork, start_thread, this_owner

_LEASE_S: Final = 15
_LINGER_S: Final = 0.05  # what nobody waits for gathers so long
_BATCH_BYTES: Final = 8 * 1024 * 1024
_BATCH_RECORDS: Final = 100
_QUEUE_BYTES: Final = 32 * 1024 * 1024

_LEASE: Final = f"""\
WITH commit AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO burr_otel.writer (id, host, pid, process_start, lease_until)
SELECT $1, $2, $3, $4, now() + interval '{_LEASE_S} seconds' FROM commit
ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until"""
_writers: dict[str, Writer] = {}


def writer_of(url: str) -> Writer:
    """The writer of this process for a database."""
    # Of two threads at once, both get the one that came first.
    return _writers.get(url) or _writers.setdefault(url, Writer(url))


class Writer:
    """What this process writes into a database."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self._reset()
        begin_anew_after_fork(self)

    def _reset(self) -> None:
        self.tails: weakref.WeakValueDictionary[int, Tail] = weakref.WeakValueDictionary()
        self._queue: deque[Item] = deque()
        self._queued_bytes = 0
        self._singly = 0  # so many of what is queued is written one by one
        self._batch: dict[Item, None] = {}  # taken from the queue, and not settled yet
        self._in_doubt = False  # whether some of it may have been written
        self._sent: Sent | None = None  # the batch's records, if their answer is read later
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._looks_soon = False  # the thread does, within `_LINGER_S`
        self._starting = threading.Lock()
        self._leased: set[tuple[int, str]] = set()  # what depends on the lease of this process
        self._renewed_s = float("-inf")

    def tail(self, run_id: int, run: str) -> Tail:
        """The end of a run."""
        return self.tails.get(run_id) or self.tails.setdefault(run_id, Tail(run_id, run))

    # --- handing over -------------------------------------------------------------------------

    def put(self, item: Item, *, soon: bool) -> None:
        """Queue something that is not waited for here, if anywhere."""
        size = item.size
        if self._queued_bytes + size > _QUEUE_BYTES and not self._writing_here():
            self.flush()
        self._queued_bytes += size
        self._queue.append(item)
        self._call_thread(soon=soon)

    def wait_for(self, item: Item) -> Any:
        """Have something written, with all that is queued before it."""
        if self._writing_here():
            # A finaliser, inside of a statement of this very thread: nobody else could write it.
            item.is_awaited = False
            self.put(item, soon=True)
            return item.result
        self._write_here(item)
        return item.answer.place()

    def send(self, item: Item) -> None:
        """Have something sent, with all that is queued before it.

        The answer is read by whoever writes next, or by the thread within `_LINGER_S`.
        """
        if self._writing_here():
            self.wait_for(item)
        elif self._write_here(item, leaves=True):
            self._call_thread(soon=False)
        else:
            item.answer.place()

    def _write_here(self, item: Item, *, leaves: bool = False) -> bool:
        """Write something if the connection is free, else have the thread do it.

        With `leaves` the answer may be left to be read later; gives whether it was.
        """
        self._queued_bytes += item.size
        self._queue.append(item)
        lock = self.database.lock
        try:
            if lock.acquire(blocking=False):
                self._write(item.answer, leaves=leaves)
                return self._sent is not None
            self._call_thread()
        except BaseException:  # a signal's, as Ctrl-C: the thread finds out what has been written
            self._call_thread()
            raise
        finally:
            try:  # noqa: SIM105 - a signal may come at any call, also as `acquire` returns
                lock.release()
            except RuntimeError:  # it is another thread's
                pass
        return False

    def flush(self) -> None:
        """Have everything written that is queued."""
        if self._queue or self._batch:
            self.wait_for(Statement("", is_awaited=True))

    def _writing_here(self) -> bool:
        owned: bool = self.database.lock._is_owned()  # type: ignore[attr-defined]  # noqa: SLF001 - as Condition asks
        return owned

    # --- the lease ----------------------------------------------------------------------------

    def lease(self, run_id: int, what: str) -> None:
        """From now on something of a run depends on this process being known to live."""
        self._leased.add((run_id, what))
        if time.monotonic() - self._renewed_s > _LEASE_S / 3:
            self.put(self._renewal(), soon=True)

    def end_lease(self, run_id: int, what: str) -> None:
        """It does so no more."""
        self._leased.discard((run_id, what))

    def is_leased(self, run_id: int, what: str) -> bool:
        """Whether something does."""
        return (run_id, what) in self._leased

    def _renewal(self) -> Statement:
        self._renewed_s = time.monotonic()
        owner = this_owner()
        start = owner["process_start"] or ""
        return Statement(_LEASE, (self.database.writer_id, owner["host"], owner["pid"], start))

    # --- the thread ---------------------------------------------------------------------------

    def _call_thread(self, *, soon: bool = True) -> None:
        if soon or not self._looks_soon:
            self._looks_soon = True
            self._wake.put(soon)
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = start_thread("burr-otel-postgres", self._serve)
            if self._thread is None and not self._writing_here():
                with self.database.lock:
                    self._write(None)

    def _serve(self) -> None:
        wake = self._wake
        while True:
            try:
                soon = wake.get(timeout=_LEASE_S / 3 if self._leased else None)
                linger_until = time.monotonic() + _LINGER_S
                while not soon:
                    soon = wake.get(timeout=max(0.0, linger_until - time.monotonic()))
            except queue.Empty:
                pass
            with contextlib.suppress(queue.Empty):
                while True:
                    wake.get_nowait()
            with self.database.lock:
                self._looks_soon = False
                self._write(None)
                if self._leased and time.monotonic() - self._renewed_s >= _LEASE_S / 3:
                    self._batch = {self._renewal(): None}
                    self._write(None)

    # --- writing; whoever does it holds the connection ----------------------------------------

    def _write(self, until: StoreAnswer | None, *, leaves: bool = False) -> None:
        """Write what is queued, or as much as somebody waits for.

        With `leaves`, the answer to the last batch may be left to be read later.
        """
        while until is None or not until.is_there:
            if not self._batch and not self._take():
                return
            try:
                self._write_batch(leaves=leaves)
            except psycopg.Error as error:
                self._apart(error)
            except Exception as error:
                told = isinstance(error, StoreError | ConnectionError)
                if not told and threading.current_thread() is not self._thread:
                    raise  # a signal handler's, perhaps: nothing that is wrong with the batch
                self._in_doubt = False
                self._refuse(list(self._batch), self.database.problem(error))
            if self._sent is not None:
                return

    def _take(self) -> bool:
        size, most = 0, 1 if self._singly else _BATCH_RECORDS
        while self._queue and size < _BATCH_BYTES and len(self._batch) < most:
            item = self._queue[0]
            if not item.answer.is_there:  # else a signal came before it left the queue
                size += item.size
                self._batch[item] = None
            self._queue.popleft()
            self._singly = max(0, self._singly - 1)
        self._queued_bytes = self._queued_bytes - size if self._queue else 0
        return bool(self._batch)

    def _write_batch(self, *, leaves: bool) -> None:
        """Write the batch, however often that must be tried."""
        patience: Patience | None = None
        # Only of the last batch, and not if it has statements, which go to the server one by one.
        leaves = leaves and self._sent is None and not self._queue
        leaves = leaves and all(isinstance(item, Record) for item in self._batch)
        while self._batch:
            try:
                if any(isinstance(item, Record) for item in self._batch):
                    self._write_records(leaves=leaves)
                if self._sent is not None:
                    return
                for statement in [item for item in self._batch if isinstance(item, Statement)]:
                    if statement.sql:
                        self.database.run(statement.sql, statement.values)
                    self._done([statement])
            except errors.UniqueViolation:
                continue  # somebody else wrote to a run, or we did, and the answer was lost
            except LOST as error:
                patience = patience or self.database.patience()
                self.database.reconnect(error, patience)

    def _write_records(self, *, leaves: bool) -> None:
        by_tail: dict[Tail, list[Record]] = {}
        for item in self._batch:
            if isinstance(item, Record):
                by_tail.setdefault(item.tail, []).append(item)
        if self._sent is None:
            self._send(by_tail)
            if leaves:
                return
        sent, self._sent = self._sent, None
        if sent is not None:
            ((written,),) = self.database.answer(sent)
            if written < sum(map(len, by_tail.values())):  # a claim was lost
                self._look(by_tail)
        for tail, group in by_tail.items():
            tail.has_written(group)
            self._done(group)
        self._in_doubt = False

    def _send(self, by_tail: dict[Tail, list[Record]]) -> None:
        """Send the batch's records, but those that are settled without it."""
        if self._in_doubt or any(tail.number < 0 for tail in by_tail):
            self._look(by_tail)
        for tail, records in list(by_tail.items()):
            tail.give_numbers(records)
            displaced = [record for record in records if record.number < 0]
            if displaced:
                self._refuse(displaced, DisplacedError())
                by_tail[tail] = [record for record in records if record.number >= 0]
                if not by_tail[tail]:
                    del by_tail[tail]
        records = [record for group in by_tail.values() for record in group]
        if records:
            self._in_doubt = True
            self._sent = self.database.send(*insertion(records))

    def _look(self, by_tail: dict[Tail, list[Record]]) -> None:
        """See where the runs end, and whether the batch is in them; settle what is clear now."""
        firsts = {tail.run_id: records[0] for tail, records in by_tail.items()}
        digests = [hashlib.sha256(record.body).digest() for record in firsts.values()]
        numbers = [record.number for record in firsts.values()]
        rows = self.database.run(LOOK, (list(firsts), numbers, digests))
        for run_id, is_own, number, claim, host, pid in rows:
            tail = firsts[run_id].tail
            if is_own:
                self._done(by_tail.pop(tail))
            tail.moved(number or 0)
            if not is_own and tail.claimant is not None and claim != tail.claimant:
                self._refuse(by_tail.pop(tail), locked(tail.run, claim, host, pid))
                tail.claimant = None
        self._in_doubt = False

    def _apart(self, error: psycopg.Error) -> None:
        """The server refuses something of the batch: find out what, so that the rest is kept."""
        self._in_doubt = False
        items = list(self._batch)
        if len(items) == 1:
            self._refuse(items, self.database.problem(error))
            return
        self._queue.extendleft(reversed(items))  # first: a signal may come between
        self._queued_bytes += sum(item.size for item in items)
        self._singly, self._batch = len(items), {}

    def _done(self, items: list[Any]) -> None:
        for item in items:
            item.answer.give(item.result)
        self._settled(items)

    def _refuse(self, items: list[Any], error: Exception) -> None:
        for item in items:
            if isinstance(item, Record):
                item.tail.moved(-1)
            shares = isinstance(error, StoreError | OSError)  # several threads raise it
            item.answer.give(error=type(error)(str(error)) if shares else error)
        self._settled(items)  # last: a signal may come between
        lost = sum(not item.is_awaited for item in items)
        if lost:
            logger.error("%s: %d records could not be kept: %s", self.database.place, lost, error)

    def _settled(self, items: list[Any]) -> None:
        for item in items:
            self._batch.pop(item, None)

    def after_fork(self) -> None:
        """In a forked child: begin anew."""
        tails = list(self.tails.values())
        self.database.after_fork()
        self._reset()
        for tail in tails:  # what is known of a run's end is the parent's, and so is its claim
            tail.moved(-1)
            tail.claimant = None
            self.tails[tail.run_id] = tail


def locked(run: str, holder: str | None, host: str | None, pid: int | None) -> RunLockedError:
    """Another session has the run for itself."""
    return RunLockedError(run, holder=holder or "unknown", host=host or "unknown", pid=pid or 0)


def _flush_all() -> None:
    for writer in list(_writers.values()):
        with contextlib.suppress(StoreError, OSError):
            writer.flush()
        writer.database.close()  # else psycopg warns of a connection that nobody has closed


atexit.register(_flush_all)
