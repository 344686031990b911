"""Opening a run for writing: folder, repair, claim, and the record that a session begins."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burr_otel.errors import InvalidIdentifierError, SnapshotError
from burr_otel.store import folder, graphs, names, records
from burr_otel.store.index import INHERITED, ROOT
from burr_otel.store.loading import LogReader
from burr_otel.store.log import Durability, LogFile, open_log
from burr_otel.store.owner import Claim, this_owner
from burr_otel.store.query import otel_of
from burr_otel.store.session import Session
from burr_otel.store.snapshot import PRIOR_STEP, SEQUENCE_ID
from burr_otel.store.values import encode_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from burr_otel.store.encoded import EncodedState

__all__ = ["Opening", "open_session", "partition_of"]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Opening:
    """Which run a session opens, and how; see `Store` and `Store.open_session`."""

    run: str
    folder: str
    app_id: str
    partition_key: str | None
    session_id: str
    durability: Durability
    exclusive: bool
    delta: bool
    serde_kwargs: Mapping[str, Any]


def open_session(
    opening: Opening,
    *,
    state: Any,
    application_graph: Any,
    pointers: tuple[Any, Any],
    otel: Mapping[str, Any],
    time_ns: int,
) -> Session:
    """Open a session; see `Store.open_session`."""
    _check_partition_key(opening.partition_key)
    graph = graphs.graph_json(application_graph)
    parent, spawning_parent = map(folder.pointer, pointers)
    fields: dict[str, Any] = {
        "app_id": opening.app_id,
        "partition_key": opening.partition_key,
        "parent_pointer": parent,
        "spawning_parent_pointer": spawning_parent,
        "graph": graphs.digest(graph),
        "owner": this_owner(),
    }
    claim = None
    try:
        made = _make_folder(opening, graph, parent, spawning_parent)
        if not made:
            _check_partition(opening)
        if opening.exclusive:
            claim = Claim(opening.folder, opening.run, opening.session_id)
        if not made:
            metadata = folder.metadata_json(opening.partition_key, parent, spawning_parent)
            fields["graph_changed"] = folder.complete_run(
                opening.folder, graph, metadata, sync=opening.durability != "none"
            )
        log = open_log(opening.folder)
        for damage in log.repair():
            logger.warning("%s was mended: %s", opening.run, damage)
        with LogReader(opening.folder) as reader:
            _tell_parents(opening, fields, reader, time_ns)
            inherited = _inherited(opening, state, reader, application_graph.entrypoint.name)
        session = Session(
            app_id=opening.app_id,
            run=opening.run,
            session_id=opening.session_id,
            log=log,
            durability=opening.durability,
            serde_kwargs=opening.serde_kwargs,
            claim=claim,
            delta=opening.delta,
        )
        _write_root(session, log, opening.durability, fields, inherited, otel, time_ns)
    except BaseException as error:
        if claim is not None:
            claim.release()
        if isinstance(error, OSError):
            raise SnapshotError(opening.run, error) from error
        raise
    return session


def partition_of(run: str) -> tuple[str | None] | None:
    """The partition key of a run in a tuple; None when nothing in its folder tells."""
    metadata = folder.read_json(f"{run}/{names.METADATA}")
    if metadata is not None:
        return (metadata.get("partition_key"),)
    try:
        with LogReader(run) as log:
            record = log.newest((records.ROOT,))
    except FileNotFoundError:
        return None
    return None if record is None else (record.get("partition_key"),)


def _make_folder(
    opening: Opening,
    graph: bytes,
    parent: Mapping[str, Any] | None,
    spawning_parent: Mapping[str, Any] | None,
) -> bool:
    if names.check_run_folder(opening.folder):
        return False
    folder.make_folders(Path(opening.folder).parent, sync=opening.durability == "fsync")
    files = {
        names.LOG: b"",
        names.GRAPH: graph,
        names.METADATA: folder.metadata_json(opening.partition_key, parent, spawning_parent),
    }
    return folder.make_run(opening.folder, files, durability=opening.durability)


def _check_partition_key(partition_key: object) -> None:
    if partition_key is None:
        return
    try:
        if isinstance(partition_key, str) and partition_key.encode() is not None:
            return
    except UnicodeEncodeError:
        pass
    raise InvalidIdentifierError(
        f"partition key {partition_key!r} cannot be kept: use valid Unicode text or None."
    )


def _check_partition(opening: Opening) -> None:
    """Refuse to mix two partitions in one log."""
    own = partition_of(opening.folder)
    if own is not None and own != (opening.partition_key,):
        raise InvalidIdentifierError(
            f"{opening.run} belongs to partition {own[0]!r}, not {opening.partition_key!r}. App "
            "ids are unique within a project: choose another one, or put the partition into it."
        )


def _tell_parents(
    opening: Opening, fields: Mapping[str, Any], reader: LogReader, time_ns: int
) -> None:
    """Note the run in its parents' folders, once for each place that it came from."""
    earlier = (reader.newest((records.ROOT,)) if reader.size else None) or {}
    child = {
        "app_id": opening.app_id,
        "sequence_id": None,
        "partition_key": opening.partition_key,
    }
    for field, event in (("parent_pointer", "fork"), ("spawning_parent_pointer", "spawn_start")):
        parent = fields[field]
        if parent is None or earlier.get(field) == parent:
            continue
        try:
            folder.add_child(
                str(Path(opening.folder).with_name(names.check_app_id(parent["app_id"]))),
                child,
                event_type=event,
                sequence_id=parent["sequence_id"],
                time_ns=time_ns,
                sync=opening.durability == "fsync",
            )
        except InvalidIdentifierError:
            continue  # the parent was kept by another persister, which takes other names
        except OSError as error:
            logger.warning("%s cannot be listed as a child of its parent: %s", opening.run, error)


def _inherited(
    opening: Opening, state: Any, reader: LogReader, entrypoint: str
) -> tuple[EncodedState, dict[str, Any]] | None:
    """The state that the application began with, if a restart would lose it otherwise.

    Only a run without a finished step needs it. In any other run it would hide the newest step
    from `load`: a server that reads an application's state while another request adds a step
    builds it from the step before.
    """
    if SEQUENCE_ID not in state and PRIOR_STEP not in state:
        return None
    if reader.newest((records.END_ENTRY,)) is not None:
        return None
    encoded = encode_state(
        state, serde_kwargs=opening.serde_kwargs, run=opening.run, sequence_id=None
    )
    prior, sequence_id = state.get(PRIOR_STEP), state.get(SEQUENCE_ID)
    fields = {
        "inherited_sequence_id": sequence_id,
        "position": entrypoint if prior is None else prior,
        "status": "failed" if prior is None else "completed",
    }
    earlier = reader.newest((records.ROOT,), with_state=True)
    if (
        earlier is not None
        and earlier["state"] == records.parse(encoded.json)
        and (otel_of(earlier) or {}).get("exact", []) == list(encoded.exact)
        and all(earlier.get(name) == value for name, value in fields.items())
    ):
        return None
    return encoded, fields


def _write_root(
    session: Session,
    log: LogFile,
    durability: Durability,
    fields: dict[str, Any],
    inherited: tuple[EncodedState, dict[str, Any]] | None,
    otel: Mapping[str, Any],
    time_ns: int,
) -> None:
    state, more, entry = None, b"", (ROOT, -1)
    if inherited is not None:
        state, position = inherited
        fields |= position
        more = records.end_members(state.exact, int64=state.int64)
        number = position["inherited_sequence_id"]
        entry = INHERITED, -1 if number is None else number
    tag = records.otel_object(session.tag, otel, more=more)
    line = records.root(fields, state, time_ns, tag)
    # Never buffered: without a first record, other processes do not see the run.
    session.place(
        *log.append(line, entry, durability="fsync" if durability == "fsync" else "flush")
    )
