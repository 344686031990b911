"""The one connection of this process to a database, shared by all trackers that name it.

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
from collections.abc import Iterator, Sequence
from typing import Any, Final

import psycopg
from psycopg import errors
from psycopg.abc import PQGen
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult

from burr_otel.errors import StoreError
from burr_otel.printable import logger_of_lines, printable
from burr_otel.store.postgres.address import Address
from burr_otel.store.postgres.schema import VERSION, VERSION_QUERY

logger = logger_of_lines(__name__)

OUTAGE_S = 10.0
"""How long an outage is waited for."""

ANSWER_S: Final = 10.0  # longest wait for an answer to a short statement
LOST: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,  # the former primary, after a failover
)
"""Errors after which another connection may help, and after which nobody knows what was done."""

# What libpq says when it is no use to try again, and what we say then.
_REFUSALS: Final = tuple(
    (re.compile(pattern), sentence)
    for pattern, sentence in (
        (
            r'database "[^"\n]*" does not exist|no such database',
            "there is no such database: make it with `createdb`, or correct the URL",
        ),
        (
            r"password authentication failed|no password supplied|SASL",
            (
                "the server does not take the user name and password: correct them in the URL, "
                "PGPASSWORD or ~/.pgpass"
            ),
        ),
        (
            r"certificate|SSL|TLS",
            (
                "no verified TLS connection ({reason}): add sslrootcert=FILE with the server's "
                "certificate authority to the URL, or sslmode=require to go without verifying"
            ),
        ),
        (
            r"does not exist|no pg_hba.conf entry|not permitted|permission denied",
            "{reason}: correct the URL, or the rules of the server",
        ),
    )
)


_left_to_parent: list[Connection] = []  # connections that a forked child must not touch


class Connection(psycopg.Connection[Any]):
    """A connection that gives up a server that does not answer."""

    answer_s: float | None = ANSWER_S

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for the answer to a statement."""
        return super().wait(gen, interval, timeout or self.answer_s)


def _exchange(
    pgconn: PGconn,
    sql: bytes,
    values: Sequence[bytes | None],
    types: Sequence[int],
    until: float,
) -> PGresult:
    """The server's answer to a statement."""
    pgconn.send_query_params(sql, values, types, [Format.BINARY] * len(values), Format.BINARY)
    ready = select.poll()
    ready.register(pgconn.socket, select.POLLIN | select.POLLOUT)
    while pgconn.flush():
        _wait(ready, until)
        pgconn.consume_input()
    ready.modify(pgconn.socket, select.POLLIN)
    while pgconn.is_busy():
        _wait(ready, until)
        pgconn.consume_input()
    result = pgconn.get_result()
    while pgconn.get_result() is not None:
        pass
    if result is None:
        raise psycopg.OperationalError(pgconn.get_error_message())
    return result


def _wait(ready: select.poll, until: float) -> None:
    left_s = until - time.monotonic()
    if left_s <= 0 or not ready.poll(left_s * 1000):
        raise psycopg.OperationalError("no answer in time")


class Patience:
    """How long a statement is tried again. In an outage that lasts, later ones are tried once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._until = time.monotonic() + (0 if database.is_down else OUTAGE_S)
        self._pause_s = 0.05

    def pause(self, error: Exception) -> None:
        """Wait before the next attempt.

        Raises:
            OSError: The outage lasts.
            StoreError: There is no point in another attempt.
        """
        self._database.drop()
        left_s = self._until - time.monotonic()
        problem = self._database.problem(error)
        if left_s <= 0 or isinstance(problem, StoreError):
            self._database.is_down = True
            raise problem from error
        time.sleep(min(self._pause_s, left_s))
        self._pause_s = min(2 * self._pause_s, 1.0)


class Database:
    """A database as this process uses it."""

    def __init__(self, address: Address) -> None:
        self.address, self.place = address, address.place
        self.is_down = False  # an outage has lasted longer than anything waits
        self._reset()

    def _reset(self) -> None:
        self.lock = threading.RLock()
        self.holder: int | None = None  # the thread that is using the connection
        self.writer_id = uuid.uuid4().hex
        self._connection: Connection | None = None

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Keep other threads from the connection."""
        with self.lock:
            earlier, self.holder = self.holder, threading.get_ident()
            try:
                yield
            finally:
                self.holder = earlier

    def query(
        self, sql: str, parameters: Any = (), *, answer_s: float | None = 60.0
    ) -> list[tuple[Any, ...]]:
        """The rows of one statement that may be run twice.

        Raises:
            OSError: The server cannot be reached.
            StoreError: It refuses.
        """
        with self.using():
            patience = Patience(self)
            while True:
                try:
                    return self.run(sql, parameters, answer_s)
                except LOST as error:
                    patience.pause(error)
                except psycopg.Error as error:
                    raise self.problem(error) from error

    def run(self, sql: str, parameters: Any = (), answer_s: float | None = ANSWER_S) -> list[Any]:
        """One attempt; for those who hold the connection and know what a lost answer means."""
        connection = self.connected()
        connection.answer_s = answer_s
        try:
            cursor = connection.execute(sql, parameters, binary=True)
        except Exception:
            raise
        except BaseException:
            self.drop()  # an answer may still come
            raise
        rows = cursor.fetchall() if cursor.description is not None else [cursor.rowcount]
        self.is_down = False
        return rows

    def insert(
        self, sql: bytes, values: Sequence[bytes | None], types: Sequence[int], answer_s: float
    ) -> int:
        """How many rows one attempt has inserted; values are in binary.

        Past psycopg's cursors, which take longer for a record than the server does.
        """
        connection = self.connected()
        until = time.monotonic() + answer_s
        try:
            result = _exchange(connection.pgconn, sql, values, types, until)
        except BaseException:
            self.drop()  # an answer may still come
            raise
        if result.status != ExecStatus.COMMAND_OK:
            raise errors.error_from_result(result)
        self.is_down = False
        return result.command_tuples or 0

    def connected(self) -> Connection:
        """The connection, made if need be, to a database that has our tables."""
        if self._connection is not None and not self._connection.closed:
            return self._connection
        self._connection = None
        connection = self.connect(autocommit=True)
        try:
            connection.answer_s = ANSWER_S
            self._check(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def connect(self, *, autocommit: bool = False) -> Connection:
        """A new connection."""
        made: Connection = Connection.connect(
            **self.address.parameters, autocommit=autocommit, prepare_threshold=None
        )
        return made

    def _check(self, connection: Connection) -> None:
        """See whether the tables are there, in this version."""
        command = f"`burr-otel store init {self.place}`"
        found = connection.execute(VERSION_QUERY).fetchone()
        version = found[0] if found else 0
        if version < VERSION:
            raise StoreError(
                f"the tables in {self.place} are of version {version} and this burr-otel needs "
                f"version {VERSION}: run {command} to upgrade them."
            )
        if version > VERSION:
            raise StoreError(
                f"the tables in {self.place} are of version {version} and this burr-otel knows "
                f"version {VERSION}: install a newer burr-otel."
            )

    def drop(self) -> None:
        """Let go of a connection that has failed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Close the connection; the next statement makes a new one."""
        with self.using():
            self.drop()

    def problem(self, error: Exception) -> StoreError | OSError:
        """What is the matter, in one sentence without the password.

        An `OSError` may pass by itself; a `StoreError` does not.
        """
        if isinstance(error, StoreError | OSError):
            return error
        text = self.address.without_password(str(error)).strip()
        lines = [printable(line.strip()) for line in text.splitlines()] or [type(error).__name__]
        init = f"burr-otel store init {self.place}"
        if isinstance(error, errors.InsufficientPrivilege):
            return StoreError(
                f"{self.place}: {lines[0]}: grant the role what `{init} --print` lists at its end."
            )
        if isinstance(error, errors.UndefinedTable | errors.InvalidSchemaName):
            return StoreError(f"{self.place} has no tables of burr-otel: run `{init}` once.")
        if not isinstance(error, LOST):
            return StoreError(f"{self.place}: the server refuses what it was asked: {lines[0]}.")
        for pattern, sentence in _REFUSALS:
            if pattern.search(text):
                told = sentence.format(reason=lines[-1])
                return StoreError(f"{self.place}: {told}.")
        return ConnectionError(f"{self.place} does not answer as it should: {lines[-1]}")

    def after_fork(self) -> None:
        """In a forked child: the connection is the parent's, and so is its lease."""
        connection = self._connection
        self._reset()
        if connection is not None:
            _left_to_parent.append(connection)  # never finalized: that would tell the server
            with contextlib.suppress(Exception):
                os.close(connection.fileno())
