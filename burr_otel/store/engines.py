"""Which engine keeps the runs of a storage directory: a folder, or the URL of another place."""

from __future__ import annotations

import os
import re
import threading
from importlib import import_module
from typing import Final

from burr_otel import forks
from burr_otel.errors import ConfigError
from burr_otel.store.files.engine import FileEngine
from burr_otel.store.port import Engine

# By scheme: the room of the engine, its class, and the extra that installs what it needs.
_ENGINES: Final = {
    **dict.fromkeys(("postgresql", "postgres"), ("postgres", "PostgresEngine", "postgres")),
    **dict.fromkeys(("s3", "gs", "az"), ("objects", "ObjectEngine", "objects")),
}
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# Hides too much rather than too little: a password may hold any character, quoted or not.
_PASSWORD: Final = re.compile(r"(://[^:@/?#]*):.*@", re.DOTALL)
_SECRET: Final = re.compile(r"(?i)([?&][^=&#]*(?:pass|secret|token|key|sig)[^=&#]*=)[^&#]*")

_opened: dict[str, Engine] = {}
_lock = threading.RLock()
forks.free_in_child(_lock)  # its holder imports an engine


def is_url(storage_dir: str | os.PathLike[str]) -> bool:
    """Whether runs are kept in a database or bucket, and not in a folder."""
    return isinstance(storage_dir, str) and _SCHEME.match(storage_dir) is not None


def without_password(storage_dir: str | os.PathLike[str]) -> str:
    """A storage directory for messages."""
    text = os.fspath(storage_dir)
    return _SECRET.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text)) if is_url(text) else text


def open_engine(storage_dir: str | os.PathLike[str]) -> Engine:
    """The engine of a storage directory; one in a process for each URL. Connects to nothing yet."""
    url = os.fspath(storage_dir)
    if not is_url(url):
        return FileEngine(url)
    if url in _opened:
        return _opened[url]
    scheme = url.partition(":")[0].lower()
    if scheme not in _ENGINES:
        raise ConfigError(
            f"{without_password(url)!r} is no place for runs: no engine knows {scheme}://. Use a "
            f"folder, or a URL that begins with {', '.join(f'{name}://' for name in _ENGINES)}."
        )
    room, name, extra = _ENGINES[scheme]
    with _lock:
        try:
            engine: Engine = getattr(import_module(f"burr_otel.store.{room}.engine"), name)(url)
        except ImportError as error:
            raise ConfigError(
                f"{scheme}:// needs what is not installed here ({error}). "
                f'Run: pip install "burr-otel[{extra}]"'
            ) from error
        return _opened.setdefault(url, engine)  # of two threads at once, both get the first one
