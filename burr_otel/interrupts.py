"""Exceptions that come while our code runs, and are not of its making."""

from __future__ import annotations

import signal


def is_interrupt(error: BaseException) -> bool:
    """Whether it is Ctrl-C, or another signal's handler raised it: an exit, or that a time is up.

    Who swallowed that would keep a server from stopping.
    """
    codes, traceback = set(), error.__traceback__
    while traceback is not None:
        codes.add(traceback.tb_frame.f_code)
        traceback = traceback.tb_next
    handlers = map(signal.getsignal, signal.valid_signals())
    return isinstance(error, KeyboardInterrupt) or any(
        getattr(each, "__code__", None) in codes for each in handlers
    )
