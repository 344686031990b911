"""Any Python value, or JSON bytes, as a tree of JSON types that is bounded in size and time.

Containers are read in turn, a few items of each at a time, until there is more than can be shown:
so work follows what is kept, and no large value starves the small ones beside it. A value that
cannot be read becomes a text that says so; nothing raises but `KeyboardInterrupt`. Of JSON bytes
only what can be shown is parsed.
"""

from __future__ import annotations

import collections
import contextlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from time import monotonic
from typing import Any, Final

import orjson

from burr_otel.content import prune
from burr_otel.content.objects import Failure, Parts, call_safely, describe, items_of, type_name
from burr_otel.content.patterns import MARKER
from burr_otel.content.redact import Redaction
from burr_otel.interrupts import is_interrupt

_SECONDS: Final = 0.25  # for code of the values; then objects are only named
_FIRST_ITEMS: Final = 32  # of a container, before it is the turn of others
_LONG_TEXT: Final = 256
_TEXT_BUDGET: Final = 4  # times the limit, for the long texts of one depth that do not all fit
_KEY_BYTES: Final = 64
_LONGEST_KEY: Final = 640  # characters at both ends
_BETWEEN: Final = {b"{": b"},{", b"[": b"],[", b'"': b'","'}
_MOST_TRIES: Final = 8
_LEAST_BYTES: Final = 64
_SHORT_BYTES: Final = 256  # that are not worth to be parsed only in part
_OPTION_BYTES: Final = 70
_LAST_TEXT: Final = re.compile(rb'"(--[\w.\-]{1,64})"\Z')
_NO_NUMBERS: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def allowance(limit_bytes: int) -> int:
    """Bytes of JSON up to which a value is looked at whole, to be shown in `limit_bytes`."""
    return limit_bytes + max(limit_bytes // 2, 8192)


def capture(
    value: Any, limit_bytes: int, *, path: str = "", asking: Redaction | None = None
) -> tuple[Any, bool]:
    """The tree of a value that is to be shown in `limit_bytes`; also tells whether it was cut."""
    # With a path, the `redactor` of `asking` is asked about each value, containers before items.
    reader = _Reader(limit_bytes, asking)
    return reader.tree(value, path), reader.cut


class _Reader:
    """Reads one value."""

    def __init__(self, limit_bytes: int, asking: Redaction | None = None) -> None:
        self.cut = False
        self._limit_bytes = limit_bytes
        self._left = allowance(limit_bytes)
        self._asking: Any = asking  # given whenever there is a path
        self._until = monotonic() + _SECONDS
        self._containers: list[prune.CutDict | prune.CutList] = []
        self._waiting: collections.deque[Iterator[bool]] = collections.deque()
        # Where long texts go, their depths and paths.
        self._long: list[tuple[Any, Any, int, str]] = []

    def tree(self, value: Any, path: str) -> Any:
        """The tree of a value."""
        root: list[Any] = [None]
        self._put(root, 0, value, (), path)
        while self._waiting and self._left > 0:
            turns = self._waiting.popleft()
            if next(turns, False):
                self._waiting.append(turns)
        self.cut |= any(container.missing > 0 for container in self._containers)
        self._place_long_texts()
        return root[0]

    def _read(self, parts: Parts, out: Any, above: tuple[Any, ...], path: str) -> Iterator[bool]:
        """Read a container, a few more items at each turn; `out` tells how many are missing."""
        items = iter(parts.parts)
        numbers: dict[str, int] = {}
        taken, most = 0, _FIRST_ITEMS
        # Another thread may change the container meanwhile, which ends it: what came is kept.
        while not isinstance(part := call_safely(next, items), Failure):
            if parts.named:
                name, value = part
                key: Any = prune.unique(self._name(name), out, numbers)
                self._left -= len(key) + 4
                below = f"{path}.{key}" if path else ""
            else:
                key, value = taken, part
                out.append(None)
                below = f"{path}[{taken}]" if path else ""
            self._put(out, key, value, above, below)
            taken += 1
            if taken == most or self._left <= 0:
                most *= 3
                # At least one, where the container told no size, or a wrong one.
                out.missing = parts.size - taken if taken <= parts.size else 1
                yield True
        out.missing = max(parts.size - taken, 0)

    def _put(self, home: Any, key: Any, value: Any, above: tuple[Any, ...], path: str) -> None:
        """Set the tree of a value at its place."""
        if path:
            value, path = self._asked(key, value, path)
        node = self._node(value, above, path)
        self._left -= min(len(node), _LONG_TEXT) + 3 if type(node) is str else 6
        if type(node) is str and len(node) > _LONG_TEXT:
            self._long.append((home, key, len(above), path))
        elif type(node) is str:
            node = self._asking.asked(prune.scrub(node), path) if path else prune.scrub(node)
        home[key] = node

    def _asked(self, key: Any, value: Any, path: str) -> tuple[Any, str]:
        """A value as the user's function lets it through; what that returned is final."""
        is_flag = value is None or value is True or value is False
        if type(key) is str and not is_flag and self._asking.hides(key):
            return MARKER, ""
        if issubclass(type(value), str):
            return value, path  # asked when it is clear how much of it is kept
        shown = call_safely(self._asking.redactor, path, value)
        if isinstance(shown, Failure):
            return MARKER, ""
        return (value, path) if shown is value else (shown, "")

    def _node(self, value: Any, above: tuple[Any, ...], path: str) -> Any:
        kind = type(value)
        if kind is str or value is None or kind is bool:
            return value
        if kind is int and -(1 << 63) <= value < 1 << 63:
            return value
        if kind is float:
            return value if math.isfinite(value) else _NO_NUMBERS[str(value)]
        try:
            return self._read_one(value, kind, above, path)
        except BaseException as error:  # hostile values raise anything
            if is_interrupt(error):
                raise
            return f"<{type_name(value)}: unreadable, {type_name(error)}>"

    def _read_one(self, value: Any, kind: type, above: tuple[Any, ...], path: str) -> Any:
        if kind is int:
            text = describe(value)
            return text if type(text) is str else orjson.Fragment(b"%d" % text)
        parts = value if kind is Parts else items_of(value, kind)
        if parts is None:
            if monotonic() > self._until:
                self.cut = True
                return f"<{type_name(value)}>"
            made = describe(value)
            if isinstance(made, Parts):
                parts = made._replace(parts=self._in_time(made.parts))
            elif (parts := items_of(made, type(made))) is None:
                return self._node(made, above, path)
        if any(value is owner for owner in above):
            return f"<cycle: {type_name(value)}>"
        if len(above) >= prune.MAX_DEPTH:
            self.cut |= parts.size != 0
            return prune.too_deep(named=parts.named, size=parts.size)
        out: Any = prune.CutDict({}, parts.size) if parts.named else prune.CutList((), parts.size)
        self._containers.append(out)
        self._waiting.append(self._read(parts, out, (*above, value), path))
        return out

    def _in_time(self, parts: Iterable[Any]) -> Iterator[Any]:
        """Parts that code of the value may make, as long as there is time."""
        for part in parts:
            yield part
            if monotonic() > self._until:
                self.cut = True
                return

    def _name(self, key: Any) -> str:
        """A key as text: JSON for what is no string."""
        if type(key) is int and key.bit_length() < 64:  # noqa: PLR2004
            return str(key)
        if type(key) is not str:
            node = _Reader(_KEY_BYTES).tree(key, "")
            self.cut |= isinstance(node, prune.CutText)
            is_text = isinstance(node, str | prune.CutText)
            key = prune.clip(node, 2 * _LONGEST_KEY)[0] if is_text else prune.dumps(node).decode()
        if len(key) > 2 * _LONGEST_KEY:
            key = f"{key[:_LONGEST_KEY]}...{key[-_LONGEST_KEY:]}"
        return prune.scrub(key)

    def _place_long_texts(self) -> None:
        """Put long texts where they belong, cut when there is no room for all of them."""
        sizes = collections.defaultdict[int, list[int]](list)
        for home, key, depth, _ in self._long:
            sizes[depth].append(len(home[key]))
        for home, key, depth, path in self._long:
            most = prune.share(sizes[depth], _TEXT_BUDGET * self._limit_bytes)
            text = prune.window(home[key], min(most, self._limit_bytes))
            self.cut |= isinstance(text, prune.CutText)
            home[key] = self._asking.asked(text, path) if path else text


# --- JSON bytes -----------------------------------------------------------------------------------


class NewPart:
    """What is new in the JSON of a long list, which `tree_of` takes for all of it."""

    __slots__ = ("_start", "text")

    def __init__(self, part: bytes, start: int) -> None:
        self.text, self._start = part[start:], start

    def __len__(self) -> int:
        return self._start + len(self.text)

    def __getitem__(self, place: slice) -> bytes:
        if place.start is None:
            return b"["
        stop = None if place.stop is None else place.stop - self._start
        return self.text[place.start - self._start : stop]


def needed(
    content: Mapping[str, bytes], limit_bytes: int, grown: Mapping[str, tuple[int, int]]
) -> Mapping[str, bytes | NewPart]:
    """What `tree_of` looks at: of a long list that went on, what is new."""
    found: dict[str, bytes | NewPart] = dict(content)
    for key, (same_bytes, same_items) in grown.items():
        part, start = content.get(key, b""), same_bytes - _OPTION_BYTES
        is_shown = _goes_on(part, same_bytes, same_items)
        if start > 0 and len(part) > limit_bytes and part[:1] == b"[" and is_shown:
            found[key] = NewPart(part, start)
    return found


def tree_of(
    content: bytes | Mapping[str, Any],
    limit_bytes: int,
    grown: Mapping[str, tuple[int, int]] | None = None,
) -> tuple[Any, bool]:
    """The tree of JSON that is to be shown in `limit_bytes`, and whether it was cut.

    It is a document, or an object of which the JSON of each value stands by itself.
    `grown` gives for a list or text that went on from its earlier value how many bytes of its JSON
    (without the closing bracket or quote) and how many items or characters are unchanged. One that
    is too large to be shown whole shows what is new: ``["... 998 unchanged items", {...}]``,
    ``"... [9000 unchanged characters] ...and then"``; where room is scarce, the newest of it.
    """
    if isinstance(content, bytes):
        return _head(content, limit_bytes, allowance(limit_bytes))
    sizes = {key: len(part) + len(key) + 4 for key, part in content.items()}
    if sum(sizes.values()) <= (limit_bytes if grown else allowance(limit_bytes)):
        return whole(content), False
    level = prune.share(sizes.values(), limit_bytes)
    continued = {key: known for key, known in (grown or {}).items() if sizes.get(key, 0) > level}
    for key, (same_bytes, _) in continued.items():  # what is left out leaves room to others
        sizes[key] = min(max(sizes[key] - same_bytes, _LEAST_BYTES), sizes[key])
    room = prune.share(sizes.values(), limit_bytes - 2)
    tree: dict[str, Any] = {}
    any_cut = bool(continued)
    for key, part in content.items():
        if (limit_bytes := limit_bytes - min(sizes[key], _LEAST_BYTES)) < 0:
            return prune.CutDict(tree, len(content) - len(tree)), True
        node = _continued(part, *continued[key], room) if key in continued else None
        if node is None:
            node, cut = _head(part, max(room - len(key) - 4, _SHORT_BYTES))
            any_cut |= cut
        tree[key] = node
    return tree, any_cut


def whole(content: bytes | Mapping[str, bytes]) -> Any:
    """The same content parsed in full."""
    if isinstance(content, bytes):
        return orjson.loads(content)
    return {key: orjson.loads(part) for key, part in content.items()}


def _head(part: bytes, room: int, enough: int = 0) -> tuple[Any, bool]:
    """The tree of JSON that is to be shown in `room` bytes; all of it up to `enough` bytes."""
    if len(part) <= max(room, enough):
        return orjson.loads(part), False
    if part[:1] == b"[":
        head = _list_head(part, room - prune.NOTE_BYTES)
        if head is not None:
            return head, True
    tree = orjson.loads(part)
    if type(tree) is dict and tree:
        return tree_of({key: orjson.dumps(item) for key, item in tree.items()}, room)
    return capture(tree, room)


def _list_head(part: bytes, room: int) -> prune.CutList | None:
    """The items at the head of a long list, cut between two of them; None where that fails."""
    # Only a cut between items leaves JSON, so one that falls elsewhere is found out by parsing.
    between = _BETWEEN.get(part[1:2], b",")
    end = room
    for _ in range(_MOST_TRIES):
        end = part.rfind(between, 1, end)
        if end < 0:
            return None
        at = end + len(between) // 2
        with contextlib.suppress(ValueError):
            return prune.CutList(orjson.loads(part[:at] + b"]"), len(part) - at - 2, unit="bytes")
    return None


def _goes_on(part: bytes | NewPart, same_bytes: int, same_items: int) -> bool:
    return same_items > 0 and part[same_bytes : same_bytes + 1] in (b",", b"]")


def _continued(part: Any, same_bytes: int, same_items: int, room: int) -> Any:
    """The tree of what is new in a list or text that went on, or None where that does not hold."""
    if part[:1] == b'"':
        return _new_text(orjson.loads(part), same_items, room)
    if part[:1] != b"[" or not _goes_on(part, same_bytes, same_items):
        return None
    try:
        items = orjson.loads(b"[" + part[same_bytes:].removeprefix(b","))
    except ValueError:
        return None
    option = _LAST_TEXT.search(part[max(0, same_bytes - _OPTION_BYTES) : same_bytes])
    if option is not None:  # its value comes next
        items = [option[1].decode(), *items]
        same_items -= 1
    kept: list[Any] = []
    left = room
    for item in reversed(items):
        piece = orjson.dumps(item)
        if kept and len(piece) > left:
            break
        kept.append(_head(piece, room)[0])
        left -= len(piece) + 1
    kept.reverse()
    return prune.CutList(kept, len(items) - len(kept), unchanged=same_items)


def _new_text(text: str, same: int, room: int) -> prune.CutText | None:
    if not 0 < same <= len(text):
        return None
    start = max(same, len(text) - room)
    context = min(start, prune.OVERLAP)
    return prune.CutText("", text[start - context :], start, same, context)
