"""Exceptions that come while our code runs, and are not of its making."""

from __future__ import annotations

import signal


def let_out(error: BaseException) -> None:
    """Raise Ctrl-C, and what another signal's handler raised: an exit, or that a time is up.

    Who swallowed that would keep a server from stopping.
    """
    codes, traceback = set(), error.__traceback__
    while traceback is not None:
        codes.add(traceback.tb_frame.f_code)
        traceback = traceback.tb_next
    handlers = map(signal.getsignal, signal.valid_signals())
    if isinstance(error, KeyboardInterrupt) or any(
        getattr(each, "__code__", None) in codes for each in handlers
    ):
        raise error
