"""Exceptions as text: type, message and the traceback of the whole chain, bounded and redacted.

The traceback reads like Python's own. It is written here, not by `traceback`, because that calls
code of the values involved (suggestions for misspelt names), follows chains and groups of any
size, and prints the text of source lines as it finds it.
"""

from __future__ import annotations

import builtins
import collections
import linecache
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from burr_otel.content import objects
from burr_otel.content.redact import OVERLAP, Redaction
from burr_otel.content.truncate import clip, scrub

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

__all__ = ["message_of", "qualified_type", "stacktrace"]

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

_CAUSE: Final = "The above exception was the direct cause of the following exception:"
_CONTEXT: Final = "During handling of the above exception, another exception occurred:"


class _Link(NamedTuple):
    """An exception of a chain and the sentence that joins it to the next newer one."""

    exception: BaseException
    joined_by: str


def qualified_type(exc: BaseException) -> str:
    """The exception's class, with its module unless that is `builtins`."""
    return scrub(objects.type_name(exc))


def message_of(exc: BaseException, redaction: Redaction, limit_bytes: int) -> tuple[str, bool]:
    """The exception's own text without secrets, and whether it was cut.

    Args:
        exc: The exception; its ``__str__`` may fail.
        redaction: What is hidden.
        limit_bytes: Most bytes of UTF-8 of the result.
    """
    text = objects.call_safely(str, exc)
    if not isinstance(text, str):
        return f"<message unreadable: {objects.type_name(text)}>", False
    return clean(str.__str__(text), redaction, limit_bytes)


def clean(text: str, redaction: Redaction, limit_bytes: int) -> tuple[str, bool]:
    """A text without secrets, lone surrogates and NULs, of at most `limit_bytes` bytes of UTF-8."""
    head = scrub(text[: limit_bytes + OVERLAP]).replace("\0", "\ufffd")
    if len(text) <= limit_bytes + OVERLAP:
        return clip(redaction.text(head), limit_bytes)
    kept = redaction.text(head, stop=limit_bytes)
    return clip(kept, limit_bytes, unseen=len(text) - limit_bytes)


def stacktrace(
    exc: BaseException, redaction: Redaction, limit_bytes: int, *, content: bool = True
) -> tuple[str, bool]:
    """The chained traceback, oldest exception first.

    Args:
        exc: The newest exception of the chain.
        redaction: What is hidden in messages, notes and source lines.
        limit_bytes: Most bytes of UTF-8 of the result. Older exceptions give way first.
        content: Whether messages, notes and source lines are written, or types and frames only.

    Returns:
        The text, and whether anything is missing from it.
    """
    writer = _Writer(redaction, content=content, room=limit_bytes)
    return writer.chain(exc)


class _Writer:
    """Writes one traceback; counts the exceptions that it has visited."""

    def __init__(self, redaction: Redaction, *, content: bool, room: int) -> None:
        self._redaction = redaction
        self._content = content
        self._room = room
        self._visited: set[int] = set()
        self._cut = False

    def chain(self, exc: BaseException) -> tuple[str, bool]:
        """The whole text."""
        blocks: list[str] = []
        left = self._room
        for link in self._links(exc):
            block = "\n".join(self._block(link.exception, 0))
            if link.joined_by:
                block = f"{block}\n\n{link.joined_by}\n"
            text, cut = clip(block, max(left, 3))
            if cut and blocks:
                self._cut = True
                break
            self._cut |= cut
            blocks.append(text)
            left -= len(text.encode()) + 1
            if left < _LONGEST_LINE:
                self._cut |= link is not None and bool(link.joined_by)
        return "\n".join(reversed(blocks)), self._cut

    def _links(self, exc: BaseException) -> Iterator[_Link]:
        """The chain from the newest exception to the oldest, each once."""
        joined_by = ""
        current: BaseException | None = exc
        for _ in range(_MOST_LINKS):
            if current is None or id(current) in self._visited:
                return
            self._visited.add(id(current))
            yield _Link(current, joined_by)
            cause, context = _slot(current, "__cause__"), _slot(current, "__context__")
            if cause is not None:
                current, joined_by = cause, _CAUSE
            elif context is not None and not _slot(current, "__suppress_context__"):
                current, joined_by = context, _CONTEXT
            else:
                return
        self._cut |= current is not None

    def _block(self, exc: BaseException, depth: int) -> list[str]:
        lines: list[str] = []
        trace = _slot(exc, "__traceback__")
        if trace is not None:
            lines.append("Traceback (most recent call last):")
            lines += self._frames(trace)
        lines += self._title(exc)
        lines += self._members(exc, depth)
        return lines

    def _title(self, exc: BaseException) -> Iterator[str]:
        name = qualified_type(exc)
        if not self._content:
            yield name
            return
        message, cut = message_of(exc, self._redaction, self._room)
        self._cut |= cut
        yield f"{name}: {message}" if message else name
        notes = _instance_notes(exc)
        for note in notes[:_MOST_NOTES]:
            if isinstance(note, str):
                yield clean(str.__str__(note), self._redaction, self._room // 4)[0]
        self._cut |= len(notes) > _MOST_NOTES

    def _members(self, exc: BaseException, depth: int) -> Iterator[str]:
        """The exceptions of a group, indented below it."""
        members = _members(exc)
        for number, member in enumerate(members[:_MOST_MEMBERS], 1):
            if depth >= _GROUP_DEPTH or len(self._visited) >= _MOST_EXCEPTIONS:
                self._cut = True
                yield f"  | ... {len(members) - number + 1} more exceptions"
                return
            if id(member) in self._visited:
                continue
            yield f"  +---------------- {number} ----------------"
            chained = list(self._links(member))
            for link in reversed(chained):
                block = self._block(link.exception, depth + 1)
                if link.joined_by:
                    block += ["", link.joined_by, ""]
                for text in block:
                    yield from (f"    | {line}" for line in text.splitlines() or [""])
        if len(members) > _MOST_MEMBERS:
            self._cut = True
            yield f"  | ... {len(members) - _MOST_MEMBERS} more exceptions"

    def _frames(self, trace: TracebackType) -> Iterator[str]:
        first: list[tuple[Any, int]] = []
        last: collections.deque[tuple[Any, int]] = collections.deque(maxlen=_LAST_FRAMES)
        current: TracebackType | None = trace
        count = 0
        while current is not None and count < _MOST_STEPS:
            place = (current.tb_frame, current.tb_lineno)
            if count < _FIRST_FRAMES:
                first.append(place)
            else:
                last.append(place)
            count += 1
            current = current.tb_next
        for frame, line_number in first:
            yield from self._frame(frame, line_number)
        skipped = count - len(first) - len(last)
        if skipped or current is not None:
            self._cut = True
            yield f"  ... {skipped} more frames"
        for frame, line_number in last:
            yield from self._frame(frame, line_number)

    def _frame(self, frame: Any, line_number: int | None) -> Iterator[str]:
        code = frame.f_code
        number = line_number if line_number is not None else "?"
        yield f'  File "{self._name(code.co_filename)}", line {number}, in {self._name(code.co_name)}'
        if self._content and line_number is not None:
            line = objects.call_safely(self._source, frame, line_number)
            if isinstance(line, str) and line:
                yield f"    {line}"

    def _name(self, text: str) -> str:
        return clean(text, self._redaction, _LONGEST_LINE)[0]

    def _source(self, frame: Any, line_number: int) -> str:
        """The source line, its secrets hidden, also when their names stand in the lines before."""
        filename = frame.f_code.co_filename
        linecache.lazycache(filename, frame.f_globals)
        lines = linecache.getlines(filename)
        if not 0 < line_number <= len(lines):
            return ""
        start = max(0, line_number - 1 - _LINES_BEFORE)
        before = "".join(_bounded(lines[start : line_number - 1]))
        line = lines[line_number - 1][: _LONGEST_LINE + OVERLAP].rstrip("\r\n")
        return scrub(self._redaction.last_line(scrub(before), scrub(line))).strip()[:_LONGEST_LINE]


def _bounded(lines: Iterable[str]) -> Iterator[str]:
    return (line[:_LONGEST_LINE] + "\n" * (len(line) > _LONGEST_LINE) for line in lines)


def _slot(exc: BaseException, name: str) -> Any:
    """An attribute that every exception has, read past what its class overrides."""
    return BaseException.__dict__[name].__get__(exc)


def _instance_notes(exc: BaseException) -> list[Any]:
    own = objects.call_safely(object.__getattribute__, exc, "__dict__")
    notes = own.get("__notes__") if type(own) is dict else None
    return notes if type(notes) is list else []


def _members(exc: BaseException) -> tuple[BaseException, ...]:
    """The exceptions of a group of Python 3.11, or of its backport when that made it."""
    backport = sys.modules.get("exceptiongroup")
    for home in (builtins, backport):
        group = getattr(home, "BaseExceptionGroup", None)
        if isinstance(group, type) and issubclass(type(exc), group):
            members = objects.call_safely(getattr, exc, "exceptions")
            if isinstance(members, tuple):
                return tuple(one for one in members if issubclass(type(one), BaseException))
    return ()
