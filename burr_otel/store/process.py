"""What engines share: this process to others, its threads and forked children, and patience."""

from __future__ import annotations

import functools
import os
import random
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from burr_otel import forks
from burr_otel.printable import logger

_One = TypeVar("_One")
_Other = TypeVar("_Other")

_LONGEST_PAUSE_S: Final = 1.0
_EVERY_S: Final = 1.0
_MOST_AT_ONCE: Final = 32  # requests that event loops wait for


def this_owner() -> dict[str, Any]:
    """Host, pid and start time of this process, as an otel_root record holds them."""
    pid = os.getpid()
    return {"host": host(), "pid": pid, "process_start": _process_start(pid)}


def owner_is_alive(owner: Mapping[str, Any]) -> bool | None:
    """Whether the process that an `owner` object names still lives; None: nothing here tells."""
    pid, start = owner.get("pid"), owner.get("process_start")
    if owner.get("host") != host() or type(pid) is not int or pid <= 0:
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # it exists and is another user's, so compare start times
    if start is None:
        return True
    now = _process_start(pid)
    return now is None or now == start


def host() -> str:
    """The name of this machine."""
    return socket.gethostname()


@functools.lru_cache(maxsize=1)
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _process_start(pid: int) -> str | None:
    """What tells a process from an earlier one of the same id; None where /proc is missing."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    state, ticks = fields[0], fields[19].decode()
    return None if state == b"Z" else f"{_boot_id()}/{ticks}"


# --- forked children, and threads -----------------------------------------------------------------


class Forked(Protocol):
    """Something with threads, locks or connections, which are the parent's in a forked child."""

    def after_fork(self) -> None:
        """In a forked child: begin anew."""


_things: weakref.WeakSet[Forked] = weakref.WeakSet()


def begin_anew_after_fork(thing: Forked) -> None:
    """From now on tell it in a forked child that it is one."""
    _things.add(thing)


def _after_fork_in_child() -> None:
    for thing in list(_things):
        thing.after_fork()


forks.in_child(_after_fork_in_child)


Task = Callable[[], bool]
"""Something to do again and again; False: no more."""


def start_thread(name: str, work: Callable[[], None]) -> threading.Thread | None:
    """A daemon; None: the main thread is over, after which Python 3.12 and later start no other."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread


class Background:
    """A thread that does tasks once a second, and a pool that does something once, at once.

    Without them, once the main thread is over, tasks wait and all else is done by who asks for it.
    """

    def __init__(self) -> None:
        self.after_fork()
        begin_anew_after_fork(self)

    def after_fork(self) -> None:
        """In a forked child: begin anew."""
        self._pool = ThreadPoolExecutor(_MOST_AT_ONCE, "burr-otel store")
        self._lock = threading.Lock()
        self._tasks: dict[Task, None] = {}
        self._thread: threading.Thread | None = None
        self._some = threading.Event()

    def add(self, task: Task) -> None:
        """Do a task from now on, if it is not among them."""
        self._tasks[task] = None
        with self._lock:
            if self._thread is None:
                self._thread = start_thread("burr-otel store", self._work)
        self._some.set()

    def do(self, work: Callable[..., object], *told: Any, **more: Any) -> None:
        """Do something once, without waiting for it."""
        try:
            self._pool.submit(work, *told, **more)
        except RuntimeError:
            work(*told, **more)

    def map(self, work: Callable[[_One], _Other], things: Sequence[_One]) -> Iterable[_Other]:
        """Do the same with several things at once."""
        try:
            return self._pool.map(work, things)
        except RuntimeError:
            return map(work, things)

    def _work(self) -> None:
        while self._some.wait():
            time.sleep(_EVERY_S)
            self._some.clear()
            for task in list(self._tasks):
                # Out before it is done, so that one that is added meanwhile stays.
                del self._tasks[task]
                try:
                    if task():
                        self.add(task)
                except BaseException:  # a panic of a library in Rust is no Exception
                    logger.exception("a task for a store failed")


background = Background()


class Patience:
    """How long something is tried again, with pauses that grow."""

    def __init__(self, patience_s: float) -> None:
        self._until_s, self._pause_s = time.monotonic() + patience_s, 0.05

    def pause(self) -> bool:
        """Wait before the next attempt; False: there is no time for one."""
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            return False
        time.sleep(min(left_s, self._pause_s * random.uniform(0.5, 1.0)))  # noqa: S311 - no secret
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return True
