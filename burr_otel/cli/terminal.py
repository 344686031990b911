"""Where commands print: colours on a terminal, plain text elsewhere, JSON on request."""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from burr_otel.errors import BurrOtelError
from burr_otel.view.text import clean, one_line

_PLAIN_WIDTH: Final = 100  # of text that goes to a file or a pipe
_MOST_NESTED: Final = 100
_LONGEST_MESSAGE: Final = 4000


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


def lines(console: Console, texts: Iterable[Text]) -> None:
    """Print lines that are never cut: the terminal wraps them, so that they copy as they are."""
    for text in texts:
        safe = clean(text.plain)  # again: a name that somebody forgot must not act on the terminal
        console.print(text if safe == text.plain else Text(safe, text.style), soft_wrap=True)


def complain(message: str) -> None:
    """Print an error on one line: a name with a line break cannot forge a second message."""
    text = Text.assemble(("Error: ", "bold red"), one_line(message, _LONGEST_MESSAGE))
    output(stderr=True).print(text, soft_wrap=True)


def write_file(file: str, text: str) -> None:
    """Write a file in whole or not at all, readable by this user only, as the store's files are."""
    target = Path(file).resolve()
    try:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".burr-otel-")
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        why = f"there is no folder {Path(file).parent}" if is_missing else error.strerror
        raise BurrOtelError(f"{file} cannot be written: {why}.") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as opened:
            opened.write(text)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def print_json(value: Any) -> None:
    """Print JSON. It is ASCII, so nothing in it can act on a terminal; NaN becomes a string."""
    text = json.dumps(_plain(value, 0), indent=2, ensure_ascii=True, allow_nan=False)
    sys.stdout.write(text + "\n")


def json_line(value: Any) -> str:
    """JSON on one line, with its newline; see `print_json`."""
    return json.dumps(_plain(value, 0), ensure_ascii=True, allow_nan=False) + "\n"


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
