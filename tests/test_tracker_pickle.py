"""A tracker can be pickled at any point of its life, by pickle and by cloudpickle."""

import copy
import pickle
import threading

import apps
import cloudpickle
import pytest
from opentelemetry import trace

from burr_otel import OtelConfig, OtelTracker
from burr_otel.testing import FakeClock

PICKLERS = {"pickle": pickle, "cloudpickle": cloudpickle}


def fresh(tracker):
    """Just made."""
    return tracker


def with_live_applications(tracker):
    """Two applications built, one has run."""
    live.append(apps.counter(tracker, "a1"))
    live.append(apps.counter(tracker, "a2"))
    live[0].run(halt_after=["finish"])
    return tracker


def inside_a_step(tracker):
    """A stream that stands still between two items."""
    app = apps.single(tracker, apps.stream, app_id="a3")
    _, container = app.stream_result(halt_after=["step"])
    live.append(iter(container))
    next(live[-1])
    return tracker


def closed(tracker):
    """After `close`."""
    tracker = with_live_applications(tracker)
    tracker.close()
    return tracker


def copied(tracker):
    """A copy, as Burr makes for a sub-application."""
    return tracker.copy()


def pickled_before(tracker):
    """One that has been through it already."""
    return pickle.loads(pickle.dumps(tracker))


live = []


@pytest.fixture
def global_spans(spans, monkeypatch):
    """The captured spans' provider as this process's own: a pickled tracker knows no other."""
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: spans.provider)
    yield spans
    live.clear()


@pytest.mark.parametrize("pickler", PICKLERS)
@pytest.mark.parametrize(
    "at", [fresh, with_live_applications, inside_a_step, closed, copied, pickled_before]
)
def test_a_pickled_tracker_works(tracker, global_spans, at, pickler):
    """Wherever in its life it was pickled: its applications are traced, kept and resumed."""
    module = PICKLERS[pickler]
    tracker = module.loads(module.dumps(at(tracker)))
    live.clear()
    global_spans.clear()
    app = apps.counter(tracker, "new")
    app.step()
    apps.resumed(tracker, "new").run(halt_after=["finish"])
    tracker.close()
    found = [span for span in global_spans.spans if span.attributes["burr.app_id"] == "new"]
    names = [span.name for span in found]
    assert names == [
        "invoke_workflow proj",
        "count",
        "invoke_workflow proj",
        "count",
        "count",
        "finish",
    ]
    assert tracker.load(None, "new")["state"]["answer"] == 30


def test_the_settings_travel(tmp_path):
    """Everything that was set is set on the other side; providers belong to a process."""
    tracker = OtelTracker(
        "proj",
        tmp_path,
        {"depth": 1},
        config=OtelConfig(step_parent="ambient", redact_keys=("iban",)),
        clock=FakeClock(),
        tracer_provider=trace.NoOpTracerProvider(),
        durability="fsync",
    )
    twin = pickle.loads(pickle.dumps(tracker))
    assert twin.config == tracker.config
    assert twin.config.durability == "fsync"
    assert twin.serde_kwargs == {"depth": 1}
    assert (twin.project_id, twin.storage_dir) == ("proj", tracker.storage_dir)
    assert twin.raw_storage_dir == tracker.raw_storage_dir


def test_a_relative_folder_stays_where_it_was(spans, tmp_path, monkeypatch):
    """Unpickled, copied or used in another working directory, a tracker keeps its runs together."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    tracker = OtelTracker("proj", "runs", tracer_provider=spans.provider)
    pickled = pickle.dumps(tracker)
    monkeypatch.chdir(tmp_path / "there")
    for n, each in enumerate([tracker, tracker.copy(), pickle.loads(pickled)]):
        apps.counter(each, f"a{n}").run(halt_after=["finish"])
        assert (each.raw_storage_dir, each.storage_dir) == ("runs", tracker.storage_dir)
    assert sorted(tracker.list_app_ids(None)) == ["a0", "a1", "a2"]
    assert list((tmp_path / "there").iterdir()) == []


def test_closing_one_twin_leaves_the_others_applications_open(tracker, global_spans):
    """A pickled tracker is a tracker of its own."""
    live.append(apps.counter(tracker, "a1"))
    live[0].step()
    twin = pickle.loads(pickle.dumps(tracker))
    twin.close()
    assert [span.name for span in global_spans.spans] == ["count"]
    tracker.close()
    assert [span.name for span in global_spans.spans] == ["invoke_workflow proj", "count"]


def test_a_deep_copy_is_a_tracker_of_the_same_settings(tracker, global_spans):
    """`copy.deepcopy`, as frameworks use it for their configuration."""
    twin = copy.deepcopy(tracker)
    apps.counter(twin).run(halt_after=["finish"])
    twin.close()
    assert len(global_spans.spans) == 5
    assert tracker.load(None, "a1")["state"]["answer"] == 30


def test_threads_pickle_a_tracker_that_others_use(tracker, global_spans):
    """Pickling needs no moment of rest."""
    done = threading.Event()

    def keep_running():
        n = 0
        while not done.is_set():
            n += 1
            apps.counter(tracker, f"b{n}").run(halt_after=["finish"])

    thread = threading.Thread(target=keep_running)
    thread.start()
    try:
        twins = [pickle.loads(pickle.dumps(tracker)) for _ in range(200)]
    finally:
        done.set()
        thread.join()
    apps.counter(twins[-1]).run(halt_after=["finish"])
    assert twins[0].load(None, "a1")["state"]["answer"] == 30


def test_a_function_that_cannot_be_pickled_is_named(tmp_path):
    """Plain pickle refuses a lambda among the settings, and cloudpickle carries it."""
    tracker = OtelTracker("proj", tmp_path, redactor=lambda path, value: "gone")
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        pickle.dumps(tracker)
    twin = cloudpickle.loads(cloudpickle.dumps(tracker))
    assert twin.config.redactor("a", 1) == "gone"
