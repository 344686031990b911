"""Trees without their secrets: whole values behind a secret's name, and what is found in texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from burr_otel.content.patterns import NAME_KEYS, VALUE_KEYS
from burr_otel.content.prune import (
    MAX_DEPTH,
    CutDict,
    CutList,
    CutText,
    clip,
    too_deep,
    unique,
)
from burr_otel.content.redact import LONGEST_KEY_BYTES, MARKER, Redaction

_DICTS: Final = frozenset((dict, CutDict))
_LISTS: Final = frozenset((list, CutList))


def hide(tree: Any, redaction: Redaction) -> tuple[Any, bool]:
    """A tree without its secrets; also tells whether it was cut, being deep or of long keys."""
    texts_clean, all_clean = _look(tree, redaction)
    if all_clean:
        return tree, False
    walk = _Hiding(redaction, texts_clean=texts_clean)
    return walk.node(tree, 0), walk.cut


def _look(tree: Any, redaction: Redaction) -> tuple[bool, bool]:  # noqa: C901  one loop for all kinds of nodes
    """Whether the texts of a tree, and all of it, hold nothing to hide; never wrongly yes."""
    texts: list[str] = []
    keys: set[str] = set()
    pairs: list[Any] = []  # what could be a name and its value
    level: list[Any] = [tree]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for node in level:
            kind = type(node)
            if kind is str:
                texts.append(node)
            elif kind in _DICTS:
                keys.update(node)
                below += node.values()
            elif kind in _LISTS:
                below += node
                if len(node) == 2:  # noqa: PLR2004
                    pairs.append(node)
            elif kind is CutText:
                texts += (str.__str__(node), node.tail)
                if node.safe_start() != node.context:
                    return False, False
        level = below
        if not level:
            break
    if level or not redaction.are_clean(texts):  # it is too deep, or a text holds a secret
        return False, False
    named = any(redaction.is_secret_name(pair[0]) for pair in pairs)
    spelled = keys & VALUE_KEYS and keys & NAME_KEYS  # {"name": "password", "value": "..."}
    return True, all(map(redaction.is_harmless, keys)) and not named and not spelled


class _Hiding:
    """The walk through one tree that holds something to hide, or is too deep."""

    def __init__(self, redaction: Redaction, *, texts_clean: bool) -> None:
        self._redaction = redaction
        self._texts_clean = texts_clean
        self.cut = False

    def node(self, node: Any, depth: int) -> Any:
        """The node without secrets."""
        if isinstance(node, str):
            return node if self._texts_clean else self._redaction.text(node)
        if isinstance(node, dict | list) and depth >= MAX_DEPTH:
            self.cut |= bool(node)
            size = len(node) + getattr(node, "missing", 0)
            return too_deep(named=isinstance(node, dict), size=size)
        if isinstance(node, dict):
            members = self._members(node, depth + 1)
            return CutDict(members, node.missing) if isinstance(node, CutDict) else members
        if isinstance(node, list):
            items = self._items(node, depth + 1)
            if not isinstance(node, CutList):
                return items
            return CutList(items, node.missing, unit=node.unit, unchanged=node.unchanged)
        return node

    def _members(self, members: dict[str, Any], depth: int) -> dict[str, Any]:
        hides = self._redaction.hides
        spelled = any(
            key in NAME_KEYS and self._redaction.is_secret_name(item)
            for key, item in members.items()
        )
        shown: dict[str, Any] = {}
        numbers: dict[str, int] = {}
        for key, item in members.items():
            name, secret = key, spelled and key in VALUE_KEYS
            if not self._redaction.is_harmless(key):
                name, cut = clip(self._redaction.text(key), LONGEST_KEY_BYTES)
                self.cut |= cut
                secret = secret or hides(key)
            if item is None or item is True or item is False or not secret:
                item = self.node(item, depth)  # noqa: PLW2901
            else:
                item = MARKER  # noqa: PLW2901
            shown[unique(name, shown, numbers)] = item
        return shown

    def _items(self, items: Sequence[Any], depth: int) -> list[Any]:
        if len(items) == 2 and self._redaction.is_secret_name(items[0]):  # noqa: PLR2004  a pair
            return [self.node(items[0], depth), MARKER]
        return [self.node(item, depth) for item in self._redaction.without_option_values(items)]
