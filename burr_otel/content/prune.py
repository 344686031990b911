"""Trees of JSON values of which parts are missing, and writing them in no more bytes than allowed.

The budget is shared at every depth: what is small stays whole, what is large is cut. A long text
keeps its head and tail, a long list its head; one that went on from an earlier value keeps what is
new. Each cut says how much is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import orjson

MAX_DEPTH: Final = 16
OVERLAP: Final = 1024
"""Characters beyond a cut that are searched for secrets too, so that one across it is known."""

_NOTE_BYTES: Final = 48  # kept back in a cut container for the note of what is missing
_LEAST_VALUE_BYTES: Final = 64  # of a large value, before further ones are left out
_LEAST_ITEM_BYTES: Final = 256
_MOST_CUT_ITEMS: Final = 8  # of a long list, when not even so many are short
_MOST_GUESSES: Final = 4
_OPTIONS: Final = orjson.OPT_PASSTHROUGH_SUBCLASS
_SHORTEST_BOTH_ENDS: Final = 96  # bytes from which on a cut text keeps its tail too
_SHORTEST: Final = b'"..."'
_BREAK: Final = re.compile(r"[\s\"'`,;]")  # no token of a service has one of these in it
_KEY_END: Final = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


class CutText(str):
    """The head of a long text, its `tail`, and how many characters are `missing` between."""

    # Of the missing characters, `unchanged` were there in the earlier value. At the cut, `context`
    # characters of both ends are not shown: they only serve the search for secrets.

    __slots__ = ("context", "missing", "tail", "unchanged")

    tail: str
    missing: int
    unchanged: int
    context: int

    @classmethod
    def of(
        cls, head: str, tail: str, missing: int, *, unchanged: int = 0, context: int = 0
    ) -> CutText:
        """A text with these parts."""
        text = cls(head)
        text.tail, text.missing, text.unchanged, text.context = tail, missing, unchanged, context
        return text

    def safe_start(self) -> int:
        """Where in the tail a secret has ended that may have begun in the part between."""
        start, tail = self.context, self.tail
        if start < OVERLAP:
            return start
        if _BREAK.search(tail, 0, start) is None:  # in a token longer than the context
            broken = _BREAK.search(tail)
            start = len(tail) if broken is None else broken.end()
        key_end = _KEY_END.search(tail)
        if key_end is None or "-----BEGIN" in tail[: key_end.start()]:
            return start
        return max(start, key_end.end())

    def parts(self) -> tuple[str, str, int, int]:
        """Head and tail as they may be shown, what is missing between, and what is unchanged."""
        head, context = str.__str__(self), self.context
        head = head[: len(head) - context] if context else head
        return head, self.tail[context:], self.missing, self.unchanged


class CutList(list[Any]):
    """Some items of a long list, and how many ``items`` or (never parsed) ``bytes`` are missing."""

    # These follow the items; with `unchanged`, the number of items that were there in the earlier
    # value, they are new items that stand before them.

    __slots__ = ("missing", "unchanged", "unit")

    def __init__(
        self, items: Iterable[Any], missing: int, unit: str = "items", unchanged: int | None = None
    ) -> None:
        super().__init__(items)
        self.missing, self.unit, self.unchanged = missing, unit, unchanged


class CutDict(dict[str, Any]):
    """Some members of a large object; `missing` counts the others."""

    __slots__ = ("missing",)

    def __init__(self, members: dict[str, Any], missing: int) -> None:
        super().__init__(members)
        self.missing = missing


def scrub(text: str) -> str:
    """Replace lone surrogates, which no exporter can write as UTF-8, by U+FFFD."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def unique(name: str, taken: dict[str, Any], numbers: dict[str, int]) -> str:
    """A key that no other key of an object reads like: ``name``, ``name (2)``, ``name (3)``."""
    shown = name
    while shown in taken:
        numbers[name] = numbers.get(name, 1) + 1
        shown = f"{name} ({numbers[name]})"
    return shown


def share(sizes: Iterable[int], room: int) -> int:
    """The most that each of several parts may take, so that the small ones stay whole."""
    ordered = sorted(sizes)
    for number, size in enumerate(ordered):
        level = room // (len(ordered) - number)
        if size > level:
            return level
        room -= size
    return ordered[-1] if ordered else room


def too_deep(*, named: bool, size: int) -> Any:
    """What stands for a container beyond the deepest that is shown."""
    if size:
        return f"<{'dict' if named else 'list'} of {size}>"
    return {} if named else []


def window(text: str, keep: int) -> str:
    """The parts of a text of which at most about `keep` characters will be shown."""
    tail = keep // 3  # the head may need all of the room, where the tail cannot be shown
    if len(text) <= keep + tail + 2 * OVERLAP:
        return scrub(text)
    head = scrub(text[: keep + OVERLAP])
    end = scrub(text[len(text) - tail - OVERLAP :])
    return CutText.of(head, end, len(text) - keep - tail, context=OVERLAP)


def dumps(node: Any) -> bytes:
    """The JSON of a tree, with the notes of what is missing."""
    return orjson.dumps(node, _with_note, _OPTIONS)


def _with_note(node: Any) -> Any:
    if isinstance(node, CutText):
        return _joined(*node.parts())
    if isinstance(node, CutList):
        note = _note_of(node)
        return [*node, note] if node.unchanged is None else [note, *node]
    if isinstance(node, CutDict):
        return {**node, _more_key(node): f"{node.missing} more keys"}
    raise TypeError(type(node))


def _note_of(items: CutList) -> str:
    if items.unchanged is None:
        return f"... {items.missing} more {items.unit}"
    more = f" and {items.missing} new" if items.missing else ""
    return f"... {items.unchanged} unchanged{more} items"


def _more_key(members: dict[str, Any]) -> str:
    return unique("...", members, {})


# --- texts ----------------------------------------------------------------------------------------


def clip(text: str, limit_bytes: int) -> tuple[str, bool]:
    """Cut a text to at most so many bytes of UTF-8 (at least three); also tells whether it was."""
    if not isinstance(text, CutText) and len(text) <= limit_bytes:
        size = len(text) if text.isascii() else len(text.encode())
        if size <= limit_bytes:
            return text, False
    return _excerpt(text, limit_bytes, str.encode), True


def _escaped(text: str) -> bytes:
    return orjson.dumps(text)[1:-1]


def _excerpt(text: str, room: int, encode: Callable[[str], bytes]) -> str:
    """Head and tail of a text that take at most `room` bytes when they are encoded."""
    head, tail, missing, unchanged = text, "", 0, 0
    if isinstance(text, CutText):
        head, tail, missing, unchanged = text.parts()
        whole = _joined(head, tail, missing, unchanged)
        if len(encode(whole)) <= room:
            return whole
    total = len(head) + missing + len(tail)
    room -= len(_note(total, unchanged)) + len(" ...")
    if room < 0:
        return "..."
    if unchanged:
        end = _end(tail, room, encode)
        return _joined("", end, missing + len(tail) - len(end), unchanged)
    tail = tail if isinstance(text, CutText) else head
    end = _end(tail, room // 3, encode) if room >= _SHORTEST_BOTH_ENDS else ""
    begin = _begin(head, room - len(encode(end)), encode)
    return _joined(begin, end, total - len(begin) - len(end), 0)


def _note(missing: int, unchanged: int) -> str:
    if not unchanged:
        return f"... [{missing} more characters]"
    more = f" and {missing - unchanged} more" if missing > unchanged else ""
    return f"... [{unchanged} unchanged{more} characters]"


def _joined(head: str, tail: str, missing: int, unchanged: int) -> str:
    return f"{head}{_note(missing, unchanged)}{' ...' if tail else ''}{tail}"


def _begin(text: str, room: int, encode: Callable[[str], bytes]) -> str:
    text = text[:room]
    while len(data := encode(text)) > room:
        text = text[: len(text) * room // len(data)]
    return text


def _end(text: str, room: int, encode: Callable[[str], bytes]) -> str:
    text = text[-room:] if room else ""
    while len(data := encode(text)) > room:
        text = text[len(text) - len(text) * room // len(data) :]
    return text


# --- writing --------------------------------------------------------------------------------------


def fit(node: Any, room: int) -> tuple[bytes, bool]:
    """The JSON of a tree in at most `room` bytes (at least five); also tells whether it was cut."""
    data = dumps(node)
    return (data, False) if len(data) <= room else (_cut(node, data, room), True)


def _fitting(node: Any, data: bytes, room: int) -> bytes:
    return data if len(data) <= room else _cut(node, data, room)


def _cut(node: Any, data: bytes, room: int) -> bytes:
    if isinstance(node, str):
        return (
            orjson.dumps(_excerpt(node, room - 2, _escaped)) if room > len(_SHORTEST) else _SHORTEST
        )
    if isinstance(node, dict):
        data = _cut_members(node, room)
    elif isinstance(node, list):
        data = _cut_items(node, data, room)
    return data if len(data) <= room else _SHORTEST


def _cut_items(items: list[Any], data: bytes, room: int) -> bytes:
    cut = items if isinstance(items, CutList) else CutList(items, 0)
    newest_last = cut.unchanged is not None
    left = room - 2 - _NOTE_BYTES
    shown, written = _whole_items(list(items), len(data), left, newest_last=newest_last)
    if len(shown) < _MOST_CUT_ITEMS:
        shown = items[-_MOST_CUT_ITEMS:] if newest_last else items[:_MOST_CUT_ITEMS]
        sizes = [len(dumps(item)) + 1 for item in shown]
        least = max(left // _MOST_CUT_ITEMS, _LEAST_ITEM_BYTES)
        while sizes and sum(min(size, least) for size in sizes) > left:
            sizes.pop(0 if newest_last else -1)
        shown = shown[len(shown) - len(sizes) :] if newest_last else shown[: len(sizes)]
        level = share(sizes, left) - 1
        written = b"[%b]" % b",".join([_fitting(item, dumps(item), level) for item in shown])
    missing = len(items) - len(shown)
    if cut.unit == "bytes":
        missing = sum(len(dumps(item)) + 1 for item in items[len(shown) :])
    missing += cut.missing
    if not shown:
        return orjson.dumps(f"<list of {missing + (cut.unchanged or 0)}>")
    if not missing and not newest_last:
        return written
    note = orjson.dumps(_note_of(CutList((), missing, unit=cut.unit, unchanged=cut.unchanged)))
    return b"[%b,%b" % (note, written[1:]) if newest_last else b"%b,%b]" % (written[:-1], note)


def _whole_items(
    items: list[Any], size: int, room: int, *, newest_last: bool
) -> tuple[list[Any], bytes]:
    """About as many items as fit without being cut, and their JSON; `size` is that of all."""
    shown: list[Any] = []
    written = b""
    count = len(items)
    for _ in range(_MOST_GUESSES):
        count = min(count * room // size, len(items))
        if count <= len(shown):
            break
        guess = items[-count:] if newest_last else items[:count]
        data = dumps(guess)
        size = len(data)
        if size <= room:
            shown, written = guess, data
    return shown, written


def _cut_members(members: dict[str, Any], room: int) -> bytes:
    left = room - 2 - _NOTE_BYTES
    keys: list[bytes] = []
    pieces: list[bytes] = []
    used = 0
    for key, item in members.items():
        keys.append(orjson.dumps(key))
        pieces.append(b"%b" % dumps(item))
        used += len(keys[-1]) + 2 + min(len(pieces[-1]), _LEAST_VALUE_BYTES)
        if used > left:
            keys.pop()
            pieces.pop()
            break
    missing = len(members) - len(pieces) + getattr(members, "missing", 0)
    if not pieces:
        return orjson.dumps(f"<dict of {missing}>")
    level = share(map(len, pieces), left - sum(map(len, keys)) - 2 * len(keys))
    written = [
        b"%b:%b" % (key, _fitting(item, piece, level))
        for key, piece, item in zip(keys, pieces, members.values(), strict=False)
    ]
    if missing:
        written.append(b'%b:"%d more keys"' % (orjson.dumps(_more_key(members)), missing))
    return b"{%b}" % b",".join(written)
