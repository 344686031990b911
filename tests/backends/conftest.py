"""Real servers for the tests of this folder. scripts/install_backends.sh installs them.

Every test here is marked `backends`. Where a server is not installed, its tests are skipped with
a reason; with BURR_OTEL_REQUIRE_BACKENDS=1 (continuous integration) they fail instead.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator

import pytest
from collector_api import Collector
from installed import installed
from jaeger_api import Jaeger
from object_server import bucket_url, gateway  # noqa: F401 - fixtures
from phoenix_api import Phoenix
from postgres_server import database, new_postgres, pgbouncer, postgres  # noqa: F401 - fixtures
from processes import running

HERE = pathlib.Path(__file__).parent


LONGEST = "test_jaeger_away_for_a_minute_loses_nothing"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.backends)
    # It waits for most of its time, so the others run beside it when it comes first. Files
    # stay together, so that `--dist worksteal` starts few servers twice.
    items.sort(key=lambda item: item.name != LONGEST)


@pytest.fixture(scope="session")
def collector_binary() -> pathlib.Path:
    return installed("collector", "bin/otelcol")


@pytest.fixture(scope="session")
def jaeger_binary() -> pathlib.Path:
    return installed("jaeger", "bin/jaeger")


@pytest.fixture(scope="session")
def jaeger(
    jaeger_binary: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Jaeger]:
    """One Jaeger for the whole session; tests tell their traces apart by id and service name."""
    jaeger = Jaeger(jaeger_binary, tmp_path_factory.mktemp("jaeger"))
    with running(jaeger.server):
        yield jaeger


@pytest.fixture(scope="session")
def collector(
    collector_binary: pathlib.Path, jaeger: Jaeger, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Collector]:
    """One collector with the repository's collector-config.yaml, in front of `jaeger`."""
    collector = Collector(
        collector_binary,
        tmp_path_factory.mktemp("collector"),
        env={"JAEGER_OTLP_ENDPOINT": jaeger.grpc_endpoint},
    )
    with running(collector.server):
        yield collector


@pytest.fixture(scope="session")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phoenix]:
    """One Phoenix for the whole session."""
    phoenix = Phoenix(
        installed("phoenix", "phoenix/bin/phoenix"), tmp_path_factory.mktemp("phoenix")
    )
    with running(phoenix.server):
        yield phoenix


@pytest.fixture
def new_jaeger(
    jaeger_binary: pathlib.Path, tmp_path: pathlib.Path
) -> Iterator[Callable[..., Jaeger]]:
    """Makes a Jaeger that the test starts and stops as it likes; what still runs is stopped."""
    made: list[Jaeger] = []

    def make(name: str = "jaeger") -> Jaeger:
        made.append(Jaeger(jaeger_binary, tmp_path, name))
        return made[-1]

    yield make
    for jaeger in made:
        jaeger.server.stop()


@pytest.fixture
def new_collector(
    collector_binary: pathlib.Path, tmp_path: pathlib.Path
) -> Iterator[Callable[..., Collector]]:
    """Makes a collector that the test starts and stops as it likes; what still runs is stopped."""
    made: list[Collector] = []

    def make(**arguments: object) -> Collector:
        made.append(Collector(collector_binary, tmp_path, **arguments))
        return made[-1]

    yield make
    for collector in made:
        collector.server.stop()
