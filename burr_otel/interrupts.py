"""Exceptions that come while our code runs, and are not of its making."""

from __future__ import annotations

import signal


def is_interrupt(error: BaseException) -> bool:
    """Whether it is Ctrl-C, or was raised by another signal's handler, as to stop a server.

    Whoever catches all exceptions must raise these again.
    """
    codes, traceback = set(), error.__traceback__
    while traceback is not None:
        codes.add(traceback.tb_frame.f_code)
        traceback = traceback.tb_next
    handlers = map(signal.getsignal, signal.valid_signals())
    return isinstance(error, KeyboardInterrupt) or any(
        getattr(each, "__code__", None) in codes for each in handlers
    )
