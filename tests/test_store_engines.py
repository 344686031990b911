"""Which engine a storage directory means, and that no password of a URL is ever shown."""

import pickle
import sys

import pytest
from cli_support import run

from burr_otel import OtelTracker
from burr_otel.cli import app
from burr_otel.errors import ConfigError
from burr_otel.store import Store, is_url, without_password
from burr_otel.store.engines import open_engine
from burr_otel.store.files.engine import FileEngine


def test_a_path_means_local_files(tmp_path):
    """As text or as a path, also one that looks odd."""
    for path in (tmp_path, str(tmp_path), "C:/runs", "postgresql:runs", "a:b//c"):
        assert isinstance(open_engine(path), FileEngine)
        assert not is_url(path)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "s3", "gs", "az"])
def test_an_engine_whose_extra_is_missing_says_what_to_install(monkeypatch, scheme):
    """One sentence, without the password."""
    extra = "postgres" if scheme.startswith("postgres") else "objects"
    monkeypatch.setitem(sys.modules, f"burr_otel.store.{extra}.engine", None)
    with pytest.raises(ConfigError, match=rf'pip install "burr-otel\[{extra}\]"') as caught:
        Store("proj", f"{scheme}://me:hunter2@nowhere/db?missing={scheme}")
    assert "hunter2" not in str(caught.value)


def test_a_scheme_that_no_engine_knows_is_refused():
    """With what there is, by the tracker too; no folder of that name is made."""
    with pytest.raises(ConfigError, match=r"no engine knows mysql://.*postgresql://, .*s3://"):
        OtelTracker("proj", "mysql://me:hunter2@host/db")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://me:hunter2@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://me:a@b/hunter2?x#y@host/db", "postgresql://me:***@host/db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("postgresql://host/db?user=me&password=hunter2", "postgresql://host/db?user=me&password=***"),
        ("s3://bucket/p?aws_SECRET_access_key=hunter2&region=x", "s3://bucket/p?aws_SECRET_access_key=***&region=x"),
        ("postgresql:///db", "postgresql:///db"),
        ("/a/path:with@signs", "/a/path:with@signs"),
    ],
)  # fmt: skip
def test_a_url_is_shown_without_its_password(url, told):
    """Whatever the password is made of, rather too little of the URL than too much."""
    assert without_password(url) == told


def test_the_folder_of_a_project_is_asked_of_files_only(tmp_path):
    """A path, or an error that says what writes one; Burr's method does not touch the place."""
    assert OtelTracker.get_storage_path("proj", tmp_path) == str(tmp_path / "proj")
    with pytest.raises(ConfigError, match=r"keeps no files.*burr-otel copy") as caught:
        OtelTracker.get_storage_path("proj", "postgresql://me:hunter2@host/db")
    assert "hunter2" not in str(caught.value)


def test_a_pickled_store_opens_its_engine_again(tmp_path):
    """In a process that may know another one."""
    store = pickle.loads(pickle.dumps(Store("proj", tmp_path)))
    assert store.place == str(tmp_path / "proj")


COMMANDS = [
    ["list"],
    ["show", "a"],
    ["diff", "a", "b"],
    ["open", "a"],
    ["replay", "a", "--dry-run"],
    ["recover"],
    ["materialize", "a"],
    ["copy", "a", "--to", "/nowhere"],
    ["delete", "a"],
    ["prune", "--keep", "1"],
    ["check"],
    ["test-case", "a"],
    ["demo"],
]
"""Every command that looks for runs, with what it needs."""


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
def test_no_command_shows_the_password_of_a_place_that_is_none(arguments):
    """Each says what is wrong with it in a sentence."""
    done = run(*arguments, BURR_OTEL_STORAGE_DIR="mysql://me:hunter2@db/runs")
    assert done.returncode == 1, done.stderr
    assert "mysql://me:***@db/runs" in done.stdout + done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_every_command_that_takes_a_place_was_tried():
    """Only these take none, or are given it otherwise."""
    tried = {arguments[0] for arguments in COMMANDS}
    assert set(app._COMMANDS) - tried <= {"completion", "store"}
