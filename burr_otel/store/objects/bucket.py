"""Requests to a bucket: tried again while it does not answer, and with clear errors."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import re
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

from burr_otel.errors import ConfigError, StoreError
from burr_otel.store.process import Patience, begin_anew_after_fork

_T = TypeVar("_T")

PAGE: Final = 1000  # names in an answer to one request

PATIENCE_S = 10.0  # how long an outage is waited for
_CLIENT: Final = {"connect_timeout": "3s", "timeout": "20s"}
_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>(\w{1,60})</Code>")
_NO_BUCKET: Final = re.compile(
    r"NoSuchBucket|ContainerNotFound|bucket does not exist|container does not exist"
)
_DENIED: Final = ("401", "403")
_CREDENTIALS: Final = re.compile(r"XAdminUserNotFound|169\.254\.|metadata\.google|[Cc]redential")
_TRANSPORT: Final = re.compile(
    r"ConnectionRefused|ConnectionReset|IncompleteMessage|TimedOut|InvalidCertificate|dns error"
    r"|builder error|BadScheme"
)
_SETTINGS: Final = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY",
}
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


class _Library:
    """The obstore library, also in a forked process, where its own threads are gone."""

    def __init__(self) -> None:
        self._installed: Any = importlib.import_module("obstore._obstore")  # an extra
        self._loaded: Any = self._installed  # None: to be loaded anew, in a forked child
        begin_anew_after_fork(self)

    def __call__(self) -> Any:
        """Its functions and classes."""
        if self._loaded is None:
            self._loaded = _separate(self._installed)
        return self._loaded

    def after_fork(self) -> None:
        """In a forked child: it is the parent's."""
        if self._loaded is not None:
            _keep_forever(self._loaded)
        self._loaded = None


library = _Library()


def _keep_forever(thing: object) -> None:
    """Never free what belongs to the parent: its connections would close in the parent too."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _separate(module: Any) -> Any:
    """Load the library again, with a runtime of its own.

    Tokio does not work in a forked child (tokio issue 4301): calls hang or crash, and disturb the
    parent, whose epoll descriptor the child shares. The system loads a file of another name anew.
    """
    names = [name for name in sys.modules if name.partition(".")[0] == "obstore"]
    loaded = {name: sys.modules[name] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copy(module.__file__, folder)
        spec = importlib.util.spec_from_file_location("_obstore", path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} cannot be loaded")
        separate = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(separate)
    sys.modules.update(loaded)  # it has put its own parts there
    return separate


class BucketError(StoreError, OSError):
    """The bucket cannot be used; the message says what to do."""


class Listed(NamedTuple):
    """An object as a listing tells of it; its `path` is relative to the URL."""

    path: str
    size_bytes: int
    changed_ns: int
    tag: str


class Fetched(NamedTuple):
    """An object's bytes or first bytes, its size, its version, and when it was written."""

    data: bytes
    size_bytes: int
    version: dict[str, str]
    changed_ns: int


class Bucket:
    """The objects below a URL."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._scheme = parts.scheme.lower()
        if parts.query or parts.fragment or "@" in parts.netloc or not parts.netloc:
            host = parts.netloc.rpartition("@")[2]
            raise ConfigError(
                f"{self._scheme}://{host}{parts.path} is no place for runs: use "
                f"{self._scheme}://bucket/prefix, and put credentials and settings into the "
                f"environment ({_SETTINGS[self._scheme]})."
            )
        self._url = self.place = f"{self._scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._client: Any = None
        self._lock = threading.Lock()
        begin_anew_after_fork(self)

    def create(self, path: str, data: bytes, *, patience_s: float | None = None) -> bool:
        """Make an object unless there is one; False: there is, perhaps by a request of ours."""
        return self._put(path, data, "create", patience_s) is not None

    def replace(
        self, path: str, data: bytes, version: dict[str, str] | None
    ) -> dict[str, str] | None:
        """Replace that version of an object (None: make it); None: it is another by now."""
        done = self._put(path, data, "create" if version is None else version)
        if done is None:
            found = self.fetch(path)
            if found is not None and found.data == data:  # by a request whose answer was lost
                return found.version
        return done

    def put(self, path: str, data: bytes) -> dict[str, str]:
        """Make or replace an object."""
        return self._put(path, data, "overwrite") or {}

    def get(self, path: str) -> bytes | None:
        """The bytes of an object; None when there is none."""
        fetched = self.fetch(path)
        return None if fetched is None else fetched.data

    def fetch(self, path: str, most_bytes: int | None = None) -> Fetched | None:
        """An object or its first bytes; None when there is none."""
        options = {} if most_bytes is None else {"range": (0, most_bytes)}

        def request() -> Fetched | None:
            try:
                found = library().get(self._connected(), path, options=options)
                data, meta = bytes(found.bytes()), found.meta
            except FileNotFoundError as error:
                if _NO_BUCKET.search(str(error)) or _CREDENTIALS.search(_code(error)):
                    raise
                return None
            return Fetched(data, meta["size"], _version(meta), _changed_ns(meta))

        return self._patiently(request)

    def names(self, folder: str, after: str | None = None) -> Iterator[Listed]:
        """The objects in a folder in the order of their names, from behind `after`."""
        while True:
            page = self.page(folder, after)
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1].path

    def page(self, folder: str, after: str | None = None) -> list[Listed]:
        """The first names of those; there may be more when it is full."""

        def request() -> Any:
            pages = library().list(self._connected(), f"{folder}/", offset=after, chunk_size=PAGE)
            return next(iter(pages), ())

        return [_listed(meta) for meta in self._patiently(request)]

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder."""

        def request() -> Any:
            return library().list_with_delimiter(self._connected(), f"{folder}/")

        found = self._patiently(request)["common_prefixes"]
        return [path.rstrip("/").rpartition("/")[2] for path in found]

    def delete(self, paths: Sequence[str], *, patience_s: float | None = None) -> None:
        """Delete objects, whether they are there or not."""

        def request() -> None:
            try:
                library().delete(self._connected(), list(paths))
            except FileNotFoundError as error:
                if _NO_BUCKET.search(str(error)):
                    raise

        if paths:
            self._patiently(request, patience_s)

    def now_ns(self) -> int:
        """The server's time."""
        path = f"clock/{secrets.token_hex(8)}"
        self.put(path, b"")
        found = self.fetch(path)
        self.delete([path])
        if found is None:
            raise BucketError(f"{self.place} does not keep what is written there.")
        return found.changed_ns

    def after_fork(self) -> None:
        """In a forked child: connect anew."""
        self._lock = threading.Lock()
        if self._client is not None:
            _keep_forever(self._client)
            self._client = None

    def _put(
        self, path: str, data: bytes, mode: str | dict[str, str], patience_s: float | None = None
    ) -> dict[str, str] | None:
        errors = library().exceptions

        def request() -> dict[str, str] | None:
            try:
                done = library().put(self._connected(), path, data, mode=mode, use_multipart=False)
            except (errors.AlreadyExistsError, errors.PreconditionError):
                return None
            return _version(done)

        return self._patiently(request, patience_s)

    def _patiently(self, request: Callable[[], _T], patience_s: float | None = None) -> _T:
        """Make a request again until it is answered, or patience ends."""
        patience = Patience(PATIENCE_S if patience_s is None else patience_s)
        began_s = time.monotonic()
        while True:
            try:
                return request()
            except (library().exceptions.BaseError, FileNotFoundError) as error:
                waited_s = time.monotonic() - began_s
                if not _may_pass(error) or not patience.pause():
                    raise self._unavailable(error, waited_s) from None

    def _connected(self) -> Any:
        if self._client is None:
            with self._lock:
                self._client = self._client or self._connect()
        return self._client

    def _connect(self) -> Any:
        endpoint = next(filter(None, map(os.environ.get, _ENDPOINTS)), "")
        client: dict[str, Any] = dict(_CLIENT)
        if self._scheme == "s3" and endpoint.startswith("http://"):
            client["allow_http"] = True  # whoever wrote that address asks for it
        try:
            return library()._store.from_url(  # noqa: SLF001 - its public twin is not in a copy
                self._url, client_options=client, retry_config={"max_retries": 0}
            )
        except (library().exceptions.BaseError, ValueError) as error:
            raise ConfigError(
                f"{self.place} cannot be used with these settings ({type(error).__name__}). Set "
                f"{_SETTINGS[self._scheme]} as your store asks for."
            ) from None

    def _unavailable(self, error: Exception, waited_s: float) -> BucketError:
        """What went wrong, in words of ours: the library's have addresses, keys and signatures."""
        text, code = str(error), _code(error)
        settings = _SETTINGS[self._scheme]
        if _NO_BUCKET.search(text):
            what = "there is no such bucket. Make it, or correct the URL"
        elif _CREDENTIALS.search(text) or any(map(code.startswith, _DENIED)):
            what = (
                f"access is denied ({code or 'no credentials'}). Set credentials ({settings}) that "
                "may list, read, write and delete objects there"
            )
        elif code.startswith("501"):
            what = "it knows no conditional writes, which keep writers apart. Use another store"
        else:
            reason = code or ", ".join(dict.fromkeys(_TRANSPORT.findall(text))) or "no answer"
            what = (
                f"it cannot be used ({reason}, tried for {waited_s:.0f} s). Look whether the "
                f"server runs and the settings are right ({settings})"
            )
        return BucketError(f"{self.place}: {what}.")


def _listed(meta: dict[str, Any]) -> Listed:
    return Listed(meta["path"], meta["size"], _changed_ns(meta), meta["e_tag"] or "")


def _changed_ns(meta: dict[str, Any]) -> int:
    return int(meta["last_modified"].timestamp() * 1e9)


def _version(result: dict[str, Any]) -> dict[str, str]:
    return {name: result[name] for name in ("e_tag", "version") if result[name] is not None}


def _code(error: Exception) -> str:
    """HTTP status and the store's own word for it; nothing when there was no answer."""
    text = str(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    return " ".join(found[1] for found in (status, code) if found is not None)


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    if not isinstance(error, library().exceptions.GenericError):
        return False
    status = _STATUS.search(str(error))
    if status is None:
        return "builder error" not in str(error)
    return (status[1][0] == "5" and status[1] != "501") or status[1] in ("408", "409", "429")
