"""What to draw of a run that is still going on."""

from __future__ import annotations

import dataclasses

from rich.console import Group, RenderableType
from rich.text import Text

from burr_otel.history.tree import RUNNING, RunTree, SpanNode
from burr_otel.view.text import plural
from burr_otel.view.waterfall import NOTE_LINES, Waterfall, header

_FRAME_LINES = 5  # blank lines, the session's own row, the line about hidden steps, one to spare


def grow(view: RunTree, now_ns: int) -> None:
    """Draw what is running up to now, not up to its last record."""
    for span, _ in view.walk():
        if span.outcome == RUNNING:
            span.end_ns = max(now_ns, span.start_ns)
            span.forget_last()


def frame(view: RunTree, height: int) -> RenderableType:
    """Header and the newest steps of the newest session, as many as fit into `height` lines."""
    top = header(view)
    for line in top:
        line.no_wrap, line.overflow = True, "ellipsis"
    if not view.sessions:
        return Group(*top)
    session = view.sessions[-1]
    kept = _newest(session, height - len(top) - _FRAME_LINES)
    hidden = len(session.children) - len(kept)
    hidden += session.left_out.steps if session.left_out else 0
    shown = session
    parts: list[RenderableType] = [*top, Text()]
    if hidden:
        # The axis begins with the first step shown, so that the newest ones are not slivers.
        began_ns = kept[0].start_ns
        shown = dataclasses.replace(session, children=kept, start_ns=began_ns, left_out=None)
        parts.append(Text(f"  {plural(hidden, 'earlier step')}", style="dim"))
    parts.append(Waterfall(dataclasses.replace(view, sessions=[shown])))
    return Group(*parts)


def _newest(session: SpanNode, room: int) -> list[SpanNode]:
    kept: list[SpanNode] = []
    for step in reversed(session.children):
        room -= sum(
            1 + (NOTE_LINES if span.failure else 0) + bool(span.marks) for span, _ in step.walk()
        )
        if room < 0 and kept:
            break
        kept.append(step)
    return kept[::-1]
