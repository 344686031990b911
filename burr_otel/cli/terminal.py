"""What commands print, and where: colours on a terminal, plain text elsewhere, JSON on request."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console, RenderableType
from rich.text import Text

from burr_otel.errors import BurrOtelError
from burr_otel.store.files.disk import replace_file
from burr_otel.view.text import clean, one_line

_PLAIN_WIDTH: Final = 100  # of text that goes to a file or a pipe
_MOST_NESTED: Final = 100
LONGEST_LINE: Final = 4000


class CommandResult(NamedTuple):
    """What a command found or did, for `options.printed` to print."""

    data: Any  # printed with --json, unless it is None
    parts: Iterable[RenderableType] = ()  # printed without it
    notes: Iterable[str] = ()  # likewise, to standard error
    problems: Sequence[str] = ()  # printed as errors in any case
    exit_code: int | None = None  # None: by whether there are problems


class _Console(Console):
    """A console that lets the command end when nobody reads its output any more."""

    def on_broken_pipe(self) -> None:
        """Raise instead of exiting here, so that there is one place that decides."""
        raise BrokenPipeError


def output(*, stderr: bool = False) -> Console:
    """The console to print to: colour and width follow terminal, ``NO_COLOR``, ``COLUMNS``."""
    console = _Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
        console.width = _PLAIN_WIDTH
    return console


def print_parts(console: Console, parts: Iterable[RenderableType]) -> None:
    """Print lines and drawings. Lines are never cut: the terminal wraps them, so that they copy."""
    for part in parts:
        if not isinstance(part, str | Text):
            console.print(part)
            continue
        line = Text(part) if isinstance(part, str) else part
        safe = clean(line.plain)  # a name that somebody forgot must not act on the terminal
        console.print(line if safe == line.plain else Text(safe, line.style), soft_wrap=True)


def complain(message: str) -> None:
    """Print an error on one line: a name with a line break cannot forge a second message."""
    text = Text.assemble(("Error: ", "bold red"), one_line(message, LONGEST_LINE))
    output(stderr=True).print(text, soft_wrap=True)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print JSON. It is ASCII, so nothing in it can act on a terminal; NaN becomes a string."""
    json.dump(_plain(value, 0), sys.stdout, indent=indent, ensure_ascii=True, allow_nan=False)
    sys.stdout.write("\n")


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if depth > _MOST_NESTED and isinstance(value, dict | list | tuple):
        return "…"
    if isinstance(value, dict):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    return value


def write_file(file: str, text: str) -> None:
    """Write a file in whole or not at all, readable by this user only, as the store's files are."""
    try:
        replace_file(Path(file).resolve(), text.encode("utf-8", "replace"), sync=False)
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        why = f"there is no folder {Path(file).parent}" if is_missing else error.strerror
        raise BurrOtelError(f"{file} cannot be written: {why}.") from error


@contextlib.contextmanager
def bar(doing: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A bar on a terminal while something is done; tell it how much is done, and words beside."""
    console = output(stderr=True)
    if not console.is_terminal:
        yield lambda _done, _told: None
        return
    from rich import progress

    *columns, remaining = progress.Progress.get_default_columns()
    columns += progress.TextColumn("{task.fields[told]}"), remaining
    with progress.Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(doing, total=total, told="")
        yield lambda done, told: shown.update(task, completed=done, told=told)
