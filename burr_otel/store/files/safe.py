"""Opening files of a run that somebody else may have put there: no links, pipes or surprises."""

from __future__ import annotations

import errno
import os
import stat

_MAX_BLOCK_BYTES = 4 * 1024 * 1024


def open_regular(path: str, flags: int = os.O_RDONLY) -> int:
    """Open a regular file; symbolic links are not followed, and no pipe is waited for."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "is not a regular file", path)
    return fd


def read_small(path: str, limit_bytes: int) -> bytes | None:
    """The bytes of a file; None when it is missing, longer than that, or cannot be read."""
    try:
        fd = open_regular(path)
    except OSError:
        return None
    try:
        found = b""
        while len(found) <= limit_bytes:
            block = os.read(fd, min(_MAX_BLOCK_BYTES, limit_bytes + 1 - len(found)))
            if not block:
                return found
            found += block
    except OSError:
        pass
    finally:
        os.close(fd)
    return None
