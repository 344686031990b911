"""``burr-otel show --follow``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

from rich.live import Live
from rich.text import Text

from burr_otel.cli.terminal import json_line, output
from burr_otel.history.tree import RUNNING, RunTree, SessionNode, SpanNode
from burr_otel.view.as_json import span_as_json
from burr_otel.view.rows import failure_text, look
from burr_otel.view.text import duration, one_line
from burr_otel.view.waterfall import frame, grow

_POLL_S: Final = 0.25
_READING_SHARE: Final = 5  # reading a long log again takes a sixth of the time at most
_AFTER_END_S: Final = 10.0  # a session that ended by idling may go on


def follow(read: Callable[[], RunTree], *, as_json: bool) -> RunTree:
    """Show a run while it goes on, and give it as it was at the end.

    On a terminal the waterfall is drawn again and again; elsewhere each step is a line once it has
    ended. It ends with the process that writes the run, or ten seconds after its session did. A
    log of plain Burr names neither, so it is followed until Ctrl-C.
    """
    console = output()
    if as_json or not console.is_terminal:
        printed: set[tuple[str | None, int | None, int]] = set()

        def show(view: RunTree) -> None:
            for step in _newly_ended(view, printed):
                if as_json:
                    sys.stdout.write(json_line(span_as_json(step)))
                else:
                    console.print(_line(step), soft_wrap=True)
            sys.stdout.flush()

        return _watch(read, show)
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def draw(view: RunTree) -> None:
            grow(view, time.time_ns())
            live.update(frame(view, console.height), refresh=True)

        return _watch(read, draw)


def _watch(read: Callable[[], RunTree], show: Callable[[RunTree], None]) -> RunTree:
    while True:
        started = time.monotonic()
        view = read()
        over = _is_over(view)
        show(view)
        if over:
            return view
        time.sleep(max(_POLL_S, (time.monotonic() - started) * _READING_SHARE))


def _is_over(view: RunTree) -> bool:
    newest = view.sessions[-1] if view.sessions else None
    if not isinstance(newest, SessionNode) or newest.session is None:
        return False
    if not newest.lives:
        return True
    busy = any(step.outcome == RUNNING for step in view.steps)
    idle_s = (time.time_ns() - newest.last_record_ns) / 1e9
    return newest.outcome != RUNNING and not busy and idle_s > _AFTER_END_S


def _newly_ended(
    view: RunTree, printed: set[tuple[str | None, int | None, int]]
) -> Iterator[SpanNode]:
    for step in view.steps:
        key = (step.session, step.sequence_id, step.start_ns)
        if step.outcome != RUNNING and key not in printed:
            printed.add(key)
            yield step


def _line(step: SpanNode) -> Text:
    shown = look(step.outcome)
    took = duration(step.last_ns - step.start_ns)
    line = Text(f"{step.sequence_id} {one_line(step.name)}  {took}  ")
    line.append(shown.word, style=shown.style)
    if step.failure is not None:
        line.append(f"  {one_line(failure_text(step.failure))}", style="red")
    return line
