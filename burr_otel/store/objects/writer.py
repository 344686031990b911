"""The batches of a run: listed, and appended, each as one object made at the end of the run."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from burr_otel.errors import RunLockedError
from burr_otel.printable import logger
from burr_otel.store.objects import keys
from burr_otel.store.objects.bucket import PAGE, Bucket, Listed
from burr_otel.store.objects.lease import Lease
from burr_otel.store.port import END, DisplacedError, Durability, StoreAnswer
from burr_otel.store.process import background, begin_anew_after_fork

_MOST_WAITING_BYTES: Final = 256 * 1024  # more is sent at once
_MOST_HELD_BYTES: Final = 8 * 1024 * 1024  # while the store is away; more is dropped
_MOST_FOLLOWED: Final = 4  # batches of others, read one by one before the end is listed again
_MOST_CONFLICTS: Final = 500
# For so long the end of the run is believed. A session that writes less often may have been taken
# for dead meanwhile, and its run deleted.
_BELIEVED_S: Final = 60.0
_LISTING_S: Final = 0.5  # reads of one moment share a listing

Tail = tuple[int, keys.Kinds]


class Waiting(NamedTuple):
    """A record that goes with the next batch.

    Whoever holds it back asks `answer`; if it `is_exact`, nothing may come before it.
    """

    data: bytes
    entry: tuple[int, int] | None
    answer: StoreAnswer | None = None
    is_exact: bool = False


class BatchWriter:
    """One run's batches and their writer in this process, shared by all its sessions there.

    Records of steps and roots are waited for, unless they are held back. All others wait for the
    next of those, or a second.
    """

    def __init__(self, bucket: Bucket, folder: str, name: str) -> None:
        self.bucket, self.folder, self._name = bucket, folder, name
        self._known_end = self._changes = 0  # the run's end after our last append
        self._listing: tuple[float, int, list[Listed]] | None = None
        self._kept: tuple[Listed, bytes] | None = None  # a batch that was read
        self.after_fork()
        begin_anew_after_fork(self)

    def after_fork(self) -> None:
        """In a forked child: the parent sends what waits."""
        self.lease: weakref.ref[Lease] | None = None  # an exclusive session's
        self._waiting: list[Waiting] = []
        self._newest: object | None = None  # mark of the newest end_entry; None: we lost track
        # Re-entrant, since a finaliser inside an append may append a dropped stream's last record.
        self._lock = threading.RLock()
        self._busy = self._told = False
        self._tail: Tail | None = None
        self._tail_s = 0.0
        self._doubtful: tuple[str, bytes, int] | None = None  # a batch whose answer was lost

    def opened(self, *, made: bool) -> None:
        """The run is opened for writing, perhaps another one than before of the same name."""
        with self._lock:
            self._known_end = 0
            self._tail = (0, keys.NOTHING) if made else None
            self._tail_s = time.monotonic()

    def append(
        self,
        line: bytes | Sequence[bytes],
        entry: tuple[int, int] | None = None,
        *,
        durability: Durability,
        after: object | None = None,
        mark: object | None = None,
        answer: StoreAnswer | None = None,
    ) -> tuple[int, int]:
        """Append a record; see `RunLog.append`. With an `answer` it is sent with the next one."""
        data = line if isinstance(line, bytes) else b"".join(line)
        waits = entry is not None and durability != "none"
        # Without the lock if it does not wait: another thread may hold it until its answer comes.
        with self._lock if waits else contextlib.nullcontext():
            if after is not None and (after is not self._newest or (waits and self._busy)):
                raise DisplacedError
            found, record = (-1, -1), Waiting(data, entry, answer, waits and after is not None)
            if waits and answer is None and not self._busy:
                found = self._send(record)
            else:
                self._waiting.append(record)
                background.add(self.tick)
            if entry is not None and entry[0] == END:
                self._newest = mark
        if answer is None and sum(len(each.data) for each in self._waiting) > _MOST_WAITING_BYTES:
            self.flush()
        return found

    def put(self, *told: Any, soon: bool, **more: Any) -> StoreAnswer:
        """Like `append`, without waiting: sent `soon`, or with the next that is waited for."""
        answer = StoreAnswer()
        if soon:
            background.do(self._answer, answer, *told, **more)
        else:
            self.append(*told, answer=answer, **more)
        return answer

    def _answer(self, answer: StoreAnswer, *told: Any, **more: Any) -> None:
        try:
            answer.give(self.append(*told, **more))
        except BaseException as error:  # a panic of the library's is no Exception
            answer.give(error=error)

    def flush(self) -> None:
        """Send what waits."""
        with self._lock:
            if self._waiting and not self._busy:
                self._send()

    def close(self) -> None:
        """Send what waits; a later append looks where the run ends by then."""
        self.flush()
        with self._lock:
            if not self._busy:
                self._tail = self._newest = None

    def tick(self) -> bool:
        """Send what waits, unless a step does so at this moment; whether some is left."""
        if self._waiting and self._lock.acquire(blocking=False):
            try:
                self._send(patience_s=0.0)
            except (OSError, RunLockedError) as error:
                self._hold(error)
            finally:
                self._lock.release()
        return bool(self._waiting)

    def _send(
        self, own: Waiting | None = None, *, patience_s: float | None = None
    ) -> tuple[int, int]:
        """Make a batch of what waits and of one more record; where all that begins and ends."""
        self._busy = True
        try:
            lease = None if self.lease is None else self.lease()
            if lease is not None:
                lease.check(self._name)
            self._settle_doubt()
            count = len(self._waiting)
            batch = self._waiting[:count]
            if own is not None:
                batch.append(own)
            if not batch:
                return -1, -1
            kinds = keys.Kinds.of([each.entry for each in batch])
            head = keys.new_head(kinds)
            body = b"".join([head, *(each.data for each in batch)])
            exact = any(each.is_exact for each in batch)
            start = self._create(head, body, count, exact=exact, patience_s=patience_s)
            self._sent(count)
            self._known_end = end = start + keys.length(len(body))
            self._tail, self._tail_s, self._told = (end, kinds), time.monotonic(), False
            return start, end
        except DisplacedError as error:
            self._refuse(error)
            if own is not None and own.is_exact:
                raise
        except (OSError, RunLockedError) as error:
            if patience_s is None:
                self._refuse(error)
            raise
        finally:
            self._busy = False
        return self._send(own, patience_s=patience_s)  # without what was displaced

    def _sent(self, count: int) -> None:
        """So many of the records that waited are in the store."""
        for each in self._waiting[:count]:
            if each.answer is not None:
                each.answer.give((-1, -1))  # it belongs to the batch, which others ask for
        del self._waiting[:count]
        self._doubtful = None

    def _refuse(self, error: Exception) -> None:
        """What was held back is not kept, and whoever asks for it hears why."""
        for each in self._waiting:
            if each.answer is not None:
                each.answer.give(error=error)
        if self._doubtful is not None:
            path, head, count = self._doubtful
            count = sum(each.answer is None for each in self._waiting[:count])
            self._doubtful = path, head, count
        self._waiting = [each for each in self._waiting if each.answer is None]

    def _create(
        self, head: bytes, body: bytes, count: int, *, exact: bool, patience_s: float | None
    ) -> int:
        """Make the batch that follows all others; where it begins."""
        start, before = self._end_of_run(exact=exact)
        followed = 0
        while True:
            path = f"{self.folder}/log/{keys.batch_name(start, before)}"
            # Until it is known what became of it: a request may fail, or be left at a signal.
            self._tail, self._doubtful = None, (path, head, count)
            try:
                if self.bucket.create(path, body, patience_s=patience_s):
                    return start
                there = self.bucket.fetch(path, keys.HEAD_BYTES)
            finally:
                self.changed()
            if there is not None and there.data == head:
                return start  # the answer to an earlier request was lost
            self._newest = None
            followed += 1
            if followed == _MOST_CONFLICTS:
                raise OSError(f"{self.bucket.place}: others were quicker {followed} times in a row")
            if there is not None and followed % _MOST_FOLLOWED:
                start += keys.length(there.size_bytes)
                before = keys.read_head(there.data)
            else:
                start, before = self._read_end()
            if exact:
                self._tail, self._doubtful = (start, before), None
                raise DisplacedError

    def _end_of_run(self, *, exact: bool) -> Tail:
        known = self._tail
        if known is not None and time.monotonic() - self._tail_s < _BELIEVED_S:
            return known
        found = self._read_end()
        if found[0] < self._known_end:
            self._tail = None
            raise FileNotFoundError(
                f"{self.bucket.place}/{self.folder} was deleted while the run was live; build the "
                "application again"
            )
        self._tail, self._tail_s = found, time.monotonic()
        if found[0] != self._known_end:
            self._newest = None
            if exact:
                raise DisplacedError
        return found

    def _settle_doubt(self) -> None:
        """Look whether the batch is there of which no answer came."""
        if self._doubtful is not None:
            path, head, count = self._doubtful
            there = self.bucket.fetch(path, keys.HEAD_BYTES)
            if there is not None and there.data == head:
                self._sent(count)
            self._doubtful = None

    def _hold(self, error: Exception) -> None:
        """Keep what could not be sent in the background, if it ever can, and not too much of it."""
        size_bytes = sum(len(each.data) for each in self._waiting)
        if isinstance(error, FileNotFoundError | RunLockedError) or size_bytes > _MOST_HELD_BYTES:
            self._refuse(error)
            self._waiting, self._doubtful = [], None
            logger.error("%s: records are dropped: %s", self._name, error)
        elif not self._told:
            self._told = True
            logger.warning("%s: records wait to be written: %s", self._name, error)

    # --- listing -----------------------------------------------------------------------------

    def changed(self) -> None:
        """The run goes on: what was read of it is its end no more."""
        self._changes += 1  # for a listing that another thread makes at this moment
        self._listing = self._kept = None  # a process may have very many runs

    def _read_end(self) -> Tail:
        """Where the run ends now, and the kinds of its last batch."""
        newest = next(self._batches(), None)
        if newest is None:
            return 0, keys.NOTHING
        head = self.bucket.fetch(newest.listed.path, keys.HEAD_BYTES)
        return newest.end, keys.read_head(head.data if head else b"")

    def _batches(self, before: int | None = None) -> Iterator[keys.Batch]:
        """The batches that begin before a position, newest first."""
        return filter(None, map(keys.read_batch, self._listed(before)))

    def _listed(self, before: int | None) -> Iterator[Listed]:
        folder = f"{self.folder}/log"
        self.flush()
        if before is not None:
            if before > 0:
                yield from self.bucket.names(folder, f"{folder}/{keys.name_before(before)}")
            return
        now_s, changes, listing = time.monotonic(), self._changes, self._listing
        if listing is None or listing[1] != changes or now_s - listing[0] > _LISTING_S:
            listing = self._listing = now_s, changes, self.bucket.page(folder)
        page = listing[2]
        yield from page
        if len(page) == PAGE:
            yield from self.bucket.names(folder, page[-1].path)
