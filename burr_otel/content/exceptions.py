"""Exceptions as text: type, message and the traceback of the whole chain, bounded and redacted.

The traceback reads like Python's own. It is written here, not by `traceback`, because that runs
code of the values involved (suggestions for misspelt names), follows chains and groups of any
size, and prints source lines as it finds them.
"""

from __future__ import annotations

import builtins
import collections
import linecache
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from burr_otel.content.forms import type_name
from burr_otel.content.guard import Failure, call_safely
from burr_otel.content.objects import is_heavy
from burr_otel.content.plain import is_small
from burr_otel.content.truncate import clip, scrub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType

    from burr_otel.content.encode import Encoder
    from burr_otel.content.redact import Redaction

__all__ = ["ExceptionWriter", "qualified_type"]

_MOST_LINKS: Final = 16  # exceptions in a chain of causes and contexts
_MOST_MEMBERS: Final = 15  # of one group, as in Python's own traceback
_GROUP_DEPTH: Final = 6
_MOST_EXCEPTIONS: Final = 64  # in all groups and chains of one traceback
_FIRST_FRAMES: Final = 12
_LAST_FRAMES: Final = 36
_MOST_STEPS: Final = 50_000  # frames walked over to reach the last ones
_MOST_NOTES: Final = 8
_LONGEST_LINE: Final = 300
_LINES_BEFORE: Final = 6  # source lines searched for a secret's name before the one shown
_LONGEST_ARGUMENT: Final = 4096  # characters of an exception's argument that str() may write
_LEAST_BLOCK: Final = 200  # bytes in which an older exception still says something

_CAUSE: Final = "The above exception was the direct cause of the following exception:"
_CONTEXT: Final = "During handling of the above exception, another exception occurred:"
_OLDER: Final = "... older exceptions are left out ..."


def qualified_type(exc: BaseException) -> str:
    """The exception's class, with its module unless that is `builtins`."""
    return scrub(type_name(exc))


class ExceptionWriter:
    """Writes the message and the traceback of one exception.

    Args:
        redaction: What is hidden in messages, notes and source lines.
        encoder: Writes arguments that are no text.
        limit_bytes: Most bytes of UTF-8 of each result.
    """

    def __init__(self, redaction: Redaction, encoder: Encoder, limit_bytes: int) -> None:
        self._redaction = redaction
        self._encoder = encoder
        self._limit_bytes = limit_bytes
        self._content = True
        self._visited: set[int] = set()
        self._cut = False

    def message(self, exc: BaseException, limit_bytes: int | None = None) -> tuple[str, bool]:
        """The exception's own text without secrets, and whether it was cut."""
        limit_bytes = self._limit_bytes if limit_bytes is None else limit_bytes
        arguments = _slot(exc, "args")
        if _group_type(exc) is not None:
            arguments = arguments[:1]  # the members are written below the title
        plain = type(exc).__str__ is BaseException.__str__ and len(arguments) == 1
        longest = sys.maxsize if plain else _LONGEST_ARGUMENT  # str() gives it without a copy
        if _is_built_in_str(type(exc)) and not all(_is_brief(one, longest) for one in arguments):
            # str() would write out a list of any size.
            value = arguments[0] if len(arguments) == 1 else arguments
            data, cut = self._encoder.json(value, limit_bytes, "exception.message")
            return data.decode(), cut
        text = call_safely(str, exc)
        if isinstance(text, Failure):
            return clip(f"<message unreadable: {qualified_type(text.error)}>", limit_bytes)
        return self._redaction.shown(str.__str__(text), limit_bytes, "exception.message")

    def stacktrace(self, exc: BaseException, *, content: bool = True) -> tuple[str, bool]:
        """The traceback of the whole chain, oldest exception first.

        Args:
            exc: The newest exception of the chain. Older ones give way first when room is scarce,
                then frames in the middle.
            content: Whether messages, notes and source lines are written, or types and frames only.

        Returns:
            The text, and whether anything is missing from it.
        """
        self._content = content
        text = self._chain(exc, self._limit_bytes, 0)
        if content:
            text = self._redaction.asked(text, "exception.stacktrace")
        text, cut = clip(text, self._limit_bytes)
        return text, cut or self._cut

    def _chain(self, exc: BaseException, room: int, depth: int) -> str:
        """An exception with all that led to it, in at most about `room` bytes."""
        blocks: list[str] = []
        for link, joined_by in self._links(exc):
            if blocks and room < _LEAST_BLOCK:
                self._cut = True
                blocks.append(_OLDER + "\n")
                break
            block = self._block(link, room, depth)
            blocks.append(f"{block}\n\n{joined_by}\n" if joined_by else block)
            room -= len(blocks[-1].encode()) + 1
        return "\n".join(reversed(blocks))

    def _links(self, exc: BaseException) -> Iterator[tuple[BaseException, str]]:
        """The chain from the newest to the oldest, each with what joins it to the last."""
        current, joined_by = exc, ""
        for _ in range(_MOST_LINKS):
            if id(current) in self._visited:
                return
            self._visited.add(id(current))
            yield current, joined_by
            cause, context = _slot(current, "__cause__"), _slot(current, "__context__")
            if cause is not None:
                current, joined_by = cause, _CAUSE
            elif context is not None and not _slot(current, "__suppress_context__"):
                current, joined_by = context, _CONTEXT
            else:
                return
        self._cut = True

    def _block(self, exc: BaseException, room: int, depth: int) -> str:
        """One exception: its frames, its title and, of a group, its members."""
        title = list(self._title(exc, room // 2))
        members = list(self._members(exc, room // 2, depth))
        left = room - _size(title) - _size(members)
        lines: list[str] = []
        trace = _slot(exc, "__traceback__")
        if trace is not None:
            group = "Exception Group " if members else ""
            lines.append(f"{group}Traceback (most recent call last):")
            lines += self._fitting(list(self._frames(trace)), left - len(lines[0]) - 1)
        return "\n".join(lines + title + members)

    def _title(self, exc: BaseException, room: int) -> Iterator[str]:
        name = qualified_type(exc)
        if not self._content:
            yield name
            return
        message, cut = self.message(exc, max(room - len(name), _LEAST_BLOCK))
        self._cut |= cut
        yield f"{name}: {message}" if message else name
        notes = _notes(exc)
        for note in notes[:_MOST_NOTES]:
            if isinstance(note, str):
                text, cut = self._redaction.shown(str.__str__(note), max(room // 8, _LEAST_BLOCK))
                self._cut |= cut
                yield text
        self._cut |= len(notes) > _MOST_NOTES

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
                self._cut = True
                yield f"  +-- {len(members) - number} more exceptions"
                return
            yield f"  +---------------- {number + 1} ----------------"
            text = self._chain(member, room, depth + 1) or "<shown above>"
            lines = [f"    | {line}" for line in text.splitlines()]
            room -= _size(lines)
            yield from lines

    # --- frames -----------------------------------------------------------------------------------

    def _fitting(self, frames: list[str], room: int) -> list[str]:
        """The first and last frames that have room, with a note for those between."""
        if _size(frames) <= room:
            return frames
        self._cut = True
        last: list[str] = []
        while frames and _size([*last, frames[-1]]) < room * 3 // 4:
            last.insert(0, frames.pop())
        first: list[str] = []
        while frames and _size([*first, frames[0], *last]) < room - 32:
            first.append(frames.pop(0))
        return [*first, f"  ... {len(frames)} frames ...", *last]

    def _frames(self, trace: TracebackType) -> Iterator[str]:
        first: list[tuple[FrameType, int | None]] = []
        last: collections.deque[tuple[FrameType, int | None]]
        last = collections.deque(maxlen=_LAST_FRAMES)
        step: TracebackType | None = trace
        count = 0
        while step is not None and count < _MOST_STEPS:
            (first if count < _FIRST_FRAMES else last).append((step.tb_frame, step.tb_lineno))
            step = step.tb_next
            count += 1
        for name in {frame.f_code.co_filename for frame, _ in (*first, *last)}:
            call_safely(linecache.checkcache, name)  # the file may have changed since it was read
        for frame, number in first:
            yield self._frame(frame, number)
        skipped = count - len(first) - len(last)
        if skipped or step is not None:
            self._cut = True
            yield f"  ... {skipped} frames ..."
        for frame, number in last:
            yield self._frame(frame, number)

    def _frame(self, frame: FrameType, number: int | None) -> str:
        code = frame.f_code
        where, _ = clip(scrub(code.co_filename), _LONGEST_LINE)
        name, _ = clip(scrub(code.co_name), _LONGEST_LINE)
        text = f'  File "{where}", line {number}, in {name}'
        if self._content and number is not None:
            line = call_safely(self._source, frame, number)
            if isinstance(line, str) and line:
                return f"{text}\n    {line}"
        return text

    def _source(self, frame: FrameType, number: int) -> str:
        """A source line without secrets, also those whose name stands in a line before it."""
        filename = frame.f_code.co_filename
        linecache.lazycache(filename, frame.f_globals)
        lines = linecache.getlines(filename)
        if not 0 < number <= len(lines):
            return ""
        earlier = lines[max(0, number - 1 - _LINES_BEFORE) : number - 1]
        before = "".join(line.rstrip("\r\n")[:_LONGEST_LINE] + "\n" for line in earlier)
        line = lines[number - 1].strip()[: 2 * _LONGEST_LINE]
        shown = self._redaction.source_line(scrub(before), scrub(line))
        return clip(shown, _LONGEST_LINE)[0]


def _is_built_in_str(kind: type) -> bool:
    """Whether ``str()`` of an exception does no more than to write out its arguments."""
    return not isinstance(kind.__str__, types.FunctionType)


def _is_brief(argument: Any, longest_text: int) -> bool:
    kind = type(argument)
    if kind is str:
        return len(argument) <= longest_text
    if kind in (dict, list, tuple, int, float, bool, type(None)):
        return is_small(argument, _LONGEST_ARGUMENT, levels=4)
    return not is_heavy(argument)


def _size(lines: list[str]) -> int:
    return sum(len(line.encode()) + 1 for line in lines)


def _slot(exc: BaseException, name: str) -> Any:
    """An attribute that every exception has, read past what its class overrides."""
    return BaseException.__dict__[name].__get__(exc)


def _notes(exc: BaseException) -> list[Any]:
    own = call_safely(object.__getattribute__, exc, "__dict__")
    notes = own.get("__notes__") if type(own) is dict else None
    return notes if type(notes) is list else []


def _members_of(exc: BaseException) -> tuple[BaseException, ...]:
    if _group_type(exc) is None:
        return ()
    members = call_safely(getattr, exc, "exceptions")
    if not isinstance(members, tuple):
        return ()
    return tuple(one for one in members if issubclass(type(one), BaseException))


def _group_type(exc: BaseException) -> type | None:
    """The group class of Python 3.11, or of its backport when that has made the exception."""
    for home in (builtins, sys.modules.get("exceptiongroup")):
        group = getattr(home, "BaseExceptionGroup", None)
        if isinstance(group, type) and issubclass(type(exc), group):
            return group
    return None
