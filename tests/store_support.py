"""What the tests of the store share: a store, a graph, and sessions with few words."""

import asyncio
import contextlib
import itertools
import tempfile
import warnings
from pathlib import Path

import orjson
import pytest
from burr.core import ApplicationBuilder, State, action
from burr.core.application import ApplicationGraph
from burr.tracking import LocalTrackingClient
from burr.tracking.server.backend import LocalBackend
from pydantic import PydanticDeprecatedSince20

from burr_otel.store import Session, Store, chain, encode_state
from burr_otel.store.materialize import write_plain

TRACE = "0af7651916cd43dd8448eb211c80319c"
_session_ids = itertools.count(1)


@action(reads=["n"], writes=["n"])
def step(state: State) -> State:
    return state.update(n=state["n"] + 1)


@action(reads=["n"], writes=["n"])
def other(state: State, amount: int, note: str = "") -> State:
    return state.update(n=state["n"] + amount)


def graph(*actions, entrypoint="step") -> ApplicationGraph:
    """The graph object that Burr hands to trackers."""
    named = {each.__name__: each for each in actions or (step,)}
    names = list(named)
    app = (
        ApplicationBuilder()
        .with_actions(**named)
        .with_transitions(*itertools.pairwise([*names, names[0]]))
        .with_entrypoint(entrypoint)
        .with_state(n=0)
        .build()
    )
    return app.graph if isinstance(app.graph, ApplicationGraph) else app._public_facing_graph


GRAPH = graph()


SNAPSHOTS = ("full", "delta")
"""What the tests of faults go through twice."""


def keep(kind: str, monkeypatch=None):
    """What a store needs to keep snapshots of that kind.

    Differences are then written for the small states of the tests too, for which they do not pay.
    """
    if kind == "delta":
        (monkeypatch or pytest.MonkeyPatch()).setattr(chain, "_RECORD_BYTES", -1_000_000)
    return {"delta": kind == "delta"}


def begin(store: Store, app_id="a", *, state=None, session_id=None, **more) -> Session:
    """Open a session."""
    arguments = {
        "partition_key": None,
        "application_graph": GRAPH,
        "parent_pointer": None,
        "spawning_parent_pointer": None,
        "otel": {"kind": "root", "trace_id": TRACE, "span_id": "00f067aa0ba902b7", "flags": 1},
        "time_ns": 1_700_000_000_000_000_000,
        **more,
    }
    return store.open_session(
        app_id,
        state=State(state or {}),
        session_id=session_id or f"session-{next(_session_ids)}",
        **arguments,
    )


def run_step(session: Session, sequence_id: int, values=None, *, exception=None, serde_kwargs=None):
    """One step with its snapshot; the number of bytes of the end record."""
    time_ns = 1_700_000_000_000_000_000 + sequence_id * 1_000_000
    session.begin_step(
        sequence_id=sequence_id,
        action="step",
        inputs={},
        time_ns=time_ns,
        otel={"trace_id": TRACE, "span_id": f"{sequence_id:016x}"},
    )
    return finish_step(session, sequence_id, values, exception=exception, serde_kwargs=serde_kwargs)


def finish_step(session, sequence_id, values=None, *, exception=None, serde_kwargs=None):
    """The end of a step alone."""
    values = {"n": sequence_id} if values is None else values
    state = State({**values, "__SEQUENCE_ID": sequence_id, "__PRIOR_STEP": "step"})
    return session.end_step(
        sequence_id=sequence_id,
        action="step",
        result={"n": sequence_id},
        exception=exception,
        state=encode_state(
            state, serde_kwargs=serde_kwargs or {}, run=session.run, sequence_id=sequence_id
        ),
        time_ns=1_700_000_000_000_500_000 + sequence_id * 1_000_000,
        otel={"trace_id": TRACE, "span_id": f"{sequence_id:016x}", "outcome": "ok"},
    )


def steps(store: Store, count: int, app_id="a", **more) -> Path:
    """A finished run of so many steps; its log."""
    session = begin(store, app_id, **more)
    for number in range(count):
        run_step(session, number)
    session.end(time_ns=1_800_000_000_000_000_000, otel={})
    return store.run_path(app_id) / "log.jsonl"


@contextlib.contextmanager
def memory_folder():
    """A folder in memory where the machine has that, for tests that sync or make many files."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def log_records(path: Path) -> list:
    """The records of a log, read as the Burr UI reads them: every line, strictly."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines(keepends=True)]


def values_of(loaded) -> dict:
    """The user's values of what `load` returned."""
    internal = ("__SEQUENCE_ID", "__PRIOR_STEP")
    return {key: value for key, value in loaded["state"].get_all().items() if key not in internal}


def read_by_burr(store: Store, app_id="a", lost=()) -> tuple:
    """What Burr's own readers see: the UI's steps, and what its client loads.

    Both fail on the least damage.
    """
    storage_dir = str(store.path.parent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PydanticDeprecatedSince20)  # Burr's, not ours
        backend = LocalBackend(storage_dir)
        logs = asyncio.run(backend.get_application_logs(None, store.project, app_id, None))
        listed, total = asyncio.run(backend.list_apps(None, store.project, None))
    assert len(listed) == min(total, 100)
    try:
        return logs.steps, LocalTrackingClient(store.project, storage_dir).load(None, app_id)
    except ValueError as error:
        if "burr_otel_delta" not in str(error):
            raise
    with memory_folder() as copies:
        copied = write_plain(store.read(app_id), copies / store.project / app_id)
        assert copied.lost == tuple(lost)
        return logs.steps, LocalTrackingClient(store.project, str(copies)).load(None, app_id)
