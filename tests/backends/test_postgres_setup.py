"""`burr-otel store init`, and what is said when a database cannot be used: one sentence each."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import traceback

import pytest
from click.testing import CliRunner
from postgres_server import PASSWORD, Postgres
from psycopg.conninfo import conninfo_to_dict

from burr_otel import OtelTracker
from burr_otel.cli import cli
from burr_otel.errors import BurrOtelError, ConfigError, StoreError
from burr_otel.store.port import END
from burr_otel.store.postgres.database import Database
from burr_otel.store.postgres.engine import PostgresEngine
from burr_otel.store.postgres.schema import statements
from burr_otel.store.process import Patience


def burr_otel(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "burr_otel.cli", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def problem(url: str) -> str:
    """What is said of a database that is asked for its projects."""
    with pytest.raises((StoreError, OSError)) as caught:
        PostgresEngine(url).projects()
    text = "".join(traceback.format_exception(caught.value))
    assert PASSWORD not in text
    assert PASSWORD.replace("%", "%25") not in text
    return str(caught.value)


def test_store_init_makes_the_tables_once(postgres: Postgres):
    """The first time it makes them, the second time it says that they are there."""
    url = postgres.make_database("made-by-init", tables=False)
    first, second = burr_otel("store", "init", url), burr_otel("store", "init", url)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "the tables are made, version 2" in first.stdout
    assert "has the tables already, in version 2" in second.stdout
    assert PostgresEngine(url).projects() == []


def test_store_init_print_is_sql_that_makes_the_tables(postgres: Postgres):
    """An administrator can run what it prints; nothing is made before."""
    url = postgres.make_database("printed", tables=False)
    printed = burr_otel("store", "init", url, "--print").stdout
    assert "has no tables" in problem(url)
    postgres.execute(printed, "printed")
    assert PostgresEngine(url).projects() == []


def test_two_that_make_the_tables_at_once(postgres: Postgres):
    """One makes them, the other waits and finds them."""
    url = postgres.make_database("twice", tables=False)
    command = [sys.executable, "-m", "burr_otel.cli", "store", "init", url]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(each.communicate()[0].split(": ")[-1][:3] for each in both)
    assert [each.returncode for each in both] == [0, 0], said


def test_a_role_that_may_not_make_tables_is_told_who_may(postgres: Postgres):
    """One sentence, with the reason."""
    postgres.make_database("not-mine", tables=False)
    postgres.execute(f"CREATE ROLE nobody LOGIN PASSWORD '{PASSWORD}'")
    result = burr_otel("store", "init", postgres.url("not-mine", "nobody", PASSWORD))
    assert result.returncode == 1
    assert (
        "permission denied for database not-mine: tables are made by a role that" in result.stderr
    )
    assert PASSWORD not in result.stderr


def test_a_database_that_is_not_there(postgres: Postgres):
    """The sentence says how to make it."""
    assert "there is no such database: make it with `createdb`" in problem(
        postgres.url("nowhere", "postgres", PASSWORD)
    )


def test_a_wrong_password(postgres: Postgres):
    """The sentence says where passwords come from, and not which was tried."""
    postgres.execute("CREATE ROLE locked LOGIN PASSWORD 'other'")
    said = problem(postgres.url("postgres", "locked", PASSWORD))
    assert "does not take the user name and password" in said
    assert "PGPASSWORD" in said


def test_no_tables_and_old_and_new_tables(postgres: Postgres):
    """The sentence names the command to run, or that burr-otel itself is old."""
    url = postgres.make_database("no-tables", tables=False)
    place = PostgresEngine(url).place
    assert f"has no tables of burr-otel: run `burr-otel store init {place}`" in problem(url)
    url = postgres.make_database("versions")
    postgres.execute("UPDATE burr_otel.version SET version = 0", "versions")
    assert "version 0 and this burr-otel needs version 2: run" in problem(url)
    postgres.execute("UPDATE burr_otel.version SET version = 99", "versions")
    assert "install a newer burr-otel" in problem(url)


def test_tables_of_the_first_version_are_upgraded(postgres: Postgres):
    """A process refuses them and names the command; after it, what was written before is there."""
    url = postgres.make_database("upgraded", tables=False)
    first = statements(0).removesuffix(statements(1))
    postgres.execute(first, "upgraded")
    postgres.execute(
        "INSERT INTO burr_otel.run (project, partition_key, app_id, metadata, graphs) "
        "VALUES ('p', '', 'a', '{}', '{g}'); "
        "INSERT INTO burr_otel.record (run_id, number, kind, sequence_id, session, body) "
        "SELECT id, 0, 2, 7, '', 'line' FROM burr_otel.run",
        "upgraded",
    )
    assert "of version 1 and this burr-otel needs version 2: run" in problem(url)
    assert "upgraded from version 1" in burr_otel("store", "init", url).stdout
    run = PostgresEngine(url).find("p", "a", None, ((END,), 7))
    assert [line.data for line in run.newest((END,), 7)] == [b"line"]


def test_no_permission(postgres: Postgres):
    """The sentence names the command that lists what a role needs."""
    postgres.make_database("closed")
    postgres.execute(f"CREATE ROLE outsider LOGIN PASSWORD '{PASSWORD}'")
    said = problem(postgres.url("closed", "outsider", PASSWORD))
    assert "permission denied for schema burr_otel: grant the role what" in said
    assert "--print` lists at its end" in said


@pytest.mark.parametrize("url", ["postgresql://u:{}@h/d?hos=t", "postgresql://u:{}@[::1/d"])
def test_a_url_that_cannot_be_read_is_not_repeated(url):
    """The message of libpq would quote it, with its password."""
    secret = PASSWORD.replace("%", "%25")
    with pytest.raises(ConfigError, match="percent encoding") as caught:
        PostgresEngine(url.format(secret))
    assert secret not in "".join(traceback.format_exception(caught.value))


def test_no_password_in_what_a_tracker_says(postgres: Postgres, caplog):
    """Not in its place, its errors, its log lines, nor in what `repr` shows."""
    url = postgres.url("nowhere", "postgres", PASSWORD)
    tracker = OtelTracker("p", url)
    with caplog.at_level(logging.DEBUG), pytest.raises((BurrOtelError, OSError)) as caught:
        tracker.load(None, "a")
    said = f"{tracker!r}{tracker.storage_dir}{tracker._store.engine!r}{caught.value}{caplog.text}"
    said += repr(tracker.config)
    assert PASSWORD not in said
    assert "s3cret" not in said


def own_address() -> str:
    """An address of this machine off the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostbyname(socket.gethostname())


@pytest.fixture
def certified(new_postgres: Postgres) -> Postgres:
    """A server with a certificate of its own for this machine's address."""
    new_postgres.stop()
    key, certificate = new_postgres.data / "server.key", new_postgres.data / "server.crt"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=test "
        f"-addext subjectAltName=IP:{own_address()} -keyout {key} -out {certificate}",
        shell=True,
        check=True,
        capture_output=True,
    )
    key.chmod(0o600)
    if os.geteuid() == 0:
        for path in (key, certificate):
            os.chown(path, new_postgres.data.stat().st_uid, new_postgres.data.stat().st_gid)
    new_postgres.settings |= {"listen_addresses": "*", "ssl": "on"}
    new_postgres.start()
    return new_postgres


def test_tls_is_verified_off_the_loopback(certified: Postgres):
    """A server must prove who it is, unless the URL says otherwise; on the loopback it need not."""
    certified.make_database("d")
    certified.execute(f"CREATE ROLE app SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
    local = certified.url("d", "app", PASSWORD)
    remote = local.replace("127.0.0.1", own_address())
    assert PostgresEngine(local).projects() == []
    assert "no verified TLS connection" in problem(remote)
    assert PostgresEngine(f"{remote}?sslmode=require").projects() == []
    authority = certified.data / "server.crt"
    assert PostgresEngine(f"{remote}?sslrootcert={authority}").projects() == []
    elsewhere = local.replace("127.0.0.1", socket.gethostname())
    if socket.gethostbyname(socket.gethostname()) == own_address():
        assert "no verified TLS" in problem(f"{elsewhere}?sslrootcert={authority}")  # another name


@pytest.mark.parametrize(
    ("url", "verified"),
    [
        ("postgresql://u@db.example/d", True),
        ("postgresql://u@10.0.0.7/d", True),
        ("postgresql://u@localhost,db.example/d", True),
        ("postgresql://u@localhost/d", False),
        ("postgresql://u@[::1]/d", False),
        ("postgresql://u@127.0.0.9/d", False),
        ("postgresql:///d?host=/run/postgresql", False),
        ("postgresql:///d", False),
    ],
)
def test_which_hosts_are_verified(url, verified, monkeypatch):
    """Everything but the loopback and sockets."""
    monkeypatch.delenv("PGHOST", raising=False)
    assert (Database(url).parameters.get("sslmode") == "verify-full") is verified
    assert (
        Database(f"{url}{'&' if '?' in url else '?'}sslmode=disable").parameters["sslmode"]
        == "disable"
    )


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://u:secret@[::1]:54/db", "postgresql://u@[::1]:54/db"),
        ("postgresql://[::1]:54,10.0.0.1:55/db", "postgresql://[::1]:54,10.0.0.1:55/db"),
        ("postgresql:///db?host=one,two&port=7", "postgresql://one:7,two:7/db"),
        ("postgresql://%2Fvar%2Frun/a%2Fb", "postgresql://%2Fvar%2Frun/a%2Fb"),
    ],
)
def test_the_place_that_is_shown_is_a_url_of_the_same_database(url, place):
    """Messages name commands with it: `burr-otel store init PLACE`."""
    shown = Database(url).place
    assert shown == place
    assert conninfo_to_dict(Database(shown).place) == conninfo_to_dict(place)


def test_a_server_that_is_away_is_named_once_and_with_the_cause(monkeypatch):
    """Not with libpq's question of whether it runs, which stands below the cause."""
    monkeypatch.setattr(Patience, "pause", lambda _: False)
    result = CliRunner().invoke(cli, ["list", "--storage-dir", "postgresql://burr@127.0.0.1:1/x"])
    said = str(result.exception)
    assert said.startswith("postgresql://burr@127.0.0.1:1/x does not answer as it should: ")
    assert said.endswith("Connection refused.")
    assert said.count("postgresql://") == 1


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        (":99999/postgres", 'invalid port number: "99999"'),
        (":abc/postgres", 'invalid integer value "abc"'),
        ("/postgres?service=nosuch", 'definition of service "nosuch" not found'),
    ],
)
def test_a_url_that_can_never_work_is_refused_at_once(rest, reason, monkeypatch):
    """Nothing is tried again for ten seconds, as a server is that is away."""
    monkeypatch.setattr(Patience, "pause", lambda _: pytest.fail("it waits"))
    said = problem(f"postgresql://postgres@127.0.0.1{rest}")
    assert f"{reason}" in said
    assert "correct the URL" in said


def test_the_address_that_is_connected_to_decides_about_tls(monkeypatch):
    """`hostaddr` goes before `host`, as libpq has it: a name says nothing of where that is."""
    assert Database("postgresql://localhost/db?hostaddr=10.0.0.1").parameters["sslmode"]
    assert "sslmode" not in Database("postgresql://db.example.com/db?hostaddr=127.0.0.1").parameters
    monkeypatch.setenv("PGHOSTADDR", "10.0.0.1")
    assert Database("postgresql://localhost/db").parameters["sslmode"] == "verify-full"
