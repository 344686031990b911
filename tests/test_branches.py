"""Parallel branches are told apart by what they begin with and their siblings do not."""

import asyncio
import json
import pickle

import apps
import parallel_apps
import pytest
from burr.core import ApplicationContext, action
from cli_support import run

from burr_otel import OtelTracker

INITIAL = "burr.state.initial"


def initial(spans):
    """What each application says, by the order of its start."""
    roots = [span for span in spans.spans if span.name == "invoke_workflow proj"]
    return [span.attributes.get(INITIAL) for span in sorted(roots, key=lambda s: s.start_time)]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("Doubles", ['{"n":1}', '{"n":2}']),
        ("Tasks", ['{"n":1}', '{"n":2}']),
        ("Nested", ['{"n":1}', '{"n":1}', '{"n":2}', '{"n":2}', '{"ns":[1,1]}', '{"ns":[2,2]}']),
        ("BothForEach", ['{"n":1}', '{"n":1}', '{"n":2}', '{"n":2}']),
    ],
)
def test_a_branch_says_what_is_its_own_of_its_first_state(tracker, spans, kind, told):
    """On threads and on asyncio; the application that spawns says nothing."""
    step = getattr(parallel_apps, kind)()
    parallel_apps.parallel(tracker, step).run(halt_after=["map"])
    tracker.close()
    assert sorted(filter(None, initial(spans))) == told
    assert initial(spans)[0] is None
    spans.clear()
    step = getattr(parallel_apps, f"Async{kind}")()
    asyncio.run(parallel_apps.parallel(tracker, step, "a2").arun(halt_after=["map"]))
    tracker.close()
    assert sorted(filter(None, initial(spans))) == told


def test_what_is_common_to_all_is_left_out(tracker, spans):
    """Also when a branch has a copy of it, and when it is no JSON."""
    common = [{"text": "x" * 50}] * 1000

    @action(reads=["common", "thing"], writes=["done"])
    def branches(state, __context: ApplicationContext):
        for n in (1, 2):
            copied = pickle.loads(pickle.dumps(state["common"]))
            child = (
                apps.builder(__context.tracker, f"c{n}", step=apps.count)
                .with_spawning_parent(__context.app_id, __context.sequence_id)
                .with_state(state.update(common=copied, count=n, password="hunter2!"))
                .with_entrypoint("step")
                .build()
            )
            child.run(halt_after=["step"])
        return state.update(done=True)

    state = {"common": common, "thing": {1, 2}, "count": 0}
    apps.single(tracker, branches, state=state).step()
    tracker.close()
    first, *branched = initial(spans)
    assert first is None
    assert [json.loads(text) for text in branched] == [
        {"count": n, "password": "[redacted]"} for n in (1, 2)
    ]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"capture_state": "off"}, None),
        ({"capture_state": "types"}, '{"n":"int"}'),
        ({"redactor": lambda path, n: n if path == "state" else f"<{path}>"}, '{"n":"<state.n>"}'),
        ({"redact_keys": ("^n$",)}, '{"n":"[redacted]"}'),
    ],
)
def test_it_is_shown_as_state_is(spans, clock, tmp_path, settings, told):
    """By the policy of the run."""
    made = {"tracer_provider": spans.provider, "clock": clock, **settings}
    with OtelTracker("proj", tmp_path, **made) as tracker:
        parallel_apps.parallel(tracker, parallel_apps.Doubles(), ns=[7]).run(halt_after=["map"])
    assert initial(spans)[1] == told


def test_a_branch_in_another_process_knows_too(tracker):
    """The tracker that is pickled into it carries checksums of the spawning step's state."""
    seen = []

    @action(reads=["count", "big"], writes=["count"])
    def spawns(state, __context: ApplicationContext):
        seen.append(pickle.dumps(__context.tracker.copy()))
        return state.update(count=1)

    app = apps.single(tracker, spawns, state={"count": 0, "big": "x" * 100_000})
    app.step()
    arrived = pickle.loads(seen[0])
    assert set(arrived._spawner.digests) == {"count", "big"}
    assert len(seen[0]) < 5_000


def test_people_see_it(spans, clock, tmp_path):
    """In `show`, `list` and the page."""
    made = {"tracer_provider": spans.provider, "clock": clock}
    with OtelTracker("proj", tmp_path, **made) as tracker:
        parallel_apps.parallel(tracker, parallel_apps.Doubles()).run(halt_after=["map"])
    shown = run("show", "a1", "--storage-dir", tmp_path).stdout
    assert '{"n": 1}' in shown
    assert '{"n": 2}' in shown
    listed = run("list", "--storage-dir", tmp_path).stdout
    assert "began with" in listed
    assert '{"n":2}' in listed
    as_json = json.loads(run("list", "--json", "--storage-dir", tmp_path).stdout)
    assert sorted(str(each["initial"]) for each in as_json) == ["None", '{"n":1}', '{"n":2}']
    page = tmp_path / "page.html"
    run("show", "a1", "--html", page, "--storage-dir", tmp_path)
    assert "Initial state" in page.read_text()
    hidden = run("show", "a1", "--storage-dir", tmp_path, BURR_OTEL_CAPTURE="off").stdout
    assert '"n"' not in hidden
    listed = run("list", "--storage-dir", tmp_path, BURR_OTEL_CAPTURE="off").stdout
    assert '{"n":2}' not in listed
