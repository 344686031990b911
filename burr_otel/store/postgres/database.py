"""A database by its URL, and the one connection of this process to it, which all trackers share.

Nothing here outlives a statement at the server: no prepared statement, no setting, no lock of a
session. So a pooler may give each statement another connection (PgBouncer's transaction mode).
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import threading
import time
import uuid
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psycopg
from psycopg import ProgrammingError, abc, errors
from psycopg.adapt import PyFormat, Transformer
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult

from burr_otel.errors import ConfigError, StoreError
from burr_otel.printable import printable
from burr_otel.store.postgres import schema
from burr_otel.store.process import Patience

Connection = psycopg.Connection[Any]

OUTAGE_S = 10.0
"""How long an outage is waited for."""

_ANSWER_S: Final = 10.0  # longest wait for an answer to a short statement
_READING_S: Final = 50.0  # more, for one that may read much
_BYTES_A_SECOND: Final = 1024 * 1024  # a slow network's, for which it is waited longer
LOST: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,  # the former primary, after a failover
)
"""Errors after which another connection may help, and after which nobody knows what was done."""

# What libpq says when it is no use to try again, and what we say then.
_REFUSALS: Final = {
    r'database "[^"\n]*" does not exist|no such database': (
        "there is no such database: make it with `createdb`, or correct the URL"
    ),
    r"password authentication failed|no password supplied|SASL": (
        "the server does not take the user name and password: correct them in the URL, "
        "PGPASSWORD or ~/.pgpass"
    ),
    r"certificate|SSL|TLS": (
        "no verified TLS connection ({reason}): add sslrootcert=FILE with the server's "
        "certificate authority to the URL, or sslmode=require to go without verifying"
    ),
    r"does not exist|no pg_hba.conf entry|not permitted|permission denied"
    r"|definition of service|invalid (port number|integer value)": (
        "{reason}: correct the URL, or the rules of the server"
    ),
}

_DEFAULTS: Final = {
    "application_name": "burr-otel",
    "connect_timeout": "5",
    "tcp_user_timeout": "10000",  # milliseconds until a server that vanished counts as gone
    "keepalives_idle": "10",  # seconds until it is asked for a sign of life,
    "keepalives_interval": "5",  # and until it is asked again
}

_left_to_parent: list[Connection] = []  # connections that a forked child must not touch


def _place(given: dict[str, Any]) -> str:
    user, host, port = (str(given.get(name) or "") for name in ("user", "host", "port"))
    host = host or str(given.get("hostaddr") or "")
    at = f"{quote(user, safe='')}@" if user else ""
    hosts = [f"[{each}]" if ":" in each else quote(each, safe="") for each in host.split(",")]
    ports = port.split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    where = ",".join(f"{h}:{p}" if p else h for h, p in zip_longest(hosts, ports, fillvalue=""))
    return f"postgresql://{at}{where}/{quote(str(given.get('dbname') or ''), safe='')}"


def _tls(given: dict[str, Any]) -> dict[str, str]:
    """Off the loopback the server must prove who it is, unless the URL says otherwise."""
    if "sslmode" in given or "service" in given or "PGSERVICE" in os.environ:
        return {}
    addresses = given.get("hostaddr") or os.environ.get("PGHOSTADDR")  # these are connected to
    hosts = addresses or given.get("host") or os.environ.get("PGHOST") or ""
    if all(map(_is_loopback, str(hosts).split(","))):
        return {}
    found = {"sslmode": "verify-full"}
    own = "sslrootcert" in given or "PGSSLROOTCERT" in os.environ
    if not own and not Path("~/.postgresql/root.crt").expanduser().exists():
        found["sslrootcert"] = "system"
    return found


def _is_loopback(host: str) -> bool:
    return host in ("", "localhost", "::1") or host.startswith(("/", "@", "127."))


class Sent:
    """A statement that is sent; its rows or its error, once they have been read.

    To send it may take `allowed_s`, and to answer it as long again.
    """

    __slots__ = ("allowed_s", "error", "rows")

    def __init__(self, allowed_s: float) -> None:
        self.allowed_s = allowed_s
        self.rows: list[tuple[Any, ...]] = []
        self.error: psycopg.Error | None = None


class Database:
    """A database as this process uses it. Nothing that is shown of it has the password."""

    def __init__(self, url: str) -> None:
        try:
            given: dict[str, Any] = conninfo_to_dict(url)
        except ProgrammingError:
            # libpq's own message quotes the URL, and with it the password.
            raise ConfigError(
                "the URL of the store cannot be read: write "
                "postgresql://user@host:port/database, with '@', ':', '/' and '%' inside a name or "
                "password in percent encoding (the password may come from ~/.pgpass instead)."
            ) from None
        self.place = _place(given)
        self.parameters = {**_DEFAULTS, **_tls(given), **given}
        self.is_down = False  # an outage has lasted longer than anything waits
        self._reset()

    def _reset(self) -> None:
        self.lock = threading.RLock()  # of the thread that is using the connection
        self.writer_id = uuid.uuid4().hex
        self._connection: Connection | None = None
        self._form: abc.Transformer = Transformer()  # of values, to and from the connection's
        self._unread: Sent | None = None  # a statement whose answer has not been read

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of one statement that may be run twice; an error as `problem` tells it."""
        with self.lock:
            patience = self.patience()
            while True:
                try:
                    return self.run(sql, values, _READING_S)
                except LOST as error:
                    self.reconnect(error, patience)
                except psycopg.Error as error:
                    raise self.problem(error) from error

    def run(
        self, sql: str, values: Sequence[Any] = (), more_s: float = 0.0
    ) -> list[tuple[Any, ...]]:
        """One attempt, by who holds the connection: rows, or in one how many were changed."""
        return self.answer(self.send(sql, values, more_s))

    def send(self, sql: str, values: Sequence[Any] = (), more_s: float = 0.0) -> Sent:
        """Send a statement, by who holds the connection; its `answer` may be read later."""
        # Past psycopg's cursors, which take longer for a record than the server does.
        if self._unread is not None:
            self._read(self._unread)
        connection, form = self._connected(), self._form  # to make a form takes as long as the rest
        self._unread = sent = Sent(_ANSWER_S + more_s)
        try:
            connection.pgconn.consume_input()  # what a server says that is shut down
            connection.pgconn.consume_input()  # raises if it has closed the connection
            data = form.dump_sequence(values, [PyFormat.BINARY] * len(values))
            sent.allowed_s += sum(map(len, filter(None, data))) / _BYTES_A_SECOND
            connection.pgconn.send_query_params(
                sql.encode(), data, form.types, form.formats, Format.BINARY
            )
            if connection.pgconn.flush():
                _flush(connection.pgconn, time.monotonic() + sent.allowed_s)
        except BaseException:
            self.drop()  # half of it may be on its way
            raise
        return sent

    def answer(self, sent: Sent) -> list[tuple[Any, ...]]:
        """What the server has answered to a statement; raises its error."""
        if sent is self._unread:
            self._read(sent)
        if sent.error is not None:
            raise sent.error
        return sent.rows

    def _read(self, sent: Sent) -> None:
        """Read the answer to what was sent last."""
        connection, form = self._connection, self._form
        assert connection is not None  # else `drop` has told
        try:
            result = _answer(connection.pgconn, time.monotonic() + sent.allowed_s)
            if result.status == ExecStatus.TUPLES_OK:
                form.set_pgresult(result)
                sent.rows = form.load_rows(0, result.ntuples, tuple)
                form.set_pgresult(None)
            elif result.status == ExecStatus.COMMAND_OK:
                sent.rows = [(result.command_tuples or 0,)]
            else:
                sent.error = errors.error_from_result(result)
            if sent.error is None:
                self.is_down = False
            self._unread = None  # last: a signal may come between
        except psycopg.Error as error:
            self.drop()  # an answer may still come
            sent.error = error
        except BaseException:
            self.drop()
            raise

    def _connected(self) -> Connection:
        """The connection, made if need be, to a database that has our tables."""
        if self._connection is None or self._connection.closed:
            self._connection = self.connect(autocommit=True)
            self._form = Transformer(self._connection)
            try:
                self._check()
            except BaseException:
                self.drop()
                raise
        return self._connection

    def connect(self, *, autocommit: bool = False) -> Connection:
        """A new connection."""
        return psycopg.Connection.connect(
            **self.parameters, autocommit=autocommit, prepare_threshold=None
        )

    def _check(self) -> None:
        """See whether the tables are there, in this version."""
        found = self.run(schema.VERSION_QUERY)
        version = schema.checked(found[0][0] if found else 0, self.place)
        if version < schema.VERSION:
            raise StoreError(
                f"the tables in {self.place} are of version {version} and this burr-otel needs "
                f"version {schema.VERSION}: run `burr-otel store init {self.place}` to upgrade "
                "them."
            )

    def patience(self) -> Patience:
        """How long a statement is tried again; once an outage has lasted, not at all."""
        return Patience(0 if self.is_down else OUTAGE_S)

    def reconnect(self, error: Exception, patience: Patience) -> None:
        """Let go of a connection that has failed, and wait if there is a point in another try."""
        self.drop()
        problem = self.problem(error)
        if isinstance(problem, StoreError) or not patience.pause():
            self.is_down = True
            raise problem from error

    def drop(self) -> None:
        """Let go of a connection that has failed."""
        if self._unread is not None:  # first: a signal may come between
            self._unread.error = psycopg.OperationalError("connection lost before the answer")
            self._unread = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Close the connection; the next statement makes a new one."""
        with self.lock:
            self.drop()

    def problem(self, error: Exception) -> StoreError | OSError:  # noqa: PLR0911 - one case each
        """What is the matter, without the password; an `OSError` may pass by itself."""
        if isinstance(error, StoreError | OSError):
            return error
        password = self.parameters.get("password") or os.environ.get("PGPASSWORD")
        text = str(error).replace(password, "***") if password else str(error)
        lines = [printable(line.strip()) for line in text.strip().splitlines()] or [
            type(error).__name__
        ]
        init = f"burr-otel store init {self.place}"
        if isinstance(error, errors.InsufficientPrivilege):
            return StoreError(
                f"{self.place}: {lines[0]}: grant the role what `{init} --print` lists at its end."
            )
        if isinstance(error, errors.UndefinedTable | errors.InvalidSchemaName):
            return StoreError(f"{self.place} has no tables of burr-otel: run `{init}` once.")
        if isinstance(error, errors.ForeignKeyViolation):
            return FileNotFoundError(
                f"{self.place}: the run was deleted while it was live; build the application again"
            )
        if not isinstance(error, LOST):
            return StoreError(f"{self.place}: the server refuses what it was asked: {lines[0]}.")
        for pattern, sentence in _REFUSALS.items():
            if re.search(pattern, text):
                told = sentence.format(reason=lines[-1])
                return StoreError(f"{self.place}: {told}.")
        return ConnectionError(f"{self.place} does not answer as it should: {lines[0]}")

    def after_fork(self) -> None:
        """In a forked child: the connection is the parent's, and so is its lease."""
        connection = self._connection
        self._reset()
        if connection is not None:
            _left_to_parent.append(connection)  # never finalized: that would tell the server
            with contextlib.suppress(Exception):
                os.close(connection.fileno())


def _flush(pgconn: PGconn, until: float) -> None:
    """Send what does not go at once."""
    ready = select.poll()
    ready.register(pgconn.socket, select.POLLIN | select.POLLOUT)
    while pgconn.flush():
        _wait(ready, until)
        pgconn.consume_input()


def _answer(pgconn: PGconn, until: float) -> PGresult:
    """The server's answer to what has been sent."""
    ready = select.poll()
    ready.register(pgconn.socket, select.POLLIN)
    while pgconn.is_busy():
        _wait(ready, until)
        pgconn.consume_input()
    result = pgconn.get_result()
    # A statement that was carried out may still fail when it is committed.
    while (later := pgconn.get_result()) is not None:
        result = later
    if result is None or pgconn.status == ConnStatus.BAD:
        raise psycopg.OperationalError(pgconn.get_error_message())
    return result


def _wait(ready: select.poll, until: float) -> None:
    left_s = until - time.monotonic()
    if left_s <= 0 or not ready.poll(left_s * 1000):
        raise psycopg.OperationalError("no answer in time")
