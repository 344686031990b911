"""Where a database is: its URL, what messages call it, and how it is connected to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from burr_otel.errors import ConfigError

_DEFAULTS: Final = {
    "application_name": "burr-otel",
    "connect_timeout": "5",
    "tcp_user_timeout": "10000",  # milliseconds until a server that vanished counts as gone
}


class Address:
    """A database by its URL. Nothing that is shown of it has the password."""

    __slots__ = ("parameters", "place")

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

    def __repr__(self) -> str:
        return f"Address({self.place!r})"

    def without_password(self, text: str) -> str:
        """A message of the server's or of libpq's, of which one never knows."""
        password = self.parameters.get("password") or os.environ.get("PGPASSWORD")
        return text.replace(password, "***") if password else text


def _place(given: dict[str, Any]) -> str:
    user, host, port = (str(given.get(name) or "") for name in ("user", "host", "port"))
    host = host or str(given.get("hostaddr") or "")
    at = f"{quote(user, safe='')}@" if user else ""
    where = quote(host, safe=",:[]") + (f":{port}" if port else "")
    return f"postgresql://{at}{where}/{quote(str(given.get('dbname') or ''), safe='')}"


def _tls(given: dict[str, Any]) -> dict[str, str]:
    """Off the loopback the server must prove who it is, unless the URL says otherwise."""
    if "sslmode" in given or "service" in given or "PGSERVICE" in os.environ:
        return {}
    hosts = given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST") or ""
    if all(map(_is_loopback, str(hosts).split(","))):
        return {}
    found = {"sslmode": "verify-full"}
    own = "sslrootcert" in given or "PGSSLROOTCERT" in os.environ
    if not own and not Path("~/.postgresql/root.crt").expanduser().exists():
        found["sslrootcert"] = "system"
    return found


def _is_loopback(host: str) -> bool:
    return host in ("", "localhost", "::1") or host.startswith(("/", "@", "127."))
