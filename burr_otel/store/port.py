"""The port between runs as records and whatever keeps their bytes.

An `Engine` keeps the runs of one storage directory, database or bucket; a `RunLog` is one run of
it. Both deal in bytes only: what a record says is known above. `burr_otel.store.engines` chooses
the engine; that of local files is in `burr_otel.store.files`.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Literal, NamedTuple, Protocol

# Kinds of records that are looked for: a step's begin and end, a session's begin without and with
# a state. All others have none.
BEGIN: Final = 1
END: Final = 2
ROOT: Final = 3
INHERITED: Final = 4

DELETION: Final = "deletion of "  # begins the name of who claims a run to delete it

Durability = Literal["none", "flush", "fsync"]
"""What a record survives: nothing, the death of the process, power loss."""


class AllPartitions(enum.Enum):
    """Stands for every partition, and none."""

    ALL = enum.auto()


ALL: Final = AllPartitions.ALL
Partition = str | AllPartitions | None
"""A partition key, None for runs that have none, or `ALL`."""

Wanted = tuple[Sequence[int], int | None]
"""Kinds of records that are looked for, and a sequence id. Where a request takes long, one that
finds a run gives these of it, too."""


class DisplacedError(Exception):
    """A record that builds on another one would not have followed it directly; not written."""


class Line(NamedTuple):
    """A line of a log: where it begins and ends, its bytes, and whether its newline is there.

    Positions order the lines of a run and mean nothing else above the port. A stretch of NULs, as
    a file system that lost power leaves, is a line without bytes.
    """

    position: int
    end: int
    data: bytes
    complete: bool


class StoreAnswer:
    """Where a record lies, or why it is not kept, once the store has said so.

    A `Future` with less to it: each step makes two, and futures take ten times as long.
    """

    __slots__ = ("_calls", "_error", "_open", "_place", "is_there")

    def __init__(self) -> None:
        self.is_there = False
        self._place: Any = None
        self._error: BaseException | None = None
        self._calls: list[Callable[[], object]] = []
        self._open = threading.Lock()
        self._open.acquire()

    def give(self, place: Any = None, error: BaseException | None = None) -> None:
        """Wake all who wait for it; once more, if a signal came between."""
        if not self.is_there:
            self._place, self._error, self.is_there = place, error, True
            self._open.release()
        self._call()

    def then(self, call: Callable[[], object]) -> None:
        """Call something, perhaps twice, once it is there: now, or in the thread that gives it."""
        self._calls.append(call)
        if self.is_there:
            self._call()

    def _call(self) -> None:
        for call in tuple(self._calls):
            call()

    def error(self) -> BaseException | None:
        """Wait for it; why the record is not kept, if it is not."""
        if not self.is_there:
            with self._open:
                pass
        return self._error

    def place(self) -> Any:
        """Wait for it; where the record begins and ends. Raises its error."""
        error = self.error()
        if error is not None:
            raise error
        return self._place


class Extent(NamedTuple):
    """How many bytes records take, and the Unix time of the newest; zeros: there are none."""

    size_bytes: int = 0
    changed_ns: int = 0


class NewRun(NamedTuple):
    """A run that is made unless it is there: its names, its metadata as JSON, and its graph."""

    project: str
    app_id: str
    partition_key: str | None
    metadata: bytes
    graph: bytes


class Claim(Protocol):
    """An exclusive claim on a run; it dies with its holder."""

    def release(self) -> None:
        """Give the run free; idempotent."""


class RunLog(Protocol):
    """One run: its records in the order in which they were written, and little beside them.

    Everything may raise `OSError`. What it reads is untrusted, bounded, and perhaps damaged.
    """

    @property
    def project(self) -> str:
        """Of the run."""

    @property
    def app_id(self) -> str:
        """Of the run."""

    @property
    def partition_key(self) -> str | None:
        """Of the run."""

    @property
    def place(self) -> str:
        """What messages call the place of the run."""

    def extent(self) -> Extent:
        """Of all records."""

    def append(
        self,
        line: bytes | Sequence[bytes],
        entry: tuple[int, int] | None = None,
        *,
        durability: Durability,
        after: object | None = None,
        mark: object | None = None,
    ) -> tuple[int, int]:
        """Append a record, whole or in pieces; where it begins and ends, (-1, -1): not known yet.

        `entry` has kind and sequence id when the record is looked for. With `after`, nothing is
        written unless the newest END of the run is the one that this process appended with that
        `mark`, and no other process has written since.
        """

    # An engine at a distance has `put` with the arguments of `append`, which gives a `StoreAnswer`
    # with what that returns: `soon`, as an event loop must not wait for a server, or else with the
    # next record that is waited for, or at a flush. It may have `send`, which waits until the
    # record is on its way, and raises what is known by then.

    def repair(self) -> list[str]:
        """Mend what killed writers left, and say what was done."""

    def newest(
        self, kinds: Sequence[int], sequence_id: int | None = None, before: int | None = None
    ) -> Iterator[Line]:
        """All lines of such kinds and that step, newest first; others may be among them."""

    def forward(self) -> Iterator[Line]:
        """All lines."""

    def backward(self) -> Iterator[Line]:
        """All lines, newest first."""

    def flush(self) -> None:
        """Write out what this process has buffered."""

    def close(self) -> None:
        """Flush and let go of what is held; a later append begins anew."""

    def metadata(self) -> bytes | None:
        """Partition, parents and app id as JSON."""

    def complete(self, metadata: bytes, graph: bytes, *, sync: bool) -> bool:
        """Add what is missing of a run and make `graph` its current one; whether it changed."""

    def graph(self, digest: str | None = None) -> bytes | None:
        """The current graph, or the one of a digest."""

    def earlier_graphs(self) -> list[str]:
        """Digests of the graphs that the run had before."""

    def children(self) -> Iterator[bytes]:
        """One line of JSON for each child."""

    def add_child(self, line: bytes, *, sync: bool) -> None:
        """Add a line about a child."""

    def mark_open(self, session_id: str, marker: bytes) -> None:
        """Note that a session is open, unless it is noted.

        `FileNotFoundError` or `RunLockedError` if the run has been deleted or is being deleted.
        """

    def unmark(self, session_id: str) -> None:
        """The session is open no more."""

    def open_markers(self) -> Iterator[tuple[str, bytes]]:
        """Ids and markers of open sessions."""

    def hold(self, session_id: str) -> AbstractContextManager[bool]:
        """Hold an open session while it is completed for its dead owner; False: others do."""

    def undisturbed(self) -> AbstractContextManager[object]:
        """A time in which no other process writes to the run, where the engine can see to that.

        May raise `RunInUseError` for a session that is just beginning, and not marked yet.
        """

    def owner_lives(self, owner: Mapping[str, Any]) -> bool | None:
        """Whether the owner of a session lives; None: it cannot be told from here."""

    def claim(self, session_id: str) -> Claim:
        """Claim the run."""


class Engine(Protocol):
    """The runs of all projects in one place.

    Made without touching that place; used from any thread, and again in a forked child. Projects
    and app ids have been checked (see `names`), partition keys are any Unicode text but the empty
    one. Everything may raise `OSError`, or a `StoreError` where waiting would not help.
    """

    place: str
    """What messages call it: a folder, or a URL without its password."""

    answers_late: bool
    """Whether an event loop must not wait for an append: its runs have `put`."""

    def prepare(self, *, dry_run: bool) -> list[str]:
        """Make what the place needs, or upgrade it; what was done, or would be (SQL, say)."""

    def projects(self) -> list[str]:
        """Names of projects, sorted."""

    def runs(self, project: str, partition_key: Partition = ALL) -> Iterator[RunLog]:
        """All runs of a partition, of none (None) or of all, in no order; none is opened."""

    def app_ids(self, project: str, partition_key: Partition) -> Iterable[str]:
        """App ids of those runs, in no order; an engine may have a quicker way."""
        return (run.app_id for run in self.runs(project, partition_key))

    def find(
        self, project: str, app_id: str, partition_key: Partition, ahead: Wanted | None = None
    ) -> RunLog | None:
        """A run; with `ALL` the one that was made first; `ahead`: its `newest` is asked next."""

    def create(self, new: NewRun, *, durability: Durability) -> tuple[RunLog, bool]:
        """Make a run unless it is there; whether it was made."""

    def delete(self, run: RunLog) -> None:
        """Delete a run."""

    def close(self) -> None:
        """Write out what this process has buffered, and let go of everything that is held."""
