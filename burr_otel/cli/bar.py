"""A progress bar on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from burr_otel.cli.terminal import output


@contextlib.contextmanager
def bar(doing: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A bar while something is done; what to call with how much is done, and words beside it."""
    console = output(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with progress:
        task = progress.add_task(doing, total=total, told="")
        yield lambda done, told: progress.update(task, completed=done, told=told)
