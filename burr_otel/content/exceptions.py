"""Exceptions as text: type, message and the traceback of the whole chain, bounded.

`capture_exception` runs where the exception is, and keeps none of its frames; what of its texts is
shown is decided later, by `ContentPolicy.exception`. The traceback reads like Python's own. It
is written here, not by `traceback`, because that runs code of the values involved (suggestions for
misspelt names), follows chains and groups of any size, and prints source lines as it finds them.
"""

from __future__ import annotations

import itertools
import linecache
import operator
import re
import traceback
import types
from collections.abc import Iterator
from time import monotonic
from types import FrameType, TracebackType
from typing import Any, Final

from burr_otel.content.capture import capture
from burr_otel.content.objects import Failure, call_safely, is_heavy, text_safely, type_name
from burr_otel.content.prune import OVERLAP, CutText, clip, fit, scrub, window
from burr_otel.content.redact import Redaction, hide
from burr_otel.records import Raised

_HEADER: Final = "Traceback (most recent call last):"
_CAUSE: Final = "The above exception was the direct cause of the following exception:"
_CONTEXT: Final = "During handling of the above exception, another exception occurred:"
_OLDER: Final = "... older exceptions are left out ..."

# The lines of a traceback that no message has, see `_without_marks`.
_PREFIX: Final = re.compile(r"\A(?: {2,4}\| ?)+")
_MARK: Final = re.compile(
    r'  File ".*", line (?:\d+|None), in .*'
    rf"|(?:  \+ )?(?:Exception Group )?{re.escape(_HEADER)}|{_CAUSE}|{_CONTEXT}|{re.escape(_OLDER)}"
    r"|  \.\.\. \d+ frames \.\.\.|  \[Previous line repeated .*\]| {2,4}\+-[-+ ]*(?:\d+ [-+a-z ]*)?"
)
_TITLE: Final = re.compile(r"[A-Za-z_][\w.<>]*(?=:|\Z)")
_CUT_NOTE: Final = re.compile(r"\.\.\. \[(\d+) more characters\] \.\.\.")

_MOST_LINKS: Final = 16  # exceptions in a chain of causes and contexts
_MOST_MEMBERS: Final = 15  # of one group, as in Python's own traceback
_GROUP_DEPTH: Final = 6
_MOST_EXCEPTIONS: Final = 64  # in all groups and chains of one traceback
_FIRST_FRAMES: Final = 12
_LAST_FRAMES: Final = 36
_MOST_NOTES: Final = 8
_NOTE_BYTES: Final = 32  # of the frames that are left out
_LONGEST_LINE: Final = 300
_LINES_BEFORE: Final = 6  # source lines searched for a secret's name before the one shown
_CONTAINERS: Final = (dict, list, tuple)
_LEAST_BLOCK: Final = 200  # bytes in which an older exception still says something
_SECONDS: Final = 0.1  # for code of the exceptions; then their messages are not asked for

_BUILTIN: Final = Redaction()


def capture_exception(error: BaseException, limit_bytes: int) -> Raised:
    """The texts of an exception of which `limit_bytes` may be shown; never raises."""
    writer = _Writer(limit_bytes)
    message = _bounded(writer.message(error), limit_bytes)
    trace = text_safely(writer.chain, error, limit_bytes, 0)
    return Raised(scrub(type_name(error)), message, trace)


class _Writer:
    """Writes the message and the traceback of one exception."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._until = monotonic() + _SECONDS
        self._visited: set[int] = set()
        self._messages: dict[int, str] = {}

    def message(self, exc: BaseException) -> str:
        """The exception's own text."""
        if id(exc) not in self._messages:
            self._messages[id(exc)] = text_safely(self._read_message, exc)
        return self._messages[id(exc)]

    def _read_message(self, exc: BaseException) -> str:
        if monotonic() > self._until:
            return "<message not read: there was no time>"
        arguments = _slot(exc, "args")
        if _members_of(exc):
            arguments = arguments[:1]  # the members are written below the title
        if type(exc).__str__ is BaseException.__str__ and list(map(type, arguments)) == [str]:
            return str(arguments[0])  # of any length: this makes no copy
        own_str = isinstance(type(exc).__str__, types.FunctionType)
        if not own_str and not all(map(_is_brief, arguments)):
            # str() would write out a list of any size.
            value = arguments[0] if len(arguments) == 1 else arguments
            tree, _ = capture(value, self._limit_bytes)
            return fit(hide(tree, _BUILTIN)[0], self._limit_bytes)[0].decode()
        text = call_safely(str, exc)
        if isinstance(text, Failure):
            return f"<message unreadable: {scrub(type_name(text.error))}>"
        return str.__str__(text)

    def chain(self, exc: BaseException, room: int, depth: int) -> str:
        """An exception with all that led to it, in at most about `room` bytes."""
        blocks: list[str] = []
        joined_by = ""
        # It ends where the chain comes back to itself, and after the oldest, which nothing follows.
        while id(exc) not in self._visited and len(blocks) < _MOST_LINKS:
            if blocks and room < _LEAST_BLOCK:
                blocks.append(_OLDER + "\n")
                break
            self._visited.add(id(exc))
            block = self._block(exc, room, depth)
            blocks.append(f"{block}\n\n{joined_by}\n" if joined_by else block)
            room -= _size(blocks[-1:])
            cause, context = _slot(exc, "__cause__"), _slot(exc, "__context__")
            if cause is not None:
                exc, joined_by = cause, _CAUSE
            elif context is not None and not _slot(exc, "__suppress_context__"):
                exc, joined_by = context, _CONTEXT
        return "\n".join(reversed(blocks))

    def _block(self, exc: BaseException, room: int, depth: int) -> str:
        """One exception: its frames, its title and, of a group, its members."""
        title = list(self._title(exc, room // 2))
        members = list(self._members(exc, room // 2, depth))
        left = room - _size(title) - _size(members)
        lines: list[str] = []
        trace = _slot(exc, "__traceback__")
        if trace is not None:
            group = "Exception Group " if members else ""
            lines.append(group + _HEADER)
            lines += self._frames(trace, left - len(lines[0]) - 1)
        return "\n".join(lines + title + members)

    def _title(self, exc: BaseException, room: int) -> Iterator[str]:
        name = scrub(type_name(exc))
        left = max(room - len(name), _LEAST_BLOCK)
        text = _bounded(self.message(exc), left)
        yield _without_marks(f"{name}: {text}" if text else name)
        is_cut = _CUT_NOTE.search(text) is not None
        own = call_safely(object.__getattribute__, exc, "__dict__")
        notes = own.get("__notes__") if type(own) is dict else None
        for note in notes[:_MOST_NOTES] if type(notes) is list else ():
            if isinstance(note, str):
                text = _bounded(str.__str__(note), max(room // 8, _LEAST_BLOCK))
                if _CUT_NOTE.search(text) is not None:
                    # Where two cuts follow each other, nothing tells what belongs to which.
                    text, is_cut = f"<note of {len(note)} characters>" if is_cut else text, True
                yield _without_marks(f"\n{text}")[1:]

    def _members(self, exc: BaseException, room: int, depth: int) -> Iterator[str]:
        """The exceptions of a group, indented below it."""
        members = _members_of(exc)
        for number, member in enumerate(members):
            if (
                number == _MOST_MEMBERS
                or depth == _GROUP_DEPTH
                or len(self._visited) >= _MOST_EXCEPTIONS
                or room < _LEAST_BLOCK
            ):
                yield f"  +-- {len(members) - number} more exceptions"
                return
            yield f"  +---------------- {number + 1} ----------------"
            text = self.chain(member, room, depth + 1) or "<shown above>"
            lines = [f"    | {line}" for line in text.splitlines()]
            room -= _size(lines)
            yield from lines

    # --- frames -----------------------------------------------------------------------------------

    def _frames(self, trace: TracebackType, room: int) -> list[str]:
        """The first and the last frames, as many as have room, with a note for those between."""
        frames = list(traceback.walk_tb(trace))
        first, last = frames[:_FIRST_FRAMES], frames[_FIRST_FRAMES:][-_LAST_FRAMES:]
        for name in {frame.f_code.co_filename for frame, _ in (*first, *last)}:
            call_safely(linecache.checkcache, name)  # the file may have changed since it was read
        begin = [_frame(*each) for each in first]
        end = [_frame(*each) for each in last]
        left = room - _size(begin) - _size(end)
        skipped = len(frames) - len(begin) - len(end)
        while left < (_NOTE_BYTES if skipped else 0) and (begin or end):
            # The last frames, nearest to the error, tell most.
            left += _size([begin.pop() if 3 * len(begin) > len(end) else end.pop(0)])
            skipped += 1
        note = [f"  ... {skipped} frames ..."] if skipped else []
        return [*begin, *note, *end]


def _frame(frame: FrameType, number: int | None) -> str:
    code = frame.f_code
    where, _ = clip(scrub(code.co_filename), _LONGEST_LINE)
    name, _ = clip(scrub(code.co_name), _LONGEST_LINE)
    text = f'  File "{where}", line {number}, in {name}'
    line = None if number is None else call_safely(_source, frame, number)
    return f"{text}\n    {line}" if isinstance(line, str) and line else text


def _source(frame: FrameType, number: int) -> str:
    """A source line, without a secret whose name stands in a line before it."""
    filename = frame.f_code.co_filename
    linecache.lazycache(filename, frame.f_globals)
    lines = linecache.getlines(filename)
    if not 0 < number <= len(lines):
        return ""
    earlier = lines[max(0, number - 1 - _LINES_BEFORE) : number - 1]
    before = scrub("".join(line.rstrip("\r\n")[:_LONGEST_LINE] + "\n" for line in earlier))
    line = scrub(lines[number - 1].strip()[: 2 * _LONGEST_LINE])
    hidden = _BUILTIN.source_line(before, line)
    # What is known here alone: the lines before, and what a cut leaves only in part.
    if len(line) > _LONGEST_LINE or hidden != _BUILTIN.source_line("", line):
        line = hidden
    return clip(line, _LONGEST_LINE)[0]


def _is_brief(argument: Any) -> bool:
    """Whether str() of an exception may write out one of its arguments."""
    return not is_heavy(argument) and (type(argument) not in _CONTAINERS or _is_plain(argument))


def _is_plain(value: Any) -> bool:
    """Whether a value is of JSON types all through, so that its repr runs no code of others."""
    if type(value) in _CONTAINERS:
        return all(map(_is_plain, (*value, *value.values()) if type(value) is dict else value))
    return value is None or type(value) in (str, int, float, bool)


def _size(lines: list[str]) -> int:
    """The bytes of lines, but for what serves only the search for secrets."""
    size = sum(len(line.encode()) + 1 for line in lines)
    return size - 2 * OVERLAP * sum(len(_CUT_NOTE.findall(line)) for line in lines)


def _slot(exc: BaseException, name: str) -> Any:
    """An attribute that every exception has, read past what its class overrides."""
    return BaseException.__dict__[name].__get__(exc)


def _members_of(exc: BaseException) -> list[BaseException]:
    """The exceptions of a group, that of Python 3.11 or of a backport."""
    members = call_safely(getattr, exc, "exceptions", ())
    known = members if type(members) is tuple else ()
    return [one for one in known if issubclass(type(one), BaseException)]


# --- texts, as they were captured or recorded ----------------------------------------------------


def raised_of_text(text: str) -> Raised:
    """The parts of a traceback that was recorded as text, such as by Burr's own client."""
    text = scrub(text)
    block = text[text.rfind(_HEADER) :] if _HEADER in text else text
    lines = block.splitlines()
    if lines and lines[0].endswith(_HEADER):
        # Frames are indented. The message may go on over the lines after the type.
        first = next((i for i, line in enumerate(lines[1:], 1) if line[:1].strip()), len(lines))
        lines = lines[first:]
    last = "\n".join(lines).strip()
    title = _TITLE.match(last)
    if title is None:
        return Raised("Exception", last, text)
    return Raised(title[0], last[title.end() :].removeprefix(":").strip(), text)


def captured_text(text: str) -> str | CutText:
    """A message as it was captured: one that was cut then is a cut text again."""
    note = _CUT_NOTE.search(text)
    if note is None or note.start() < OVERLAP or len(text) - note.end() < OVERLAP:
        return text
    head, tail, missing = text[: note.start()], text[note.end() :], int(note[1])
    return CutText(head, tail, missing + 2 * OVERLAP, context=OVERLAP)


def shown_trace(text: str, redaction: Redaction, *, content: bool) -> str:
    """A traceback without secrets, or without any content."""
    shown: list[str] = []
    by_kind = operator.itemgetter(0, 1)
    for (kind, prefix), group in itertools.groupby(_classified(text), by_kind):
        lines = [line for _, _, line in group]
        if kind == "source":
            lines = [redaction.source_line("", line) for line in lines] if content else []
        elif kind == "content" and content:
            block = redaction.text(captured_text("\n".join(lines)))
            lines = clip(block, len(text) + OVERLAP)[0].split("\n")
        elif kind == "content":
            title = _TITLE.match(lines[0])
            blank = [""] if lines[-1] == "" and len(lines) > 1 else []
            lines = [*([] if title is None else [title[0]]), *blank]
        shown += [prefix + line for line in lines]
    return "\n".join(shown)


def _classified(text: str) -> Iterator[tuple[str, str, str]]:
    """The lines of a traceback: marks, source lines or content, the indentation, and the rest."""
    kind = ""
    for whole in text.split("\n"):
        line = _PREFIX.sub("", whole)
        if _MARK.fullmatch(line):
            kind = "mark"
        elif kind not in ("mark", "source"):
            kind = "content"
        elif line[:4] == "    ":
            kind = "source"
        else:
            kind = "content" if line else "mark"
        yield kind, whole[: len(whole) - len(line)], line


def _without_marks(text: str) -> str:
    """A message of which no line looks like another part of a traceback."""
    first, *lines = text.split("\n")
    for number, line in enumerate(lines):
        if _PREFIX.match(line) or _MARK.fullmatch(line):
            lines[number] = f"    {line}"
    return "\n".join([first, *lines])


def _bounded(text: str, keep: int) -> str:
    """A text of which about `keep` characters will be shown, with what the search needs beyond."""
    cut = window(text, keep)
    if not isinstance(cut, CutText):
        return _without_notes(cut)
    head, tail = _without_notes(cut.head), _without_notes(cut.tail)
    return f"{head}... [{cut.missing - 2 * OVERLAP} more characters] ...{tail}"


def _without_notes(text: str) -> str:
    """A text in which nothing reads as the note of a cut that we have made."""
    return _CUT_NOTE.sub(r"... (\1 more characters) ...", text)
