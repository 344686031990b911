"""Text that is safe and short enough for a terminal: all that is drawn goes through here first."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from rich.cells import cell_len, set_cell_size

# What a terminal acts on, or what makes text read otherwise than it is written.
_ACTIVE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1
    "\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_SPACE: Final = re.compile(r"\s+")

_MS_NS: Final = 1_000_000
_S_NS: Final = 1_000_000_000
# Units of a minute and more, each with the next smaller one, which is told beside it; in seconds.
_LONG_UNITS: Final = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s"))


def _visible(match: re.Match[str]) -> str:
    char = match[0]
    if char < " ":
        return chr(ord("\u2400") + ord(char))  # its picture
    if char == "\x7f":
        return "\u2421"
    return f"\\u{ord(char):04x}" if char <= "\uffff" else f"\\U{ord(char):08x}"


def clean(text: object) -> str:
    """`text` with everything a terminal would act on made visible; tabs and newlines stay."""
    return _ACTIVE.sub(_visible, str(text).replace("\r\n", "\n")).expandtabs(4)


def one_line(text: object, limit: int = 400) -> str:
    """`text` cleaned, on one line, at most `limit` characters long."""
    raw = str(text)
    # Cut before cleaning: a value may be megabytes, and only its beginning can be shown.
    line = _SPACE.sub(" ", clean(raw[: limit * 4])).strip()
    return line if len(line) <= limit and len(raw) <= limit * 4 else line[: limit - 1] + "…"


def fit(text: str, cells: int) -> str:
    """`text` cut or padded to exactly so many terminal cells, with an ellipsis when cut."""
    if cells <= 0:
        return ""
    if cell_len(text) <= cells:
        return set_cell_size(text, cells)
    return set_cell_size(set_cell_size(text, cells - 1).rstrip() + "…", cells)


def duration(ns: int) -> str:
    """A length of time in at most eight characters: ``412 µs``, ``12.3 ms``, ``2m 05s``."""
    seconds = ns // _S_NS
    for unit_s, unit, part_s, part in _LONG_UNITS:
        if seconds >= unit_s:
            return f"{seconds // unit_s}{unit} {seconds % unit_s // part_s:02d}{part}"
    if ns >= _S_NS:
        return f"{ns / _S_NS:.2f} s"
    if ns >= _MS_NS:
        ms = ns / _MS_NS
        return f"{ms:.1f} ms" if ms < 100 else f"{ms:.0f} ms"  # noqa: PLR2004 - three digits
    return f"{max(ns, 0) / 1_000:.0f} µs"


def local_time(ns: int) -> str:
    """A moment in the reader's time zone, to the second."""
    moment = _moment(ns, None)
    return "?" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def iso(ns: int | None) -> str | None:
    """A moment as ISO text in UTC; ``None`` for none or an impossible one."""
    moment = None if ns is None else _moment(ns, dt.timezone.utc)
    return None if moment is None else f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"


def _moment(ns: int, zone: dt.tzinfo | None) -> dt.datetime | None:
    """A moment in a time zone, or the reader's own; a damaged record may claim any time."""
    try:
        moment = dt.datetime.fromtimestamp(ns // _S_NS, tz=dt.timezone.utc)
        return moment.replace(microsecond=ns % _S_NS // 1_000).astimezone(zone)
    except (OverflowError, OSError, ValueError):
        return None


def plural(count: int, noun: str) -> str:
    """``1 step``, ``2 steps``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
