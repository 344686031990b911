"""Synchronous actions under asynchronous methods: what they gave, which Burr tells no hook.

`astep` runs such an action by calling `step`'s inner half, and calls ``post_run_step`` with the
state before the action and no result. The true state comes with the hook after that, if one is
called at all: Burr calls none for an application that still counts as busy with a stream which
nobody read. So that inner half is wrapped, once a process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from burr.core.application import Application

__all__ = ["Note", "install"]

Note = Callable[[str, int, Any, Any, Any], None]
"""Takes app id, sequence id, action, result and state of an action that has run."""


def install(note: Note) -> None:
    """Wrap Burr's inner half of ``step``; idempotent.

    Args:
        note: Called in place of the hooks that Burr leaves to its caller.
    """
    inner = getattr(Application, "_step", None)  # there is no hook: see above
    if inner is None or getattr(inner, "burr_otel_wrapped", False):
        return

    @functools.wraps(inner)
    def run(app: Any, inputs: Any, _run_hooks: bool = True) -> Any:
        done = inner(app, inputs, _run_hooks)
        if not _run_hooks and done is not None:
            note(app.uid, app.sequence_id, *done)
        return done

    run.burr_otel_wrapped = True  # type: ignore[attr-defined]
    Application._step = run  # type: ignore[method-assign, assignment]  # noqa: SLF001
