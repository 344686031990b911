"""One application's writing of one run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from burr_otel.errors import SnapshotError
from burr_otel.store import records
from burr_otel.store.chain import Chain, Snapshot
from burr_otel.store.index import BEGIN, END, ROOT
from burr_otel.store.loading import LogReader
from burr_otel.store.overlap import Overlap
from burr_otel.store.owner import Claim, this_owner
from burr_otel.store.query import otel_of
from burr_otel.store.values import encode_mapping, encode_value

if TYPE_CHECKING:
    from burr_otel.store.encoded import EncodedState
    from burr_otel.store.log import Durability, LogFile

__all__ = ["Session"]

logger = logging.getLogger(__name__)

Members = Mapping[str, Any] | bytes
"""Members of the `otel` object of a record: a mapping, or ready-made JSON without braces."""

Otel = Members | Callable[["bytes | None"], Members]
"""Such members, or what makes them of the record's inputs or result as written: `None` where
reading that JSON and writing it again need not give the same bytes."""

_HIDDEN_INPUTS = frozenset({"__tracer", "__context"})  # Burr's own, not data
_generation = 0  # counts forks: a session belongs to the process that opened it


class Session:
    """Appends the records of one application; made by `Store.open_session`.

    Safe to use from several threads. After a fork, the child's copy writes nothing.

    Attributes:
        app_id: Of the run.
        session_id: In the `otel` object of every record of this session.
        run: ``project/app_id``.
        tag: The session id as a JSON member.
    """

    __slots__ = (
        "__weakref__",
        "_chain",
        "_claim",
        "_durability",
        "_ended",
        "_exclusive",
        "_forked_from",
        "_generation",
        "_log",
        "_overlap",
        "_serde_kwargs",
        "_told",
        "app_id",
        "run",
        "session_id",
        "tag",
    )

    def __init__(
        self,
        *,
        app_id: str,
        run: str,
        session_id: str,
        log: LogFile,
        durability: Durability,
        serde_kwargs: Mapping[str, Any],
        claim: Claim | None,
        delta: bool = False,
    ) -> None:
        self.app_id, self.run, self.session_id = app_id, run, session_id
        self._log, self._durability = log, durability
        self._serde_kwargs = serde_kwargs
        self._chain = Chain() if delta else None
        self._claim, self._exclusive = claim, claim is not None
        self.tag = b'"session":%b' % orjson.dumps(session_id)
        self._overlap = Overlap(run, session_id)
        self._generation = _generation
        self._ended = self._told = False
        self._forked_from: str | None = None

    def fork(self, session_id: str) -> Session:
        """In a forked child: a session of the child's own.

        It writes nothing before its first step, so that children that run none leave no trace.

        Args:
            session_id: Unique among the sessions of the run.
        """
        child = Session(
            app_id=self.app_id,
            run=self.run,
            session_id=session_id,
            log=self._log,
            durability=self._durability,
            serde_kwargs=self._serde_kwargs,
            claim=None,
            delta=self._chain is not None,
        )
        child._exclusive = self._exclusive
        child._forked_from = self.session_id
        return child

    def place(self, start: int, end: int) -> None:
        """Note where the session's first record lies in the log."""
        self._overlap.wrote(start, end)

    def begin_step(
        self,
        *,
        sequence_id: int,
        action: str,
        inputs: Mapping[str, Any],
        time_ns: int,
        otel: Otel,
    ) -> None:
        """Record that a step begins.

        Args:
            sequence_id: Of the step.
            action: Its name.
            inputs: Burr's own ``__tracer`` and ``__context`` are left out.
            time_ns: Nanoseconds since the epoch.
            otel: Ids of its span, and what else is kept of it.

        Raises:
            SnapshotError: The record could not be written, or a fork of the process that opened
                the session tries to write it.
            RunLockedError: The session had ended, and another one claimed the run since.
        """
        if self._generation != _generation:
            raise SnapshotError(
                self.run,
                f"session {self.session_id} belongs to the process that process {os.getpid()} "
                "was forked from; build the application in the child",
                sequence_id=sequence_id,
            )
        if self._exclusive and self._claim is None:
            self._claim = Claim(self._log.folder, self.run, self.session_id)
        if self._forked_from is not None:
            self._write_root(time_ns)
        body, int64 = b"{}", True
        if inputs:
            if not _HIDDEN_INPUTS.isdisjoint(inputs):
                inputs = {key: item for key, item in inputs.items() if key not in _HIDDEN_INPUTS}
            body, int64 = encode_mapping(
                inputs, serde_kwargs=self._serde_kwargs, run=self.run, what="input"
            )
        if callable(otel):
            otel = otel(body if int64 else None)
        tag = records.otel_object(self.tag, otel)
        line = records.begin_entry(sequence_id, action, body, time_ns, tag)
        try:
            start, end = self._log.append(line, (BEGIN, sequence_id), durability=self._durability)
        except OSError as error:
            raise SnapshotError(self.run, error, sequence_id=sequence_id) from error
        self._overlap.step_began(start, end, self._log.path)

    def end_step(
        self,
        *,
        sequence_id: int,
        action: str,
        result: Mapping[str, Any] | None,
        exception: str | None,
        state: EncodedState,
        time_ns: int,
        otel: Otel,
    ) -> int:
        """Record that a step has ended, with the state after it.

        Args:
            sequence_id: Of the step.
            action: Its name.
            result: What it returned.
            exception: The traceback when it failed: a resume then runs it again.
            state: See `encode_state`.
            time_ns: Nanoseconds since the epoch.
            otel: Ids of its span, outcome, and what else is kept of it.

        Returns:
            Length of the record in bytes.

        Raises:
            SnapshotError: The record could not be written.
        """
        body, int64 = b"null", True
        if result is not None:
            is_named = type(result) is dict or isinstance(result, Mapping)
            body, int64 = encode_mapping(
                result if is_named else {"result": result},
                serde_kwargs=self._serde_kwargs,
                run=self.run,
                what="result",
            )
        made = otel(body if int64 else None) if callable(otel) else otel

        def append(
            snapshot: bytes, more: bytes, after: object | None = None, mark: object | None = None
        ) -> int:
            tag = records.otel_object(self.tag, made, more=more)
            line = records.end_entry(sequence_id, action, body, exception, snapshot, time_ns, tag)
            length = len(line) if isinstance(line, bytes) else sum(map(len, line))
            if self._generation != _generation:
                return length  # the parent writes what it began
            try:
                start, end = self._log.append(
                    line,
                    (END, sequence_id),
                    durability=self._durability,
                    after=after,
                    mark=mark,
                )
            except OSError as error:
                raise SnapshotError(self.run, error, sequence_id=sequence_id) from error
            self._overlap.wrote(start, end)
            return length

        if self._chain is None:
            return append(state.json, records.end_members(state.exact, int64=int64 and state.int64))

        def append_snapshot(snapshot: Snapshot, after: object | None, mark: object | None) -> int:
            more = records.end_members((), int64=int64 and snapshot.int64, chain=snapshot.members)
            return append(snapshot.state, more, after, mark)

        return self._chain.write(state, append_snapshot)

    def settle_step(
        self,
        *,
        sequence_id: int,
        action: str,
        exception: str | None,
        time_ns: int,
        otel: Members,
    ) -> None:
        """Record that a step is over and left no state: a resume runs it again."""
        tag = records.otel_object(self.tag, otel)
        self._write(lambda: records.step_settled(sequence_id, action, exception, time_ns, tag))

    def begin_span(
        self,
        *,
        sequence_id: int,
        span_id: str,
        name: str,
        parent_span_id: str | None,
        dependencies: Sequence[str],
        time_ns: int,
        otel: Mapping[str, Any],
    ) -> None:
        """Record that a span inside a step begins; `span_id` is Burr's, not OpenTelemetry's."""
        self._write(
            lambda: records.begin_span(
                sequence_id,
                span_id,
                name,
                parent_span_id,
                dependencies,
                time_ns,
                records.otel_object(self.tag, otel),
            )
        )

    def end_span(
        self, *, sequence_id: int, span_id: str, time_ns: int, otel: Mapping[str, Any]
    ) -> None:
        """Record that a span inside a step has ended."""
        tag = records.otel_object(self.tag, otel)
        self._write(lambda: records.end_span(sequence_id, span_id, time_ns, tag))

    def attribute(
        self,
        *,
        key: str,
        value: Any,
        tags: Mapping[str, Any],
        sequence_id: int,
        span_id: str | None,
        time_ns: int,
    ) -> bytes | None:
        """Record an attribute that the user logged.

        Returns:
            The value as written; `None` as in `Otel`.
        """
        body, int64 = b"", False

        def line() -> bytes:
            nonlocal body, int64
            body, int64 = encode_value(
                value, serde_kwargs=self._serde_kwargs, run=self.run, what=f"attribute {key!r}"
            )
            tag = records.otel_object(self.tag, {})
            return records.attribute(key, body, tags, sequence_id, span_id, time_ns, tag)

        self._write(line)
        return body if int64 else None

    def begin_stream(self, *, sequence_id: int, time_ns: int) -> None:
        """Record that a stream begins."""
        self._mark("begin_stream", "stream_init_time", sequence_id, time_ns)

    def first_stream_item(self, *, sequence_id: int, time_ns: int) -> None:
        """Record a stream's first item."""
        self._mark("first_item_stream", "first_item_time", sequence_id, time_ns)

    def end_stream(self, *, sequence_id: int, items: int, time_ns: int) -> None:
        """Record that a stream has ended after so many items."""
        self._mark("end_stream", "end_time", sequence_id, time_ns, items)

    def end(self, *, time_ns: int, otel: Mapping[str, Any]) -> None:
        """Record that the session has ended and give an exclusive run free; idempotent."""
        if not self._ended:
            self._ended = True
            tag = records.otel_object(self.tag, otel)
            self._write(lambda: records.root_end(time_ns, tag))
        self.close()

    def close(self) -> None:
        """Write out everything and release file and claim; idempotent.

        A later step opens the file again.
        """
        if self._generation != _generation:
            return
        if self._chain is not None:
            self._chain.forget()
        try:
            self._log.close()
        except OSError as error:
            logger.warning("%s: its last records could not be kept: %s", self.run, error)
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.release()

    def _write_root(self, time_ns: int) -> None:
        """The first step in a forked child: only now is it known that the child writes at all."""
        forked_from, self._forked_from = self._forked_from, None
        fields = {
            **self._parents_root(forked_from),
            "owner": this_owner(),
            "forked_from": forked_from,
        }
        tag = records.otel_object(self.tag, {"kind": "fork", "time_unix_nano": time_ns})
        line = records.root(fields, None, time_ns, tag)
        self._log.repair()
        self.place(*self._log.append(line, (ROOT, -1), durability=self._durability))

    def _parents_root(self, session_id: str | None) -> dict[str, Any]:
        """What the parent's otel_root record says of the application."""
        with LogReader(self._log.folder) as log:
            record = log.newest(
                (records.ROOT,), accept=lambda r: (otel_of(r) or {}).get("session") == session_id
            )
        kept = ("app_id", "partition_key", "parent_pointer", "spawning_parent_pointer", "graph")
        return {key: value for key, value in (record or {}).items() if key in kept}

    def _mark(
        self, kind: str, time_field: str, sequence_id: int, time_ns: int, items: int | None = None
    ) -> None:
        tag = records.otel_object(self.tag, {"time_unix_nano": time_ns})
        self._write(
            lambda: records.stream_mark(kind, time_field, sequence_id, time_ns, tag, items=items)
        )

    def _write(self, line: Any) -> None:
        """Append a record that no resume needs; a failure is told once and otherwise ignored."""
        if self._generation != _generation:
            return
        try:
            start, end = self._log.append(line(), durability=self._durability)
        except Exception as error:
            if not self._told:
                self._told = True
                logger.warning(
                    "%s: records of spans, attributes or streams are dropped, because they cannot "
                    "be written: %s",
                    self.run,
                    error,
                )
        else:
            self._overlap.wrote(start, end)


def _after_fork_in_child() -> None:
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_after_fork_in_child)
