"""Which state a resume sees, after everything that can happen to a step: through the tracker."""

import asyncio
import gc
import itertools

import apps
import parallel_apps
import pytest
from burr.core import ApplicationBuilder, State, action, default, expr
from store_support import SNAPSHOTS, keep, values_of

from burr_otel import OtelTracker
from burr_otel.errors import InvalidIdentifierError, RunLockedError, SnapshotError
from burr_otel.store import Store
from burr_otel.testing import FakeClock


@pytest.fixture(params=SNAPSHOTS)
def tracker(spans, clock, storage_dir, request, monkeypatch):
    keep(request.param, monkeypatch)
    return OtelTracker(
        "proj", storage_dir, tracer_provider=spans.provider, clock=clock, snapshots=request.param
    )


@pytest.fixture
def store(tracker, storage_dir):
    return Store("proj", storage_dir)


def ends(store, app_id="a1"):
    return [record for record in store.read(app_id).records() if record["type"] == "end_entry"]


async def aresumed(tracker, app_id="a1", upto=3, step=apps.acount, **initialize):
    """The counter, built by `abuild` from the asynchronous loader."""
    return await (
        apps.builder(tracker, app_id, count=step, finish=apps.finish)
        .with_transitions(("count", "count", expr(f"count < {upto}")), ("count", "finish", default))
        .initialize_from(
            tracker.async_loader(),
            resume_at_next_action=True,
            default_state={"count": 0},
            default_entrypoint="count",
            **initialize,
        )
        .abuild()
    )


@pytest.mark.parametrize("step", [apps.count, apps.acount], ids=["sync", "async"])
async def test_abuild_and_arun_resume_and_fork(tracker, store, step):
    """Fresh, continued by another application, and forked, as the synchronous ones are."""
    app = await aresumed(tracker, upto=5, step=step)
    for _ in range(2):
        await app.astep()
    del app
    again = await aresumed(tracker, upto=5, step=step)
    assert (again.state["count"], again.sequence_id) == (2, 1)
    assert (await again.arun(halt_after=["finish"]))[2]["answer"] == 50
    assert [record["state"]["count"] for record in ends(store)] == [1, 2, 3, 4, 5, 5]
    fork = await aresumed(
        tracker, "fork", upto=5, step=step, fork_from_app_id="a1", fork_from_sequence_id=1
    )
    assert fork.state["count"] == 2
    assert (await fork.arun(halt_after=["finish"]))[2]["answer"] == 50


async def test_arun_over_synchronous_actions_is_never_one_step_behind(tracker, store):
    """Burr passes the state before the step; a resume after each step must see the one after."""
    for number in range(1, 4):
        app = await aresumed(tracker, upto=9, step=apps.count)
        await app.arun(halt_after=["count"])
        assert store.load(None, "a1")["state"]["count"] == number


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, ValueError, asyncio.CancelledError]
)
def test_an_interrupted_step_is_run_again(tracker, store, error):
    """Recorded failed, with the state before it, whatever interrupted it."""
    raise_now = [True]

    @action(reads=["count"], writes=["count"])
    def touchy(state: State) -> State:
        if state["count"] == 1 and raise_now:
            raise_now.clear()
            raise error
        return state.update(count=state["count"] + 1)

    app = apps.counter(tracker, step=touchy)
    app.step()
    with pytest.raises(error):
        app.step()
    loaded = store.load(None, "a1")
    assert (loaded["status"], loaded["sequence_id"], loaded["position"]) == ("failed", 1, "count")
    assert loaded["state"]["count"] == 1
    assert apps.resumed(tracker, step=touchy).run(halt_after=["finish"])[2]["answer"] == 30


def test_a_run_that_was_rewound_loads_its_new_timeline(tracker, store):
    """The same app id, loaded at an older sequence id and run on, perhaps with other results."""
    apps.counter(tracker, upto=6).run(halt_after=["finish"])

    def rewound(step):
        return (
            apps.builder(tracker, count=step, finish=apps.finish)
            .with_identifiers(app_id="a1", sequence_id=2)
            .with_transitions(("count", "count", expr("count < 200")), ("count", "finish", default))
            .initialize_from(
                tracker,
                resume_at_next_action=True,
                default_state={},
                default_entrypoint="count",
            )
            .build()
        )

    @action(reads=["count"], writes=["count"])
    def hundred(state: State) -> State:
        return state.update(count=state["count"] + 100)

    app = rewound(hundred)
    assert (app.state["count"], app.sequence_id) == (3, 2)
    assert store.load(None, "a1")["state"]["count"] == 6, "nothing is lost by looking"
    app.step()
    assert app.sequence_id == 3
    del app
    assert store.load(None, "a1")["state"]["count"] == 103
    assert apps.resumed(tracker, step=hundred, upto=200).step()[2]["count"] == 203
    assert store.load(None, "a1", 3)["state"]["count"] == 103
    assert store.load(None, "a1", 5)["state"]["count"] == 6, "the rest of the old one"


def test_children_of_a_parallel_action_that_runs_twice_keep_both_histories(tracker, store):
    """Burr gives them the same app ids again: two sessions of one run, and no warning."""
    app = parallel_apps.parallel(tracker, parallel_apps.Doubles())
    app.step()
    children = [app_id for app_id in store.list_app_ids() if app_id != "a1"]
    first = {child: values_of(store.load(None, child)) for child in children}
    app.step()
    assert [app_id for app_id in store.list_app_ids() if app_id != "a1"] == sorted(children)
    for child in children:
        assert values_of(store.load(None, child))["n"] == 2 * first[child]["n"]
        roots = [r for r in store.read(child).records() if r["type"] == "otel_root"]
        assert [root["spawning_parent_pointer"]["sequence_id"] for root in roots] == [0, 1]
    shown = [(each["child"]["app_id"], each["sequence_id"]) for each in store.read("a1").children]
    assert sorted(shown) == sorted(itertools.product(children, [0, 1]))


def test_a_fork_restarted_before_its_first_step_keeps_what_it_inherited(tracker, store):
    """Also when the source is gone by then."""
    apps.counter(tracker, "source", upto=6).run(halt_after=["finish"])
    fork = apps.resumed(tracker, "fork", upto=6, fork_from_app_id="source", fork_from_sequence_id=3)
    del fork
    again = apps.resumed(tracker, "fork", upto=6)
    assert (again.state["count"], again.sequence_id) == (4, 3)
    assert again.run(halt_after=["finish"])[2]["answer"] == 60


def test_a_fork_of_a_failed_step_runs_that_step_again_also_when_restarted(tracker, store):
    """Burr starts it at the failed action; a restart of the fork must too."""

    @action(reads=["answer"], writes=["answer"])
    def fragile(state: State) -> State:
        raise ValueError("not yet")

    def build(app_id, finish, **initialize):
        return (
            ApplicationBuilder()
            .with_actions(count=apps.count, finish=finish)
            .with_transitions(("count", "finish", default))
            .with_identifiers(app_id=app_id)
            .with_tracker(tracker)
            .initialize_from(
                tracker,
                resume_at_next_action=True,
                default_state={"count": 0},
                default_entrypoint="count",
                **initialize,
            )
            .build()
        )

    source = build("source", fragile)
    source.step()
    with pytest.raises(ValueError, match="not yet"):
        source.step()
    build("fork", apps.finish, fork_from_app_id="source")
    again = build("fork", apps.finish)
    assert again.get_next_action().name == "finish"
    assert again.step()[2]["answer"] == 10


def test_a_run_killed_in_its_first_step_starts_over(tracker, store, storage_dir):
    """Burr's own client raises here."""
    app = apps.counter(tracker)
    del app
    again = apps.resumed(OtelTracker("proj", storage_dir))
    assert again.run(halt_after=["finish"])[2]["answer"] == 30


def test_all_keys_of_the_user_come_back(tracker, store):
    """Also those that look like Burr's own."""
    state = {"count": 0, "__mine": 1, "": 2, "__SEQUENCE": 3, "a.b": 4, "é\ud800": 5}
    apps.single(tracker, apps.count, state=state).step()
    assert values_of(tracker.load(None, "a1")) == {**state, "count": 1}


def test_a_server_that_builds_the_run_for_each_request(tracker, store, caplog):
    """While earlier applications wait for the collector: right states, no waiting, no warning."""
    gc.disable()
    try:
        alive = []
        for number in range(1, 30):
            app = apps.resumed(tracker, upto=100)
            alive.append(app)
            assert app.step()[2]["count"] == number
    finally:
        gc.enable()
    assert store.load(None, "a1")["state"]["count"] == 29
    assert caplog.records == []


def test_a_state_that_cannot_be_written_is_an_error_after_the_span_has_ended(spans, tracker, store):
    """It names run and key; the step before is what a resume sees."""

    class Unwritable:
        def __str__(self):
            raise RuntimeError("never")

    @action(reads=["count"], writes=["count", "bad"])
    def poison(state: State) -> State:
        return state.update(count=state["count"] + 1, bad=Unwritable())

    app = apps.counter(tracker)
    app.step()
    broken = apps.resumed(tracker, step=poison)
    with pytest.raises(SnapshotError, match="proj/a1: state key 'bad' of step 1"):
        broken.step()
    assert store.load(None, "a1")["state"]["count"] == 1
    tracker.close()
    assert "count" in spans.tree()


def test_a_tracker_that_only_warns_runs_on(spans, storage_dir, caplog):
    """`on_snapshot_error="warn"`: the user chose traces over snapshots."""
    tracker = OtelTracker(
        "proj",
        storage_dir,
        tracer_provider=spans.provider,
        clock=FakeClock(),
        on_snapshot_error="warn",
    )

    @action(reads=["count"], writes=["count", "bad"])
    def cyclic(state: State) -> State:
        bad = []
        bad.append(bad)
        return state.update(count=state["count"] + 1, bad=bad)

    app = apps.single(tracker, cyclic)
    assert app.step()[2]["count"] == 1
    assert "state key 'bad' of step 0 could not be kept" in caplog.text


def test_identifiers_are_checked_when_the_application_is_built(tracker, storage_dir):
    """As a `ValueError`, before anything is written."""
    for app_id in ("../x", "a/b", "/abs", "x" * 300, "nul\0"):
        with pytest.raises(InvalidIdentifierError):
            apps.counter(tracker, app_id)
    with pytest.raises(ValueError, match="folder name"):
        OtelTracker("../p", storage_dir)
    apps.counter(tracker, "mine", partition_key="alice").step()
    assert tracker.load("bob", "mine") is None
    apps.counter(tracker, "mine", partition_key="bob")  # a run of its own, as Burr has it
    assert tracker.load("alice", "mine")["sequence_id"] == 0


def test_an_exclusive_tracker_refuses_a_second_application(spans, storage_dir):
    """Until the first one's tracker is closed."""
    settings = {"tracer_provider": spans.provider, "clock": FakeClock(), "exclusive": True}
    tracker = OtelTracker("proj", storage_dir, **settings)
    app = apps.counter(tracker)
    app.step()
    with pytest.raises(RunLockedError, match="proj/a1 is held by session"):
        apps.resumed(OtelTracker("proj", storage_dir, **settings))
    tracker.close()
    again = apps.resumed(OtelTracker("proj", storage_dir, **settings))
    assert again.run(halt_after=["finish"])[2]["answer"] == 30
