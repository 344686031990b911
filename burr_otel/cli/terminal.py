"""Where commands print: colours on a terminal, plain text elsewhere, JSON on request."""

from __future__ import annotations

import codecs
import json
import math
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.text import Text

from burr_otel.view.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["complain", "json_line", "lines", "output", "prepare", "print_json"]

_PLAIN_WIDTH: Final = 100  # of text that goes to a file or a pipe
_STAND_INS: Final = {"µ": "u", "…": "~", "—": "-"}
_MOST_NESTED: Final = 100


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """Something readable for a character that the terminal cannot show."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    bad = error.object[error.start : error.end]
    return "".join(_STAND_INS.get(char, "?") for char in bad), error.end


def prepare() -> None:
    """Let no name or message stop the output in a terminal that cannot show it."""
    codecs.register_error("burr_otel.stand_in", _stand_in)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="burr_otel.stand_in")


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
        console.print(text, soft_wrap=True)


def complain(message: str) -> None:
    """Print an error."""
    text = Text.assemble(("Error: ", "bold red"), clean(message))
    output(stderr=True).print(text, soft_wrap=True)


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
