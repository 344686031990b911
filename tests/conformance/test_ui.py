"""What the Burr UI is told of runs, on every engine."""

import asyncio

import fastapi
import pytest
from burr.common.types import ParentPointer
from store_support import ENDED, TRACE, begin, log_attribute, run_step, start_step

from burr_otel.ui import TRACE_KEY, StoreBackend


@pytest.fixture
def backend(storage_dir, monkeypatch):
    """As the server makes it, from variables."""
    monkeypatch.setenv("BURR_OTEL_STORAGE_DIR", storage_dir)
    monkeypatch.setenv("BURR_OTEL_TRACE_URL", "https://traces.example.com/{project}/{trace_id}")
    monkeypatch.setenv("BURR_BACKEND_IMPL", "burr_otel.ui.StoreBackend")
    made = StoreBackend.create_from_env()
    assert isinstance(made, StoreBackend)
    return made


def ask(work):
    return asyncio.run(work)


def test_projects_and_runs_are_listed_by_page_and_partition(backend, store):
    """The one written to last first."""
    assert ask(backend.list_projects(None)) == []
    assert ask(backend.list_apps(None, "proj", None)) == ([], 0)
    for app_id, key in (("x", "p"), ("y", None), ("z", "p")):
        session = begin(store, app_id, partition_key=key)
        run_step(session, 0)
        run_step(session, 1)
        session.end(ENDED)
    store.engine.close()
    [project] = ask(backend.list_projects(None))
    assert (project.name, project.num_apps) == ("proj", 3)
    found, total = ask(backend.list_apps(None, "proj", None))
    assert ([each.app_id for each in found], total) == (["z", "y", "x"], 3)
    assert {each.num_steps for each in found} == {2}
    assert found[0].first_written.year == 2023, "of the first record"
    assert found[0].last_written >= found[1].last_written
    found, total = ask(backend.list_apps(None, "proj", None, limit=1, offset=1))
    assert ([each.app_id for each in found], total) == (["y"], 3)
    found, total = ask(backend.list_apps(None, "proj", "p"))
    assert ([each.app_id for each in found], total) == (["z", "x"], 2)


def test_steps_have_whole_states_and_the_address_of_their_trace(backend, store):
    """Also those of which only what changed is stored."""
    session = begin(store)
    history = []
    for number in range(20):
        history.append({"content": f"message {number} " * 40})
        run_step(session, number, {"history": history, "same": "x" * 500})
    start_step(session, 20, span_id=7)
    log_attribute(session, "mine", 1, sequence_id=20)
    begin(store, "child", spawning_parent_pointer=ParentPointer("a", None, 3)).end(ENDED)
    shown = ask(backend.get_application_logs(None, "proj", "a", None))
    assert [step.step_start_log.sequence_id for step in shown.steps] == list(range(21))
    for number in range(20):
        state = shown.steps[number].step_end_log.state
        assert state["history"] == history[: number + 1]
        assert state["same"] == "x" * 500
    assert shown.steps[20].step_end_log is None
    address = f"https://traces.example.com/proj/{TRACE}"
    logged = {each.key: each.value for each in shown.steps[20].attributes}
    assert logged == {"mine": 1, TRACE_KEY: address}
    assert shown.application.entrypoint == "step"
    [child] = shown.children
    assert child.child.app_id == "child"
    child = ask(backend.get_application_logs(None, "proj", "child", None))
    assert child.spawning_parent_pointer.app_id == "a"


def test_runs_of_one_id_are_told_apart(backend, store):
    """By partition key; without one, the run without one, or else the first."""
    for key in ("p", "q"):
        run_step(begin(store, partition_key=key), 0, {"who": key})

    def who(key):
        shown = ask(backend.get_application_logs(None, "proj", "a", key))
        return shown.steps[0].step_end_log.state["who"]

    assert (who("p"), who("q"), who(None)) == ("p", "q", "p")
    run_step(begin(store), 0, {"who": "nobody"})
    assert who(None) == "nobody"


@pytest.mark.parametrize(("project", "app_id"), [("proj", "nobody"), ("../x", "a"), ("proj", "..")])
def test_what_is_not_there_is_a_404(backend, store, project, app_id):
    """With a sentence, and no look outside of the store."""
    run_step(begin(store), 0)
    with pytest.raises(fastapi.HTTPException) as caught:
        ask(backend.get_application_logs(None, project, app_id, None))
    assert caught.value.status_code == 404
