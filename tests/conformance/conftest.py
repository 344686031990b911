"""The engines that every test of this folder runs on.

**An engine joins here**: add to `ENGINES` a generator function that is given pytest's `request` and
yields a storage directory or URL with nothing in it, for one test. One that needs a server carries
the mark `backends`, starts the server in a fixture of session scope (asked for by
`request.getfixturevalue`), and skips with a reason where it is not installed.
"""

import contextlib
import sys
from pathlib import Path

import pytest
from store_support import SNAPSHOTS, keep

from burr_otel.store import Store
from burr_otel.store.engines import open_engine

sys.path.insert(0, str(Path(__file__).parents[1] / "backends"))
from object_server import bucket_url, gateway  # noqa: F401 - fixtures
from postgres_server import database, postgres  # noqa: F401 - fixtures


def files(request):
    """Local files."""
    yield str(request.getfixturevalue("tmp_path") / "store")


def objects(request):
    """A bucket of an S3 server."""
    yield request.getfixturevalue("bucket_url")


def postgres_database(request):
    """A database of a PostgreSQL server."""
    yield request.getfixturevalue("database")


ENGINES = [
    files,
    pytest.param(objects, marks=pytest.mark.backends),
    pytest.param(postgres_database, marks=pytest.mark.backends),
]


def _name(engine):
    return getattr(engine, "__name__", None)


@pytest.fixture(params=ENGINES, ids=_name)
def storage_dir(request):
    """A place of the engine's, with nothing in it."""
    with contextlib.contextmanager(request.param)(request) as place:
        yield place
        open_engine(place).close()  # a process of hundreds of tests, each with a place of its own


@pytest.fixture
def engine(storage_dir):
    return open_engine(storage_dir)


@pytest.fixture(params=SNAPSHOTS)
def kind(request):
    """Snapshots of both kinds."""
    return request.param


@pytest.fixture
def store(storage_dir, kind, monkeypatch):
    return Store("proj", storage_dir, **keep(kind, monkeypatch))
