"""Nothing is written or read outside a run's own folder, and only its owner may."""

import asyncio
import contextlib
import os
import stat

import pytest
from burr.common.types import ParentPointer
from burr.core import State
from store_support import begin, run_step, steps, values_of

from burr_otel.errors import ConfigError, InvalidIdentifierError, SnapshotError
from burr_otel.store import AsyncStoreLoader, Store

BAD_APP_IDS = [
    "", ".", "..", "../other", "a/b", "/etc", "a\0b", "x" * 256, "é" * 128, "\ud800", 7, b"a",
    ".burr-otel-new-1",
]  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return Store("proj", tmp_path / "store")


@pytest.mark.parametrize("app_id", BAD_APP_IDS, ids=ascii)
def test_an_app_id_that_leads_elsewhere_is_refused_at_build(store, tmp_path, app_id):
    """By every operation, as a `ValueError` that says what is allowed, and no file is made."""
    for operation in (
        lambda: begin(store, app_id),
        lambda: store.load(None, app_id),
        lambda: store.exists(app_id),
        lambda: store.history(app_id),
        lambda: store.find_step(app_id, 1),
        lambda: store.read(app_id),
        lambda: store.run_path(app_id),
        lambda: store.load_state(app_id),
    ):
        with pytest.raises(InvalidIdentifierError, match="cannot be a folder name") as caught:
            operation()
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, ConfigError)
        assert "1 to 255 bytes" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("project", ["", ".", "../x", "a b", "a/b", "x" * 256, "é", "a\n", None])
def test_a_project_that_is_no_folder_name_is_refused(tmp_path, project):
    """With what is allowed."""
    with pytest.raises(InvalidIdentifierError, match="letters, digits, '_', '-' or ':'"):
        Store(project, tmp_path)


@pytest.mark.parametrize(
    "app_id", ["a b", "é" * 127, "x" * 255, ".hidden", "a:b", "-", "%2e", "a\nb", "日本", "~"]
)
def test_any_other_text_is_an_app_id(store, app_id):
    """Burr's own client takes it too."""
    run_step(begin(store, app_id), 0)
    assert store.load(None, app_id)["sequence_id"] == 0
    assert store.list_app_ids() == [app_id]
    assert [path.name for path in store.path.iterdir()] == [app_id]


@pytest.mark.parametrize("key", ["\ud800", 5])
def test_a_partition_key_that_cannot_be_kept_is_refused(store, key):
    """The Burr UI could not show it."""
    with pytest.raises(InvalidIdentifierError, match="partition key"):
        begin(store, partition_key=key)


def test_a_run_folder_that_is_a_link_is_refused(store, tmp_path):
    """For writing and for reading: its files would be elsewhere."""
    steps(store, 1, "real")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (store.path / "link").symlink_to(elsewhere)
    for operation in (lambda: begin(store, "link"), lambda: store.load(None, "link")):
        with pytest.raises(InvalidIdentifierError, match="is a symbolic link"):
            operation()
    assert list(elsewhere.iterdir()) == []
    (store.path / "link").unlink()
    (store.path / "link").symlink_to(store.path / "real")
    with pytest.raises(InvalidIdentifierError):
        store.load(None, "link")
    assert store.list_app_ids() == ["real"]


@pytest.mark.parametrize("name", ["log.jsonl", "log.index", "run.lock", "children.jsonl"])
def test_a_file_that_is_a_link_is_not_followed(tmp_path, name):
    """Nothing of ours is written to where it leads."""
    store = Store("proj", tmp_path, exclusive=True)
    steps(store, 1)
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (store.run_path("a") / name).unlink(missing_ok=True)
    (store.run_path("a") / name).symlink_to(target)
    with contextlib.suppress(SnapshotError):  # or a warning: that depends on the file
        session = begin(store)
        for number in range(1, 40):
            run_step(session, number)
        begin(store, "child", parent_pointer=ParentPointer("a", None, 1))
    assert target.read_bytes() == b"precious"


def test_a_storage_directory_may_be_a_link(tmp_path):
    """People put it on another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    steps(Store("proj", tmp_path / "link"), 1)
    assert (tmp_path / "disk" / "proj" / "a" / "log.jsonl").exists()


def test_parents_outside_of_the_store_are_left_alone(store, tmp_path):
    """Pointers come from the application and may name anything."""
    for app_id in ("../evil", "/tmp/evil", "nobody", "\ud800", 5):
        begin(
            store,
            "child",
            parent_pointer=ParentPointer(app_id, "k\ud800", "x"),
            spawning_parent_pointer=ParentPointer(app_id, None, 1),
        )
    assert [path.name for path in store.path.iterdir()] == ["child"]
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_files_and_folders_are_for_their_owner_alone(tmp_path):
    """States hold what users said; whatever the umask is."""
    before = os.umask(0)
    try:
        store = Store("proj", tmp_path / "x" / "store", exclusive=True)
        session = begin(store)
        for number in range(40):
            run_step(session, number)
        session.close()
        with (store.run_path("a") / "log.jsonl").open("ab") as file:
            file.write(b"torn")
        begin(store).close()
        begin(store, "b", parent_pointer=ParentPointer("a", None, 1)).close()
    finally:
        os.umask(before)
    seen = {}
    for path in [tmp_path / "x", *(tmp_path / "x").rglob("*")]:
        seen[path.name] = path.is_dir(), stat.S_IMODE(path.stat().st_mode)
    assert set(seen.values()) == {(True, 0o700), (False, 0o600)}
    assert {"log.jsonl.torn-1", "log.index", "run.lock", "children.jsonl", "graph.json"} <= set(
        seen
    )


def test_a_name_with_home_is_expanded(monkeypatch, tmp_path):
    """As in Burr: `~/.burr`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store("proj").path == tmp_path / ".burr" / "proj"


async def test_the_async_loader_reads_off_the_event_loop(store, monkeypatch):
    """A load of megabytes must not stall other requests."""
    steps(store, 3)
    loader = AsyncStoreLoader(store)
    assert loader.is_async()
    threads = []
    original = State.deserialize

    def deserialize(*arguments, **more):
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        threads.append(True)
        return original(*arguments, **more)

    monkeypatch.setattr(State, "deserialize", deserialize)
    assert values_of(await loader.load(None, "a")) == {"n": 2}
    assert values_of(await loader.load(None, "a", 1)) == {"n": 1}
    assert await loader.load(None, None) is None
    assert await loader.load(None, "unknown") is None
    assert await loader.list_app_ids(None) == ["a"]
    assert threads == [True, True]
