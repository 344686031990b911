"""The one connection of this process to a database, shared by all trackers that name it.

Nothing here outlives a statement at the server: no prepared statement, no setting, no lock of a
session. So a pooler may give each statement another connection (PgBouncer's transaction mode).
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any, Final

import psycopg
from psycopg import errors
from psycopg.abc import PQGen

from burr_otel.errors import StoreUnavailableError
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

_PERMANENT: Final = re.compile(
    r"authentication failed|no password supplied|does not exist|no pg_hba.conf entry|certificate|"
    r"does not support SSL|SSL error|not permitted to log in|permission denied for database"
)
_PASSWORD: Final = re.compile(r"password authentication failed|no password supplied|SASL")
_NO_DATABASE: Final = re.compile(r'database "([^"]*)" does not exist|no such database: (\S+)')

_left_to_parent: list[Connection] = []  # connections that a forked child must not touch


class Connection(psycopg.Connection[Any]):
    """A connection that gives up a server that does not answer."""

    answer_s: float | None = ANSWER_S

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for the answer to a statement."""
        try:
            return super().wait(gen, interval, timeout or self.answer_s)
        except errors._WaitTimeout:  # noqa: SLF001 - psycopg's own, raised by the line above
            raise psycopg.OperationalError(f"no answer within {self.answer_s:g} s") from None


class Patience:
    """How long a statement is tried again. In an outage that lasts, later ones are tried once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._until = time.monotonic() + (0 if database.is_down else OUTAGE_S)
        self._pause_s = 0.05

    def pause(self, error: Exception) -> None:
        """Wait before the next attempt.

        Raises:
            StoreUnavailableError: There is no point in another one.
        """
        self._database.drop()
        left_s = self._until - time.monotonic()
        if left_s <= 0 or isinstance(error, StoreUnavailableError):
            self._database.is_down = True
            raise self._database.unavailable(error) from error
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
            StoreUnavailableError: The server cannot be reached, or refuses.
        """
        with self.using():
            patience = Patience(self)
            while True:
                try:
                    return self.run(sql, parameters, answer_s)
                except LOST as error:
                    patience.pause(error)
                except psycopg.Error as error:
                    raise self.unavailable(error) from error

    def run(self, sql: str, parameters: Any = (), answer_s: float | None = ANSWER_S) -> list[Any]:
        """One attempt; for those who hold the connection and know what a lost answer means."""
        connection = self.connected()
        connection.answer_s = answer_s
        cursor = connection.execute(sql, parameters, binary=True)
        rows = cursor.fetchall() if cursor.description is not None else [cursor.rowcount]
        self.is_down = False
        return rows

    def connected(self) -> Connection:
        """The connection, made if need be, to a database that has our tables."""
        if self._connection is not None and not self._connection.closed:
            return self._connection
        self._connection = None
        connection = self.connect()
        try:
            connection.answer_s = ANSWER_S
            self._check(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def connect(self) -> Connection:
        """A new connection.

        Raises:
            StoreUnavailableError: There is no point in trying again.
        """
        try:
            made: Connection = Connection.connect(
                **self.address.parameters, autocommit=True, prepare_threshold=None
            )
            return made
        except psycopg.OperationalError as error:
            if _PERMANENT.search(str(error)):
                raise self.unavailable(error) from error
            raise

    def _check(self, connection: Connection) -> None:
        """See whether the tables are there, in this version."""
        command = f"`burr-otel store init {self.place}`"
        try:
            found = connection.execute(VERSION_QUERY).fetchone()
        except (errors.UndefinedTable, errors.InvalidSchemaName):
            raise StoreUnavailableError(
                f"{self.place} has no tables of burr-otel: run {command} once."
            ) from None
        except errors.InsufficientPrivilege as error:
            raise self.unavailable(error) from error
        version = found[0] if found else 0
        if version < VERSION:
            raise StoreUnavailableError(
                f"the tables in {self.place} are of version {version} and this burr-otel needs "
                f"version {VERSION}: run {command} to upgrade them."
            )
        if version > VERSION:
            raise StoreUnavailableError(
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

    def unavailable(self, error: Exception) -> StoreUnavailableError:
        """What is the matter, in one sentence that has no password."""
        if isinstance(error, StoreUnavailableError):
            return error
        text = self.address.without_password(str(error)).strip()
        if isinstance(error, errors.InsufficientPrivilege):
            reason = printable(text.splitlines()[0])
            return StoreUnavailableError(
                f"{self.place}: {reason}: grant it what "
                f"`burr-otel store init {self.place} --print` lists at its end."
            )
        missing = _NO_DATABASE.search(text)
        if missing:
            return StoreUnavailableError(
                f"{self.place}: there is no database {missing[1] or missing[2]!r}: make it with "
                "`createdb`, or correct the URL."
            )
        if _PASSWORD.search(text):
            return StoreUnavailableError(
                f"{self.place}: the server does not take the user name and password: correct "
                "them in the URL, PGPASSWORD or ~/.pgpass."
            )
        reason = printable(text.splitlines()[-1].strip() if text else type(error).__name__)
        if "certificate" in text or "SSL" in text:
            return StoreUnavailableError(
                f"{self.place}: no verified TLS connection ({reason}): add sslrootcert=FILE with "
                "the server's certificate authority to the URL, or sslmode=require to go without "
                "verifying."
            )
        return StoreUnavailableError(f"{self.place}: {reason}")

    def after_fork(self) -> None:
        """In a forked child: the connection is the parent's, and so is its lease."""
        connection = self._connection
        self._reset()
        if connection is not None:
            _left_to_parent.append(connection)  # never finalized: that would tell the server
            with contextlib.suppress(Exception):
                os.close(connection.fileno())
