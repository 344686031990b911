"""The texts of an exception, as they were captured or recorded, and what of them may be shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from burr_otel.content.prune import OVERLAP, CutText, clip, scrub, window
from burr_otel.content.redact import Redaction

HEADER: Final = "Traceback (most recent call last):"
CAUSE: Final = "The above exception was the direct cause of the following exception:"
CONTEXT: Final = "During handling of the above exception, another exception occurred:"
OLDER: Final = "... older exceptions are left out ..."

# The lines of a traceback that no message has, see `without_marks`.
_PREFIX: Final = re.compile(r"(?: {2,4}\| ?)*")
_FRAME: Final = re.compile(r'  File ".*", line (?:\d+|None), in .*')
_MARK: Final = re.compile(
    rf"(?:  \+ )?(?:Exception Group )?{re.escape(HEADER)}|{CAUSE}|{CONTEXT}|{re.escape(OLDER)}"
    r"|  \.\.\. \d+ frames \.\.\.|  \[Previous line repeated .*\]| {2,4}\+-[-+ ]*(?:\d+ [-+a-z ]*)?"
)
_TITLE: Final = re.compile(r"[A-Za-z_][\w.<>]*(?=:|\Z)")
CUT_NOTE: Final = re.compile(r"\.\.\. \[(\d+) more characters\] \.\.\.")


class RaisedText(NamedTuple):
    """The bounded texts of an exception, as captured (with all secrets) or as shown."""

    type: str
    message: str
    traceback: str


def raised_of_text(text: str) -> RaisedText:
    """The parts of a traceback that was recorded as text, such as by Burr's own client."""
    text = scrub(text)
    block = text[text.rfind(HEADER) :] if HEADER in text else text
    lines = block.splitlines()
    if lines and lines[0].endswith(HEADER):
        # Frames are indented. The message may go on over the lines after the type.
        first = next((i for i, line in enumerate(lines[1:], 1) if line[:1].strip()), len(lines))
        lines = lines[first:]
    last = "\n".join(lines).strip()
    title = _TITLE.match(last)
    if title is None:
        return RaisedText("Exception", last, text)
    return RaisedText(title[0], last[title.end() :].removeprefix(":").strip(), text)


def shown_text(text: str, redaction: Redaction) -> str:
    """A message without secrets; one that was cut when it was captured stays a cut text."""
    note = CUT_NOTE.search(text)
    if note is None or note.start() < OVERLAP or len(text) - note.end() < OVERLAP:
        shown: str = redaction.text(text)
        return shown
    head, tail, missing = text[: note.start()], text[note.end() :], int(note[1])
    cut = CutText.of(head, tail, missing + 2 * OVERLAP, context=OVERLAP)
    return redaction.text(cut)  # type: ignore[no-any-return]


def shown_trace(text: str, redaction: Redaction, *, content: bool) -> str:
    """A traceback without secrets, or without any content."""
    shown: list[str] = []
    for kind, prefix, lines in _segments(text):
        if kind == "mark":
            shown += [prefix + line for line in lines]
        elif kind == "source" and content:
            shown += [prefix + redaction.source_line("", line) for line in lines]
        elif kind == "content" and content:
            block = clip(shown_text("\n".join(lines), redaction), len(text) + OVERLAP)[0]
            shown += [prefix + line for line in block.split("\n")]
        elif kind == "content":
            title = _TITLE.match(lines[0])
            shown += [prefix + title[0]] if title is not None else []
            shown += [prefix.rstrip()] if lines[-1] == "" and len(lines) > 1 else []
    return "\n".join(shown)


def _segments(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """The lines of a traceback in groups of one kind: marks, source lines and content."""
    kind, prefix, lines = "", "", list[str]()
    for whole in text.split("\n"):
        found = _PREFIX.match(whole)
        before = found[0] if found is not None else ""
        line = whole[len(before) :]
        if _FRAME.fullmatch(line) or _MARK.fullmatch(line):
            new = "mark"
        elif kind in ("mark", "source") and line[:4] == "    ":
            new = "source"
        elif kind in ("mark", "source") and not line:
            new = "mark"
        else:
            new = "content"
        if (new, before) != (kind, prefix) and lines:
            yield kind, prefix, lines
            lines = []
        kind, prefix = new, before
        lines.append(line)
    if lines:
        yield kind, prefix, lines


def without_marks(text: str) -> str:
    """A message of which no line looks like another part of a traceback."""
    if "\n" not in text:
        return text
    first, *lines = text.split("\n")
    return "\n".join([first, *(f"    {line}" if _looks_odd(line) else line for line in lines)])


def _looks_odd(line: str) -> bool:
    found = _PREFIX.match(line)
    return bool(found and found[0]) or bool(_FRAME.fullmatch(line) or _MARK.fullmatch(line))


def bounded(text: str, keep: int) -> str:
    """A text of which about `keep` characters will be shown, with what the search needs beyond."""
    cut = window(text, keep)
    if not isinstance(cut, CutText):
        return cut
    return f"{str.__str__(cut)}... [{cut.missing - 2 * OVERLAP} more characters] ...{cut.tail}"
