"""Which large values go on from the ones that a session wrote last, without holding these."""

import json
import subprocess
import sys
from pathlib import Path

import apps
import pytest
from burr.core import State, action
from replay_support import assert_same, ours, stored_spans
from store_support import begin, finish_step, log_records, run_step

import burr_otel
from burr_otel import OtelTracker
from burr_otel.errors import SnapshotError
from burr_otel.spans import keeper
from burr_otel.store import Store
from burr_otel.store.values import encode_state


@pytest.fixture(params=[False, True], ids=["full", "delta"])
def session(tmp_path, request):
    return begin(Store("proj", tmp_path, delta=request.param))


def encoded(values):
    return encode_state(values, serde_kwargs={}, run="proj/a", sequence_id=1)


LONG = ["item " * 10] * 50
LENGTH = len(encoded({"v": LONG}).fragments["v"])


@pytest.mark.parametrize(
    ("before", "after", "shared"),
    [
        (LONG, [*LONG, "new"], (LENGTH - 1, 50)),
        (LONG, [*LONG, {"a": 1}, 2], (LENGTH - 1, 50)),
        (LONG, LONG, (LENGTH - 1, 50)),
        ("é" * 1000, "é" * 1000 + "\n", (2001, 1000)),
        ([*LONG, 1], [*LONG, 12], None),
        ([*LONG, 1], [*LONG, 1, 2], (LENGTH + 1, 51)),
        (LONG, LONG[:-1], None),
        (LONG, ["other", *LONG], None),
        (LONG, [*LONG[:-1], "other " * 9, "new"], None),
        (LONG, "x" * 5000, None),
        ("x" * 5000, "y" + "x" * 5000, None),
        (["short"], ["short", "er"], None),
        ({str(n): "x" * 50 for n in range(50)}, {str(n): "x" * 50 for n in range(51)}, None),
        ([(1,)] * 500, [(1,)] * 501, None),
    ],
    ids=[
        "list", "two-items", "unchanged", "text", "number-goes-on", "after-a-number", "shorter",
        "in-front", "last-changed", "other-type", "text-in-front", "small", "dict", "no-plain-json",
    ],
)  # fmt: skip
def test_a_value_goes_on_where_its_earlier_items_are_its_first(session, before, after, shared):
    """Bytes and items (or characters) that did not change; nothing of what is small or no list."""
    run_step(session, 0, {"v": before, "n": 0})
    state = encoded({"v": after, "n": 1})
    expected = {} if shared is None else {"v": shared}
    assert session.grown(state) == expected
    assert session.grown(encoded({"v": after, "n": 1})) == expected, "asking changes nothing"
    finish_step(session, 1, {"v": after, "n": 1})
    record = log_records(Path(session._log.path))[-1]
    assert record["otel"].get("grown", {}) == {key: list(at) for key, at in expected.items()}


def test_only_what_was_written_is_gone_on_from(session, monkeypatch):
    """A step whose state could not be kept changes nothing."""
    run_step(session, 0, {"v": LONG})
    with monkeypatch.context() as patch:
        patch.setattr(session._log.__class__, "append", _fail)
        with pytest.raises(SnapshotError):
            finish_step(session, 1, {"v": [*LONG, "lost"]})
    assert session.grown(encoded({"v": [*LONG, "a", "b"]})) == {"v": (LENGTH - 1, 50)}


def _fail(*arguments, **more):
    raise OSError(28, "full")


def test_what_is_kept_does_not_grow_with_the_values(tmp_path):
    """Length, checksum, count and a few bytes: a live application holds no copy of its state."""
    session = begin(Store("proj", tmp_path))
    run_step(session, 0, {"v": "x" * 1_000_000})
    [kept] = session.grown_from.values()
    assert sum(map(sys.getsizeof, kept)) < 300


def test_a_closed_session_holds_nothing_of_the_state(session):
    """Differences are made of the whole JSON, which is held until then."""
    run_step(session, 0, {"v": "x" * 1_000_000})
    session.close()
    held = [] if session.grown_from is None else [kept.text for kept in session.grown_from.values()]
    assert not any(held)
    run_step(session, 1, {"v": "x" * 1_000_000 + "y"})
    assert session.grown(encoded({"v": "x" * 1_000_000 + "yz"})) == {"v": (1_000_002, 1_000_001)}


@action(reads=["history"], writes=["history"])
def say(state: State, text: str) -> State:
    return state.append(history={"text": text})


@action(reads=["history"], writes=["history"])
def say_in_place(state: State, text: str) -> State:
    state["history"].append({"text": text})
    return state.update(history=state["history"])


@pytest.mark.parametrize("step", [say, say_in_place], ids=["new-list", "same-list"])
@pytest.mark.parametrize("snapshots", ["full", "delta"])
def test_the_first_step_of_a_session_shows_what_is_new_too(spans, clock, tmp_path, snapshots, step):
    """A server that builds the application for each request shows the newest message."""
    made = {"tracer_provider": spans.provider, "clock": clock, "snapshots": snapshots}
    tracker = OtelTracker("proj", tmp_path, **made)
    long = [{"text": f"{n} " + "x" * 100} for n in range(500)]
    for number in range(3):
        app = (
            apps.builder(tracker, step=step)
            .with_transitions(("step", "step"))
            .initialize_from(
                tracker,
                resume_at_next_action=True,
                default_state={"history": long},
                default_entrypoint="step",
            )
            .build()
        )
        app.step(inputs={"text": f"newest {number}"})
        tracker.close()
    steps = [span for span in spans.spans if span.name == "step"]
    for number, span in enumerate(steps):
        written = json.loads(span.attributes["burr.state.written"])["history"]
        assert written == [f"... {500 + number} unchanged items", {"text": f"newest {number}"}]
    keeper.keeper.finish_all()
    assert_same(ours(spans.spans), stored_spans(tmp_path))


def test_commands_that_only_read_runs_import_neither_burr_nor_pydantic():
    """They take most of the time in which a command starts."""
    program = (
        "import sys, types\n"
        "package = types.ModuleType('burr_otel')\n"
        f"package.__path__ = [{str(Path(burr_otel.__file__).parent)!r}]\n"
        "sys.modules['burr_otel'] = package\n"
        "from burr_otel.store import Store\n"
        "store = Store('p', '/nonexistent')\n"
        "assert store.list_app_ids() == []\n"
        "heavy = {'burr', 'pydantic', 'opentelemetry', 'asyncio'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
