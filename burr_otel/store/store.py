"""The runs of one project: finding, loading, opening and deleting them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from burr_otel.errors import (
    InvalidIdentifierError,
    RunLockedError,
    SnapshotError,
    UnknownRunError,
    UnknownSequenceError,
)
from burr_otel.interrupts import is_interrupt
from burr_otel.printable import logger
from burr_otel.records import (
    BEGIN_ENTRY,
    END_ENTRY,
    ROOT,
    BeginRoot,
    checksum,
    sound_text,
    state_data,
)
from burr_otel.records.write import local_time
from burr_otel.store import port
from burr_otel.store.encoded import PRIOR_STEP, SEQUENCE_ID, EncodedState
from burr_otel.store.engines import open_engine
from burr_otel.store.graphs import digest
from burr_otel.store.names import check_app_id, check_partition_key, check_project, is_partition_key
from burr_otel.store.port import (
    ALL,
    DELETION,
    Claim,
    Durability,
    Engine,
    NewRun,
    Partition,
    RunLog,
    Wanted,
)
from burr_otel.store.process import Patience, this_owner
from burr_otel.store.reading import kinds_of, newest_record, otel_of
from burr_otel.store.session import Session
from burr_otel.store.stored_run import StoredRun, check_unused

if TYPE_CHECKING:
    from burr.core.persistence import PersistedStateData

_PATIENCE_S: Final = 10.0  # how long a run is opened again that others are deleting
_STATE_TYPES: Final = (END_ENTRY, ROOT)


class RunHistory(NamedTuple):
    """What a resumed run needs to know of its past.

    The ``otel`` objects of its newest otel_root record and of its newest finished step; None in a
    log of Burr's own client.
    """

    last_root: dict[str, Any] | None
    last_step: dict[str, Any] | None


class Store:
    """The runs of one project.

    `storage_dir` is a folder, or the URL of a database or bucket (see `engines`). Nothing is made
    there until a session is opened. Can be pickled, and shared by threads. Where a partition key is
    optional, `ALL` stands for whichever: the run that was made first.
    """

    def __init__(
        self,
        project: str,
        storage_dir: str | os.PathLike[str] = "~/.burr",
        *,
        serde_kwargs: Mapping[str, Any] | None = None,
        durability: Durability = "flush",
        exclusive: bool = False,
        delta: bool = False,
    ) -> None:
        self.project = check_project(project)
        self._storage_dir = storage_dir
        self.engine: Engine = open_engine(storage_dir)
        self.serde_kwargs = dict(serde_kwargs or {})
        self.durability: Durability = durability
        self.exclusive, self.delta = exclusive, delta

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "engine"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.engine = open_engine(self._storage_dir)

    @property
    def place(self) -> str:
        """What messages call the place of the project."""
        return f"{self.engine.place}/{self.project}"

    def exists(self, app_id: str, partition_key: Partition = ALL) -> bool:
        """Whether the run has a record."""
        run = self._find(app_id, partition_key)
        return run is not None and run.extent().size_bytes > 0

    def runs(self, partition_key: Partition = ALL) -> Iterator[StoredRun]:
        """Runs of a partition, in no order, each read only as far as it is asked."""
        return map(StoredRun, self.engine.runs(self.project, partition_key))

    def list_app_ids(self, partition_key: Partition = ALL) -> list[str]:
        """App ids of the project's runs, sorted: of one partition, of none (None), or of all."""
        return sorted(set(self.engine.app_ids(self.project, partition_key)))

    def list_partition_keys(self) -> list[str | None]:
        """Partition keys that have runs, None first."""
        found = {run.partition_key for run in self.engine.runs(self.project)}
        return sorted(found, key=lambda key: (key is not None, key or ""))

    def load(
        self, partition_key: str | None, app_id: str | None, sequence_id: int | None = None
    ) -> PersistedStateData | None:
        """Load a state as Burr's `initialize_from` wants it, from a bounded part of the log.

        Without a sequence id, it is the state of the step that finished last, in the order of the
        log. None when there is no such run in that partition, or no step of it has finished.
        """
        partition_key = partition_key or None
        ahead = kinds_of(_STATE_TYPES, with_state=True), sequence_id
        run = None if app_id is None else self._find(app_id, partition_key, ahead)
        if app_id is None or run is None:
            return None
        name = f"{self.project}/{app_id}"
        record = _state_record(run, sequence_id)
        if record is None:
            if sequence_id is None or not run.extent().size_bytes:
                return None
            raise UnknownSequenceError(name, sequence_id)
        from burr_otel.store import snapshot  # noqa: PLC0415 - imports Burr

        try:
            return snapshot.persisted_state(
                record,
                partition_key=partition_key,
                app_id=app_id,
                created_ns=run.extent().changed_ns,
                serde_kwargs=self.serde_kwargs,
            )
        except Exception as error:
            if is_interrupt(error):
                raise
            fresh = _state_record(run, sequence_id) or record
            raise snapshot.load_error(
                fresh, error, run=name, serde_kwargs=self.serde_kwargs
            ) from error

    def load_state(self, app_id: str, sequence_id: int = -1) -> tuple[dict[str, Any], str]:
        """State and position of a step, -1: the one finished last, as Burr's `load_state` does."""
        run = self._known(app_id, ALL)
        record = _state_record(run, None if sequence_id == -1 else sequence_id)
        if record is None:
            raise UnknownSequenceError(f"{self.project}/{app_id}", sequence_id)
        from burr_otel.store.snapshot import plain_state  # noqa: PLC0415 - imports Burr

        return plain_state(record)

    def history(self, app_id: str, partition_key: Partition = ALL) -> RunHistory | None:
        """What a new session of the run should link to; None for an unknown run."""
        run = self._find(app_id, partition_key)
        if run is None:
            return None
        root, step = newest_record(run, (ROOT,)), newest_record(run, (END_ENTRY,))
        return RunHistory(otel_of(root), otel_of(step))

    def find_step(
        self, app_id: str, sequence_id: int | None, partition_key: Partition = ALL
    ) -> dict[str, Any] | None:
        """The newest record of a step, or of the one that finished last, without its state."""
        run = self._find(app_id, partition_key)
        if run is None:
            return None
        kinds = (END_ENTRY,) if sequence_id is None else (BEGIN_ENTRY, END_ENTRY)
        record = newest_record(run, kinds, sequence_id=sequence_id)
        return None if record is None else {k: v for k, v in record.items() if k != "state"}

    def read(self, app_id: str, partition_key: Partition = ALL) -> StoredRun:
        """Everything that is stored of a run, whatever its condition."""
        return StoredRun(self._known(app_id, partition_key))

    def delete(self, app_id: str, partition_key: Partition = ALL, *, dead_before_ns: int) -> None:
        """Delete a run, unless a session of it is open whose owner lives; see `check_unused`."""
        run = self._known(app_id, partition_key)
        try:
            check_unused(run, dead_before_ns)
            claim = run.claim(f"{DELETION}{app_id}")
            try:
                with run.undisturbed():
                    check_unused(run, dead_before_ns)  # a session may have begun meanwhile
                    self.engine.delete(run)
            finally:
                claim.release()
                run.close()
        except FileNotFoundError:  # somebody else has deleted it
            raise UnknownRunError(app_id, self.place) from None

    def open_session(
        self,
        app_id: str,
        *,
        partition_key: str | None,
        state: Any,
        graph: bytes,
        parent_pointer: Any,
        spawning_parent_pointer: Any,
        session_id: str,
        begin: BeginRoot,
    ) -> Session:
        """Open a run for writing: make or mend its place, and record that a session begins."""
        run, key = f"{self.project}/{check_app_id(app_id)}", check_partition_key(partition_key)
        origin = {
            "partition_key": key,
            "parent_pointer": _pointer(parent_pointer),
            "spawning_parent_pointer": _pointer(spawning_parent_pointer),
        }
        fields = {"app_id": app_id, **origin, "graph": digest(graph), "owner": this_owner()}
        told = {"type": "application_metadata", **origin, "otel": {"app_id": app_id}}
        text = orjson.dumps(told)[:-2]
        metadata = b'%b,"crc":"%08x"}}' % (text, checksum(text))
        new = NewRun(self.project, app_id, key, metadata, graph)
        patience = Patience(_PATIENCE_S)
        while True:
            try:
                return self._begun(new, session_id, begin, fields, state)
            except RunLockedError as error:  # noqa: PERF203 - it is tried few times
                if not error.holder.startswith(DELETION) or not patience.pause():
                    raise
            except OSError as error:
                # What is not there has been deleted since it was found, and is made anew.
                if not isinstance(error, FileNotFoundError) or not patience.pause():
                    raise SnapshotError(run, error) from error

    def _begun(
        self, new: NewRun, session_id: str, begin: BeginRoot, fields: dict[str, Any], state: Any
    ) -> Session:
        """A session that has begun, of a run that is there or is made."""
        log, made = self.engine.create(new, durability=self.durability)
        claim: Claim | None = log.claim(session_id) if self.exclusive else None
        try:
            if not made:
                changed = log.complete(new.metadata, new.graph, sync=self.durability != "none")
                fields = fields | {"graph_changed": changed}
            for damage in log.repair():
                logger.warning("%s/%s was mended: %s", self.project, new.app_id, damage)
            self._tell_parents(log, fields, begin.time_ns)
            encoded, position = self._inherited(log, state, new.graph)
            session = Session(
                log,
                session_id,
                self.durability,
                claim=claim,
                exclusive=self.exclusive,
                delta=self.delta,
            )
            begin = begin._replace(fields=fields | position)
            more, entry = b"", (port.ROOT, -1)
            if encoded is not None:
                begin = begin._replace(state=encoded.fragments)
                exact = b'"exact":%b,' % orjson.dumps(encoded.exact) if encoded.exact else b""
                more = b',%b"int64":%b' % (exact, b"true" if encoded.int64 else b"false")
                number = position["inherited_sequence_id"]
                entry = port.INHERITED, -1 if number is None else number
            session.begin(begin, more, entry)
        except BaseException:
            if claim is not None:
                claim.release()
            raise
        return session

    def _tell_parents(self, log: RunLog, fields: Mapping[str, Any], time_ns: int) -> None:
        """Note the run with its parents, once for each place that it came from."""
        earlier = newest_record(log, (ROOT,)) or {}
        for field, event in (
            ("parent_pointer", "fork"),
            ("spawning_parent_pointer", "spawn_start"),
        ):
            parent = fields[field]
            if parent is None or earlier.get(field) == parent:
                continue
            child = {"app_id": log.app_id, "sequence_id": None}
            line = {
                "type": "child_application_data",
                "child": {
                    "type": "pointer_data",
                    **child,
                    "partition_key": fields["partition_key"],
                },
                "event_time": local_time(time_ns).decode(),
                "event_type": event,
                "sequence_id": parent["sequence_id"],
            }
            try:
                found = self._find(parent["app_id"], parent["partition_key"])
                if found is not None:
                    found.add_child(orjson.dumps(line), sync=self.durability == "fsync")
            except InvalidIdentifierError:
                continue  # the parent was kept by another persister, which takes other names
            except OSError as error:
                run = f"{log.project}/{log.app_id}"
                logger.warning("%s cannot be listed as a child of its parent: %s", run, error)

    def _inherited(
        self, log: RunLog, state: Any, graph: bytes
    ) -> tuple[EncodedState | None, dict[str, Any]]:
        """The state that the application began with, if a restart would lose it otherwise."""
        if SEQUENCE_ID not in state and PRIOR_STEP not in state:
            return None, {}
        # With a finished step it would hide the newest one from `load`: a server that reads an
        # application's state while another request adds a step builds it from the step before.
        if newest_record(log, (END_ENTRY,)) is not None:
            return None, {}
        from burr_otel.store.values import encode_state  # noqa: PLC0415 - imports Burr

        run = f"{log.project}/{log.app_id}"
        encoded = encode_state(state, serde_kwargs=self.serde_kwargs, run=run, sequence_id=None)
        prior = state.get(PRIOR_STEP)
        position = {
            "inherited_sequence_id": state.get(SEQUENCE_ID),
            "position": orjson.loads(graph)["entrypoint"] if prior is None else prior,
            "status": "failed" if prior is None else "completed",
        }
        earlier = newest_record(log, (ROOT,), with_state=True)
        if (
            earlier is not None
            and earlier["state"] == state_data(encoded.fragments)
            and (otel_of(earlier) or {}).get("exact", []) == list(encoded.exact)
            and all(earlier.get(name) == value for name, value in position.items())
        ):
            return None, {}
        return encoded, position

    def _known(self, app_id: str, partition_key: Partition) -> RunLog:
        run = self._find(app_id, partition_key)
        if run is None:
            nearest = difflib.get_close_matches(app_id, self.list_app_ids(), n=3)
            raise UnknownRunError(app_id, self.place, nearest)
        return run

    def _find(
        self, app_id: str, partition_key: Partition, ahead: Wanted | None = None
    ) -> RunLog | None:
        check_app_id(app_id)
        if isinstance(partition_key, str) and not is_partition_key(partition_key):
            return None
        key = None if partition_key == "" else partition_key  # as for Burr's client
        run = self.engine.find(self.project, app_id, key, ahead)
        if run is not None:
            run.flush()
        return run


def _state_record(run: RunLog, sequence_id: int | None) -> dict[str, Any] | None:
    return newest_record(run, _STATE_TYPES, sequence_id=sequence_id, with_state=True)


def _pointer(value: Any) -> dict[str, Any] | None:
    """A parent pointer in Burr's layout; None when there is none, or it names no run."""
    app_id = getattr(value, "app_id", None)  # None in that of a resumed application
    if app_id is None:
        return None
    partition_key, sequence_id = value.partition_key, value.sequence_id
    return {
        "type": "pointer_data",
        "app_id": sound_text(str(app_id)),
        "sequence_id": sequence_id if isinstance(sequence_id, int) else None,
        "partition_key": None if partition_key is None else sound_text(str(partition_key)),
    }
