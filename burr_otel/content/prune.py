"""Trees of JSON values of which parts are missing, and writing them in no more bytes than allowed.

The budget is shared at every depth: what is small stays whole, what is large is cut. A long text
keeps its head and tail, a long list its head; one that went on from an earlier value keeps what is
new. Each cut says how much is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import orjson

MAX_DEPTH: Final = 16
OVERLAP: Final = 1024
"""Characters beyond a cut that are searched for secrets too, so that one across it is known."""

NOTE_BYTES: Final = 48  # kept back in a cut container for the note of what is missing
_LEAST_VALUE_BYTES: Final = 64  # of a large value, before further ones are left out
_LEAST_ITEM_BYTES: Final = 256
_MOST_CUT_ITEMS: Final = 8  # of a long list, so that each of them says something
_OPTIONS: Final = orjson.OPT_PASSTHROUGH_SUBCLASS
_SHORTEST_BOTH_ENDS: Final = 96  # bytes from which on a cut text keeps its tail too
_SHORTEST: Final = b'"..."'
_BREAK: Final = re.compile(r"[\s\"'`,;]")  # no token of a service has one of these in it
_KEY_END: Final = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


class CutText(NamedTuple):
    """The head of a long text, its `tail`, and how many characters are `missing` between."""

    # Of the missing characters, `unchanged` were there in the earlier value. At the cut, `context`
    # characters of both ends are not shown: they only serve the search for secrets.

    head: str
    tail: str
    missing: int
    unchanged: int = 0
    context: int = 0

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
        head, tail = self.head[: len(self.head) - self.context], self.tail[self.context :]
        return head, tail, self.missing, self.unchanged


class CutList(list[Any]):
    """Some items of a list, and how many ``items`` or (never parsed) ``bytes`` are missing."""

    # These follow the items; with `unchanged`, the number of items that were there in the earlier
    # value, they are new items that stand before them.

    __slots__ = ("missing", "unchanged", "unit")

    def __init__(
        self, items: Iterable[Any], missing: int, unit: str = "items", unchanged: int | None = None
    ) -> None:
        super().__init__(items)
        self.missing, self.unit, self.unchanged = missing, unit, unchanged

    def with_note(self) -> list[Any]:
        """The items, and what tells of those that are missing, where any are."""
        if self.unchanged is not None:
            more = f" and {self.missing} new" if self.missing else ""
            return [f"... {self.unchanged} unchanged{more} items", *self]
        return [*self, f"... {self.missing} more {self.unit}"] if self.missing else [*self]


class CutDict(dict[str, Any]):
    """Some members of an object; `missing` counts the others."""

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


def window(text: str, keep: int) -> str | CutText:
    """The parts of a text of which at most about `keep` characters will be shown."""
    tail = keep // 3  # the head may need all of the room, where the tail cannot be shown
    if len(text) <= keep + tail + 2 * OVERLAP:
        return scrub(text)
    head = scrub(text[: keep + OVERLAP])
    end = scrub(text[len(text) - tail - OVERLAP :])
    return CutText(head, end, len(text) - keep - tail, context=OVERLAP)


def dumps(node: Any) -> bytes:
    """The JSON of a tree, with the notes of what is missing."""
    return orjson.dumps(node, _with_note, _OPTIONS)


def _with_note(node: Any) -> Any:
    if isinstance(node, CutText):
        return _joined(*node.parts())
    if isinstance(node, CutList):
        return node.with_note()
    if isinstance(node, CutDict):
        more = {unique("...", node, {}): f"{node.missing} more keys"} if node.missing else {}
        return {**node, **more}
    raise TypeError(type(node))


# --- texts ----------------------------------------------------------------------------------------


def clip(text: str | CutText, limit_bytes: int) -> tuple[str, bool]:
    """Cut a text to at most so many bytes of UTF-8 (at least three); also tells whether it was."""
    if not isinstance(text, CutText) and len(text) <= limit_bytes >= len(text.encode()):
        return text, False
    return _excerpt(text, limit_bytes, str.encode), True


def _escaped(text: str) -> bytes:
    return orjson.dumps(text)[1:-1]


def _excerpt(text: str | CutText, room: int, encode: Callable[[str], bytes]) -> str:
    """Head and tail of a text that take at most `room` bytes when they are encoded."""
    if isinstance(text, CutText):
        head, tail, missing, unchanged = text.parts()
        whole = _joined(head, tail, missing, unchanged)
        if len(encode(whole)) <= room:
            return whole
    else:
        head, tail, missing, unchanged = text, text, -len(text), 0  # the ends overlap
    total = len(head) + missing + len(tail)
    room -= len(_note(total, unchanged)) + len(" ...")
    if room < 0:
        return "..."
    for_tail = room if unchanged else room // 3 if room >= _SHORTEST_BOTH_ENDS else 0
    end = _end(tail, for_tail, encode)
    begin = _begin(head, room - len(encode(end)), encode)
    return _joined(begin, end, total - len(begin) - len(end), unchanged)


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
    return _begin(text[len(text) - min(room, len(text)) :][::-1], room, encode)[::-1]


# --- writing --------------------------------------------------------------------------------------


def fit(node: Any, room: int) -> tuple[bytes, bool]:
    """The JSON of a tree in at most `room` bytes (at least five); also tells whether it was cut."""
    data = dumps(node)
    if len(data) <= room:
        return data, False
    if isinstance(node, str | CutText):
        data = orjson.dumps(_excerpt(node, room - 2, _escaped))
    elif isinstance(node, dict):
        data = _cut_members(node, room)
    elif isinstance(node, list):
        data = _cut_items(node, room)
    return data if len(data) <= room else _SHORTEST, True


def _cut_members(members: dict[str, Any], room: int) -> bytes:
    entries = ((len(orjson.dumps(key)) + 1, item) for key, item in members.items())
    kept = _cut_entries(entries, room - 2 - NOTE_BYTES, _LEAST_VALUE_BYTES)
    missing = len(members) - len(kept) + getattr(members, "missing", 0)
    if not kept:
        return orjson.dumps(too_deep(named=True, size=missing))
    written = zip(members, map(orjson.Fragment, kept), strict=False)
    return dumps(CutDict(dict(written), missing))


def _cut_items(items: list[Any], room: int) -> bytes:
    cut = items if isinstance(items, CutList) else CutList(items, 0)
    order = 1 if cut.unchanged is None else -1  # the newest ones stand at the end
    left = room - 2 - NOTE_BYTES
    least = max(left // _MOST_CUT_ITEMS, _LEAST_ITEM_BYTES)
    kept = _cut_entries(((0, item) for item in items[::order]), left, least)
    rest = items[::order][len(kept) :]
    missing = cut.missing + (len(dumps(rest)) - 1 if rest and cut.unit == "bytes" else len(rest))
    if not kept:
        return orjson.dumps(too_deep(named=False, size=missing + (cut.unchanged or 0)))
    written = orjson.Fragment(b",".join(kept[::order]))  # stands for all of them: that is quicker
    return dumps(CutList([written], missing, cut.unit, cut.unchanged))


def _cut_entries(entries: Iterable[tuple[int, Any]], left: int, least: int) -> list[bytes]:
    """The JSON of as many items, behind names of a size, as have room for `least` bytes of each."""
    kept: list[tuple[bytes, Any]] = []
    used = names = 0
    for name_bytes, item in entries:
        piece = dumps(item)
        used += name_bytes + 1 + min(len(piece), least)
        if used > left:
            break
        names += name_bytes + 1
        kept.append((piece, item))
    level = share([len(piece) for piece, _ in kept], left - names)
    return [piece if len(piece) <= level else fit(item, level)[0] for piece, item in kept]
