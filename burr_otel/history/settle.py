"""Whether what no record ended still runs, crashed, or is over: decided here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from burr_otel.history.tree import CRASHED, OK, RUNNING, SessionNode, SpanNode
from burr_otel.records import BeginRoot

Alive = Callable[[Mapping[str, Any] | None, int], bool]
"""Whether the writer of a session lives: the fields of its begin record (None when that is lost, or
in a log of Burr's own client) and the time of its last record."""


def settle(session: SessionNode, open_steps: Sequence[SpanNode], alive: Alive) -> None:
    """Give a session, and what is open in it, the outcome that it has now.

    `open_steps` are those without an end, in the order in which they began.
    """
    is_burrs = session.session is None
    fields = session.begin.fields if isinstance(session.begin, BeginRoot) else None
    session.lives = not session.recovered and alive(fields, session.last_record_ns)
    newest = session.children[-1] if session.children else None
    for step in open_steps:
        # Burr's client has one endless session: a step that another one followed is over.
        lives = session.lives and (step is newest or not is_burrs)
        step.outcome = RUNNING if lives else CRASHED
        is_last = step is open_steps[-1]
        if not lives:
            step.closed_ns = session.last_record_ns if is_last else step.last_record_ns
        _settle_inner(step)
    if open_steps and session.end is not None:
        session.ended_late = True
    if session.end is not None:
        return
    if is_burrs:  # it does not record when an application ends, nor that it goes on
        session.outcome = newest.outcome if newest is not None else OK
    elif session.donor is not None and not session.lives and not open_steps:
        # A forked process has no application span of its own: it ended between two steps.
        session.outcome = newest.outcome if newest is not None else OK
    else:
        session.outcome = RUNNING if session.lives else CRASHED
    if not session.lives:
        session.closed_ns = session.last_record_ns


def _settle_inner(step: SpanNode) -> None:
    for span, depth in step.walk():
        if depth and span.end is None:
            span.outcome, span.closed_ns = step.outcome, step.closed_ns
