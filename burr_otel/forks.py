"""What begins anew in a forked child, and locks that a child finds free.

Python tells of a fork, except in a child that was forked in C: uWSGI's workers hear of it only with
``py-call-osafterfork``. So the process id is looked at, too, where an application begins to work.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

_works: list[Callable[[], object]] = []
_lock = threading.RLock()
_pid = os.getpid()


def in_child(work: Callable[[], object]) -> None:
    """Have `work` done in each forked child from now on."""
    _works.append(work)


def notice() -> None:
    """Do that work, if this is a child where nobody has done it yet."""
    global _pid
    if _pid != os.getpid():
        with _lock:
            if _pid != os.getpid():  # else another thread has done it meanwhile
                for work in _works:
                    work()
                _pid = os.getpid()


def free_in_child(lock: threading.RLock) -> None:
    """Hold a lock during each fork: what its holder does is then done in the child, or not begun.

    A child that is forked in the middle of an import waits for ever when it imports the same.
    """
    os.register_at_fork(
        before=lock.acquire, after_in_parent=lock.release, after_in_child=lambda: _free(lock)
    )


def _free(lock: threading.RLock) -> None:
    with contextlib.suppress(RuntimeError):  # uWSGI tells of no fork before it
        lock.release()


os.register_at_fork(after_in_child=notice)
