"""``burr-otel show``: a run drawn, as JSON, as a page, or while it goes on."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Final

import click
from rich.console import RenderableType
from rich.text import Text

from burr_otel.cli import options
from burr_otel.cli.runs import live_trace
from burr_otel.cli.terminal import output, print_json, print_parts, write_file
from burr_otel.config import OtelConfig
from burr_otel.errors import BurrOtelError
from burr_otel.history.read import RunTree
from burr_otel.history.tree import RUNNING, SessionNode, SpanNode
from burr_otel.store import Store
from burr_otel.trace_url import TracePlace, trace_url
from burr_otel.view.as_json import run_as_json, span_as_json, step_as_json
from burr_otel.view.content import ShownContent, load, reader_policy
from burr_otel.view.drawing import Waterfall, frame, grow, header, step_sheet
from burr_otel.view.find import Where
from burr_otel.view.rows import failure_text, look, relatives
from burr_otel.view.steps import read_step
from burr_otel.view.text import duration, one_line

# Of a long run, at its beginning and at its end.
_STEPS_DRAWN: Final = (200, 1_800)
_STEPS_ON_PAGE: Final = (2_000, 8_000)
_POLL_S: Final = 0.25
_READING_SHARE: Final = 5  # reading a long log again takes a sixth of the time at most
_AFTER_END_S: Final = 10.0  # a session that ended by idling may go on
_MOST_LOOKED_UP: Final = 20  # relatives of a run, for their traces


@click.command("show")
@options.one_run
@click.option(
    "--step",
    type=int,
    metavar="N",
    help="Show one step instead: inputs, result, and what it did to the state.",
)
@click.option(
    "--html",
    "html_file",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write one page for a browser instead, which needs no network (-: standard output).",
)
@click.option("--follow", is_flag=True, help="Go on showing the run until its process ends.")
@options.unredacted
@options.where
@options.as_json
def show_command(
    app_id: str,
    step: int | None,
    html_file: str | None,
    follow: bool,
    unredacted: bool,
    where: Where,
    as_json: bool,
) -> None:
    """Draw a recorded run as a waterfall.

    APP_ID may be the beginning of an id, when no other run's id begins so, or the id of a trace or
    span: that of a step, or of a span inside one, shows the step.

    \b
    Examples:
      burr-otel show demo-1f3a9c02
      burr-otel show demo-1f3a9c02 --step 7
      burr-otel show demo-1f3a9c02 --html run.html
      burr-otel show conversation-7 --follow
      burr-otel show demo-1f --project burr-otel-demo --json
    """
    if (step is not None) + (html_file is not None) + follow > 1 or (html_file and as_json):
        raise click.UsageError(
            "--step, --html and --follow exclude each other, --html also --json."
        )
    run, _, named_step = where.find(app_id)
    if html_file is None and not follow and step is None:
        step = named_step
    store, policy, console = Store(run.project, where.storage_dir), reader_policy(), output()

    def read(*, details: bool = False, ends: tuple[int, int] | None = None) -> RunTree:
        return load(run, store, policy, details=details, unredacted=unredacted, ends=ends)

    if step is not None:
        content = ShownContent(run, policy, details=True, unredacted=unredacted)
        _show_step(content, step, as_json=as_json)
    elif html_file is not None:
        _write_page(read(details=True, ends=_STEPS_ON_PAGE), store, html_file)
    elif follow and (as_json or not console.is_terminal):
        _follow_in_lines(read, as_json=as_json)
    elif follow:
        _follow_in_frames(lambda: read(ends=_STEPS_DRAWN))
    elif as_json:
        print_json(run_as_json(read(details=True)))
    else:
        print_parts(console, drawing(read(ends=_STEPS_DRAWN)))


def drawing(view: RunTree) -> Iterator[RenderableType]:
    """Header and waterfall."""
    yield from header(view)
    yield ""
    yield Waterfall(view.sessions)


def _show_step(content: ShownContent, sequence_id: int, *, as_json: bool) -> None:
    step = read_step(content, sequence_id)
    if as_json:
        print_json(step_as_json(step))
        return
    parts: list[RenderableType] = [*step_sheet(step)]
    if step.span.children:
        parts += ["", Waterfall([step.span])]
    print_parts(output(), parts)


# --- while it goes on ---------------------------------------------------------------------------


def _follow_in_lines(read: Callable[[], RunTree], *, as_json: bool) -> None:
    """Print a line for each step once it has ended, until the run is over."""
    console = output()
    printed: set[tuple[str | None, int | None, int]] = set()
    for view in _readings(read):
        for step in view.steps:
            key = (step.session, step.sequence_id, step.start_ns)
            if step.outcome == RUNNING or key in printed:
                continue
            printed.add(key)
            if as_json:
                print_json(span_as_json(step), indent=None)
            else:
                print_parts(console, [_step_line(step)])
        console.file.flush()


def _follow_in_frames(read: Callable[[], RunTree]) -> None:
    """Draw the newest steps again and again until the run is over, and then all of it."""
    from rich.live import Live

    console = output()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        for view in _readings(read):
            grow(view, time.time_ns())
            live.update(frame(view, console.height), refresh=True)
    print_parts(console, drawing(view))


def _readings(read: Callable[[], RunTree]) -> Iterator[RunTree]:
    """The run as it is now, and again, until its process ends, or ten seconds after its session."""
    over = False  # until Ctrl-C in a log of plain Burr, which names neither
    while not over:
        started = time.monotonic()
        view = read()
        over = _is_over(view)
        yield view
        if not over:
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


def _step_line(step: SpanNode) -> Text:
    shown = look(step.outcome)
    took = duration(step.last_ns - step.start_ns)
    line = Text(f"{step.sequence_id} {one_line(step.name)}  {took}  ")
    line.append(shown.word, style=shown.style)
    if step.failure is not None:
        line.append(f"  {one_line(failure_text(step.failure))}", style="red")
    return line


# --- as a page ----------------------------------------------------------------------------------


def _write_page(view: RunTree, store: Store, file: str) -> None:
    """Write the page to a file, or to standard output for ``-``."""
    from burr_otel.view.page import html_page

    setting = OtelConfig.resolve().trace_url
    start_ns = min((session.start_ns for session in view.sessions), default=0)
    last_ns = max((span.last_ns for span, _ in view.walk()), default=0)
    own = TracePlace("", view.run.project, view.run.app_id, start_ns, last_ns)
    others = {place.trace_id: place for place in _traces_of_relatives(view, store)}

    @functools.cache
    def address(trace_id: str) -> str:
        return trace_url(setting, others.get(trace_id, own)._replace(trace_id=trace_id))

    traces = {place.app_id: trace_id for trace_id, place in others.items()}
    page = html_page(view, address, traces)
    if file == "-":
        click.echo(page, nl=False)
        return
    write_file(file, page)
    size = f"{len(page.encode('utf-8', 'replace')) / 1000:,.0f} kB"
    print_parts(output(), [f"Wrote {file} ({size}). Open it in a browser."])


def _traces_of_relatives(view: RunTree, store: Store) -> Iterator[TracePlace]:
    """The newest traces of the runs that a run comes from, and that were forked from it."""
    for _, _, app_id in relatives(view)[:_MOST_LOOKED_UP]:
        with contextlib.suppress(BurrOtelError, OSError):  # it may be gone, or damaged
            place = live_trace(store.read(app_id))
            if place is not None:
                yield place
