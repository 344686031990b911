"""Whether what no record ended still runs, crashed, or is over: decided here and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from burr_otel.config import OtelConfig
from burr_otel.history.tree import CRASHED, OK, RUNNING, SessionNode, SpanNode
from burr_otel.records import BeginRoot
from burr_otel.store import StoredRun

Alive = Callable[[Mapping[str, Any] | None, int], bool]
"""Whether the writer of a session lives: the fields of its begin record (None when that is lost, or
in a log of Burr's own client) and the time of its last record."""


AliveOf = Callable[["StoredRun"], "Alive"]
"""Gives what judges the sessions of a run."""


def writer_lives() -> AliveOf:
    """Judges sessions by the fields of their begin and the time of their last record.

    The store mostly knows whether an owner lives. What it cannot know (another host, logs of
    Burr's client, which name no process) is taken to live until it is silent for `recover_after`.
    """
    silence_ns, now_ns = int(OtelConfig.resolve().recover_after * 1e9), time.time_ns()

    def judge(run: StoredRun) -> Alive:
        def lives(fields: Mapping[str, Any] | None, last_ns: int) -> bool:
            owner = fields.get("owner") if fields else None
            known = run.owner_lives(owner) if isinstance(owner, Mapping) else None
            return now_ns - last_ns < silence_ns if known is None else known

        return lives

    return judge


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
