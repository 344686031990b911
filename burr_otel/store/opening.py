"""Opening a run for writing: its place, repair, claim, and the record that a session begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from burr_otel.errors import InvalidIdentifierError, SnapshotError
from burr_otel.printable import logger_of_lines
from burr_otel.records import END_ENTRY, ROOT, BeginRoot, encode_text, local_time, state_data
from burr_otel.store import port
from burr_otel.store.encoded import EncodedState
from burr_otel.store.graphs import digest
from burr_otel.store.loading import newest_record
from burr_otel.store.names import check_app_id, is_partition_key
from burr_otel.store.owner import this_owner
from burr_otel.store.port import Claim, RunLog
from burr_otel.store.query import otel_of
from burr_otel.store.session import Session
from burr_otel.store.snapshot import PRIOR_STEP, SEQUENCE_ID
from burr_otel.store.store import Store

logger = logger_of_lines(__name__)


def open_session(
    store: Store,
    app_id: str,
    partition_key: str | None,
    *,
    state: Any,
    graph: bytes,
    pointers: tuple[Any, Any],
    session_id: str,
    begin: BeginRoot,
) -> Session:
    """Open a session; see `Store.open_session`."""
    _check_partition_key(partition_key)
    parent, spawning_parent = map(_pointer, pointers)
    graph_digest = digest(graph)
    fields: dict[str, Any] = {
        "app_id": app_id,
        "partition_key": partition_key,
        "parent_pointer": parent,
        "spawning_parent_pointer": spawning_parent,
        "graph": graph_digest,
        "owner": this_owner(),
    }
    metadata = orjson.dumps(
        {
            "type": "application_metadata",
            "partition_key": partition_key,
            "parent_pointer": parent,
            "spawning_parent_pointer": spawning_parent,
            "otel": {"app_id": app_id},
        }
    )
    run = f"{store.project}/{app_id}"
    claim: Claim | None = None
    try:
        log, made = store.engine.create(
            store.project,
            app_id,
            partition_key,
            metadata=metadata,
            graph=graph,
            durability=store.durability,
        )
        if store.exclusive:
            claim = log.claim(session_id)
        if not made:
            sync = store.durability != "none"
            fields["graph_changed"] = log.complete(metadata, graph, sync=sync)
        for damage in log.repair():
            logger.warning("%s was mended: %s", run, damage)
        _tell_parents(store, log, fields, begin.time_ns)
        inherited = _inherited(store, log, state, graph)
        session = Session(
            log,
            session_id,
            store.durability,
            claim=claim,
            exclusive=store.exclusive,
            delta=store.delta,
        )
        more, entry, fragments = b"", (port.ROOT, -1), None
        if inherited is not None:
            encoded, position = inherited
            fields |= position
            exact = b'"exact":%b,' % orjson.dumps(encoded.exact) if encoded.exact else b""
            more = b',%b"int64":%b' % (exact, b"true" if encoded.int64 else b"false")
            number = position["inherited_sequence_id"]
            entry = port.INHERITED, -1 if number is None else number
            fragments = encoded.fragments
        session.begin(begin._replace(fields=fields, state=fragments), more, entry)
    except BaseException as error:
        if claim is not None:
            claim.release()
        if isinstance(error, OSError):
            raise SnapshotError(run, error) from error
        raise
    return session


def _check_partition_key(partition_key: object) -> None:
    if partition_key is None or is_partition_key(partition_key):
        return
    raise InvalidIdentifierError(
        f"partition key {partition_key!r} cannot be kept: use valid Unicode text or None."
    )


def _pointer(value: Any) -> dict[str, Any] | None:
    """A parent pointer in Burr's layout; None when there is none, or it names no run.

    A resumed application has a pointer whose app id is None.
    """
    app_id = getattr(value, "app_id", None)
    if app_id is None:
        return None
    partition_key, sequence_id = value.partition_key, value.sequence_id
    return {
        "type": "pointer_data",
        "app_id": _clean(app_id),
        "sequence_id": sequence_id if isinstance(sequence_id, int) else None,
        "partition_key": None if partition_key is None else _clean(partition_key),
    }


def _clean(value: Any) -> str:
    return str(orjson.loads(encode_text(str(value))))


def _tell_parents(store: Store, log: RunLog, fields: Mapping[str, Any], time_ns: int) -> None:
    """Note the run with its parents, once for each place that it came from."""
    earlier = newest_record(log, (ROOT,)) or {}
    for field, event in (("parent_pointer", "fork"), ("spawning_parent_pointer", "spawn_start")):
        parent = fields[field]
        if parent is None or earlier.get(field) == parent:
            continue
        line = orjson.dumps(
            {
                "type": "child_application_data",
                "child": {
                    "type": "pointer_data",
                    "app_id": fields["app_id"],
                    "sequence_id": None,
                    "partition_key": fields["partition_key"],
                },
                "event_time": local_time(time_ns).decode(),
                "event_type": event,
                "sequence_id": parent["sequence_id"],
            }
        )
        try:
            parent_id = check_app_id(parent["app_id"])
            found = store.engine.find(store.project, parent_id, parent["partition_key"] or None)
            if found is not None:
                found.add_child(line, sync=store.durability == "fsync")
        except InvalidIdentifierError:
            continue  # the parent was kept by another persister, which takes other names
        except OSError as error:
            run = f"{log.project}/{log.app_id}"
            logger.warning("%s cannot be listed as a child of its parent: %s", run, error)


def _inherited(
    store: Store, log: RunLog, state: Any, graph: bytes
) -> tuple[EncodedState, dict[str, Any]] | None:
    """The state that the application began with, if a restart would lose it otherwise.

    Only a run without a finished step needs it. In any other run it would hide the newest step
    from `load`: a server that reads an application's state while another request adds a step
    builds it from the step before.
    """
    if SEQUENCE_ID not in state and PRIOR_STEP not in state:
        return None
    if newest_record(log, (END_ENTRY,)) is not None:
        return None
    from burr_otel.store.values import encode_state  # noqa: PLC0415 - imports Burr

    run = f"{log.project}/{log.app_id}"
    encoded = encode_state(state, serde_kwargs=store.serde_kwargs, run=run, sequence_id=None)
    prior, sequence_id = state.get(PRIOR_STEP), state.get(SEQUENCE_ID)
    fields = {
        "inherited_sequence_id": sequence_id,
        "position": orjson.loads(graph)["entrypoint"] if prior is None else prior,
        "status": "failed" if prior is None else "completed",
    }
    earlier = newest_record(log, (ROOT,), with_state=True)
    if (
        earlier is not None
        and earlier["state"] == state_data(encoded.fragments)
        and (otel_of(earlier) or {}).get("exact", []) == list(encoded.exact)
        and all(earlier.get(name) == value for name, value in fields.items())
    ):
        return None
    return encoded, fields
