"""`burr-otel materialize`: a run of differences as whole states, for the Burr UI."""

import json

import pytest
from burr.tracking import LocalTrackingClient
from store_support import begin, folder_of, read_by_burr, run_step, values_of

from burr_otel.cli import main
from burr_otel.store import Store


@pytest.fixture
def store(tmp_path):
    """A conversation kept as differences, and its session still open."""
    store = Store("proj", tmp_path / "runs", delta=True)
    session = begin(store, "chat-1")
    for number in range(12):
        history = [f"message {n} " * 40 for n in range(number + 1)]
        run_step(session, number, {"history": history})
    return store


def called(capfd, *arguments):
    """Exit code, output and errors of a call in this process, which is quicker."""
    with pytest.raises(SystemExit) as exited:
        main([*map(str, arguments)])
    return exited.value.code, *capfd.readouterr()


def test_the_copy_is_what_the_burr_ui_and_client_read(store, tmp_path, capfd):
    """In a directory of its own beside the run's; the beginning of the id will do."""
    code, out, err = called(capfd, "materialize", "chat", "--storage-dir", tmp_path / "runs")
    assert code == 0
    copy = Store("proj", tmp_path / "runs-plain")
    assert str(folder_of(copy, "chat-1")) in out.replace("\n", "")
    assert "12 steps" in out.replace("\n", " ")
    assert f"burr_path={tmp_path / 'runs-plain'} burr" in err.replace("\n", "")
    steps, loaded = read_by_burr(copy, "chat-1")
    states = [step.step_end_log.state["history"] for step in steps]
    assert [len(state) for state in states] == list(range(1, 13))
    assert loaded["state"]["history"] == values_of(store.load(None, "chat-1"))["history"]
    client = LocalTrackingClient("proj", str(tmp_path / "runs-plain"))
    assert len(client.load(None, "chat-1", 4)["state"]["history"]) == 5


def test_json_says_what_was_written(store, tmp_path, capfd):
    """To a directory of one's choice."""
    place = ("--storage-dir", tmp_path / "runs", "--to", tmp_path / "x" / "y")
    code, out, _ = called(capfd, "materialize", "chat-1", "--json", *place)
    folder = tmp_path / "x" / "y" / "proj" / "chat-1"
    assert code == 0
    assert json.loads(out) == {
        "project": "proj",
        "app_id": "chat-1",
        "folder": str(folder),
        "steps": 12,
        "log_bytes": (folder / "log.jsonl").stat().st_size,
        "lost": [],
    }


def test_an_earlier_copy_is_replaced_only_when_asked(store, tmp_path, capfd):
    """Nor is the run ever written over."""
    place = ("--storage-dir", tmp_path / "runs")
    called(capfd, "materialize", "chat-1", *place)
    code, _, err = called(capfd, "materialize", "chat-1", *place)
    assert code == 1
    assert "--replace" in err
    assert called(capfd, "materialize", "chat-1", "--replace", *place)[0] == 0
    code, _, err = called(
        capfd, "materialize", "chat-1", "--replace", "--to", tmp_path / "runs", *place
    )
    assert code == 1
    assert "is the run itself" in " ".join(err.split())


def test_an_unknown_run_is_named_with_the_nearest(store, tmp_path, capfd):
    """Exit code 3, as of every command."""
    code, _, err = called(capfd, "materialize", "chta-1", "--storage-dir", tmp_path / "runs")
    assert code == 3
    assert "chat-1" in err


def test_steps_that_damage_has_cost_are_named(store, tmp_path, capfd):
    """The copy has the others, and the exit code says that it is not all."""
    log = folder_of(store, "chat-1") / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    ends = [n for n, line in enumerate(lines) if b'"end_entry"' in line]
    kept_whole = [b'"delta":' not in lines[n] for n in ends]
    step = next(n for n in range(12) if kept_whole[n : n + 3] == [False] * 3)
    lines[ends[step]] = b" " * (len(lines[ends[step]]) - 1) + b"\n"
    log.write_bytes(b"".join(lines))
    lost = list(range(step + 1, kept_whole.index(True, step)))
    assert len(lost) > 1
    code, out, err = called(
        capfd, "materialize", "chat-1", "--json", "--storage-dir", tmp_path / "runs"
    )
    assert code == 1
    assert json.loads(out)["lost"] == lost
    assert ", ".join(map(str, lost)) in " ".join(err.split())
