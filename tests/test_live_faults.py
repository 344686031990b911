"""Whatever fails while an application is built or runs: the state is kept, or an error says so."""

import errno
import json
import logging
import signal
import threading

import apps
import pytest
from burr.core import ApplicationBuilder, State, action
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from burr_otel import OtelTracker, SnapshotError
from burr_otel.live.root import Root
from burr_otel.live.step import LiveStep
from burr_otel.printable import printable
from burr_otel.spans import keeper, shield
from burr_otel.store.files.run import FileRun
from burr_otel.store.port import END
from burr_otel.testing import manual_roots


@action(reads=["n"], writes=["n"])
def count(state: State) -> State:
    return state.update(n=state["n"] + 1)


@pytest.fixture(autouse=True)
def as_for_users(monkeypatch):
    """Errors of our own are logged, as outside this suite."""
    monkeypatch.setattr(shield, "_loud", False)
    monkeypatch.setattr(shield, "_reported", set())


def build(tracker, app_id="a", name="count"):
    return (
        ApplicationBuilder()
        .with_actions(**{name: count})
        .with_transitions((name, name))
        .with_identifiers(app_id=app_id)
        .with_tracker(tracker)
        .initialize_from(
            tracker, resume_at_next_action=True, default_state={"n": 0}, default_entrypoint=name
        )
        .build()
    )


def stored(tracker, app_id="a"):
    return OtelTracker(tracker.project_id, tracker.raw_storage_dir).load(None, app_id)["state"]["n"]


class RaisingTracers(TracerProvider):
    def get_tracer(self, *_arguments, **_named):
        raise RuntimeError("no tracer")


class RaisingSpans(TracerProvider):
    def get_tracer(self, *_arguments, **_named):
        return self

    def start_span(self, *_arguments, **_named):
        raise RuntimeError("no span")


class RaisingMeters:
    def get_meter(self, *_arguments, **_named):
        raise RuntimeError("no meter")


class RaisingInstruments:
    def get_meter(self, *_arguments, **_named):
        return self

    def __getattr__(self, name):
        raise RuntimeError(name)


class OddResource(TracerProvider):
    @property
    def resource(self):
        found = Resource({})
        found._attributes = {5: "x", None: object(), "service.name": b"\xff"}
        return found


@pytest.mark.parametrize(
    "broken",
    [
        {"tracer_provider": RaisingTracers()},
        {"tracer_provider": RaisingSpans()},
        {"tracer_provider": OddResource()},
        {"meter_provider": RaisingMeters()},
        {"meter_provider": RaisingInstruments()},
    ],
    ids=["tracer", "span", "resource", "meter", "instrument"],
)
def test_telemetry_that_raises_costs_no_state(broken, tmp_path):
    """The run goes on, and a resume sees all of it."""
    application = build(OtelTracker("p", tmp_path, **broken))
    for _ in range(3):
        application.step()
    assert application.state["n"] == stored(OtelTracker("p", tmp_path)) == 3


def test_where_no_thread_can_be_made_state_and_spans_are_kept(spans, tmp_path, monkeypatch):
    """There are too many, or the program ends: Python 3.12 then starts none."""

    def start(_):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(keeper, "keeper", keeper.Keeper())
    monkeypatch.setattr(threading.Thread, "start", start)
    tracker = OtelTracker("p", tmp_path, tracer_provider=spans.provider)
    build(tracker).step()
    assert stored(tracker) == 1
    tracker.close()
    assert [span.name for span in spans.spans] == ["invoke_workflow p", "count"]


def test_each_state_that_is_lost_with_a_dropped_stream_is_told(tmp_path, monkeypatch, caplog):
    """Nobody is there to catch an error, so it is logged, and not the first one alone."""
    append = FileRun.append

    def failing(log, line, entry=None, **how):
        if entry is not None and entry[0] == END:
            raise OSError(errno.ENOSPC, "No space left on device")
        return append(log, line, entry, **how)

    monkeypatch.setattr(FileRun, "append", failing)
    with manual_roots() as kept:
        for app_id in ("one", "two"):
            app = apps.single(OtelTracker("p", tmp_path), apps.stream, app_id=app_id)
            _, container = app.stream_result(halt_after=["step"])
            with pytest.raises(StopIteration):
                while True:
                    next(container)
            del container
        kept.sweep()
    told = [each.getMessage() for each in caplog.records if "No space left" in each.getMessage()]
    assert [text.split(":")[0] for text in told] == ["p/one", "p/two"]


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "graph.json",
            '{"type":"application","entrypoint":"count","actions":[5],"transitions":[]}',
        ),
        ("graph.json", DEEP),
        ("graph.json", "null"),
        ("graph.json", ""),
        ("metadata.json", DEEP),
        ("metadata.json", '{"otel":5,"partition_key":{},"parent_pointer":true}'),
        ("metadata.json", "\x00" * 100),
        ("children.jsonl", DEEP),
    ],
)
def test_damaged_files_cost_no_state(name, text, tmp_path):
    """A resume over them goes on where the run was, and keeps what it does."""
    tracker = OtelTracker("p", tmp_path)
    build(tracker).step()
    tracker.close()
    (tmp_path / "p" / "a" / name).write_text(text)
    application = build(OtelTracker("p", tmp_path))
    application.step()
    assert application.state["n"] == stored(tracker) == 2


def test_a_folder_that_cannot_be_written_names_the_way_to_want_no_state(tmp_path):
    """The error says what to set where no snapshots are wanted."""
    (tmp_path / "p").write_text("a file where the project's folder should be")
    with pytest.raises(SnapshotError, match="BURR_OTEL_SNAPSHOTS=off"):
        ApplicationBuilder().with_actions(count).with_state(n=0).with_entrypoint(
            "count"
        ).with_transitions(("count", "count")).with_identifiers(app_id="a").with_tracker(
            OtelTracker("p", tmp_path)
        ).build()


def test_a_resume_after_an_action_that_the_graph_lacks_warns(tmp_path, caplog):
    """Burr says nothing, and has nothing to do next."""
    tracker = OtelTracker("p", tmp_path)
    build(tracker).step()
    assert "lacks" not in caplog.text
    build(tracker, name="renamed")
    (told,) = [line for line in caplog.messages if "lacks" in line]
    assert "'count'" in told
    assert "'renamed'" in told


def test_names_forge_no_log_line(tmp_path, caplog):
    """A newline or an escape in an app id or an action's name stays in its own line."""
    tracker = OtelTracker("p", tmp_path)
    app_id = "a\nCRITICAL forged \x1b[2J\u202e"
    build(tracker, app_id).step()
    build(tracker, app_id, name="other")
    state = {"n": 0, "x": object()}
    with caplog.at_level(logging.WARNING), pytest.raises(SnapshotError) as raised:
        raise SnapshotError(f"p/{app_id}", f"bad\n{state}")
    told = [*caplog.messages, str(raised.value)]
    assert len(told) > 1
    assert all(line.isprintable() for line in told)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b", "a b"),
        ("ä 中", "ä 中"),
        ("a\nb\r\x1b[0m", "a\\nb\\r\\x1b[0m"),
        ("\u2028\u202e\ud800", "\\u2028\\u202e\\ud800"),
    ],
)
def test_printable(text, shown):
    """What begins a line, turns text round or speaks to a terminal becomes its escape."""
    assert printable(text) == shown


def test_a_copy_of_a_damaged_name_can_be_read(tmp_path):
    """A lone surrogate in a log that others wrote becomes U+FFFD in the copy."""
    from burr_otel.store import Store
    from burr_otel.store.copying import write_plain

    tracker = OtelTracker("p", tmp_path)
    build(tracker).step()
    tracker.close()
    log = tmp_path / "p" / "a" / "log.jsonl"
    records = [{**json.loads(line), "action": "a\ud800"} for line in log.read_text().splitlines()]
    for record in records:
        record["otel"].pop("crc")
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
    write_plain(Store("p", tmp_path).read("a"), tmp_path / "copy")
    copied = [
        json.loads(line) for line in (tmp_path / "copy" / "log.jsonl").read_text().splitlines()
    ]
    assert {record["action"] for record in copied} == {"a\ufffd"}


class TimeIsUpError(Exception):
    """What a signal's handler raises, as Celery's does."""


class Signals:
    """A value; a signal comes while our code asks for the first time what it is."""

    asked = False

    def __str__(self):
        if not self.asked:
            self.asked = True
            signal.raise_signal(signal.SIGUSR1)
        return "value"

    __repr__ = __str__


@pytest.fixture(params=[SystemExit, TimeIsUpError])
def handled(request):
    """What a signal's handler raises, as servers and task queues stop a process or a task."""

    def handler(_number, _frame):
        raise request.param

    before = signal.signal(signal.SIGUSR1, handler)
    yield request.param
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("snapshots", ["full", "off"])
@pytest.mark.parametrize("what", ["inputs", "state", "attributes"])
def test_what_a_signals_handler_raises_in_our_code_reaches_the_program(
    spans, tmp_path, handled, snapshots, what
):
    """Whoever swallowed it would keep a server from stopping."""

    @action(reads=[], writes=["value"])
    def show(state, __tracer, value=None):
        if what == "attributes":
            __tracer.log_attributes(value=Signals())
        return state.update(value=Signals() if what == "state" else 1)

    tracker = OtelTracker("p", tmp_path, tracer_provider=spans.provider, snapshots=snapshots)
    inputs = {"value": Signals()} if what == "inputs" else {}
    with pytest.raises(handled):
        apps.single(tracker, show).step(inputs=inputs)


@pytest.mark.parametrize(("owner", "name"), [(Root, "touch"), (LiveStep, "start"), (Root, "leave")])
def test_what_a_signals_handler_raises_in_a_hook_reaches_the_program(
    spans, tmp_path, monkeypatch, handled, owner, name
):
    """It is neither logged nor taken for a state that cannot be kept."""
    app = build(OtelTracker("p", tmp_path, tracer_provider=spans.provider))
    monkeypatch.setattr(owner, name, lambda *_, **__: signal.raise_signal(signal.SIGUSR1))
    with pytest.raises(handled):
        app.step()
