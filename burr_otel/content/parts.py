"""JSON bytes as a tree of what a span can show of them; the rest of them is not parsed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from burr_otel.content.capture import allowance, capture
from burr_otel.content.prune import OVERLAP, CutList, CutText, share, window

_BETWEEN: Final = {b"{": b"},{", b"[": b"],[", b'"': b'","'}
_MOST_TRIES: Final = 8
_LEAST_BYTES: Final = 64
_SHORT_BYTES: Final = 1024  # of which it is not worth to parse only a part
_LAST_TEXT: Final = re.compile(rb'"(--[\w.\-]{1,64})"\Z')


def whole(content: bytes | Mapping[str, bytes]) -> Any:
    """A document, or its parts, parsed in full."""
    if isinstance(content, bytes):
        return orjson.loads(content)
    return {key: orjson.loads(part) for key, part in content.items()}


def tree_of(
    document: bytes, grown: Mapping[str, tuple[int, int]] | None, limit_bytes: int
) -> tuple[Any, bool]:
    """The tree of a JSON object that is to be shown in `limit_bytes`, and whether it was cut."""
    tree = orjson.loads(document)
    if len(document) <= (limit_bytes if grown else allowance(limit_bytes)):
        return tree, False
    if type(tree) is not dict:
        return capture(tree, limit_bytes)
    parts = {key: orjson.dumps(value) for key, value in tree.items()}
    return tree_of_parts(parts, grown, limit_bytes)


def tree_of_parts(
    parts: Mapping[str, bytes], grown: Mapping[str, tuple[int, int]] | None, limit_bytes: int
) -> tuple[Any, bool]:
    """The same of an object of which the JSON of each value stands by itself.

    `grown` gives for a list or text that went on from its earlier value how many bytes of its JSON
    (without the closing bracket or quote) and how many items or characters are unchanged. One that
    is too large to be shown whole shows what is new: ``["... 998 unchanged items", {...}]``,
    ``"... [9000 unchanged characters] ...and then"``; where room is scarce, the newest of it.
    """
    sizes = {key: len(part) + len(key) + 4 for key, part in parts.items()}
    if sum(sizes.values()) <= (limit_bytes if grown else allowance(limit_bytes)):
        return whole(parts), False
    level = share(sizes.values(), limit_bytes)
    continued = {key: known for key, known in (grown or {}).items() if sizes.get(key, 0) > level}
    for key, (same_bytes, _) in continued.items():  # what is left out leaves room to others
        sizes[key] = min(max(sizes[key] - same_bytes, _LEAST_BYTES), sizes[key])
    room = share(sizes.values(), limit_bytes) + _LEAST_BYTES
    tree: dict[str, Any] = {}
    any_cut = bool(continued)
    for key, part in parts.items():
        node = _continued(part, *continued[key], room) if key in continued else None
        if node is None:
            node, cut = _head(part, room)
            any_cut |= cut
        tree[key] = node
    return tree, any_cut


def _head(part: bytes, room: int) -> tuple[Any, bool]:
    """The tree of JSON of any length that is to be shown in `room` bytes."""
    if len(part) <= room + min(room, _SHORT_BYTES):
        return orjson.loads(part), False
    if part[:1] == b"[":
        head = _list_head(part, room)
        if head is not None:
            return head, True
    tree = orjson.loads(part)
    if type(tree) is str:
        text = window(tree, room)
        return text, isinstance(text, CutText)
    if type(tree) is dict and tree:
        return tree_of_parts({key: orjson.dumps(item) for key, item in tree.items()}, None, room)
    return capture(tree, room)


def _list_head(part: bytes, room: int) -> CutList | None:
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
            return CutList(orjson.loads(part[:at] + b"]"), len(part) - at - 2, unit="bytes")
    return None


def _continued(part: bytes, same_bytes: int, same_items: int, room: int) -> Any:
    """The tree of what is new in a list or text that went on, or None where that does not hold."""
    if part[:1] == b'"':
        return _new_text(orjson.loads(part), same_items, room)
    following = part[same_bytes : same_bytes + 1]
    if part[:1] != b"[" or same_items < 1 or following not in (b",", b"]"):
        return None
    try:
        items = orjson.loads(b"[" + part[same_bytes + (following == b",") :])
    except ValueError:
        return None
    option = _LAST_TEXT.search(part[max(0, same_bytes - 70) : same_bytes])
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
    return CutList(kept, len(items) - len(kept), unchanged=same_items)


def _new_text(text: str, same: int, room: int) -> CutText | None:
    if not 0 < same <= len(text):
        return None
    start = max(same, len(text) - room)
    context = min(start, OVERLAP)
    return CutText.of("", text[start - context :], start, unchanged=same, context=context)
