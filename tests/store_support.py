"""What the tests of the store share: a store, a graph, and sessions with few words."""

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

import orjson
import pytest
from burr.core import ApplicationBuilder, State, action
from burr.core.application import ApplicationGraph
from burr.tracking import LocalTrackingClient
from burr.tracking.server.backend import LocalBackend
from pydantic import PydanticDeprecatedSince20

from burr_otel.records import (
    BeginRoot,
    BeginStep,
    Document,
    EndRoot,
    EndStep,
    Logged,
    Origin,
    Raised,
    SpanIds,
)
from burr_otel.store import (
    Session,
    Store,
    delta,
    graph_json,
    is_url,
)
from burr_otel.store.copying import write_plain
from burr_otel.store.values import encode_mapping, encode_state, encode_value

TRACE = "0af7651916cd43dd8448eb211c80319c"
CHILD = Path(__file__).with_name("store_child.py")
_session_ids = itertools.count(1)


def child(*arguments, kind="full", most_files=1024):
    """What a command of `store_child` prints that may have so many files open."""
    limited = ["sh", "-c", f'ulimit -n {most_files}; exec "$@"', "sh"]
    done = subprocess.run(
        [*limited, sys.executable, CHILD, *map(str, arguments)],
        env={**os.environ, "STORE_CHILD_SNAPSHOTS": kind},
        stdout=subprocess.PIPE,
        check=True,
        timeout=240,
    )
    return json.loads(done.stdout)


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
        (monkeypatch or pytest.MonkeyPatch()).setattr(delta, "_RECORD_BYTES", -1_000_000)
    return {"delta": kind == "delta"}


def begin(store: Store, app_id="a", *, state=None, session_id=None, **more) -> Session:
    """Open a session."""
    arguments = {
        "partition_key": None,
        "parent_pointer": None,
        "spawning_parent_pointer": None,
        "graph": graph_json(more.pop("application_graph", GRAPH)),
        "begin": BeginRoot({}, 1_700_000_000_000_000_000, Origin(ids_of(0x00F067AA0BA902B7))),
        **more,
    }
    return store.open_session(
        app_id,
        state=State(state or {}),
        session_id=session_id or f"session-{next(_session_ids)}",
        **arguments,
    )


ENDED = EndRoot(1_800_000_000_000_000_000, "ok")


def ids_of(span_id):
    """A span of the trace of all tests."""
    return SpanIds(int(TRACE, 16), span_id)


def start_step(session, sequence_id=0, *, action="step", inputs=None, time_ns=1, span_id=None):
    """The begin of a step alone."""
    text, _ = encode_mapping(inputs or {}, serde_kwargs={}, run=session.run, what="input")
    origin = None if span_id is None else Origin(ids_of(span_id))
    session.begin_step(BeginStep(sequence_id, action, Document(text), time_ns, origin))


def log_attribute(session, key="k", value=1, *, tags=None, sequence_id=0, span_id=None, time_ns=1):
    """An attribute that the user logged."""
    text, _ = encode_value(value, serde_kwargs={}, run=session.run, what=f"attribute {key!r}")
    session.append(Logged(key, Document(text), tags or {}, sequence_id, span_id, time_ns))


def settled(sequence_id=0, time_ns=3):
    """The record of a step that left no state."""
    return EndStep(sequence_id, "step", None, None, None, time_ns, "abandoned")


def run_step(session: Session, sequence_id: int, values=None, *, exception=None, serde_kwargs=None):
    """One step with its snapshot; the number of bytes of the end record."""
    time_ns = 1_700_000_000_000_000_000 + sequence_id * 1_000_000
    start_step(session, sequence_id, time_ns=time_ns, span_id=sequence_id + 1)
    return finish_step(session, sequence_id, values, exception=exception, serde_kwargs=serde_kwargs)


def finish_step(
    session, sequence_id, values=None, *, exception=None, serde_kwargs=None, result=None
):
    """The end of a step alone."""
    values = {"n": sequence_id} if values is None else values
    state = encode_state(
        State({**values, "__SEQUENCE_ID": sequence_id, "__PRIOR_STEP": "step"}),
        serde_kwargs=serde_kwargs or {},
        run=session.run,
        sequence_id=sequence_id,
    )
    text, exact = encode_mapping(
        {"n": sequence_id} if result is None else result,
        serde_kwargs=serde_kwargs or {}, run=session.run, what="result",
    )  # fmt: skip
    record = EndStep(
        sequence_id=sequence_id,
        action="step",
        result=Document(text),
        raised=None if exception is None else Raised("x.Error", "boom", exception),
        state=None,
        time_ns=1_700_000_000_000_500_000 + sequence_id * 1_000_000,
        outcome="ok" if exception is None else "error",
        ids=ids_of(sequence_id + 1),
        grown=session.grown(state),
    )
    return session.end_step(record, state, exact=exact)


def steps(store: Store, count: int, app_id="a", **more) -> Path | None:
    """A finished run of so many steps; its log, where that is a file."""
    session = begin(store, app_id, **more)
    for number in range(count):
        run_step(session, number)
    session.end(ENDED)
    return None if is_url(store.place) else folder_of(store, app_id) / "log.jsonl"


def records_of(store: Store, app_id="a") -> list:
    """The records of a run as they are stored, read strictly."""
    return [orjson.loads(line.data) for line in store.read(app_id).forward()]


def sealed(record: dict) -> bytes:
    """The line of a record with a checksum that fits."""
    otel = {key: value for key, value in record["otel"].items() if key != "crc"}
    text = json.dumps({**record, "otel": otel}, ensure_ascii=False, separators=(",", ":"))
    line = text.encode()[:-2]
    return b'%b,"crc":"%08x"}}\n' % (line, zlib.crc32(line))


def folder_of(store: Store, app_id="a") -> Path:
    """Where a store of files keeps a run, whether it is there or not."""
    return Path(store.engine.folder_of(store.project, app_id))


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
    storage_dir = str(Path(store.place).parent)
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
