"""PostgreSQL and PgBouncer of the system's packages, in folders of their own."""

from __future__ import annotations

import contextlib
import gc
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence

import psycopg
import pytest
from installed import absent, backends_folder
from processes import free_ports, wait_for
from typing_extensions import Self

from burr_otel.errors import StoreError
from burr_otel.store.postgres import writer
from burr_otel.store.postgres.schema import statements

PASSWORD = "s3cret%word"  # percent-encoded where it goes into a URL


def programs() -> pathlib.Path:
    """The folder of the newest installed PostgreSQL; skips or fails the test when there is none."""
    if not backends_folder().is_dir():  # nothing was installed for tests
        absent("postgres", backends_folder())
    root = pathlib.Path("/usr/lib/postgresql")
    found = [path for path in root.glob("*/bin/initdb") if path.parent.parent.name.isdigit()]
    if not found:
        absent("postgres", root)
    return max(found, key=lambda path: int(path.parent.parent.name)).parent


class _Program:
    """A server that refuses to run as root, in a folder of its own, which is gone at the end.

    Not below pytest's folder, which every pytest that starts closes to other users.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = folder = pathlib.Path(tempfile.mkdtemp(prefix=f"burr-otel-{name}-"))
        self.log_path = folder / f"{name}.log"
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def user() -> str | None:
        return "postgres" if os.geteuid() == 0 else None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    def _launch(self, command: Sequence[object]) -> None:
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
                user=self.user(),
                start_new_session=True,
            )

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:  # a busy machine
                process.kill()
                process.wait(30)

    def stop(self) -> None:
        """End it in order; for PostgreSQL a fast shutdown, which does not wait for clients."""
        self._end(signal.SIGINT)

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """The server, started; stopped and removed at the end."""
        try:
            self.start()
            yield self
        finally:
            self.stop()
            shutil.rmtree(self.folder, ignore_errors=True)


class Postgres(_Program):
    """A server on a free port of the loopback, where the role postgres needs no password."""

    def __init__(self) -> None:
        self._bin = programs()
        super().__init__("postgres")
        folder = self.folder
        (self.port,) = free_ports(1)
        self.data = folder / "data"
        made = subprocess.run(
            [self._bin / "initdb", "-D", self.data, "-U", "postgres", "-E", "UTF8", "--no-sync"],
            check=False,
            capture_output=True,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            user=self.user(),
        )
        assert made.returncode == 0, made.stderr.decode()
        rules = "local all all trust\nhost all postgres 127.0.0.1/32 trust\n"
        (self.data / "pg_hba.conf").write_text(f"{rules}host all all all scram-sha-256\n")
        self.settings: dict[str, object] = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": folder,
            "restart_after_crash": "off",
            "max_connections": 300,  # each test has a database of its own
            "fsync": "off",  # servers are killed here, and never the machine
        }

    def start(self) -> None:
        """Start, or start again; returns when it answers."""
        settings = [
            part for key, value in self.settings.items() for part in ("-c", f"{key}={value}")
        ]
        self._launch([self._bin / "postgres", "-D", self.data, "-p", self.port, *settings])
        wait_for("PostgreSQL", self._answers)

    def _answers(self) -> bool | None:
        assert self._process is not None
        assert self._process.poll() is None, self.log_path.read_text()
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return None
        return True

    def kill(self) -> None:
        """Kill it with all its processes, as a machine that is gone."""
        with psycopg.connect(self.url("postgres")) as connection:
            rows = connection.execute("SELECT pid FROM pg_stat_activity").fetchall()
        os.kill(self.pid, signal.SIGSTOP)  # it starts nothing while they go
        for (pid,) in rows:
            with contextlib.suppress(ProcessLookupError):  # the one that was asked has ended
                os.kill(pid, signal.SIGKILL)
        self._end(signal.SIGKILL)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def url(self, database: str, user: str = "postgres", password: str = "") -> str:
        secret = f":{password.replace('%', '%25')}" if password else ""
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}"

    def execute(self, sql: str, database: str = "postgres") -> list[tuple[object, ...]]:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def make_database(self, name: str, *, tables: bool = True) -> str:
        """The URL of a new database."""
        self.execute(f'CREATE DATABASE "{name}"')
        if tables:
            self.execute(statements(0), name)
        return self.url(name)


class PgBouncer(_Program):
    """A pooler in transaction mode in front of a server."""

    def __init__(self, server: Postgres) -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            absent("pgbouncer", "PATH")
        super().__init__("pgbouncer")
        self._program, self._server = program, server
        (self.port,) = free_ports(1)

    def start(self, pool_size: int = 3) -> None:
        config = self.folder / "pgbouncer.ini"
        (self.folder / "users.txt").write_text('"postgres" ""\n')
        config.write_text(
            f"[databases]\n* = host=127.0.0.1 port={self._server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\n"
            "auth_type = trust\nauth_file = users.txt\nunix_socket_dir =\n"
            f"pool_mode = transaction\ndefault_pool_size = {pool_size}\n"
            "server_round_robin = 1\n"  # so that a client meets many servers
        )
        self._launch([self._program, config])
        wait_for("PgBouncer", self._answers)

    def _answers(self) -> bool | None:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return None
        return True

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for the whole session; each test makes a database of its own."""
    with Postgres().running() as server:
        yield server
        _let_go(server.port)


@pytest.fixture
def new_postgres() -> Iterator[Postgres]:
    """A server that the test kills and starts as it likes; it runs at first."""
    with Postgres().running() as server:
        yield server
        _let_go(server.port)


@pytest.fixture
def pgbouncer(postgres: Postgres) -> Iterator[PgBouncer]:
    """A pooler in transaction mode."""
    with PgBouncer(postgres).running() as pooler:
        yield pooler
        _let_go(pooler.port)


def _let_go(port: int) -> None:
    """Have this process write all that waits for a server, and close its connections there."""
    gc.collect()  # applications that nobody holds any more have something to say
    for url, each in list(writer._writers.items()):
        if f":{port}/" in url:
            with contextlib.suppress(OSError, StoreError):
                each.flush()
            each.database.close()
            each._leased.clear()
            del writer._writers[url]


@pytest.fixture
def database(postgres: Postgres, request: pytest.FixtureRequest) -> str:
    """The URL of a new database that has our tables."""
    return postgres.make_database(f"{request.node.name[:40]}-{uuid.uuid4().hex[:8]}")
