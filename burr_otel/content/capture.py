"""Any Python value as a tree of exact JSON types, of bounded size and in bounded time.

Containers are read in turn, a few items of each at a time, until there is more than can be shown:
so work follows what is kept, and no large value starves the small ones beside it. A value that
cannot be read becomes a text that says so; nothing raises but `KeyboardInterrupt`.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import orjson

from burr_otel.content.forms import Failure, Parts, call_safely, type_name
from burr_otel.content.objects import describe
from burr_otel.content.prune import (
    MAX_DEPTH,
    CutDict,
    CutList,
    CutText,
    dumps,
    scrub,
    share,
    too_deep,
    unique,
    window,
)
from burr_otel.content.redact import MARKER, Redaction

_SECONDS: Final = 0.25  # for code of the values; then objects are only named
_FIRST_ITEMS: Final = 32  # of a container, before it is the turn of others
_SNAPSHOT_ITEMS: Final = 256  # up to which a dict is copied before it is read
_LONG_TEXT: Final = 256
_TEXT_BUDGET: Final = 4  # times the limit, for the long texts of one depth that do not all fit
_KEY_BYTES: Final = 64
_LONGEST_KEY: Final = 640  # characters at both ends
_LONGEST_PATH: Final = 512
_NO_NUMBERS: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def allowance(limit_bytes: int) -> int:
    """Bytes of JSON up to which a value is looked at whole, to be shown in `limit_bytes`."""
    return limit_bytes + max(limit_bytes // 2, 8192)


def capture(
    value: Any,
    limit_bytes: int,
    *,
    path: str = "",
    asking: Redaction | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Any, bool]:
    """The tree of a value that is to be shown in `limit_bytes`; also tells whether it was cut."""
    # With `asking`, its `redactor` is asked about each value, containers before their items.
    reader = _Reader(limit_bytes, asking, clock)
    tree = reader.tree(value, path if asking is not None else "")
    return tree, reader.cut


@dataclasses.dataclass(eq=False)
class _Container:
    """A container that is being read."""

    owner: Any
    parts: Iterator[Any]
    size: int
    named: bool
    above: _Container | None
    path: str
    depth: int
    out: Any
    home: tuple[Any, Any] = (None, None)  # where the result goes
    most: int = _FIRST_ITEMS
    taken: int = 0
    numbers: dict[str, int] = dataclasses.field(default_factory=dict)

    def is_inside_of(self, owner: Any) -> bool:
        above: _Container | None = self
        while above is not None and above.owner is not owner:
            above = above.above
        return above is not None


class _Reader:
    """Reads one value."""

    def __init__(
        self,
        limit_bytes: int,
        asking: Redaction | None,
        clock: Callable[[], float],
    ) -> None:
        self.cut = False
        self._limit_bytes = limit_bytes
        self._left = allowance(limit_bytes)
        self._asking = asking
        self._clock = clock
        self._until = clock() + _SECONDS
        self._waiting: collections.deque[_Container] = collections.deque()
        # Where a long text goes, in which depth, and its path.
        self._long: list[tuple[Any, Any, int, str]] = []

    def tree(self, value: Any, path: str) -> Any:
        """The tree of a value."""
        root: list[Any] = [None]
        self._put(root, 0, value, None, path)
        while self._waiting and self._left > 0:
            container = self._waiting.popleft()
            if self._read(container):
                self._waiting.append(container)
        self._place_long_texts()
        for container in sorted(self._waiting, key=lambda one: -one.depth):
            self._close(container, exhausted=False)
        return root[0]

    def _read(self, container: _Container) -> bool:
        """Take a few more items; tells whether there may be others."""
        for _ in range(container.most):
            if self._left <= 0:
                return True
            part = call_safely(next, container.parts, container)
            if part is container or isinstance(part, Failure):
                self._close(
                    container, exhausted=True
                )  # another thread may have changed it: keep what came
                return False
            container.taken += 1
            if container.named:
                name, item = part
                key = unique(self._name(name), container.out, container.numbers)
                self._left -= len(key) + 4
                self._put(container.out, key, item, container, _below(container, f".{key}"))
            else:
                container.out.append(None)
                at = container.taken - 1
                self._put(container.out, at, part, container, _below(container, f"[{at}]"))
        container.most *= 2
        return True

    def _close(self, container: _Container, *, exhausted: bool) -> None:
        """Note what is missing from a container."""
        missing = container.size - container.taken
        if missing < 0 and not exhausted:
            missing = 1  # at least: the container told no size, or a wrong one
        if missing > 0:
            self.cut = True
            home, key = container.home
            kind: Any = CutDict if container.named else CutList
            home[key] = kind(container.out, missing)

    def _put(self, home: Any, key: Any, value: Any, above: _Container | None, path: str) -> None:
        """Set the tree of a value at its place."""
        if path:
            value, path = self._asked(key, value, path)
        node = self._node(value, above, path)
        if isinstance(node, _Container):
            node.home = (home, key)
            self._left -= 2
            self._waiting.append(node)
            node = node.out
        elif type(node) is str:
            self._left -= min(len(node), _LONG_TEXT) + 3
            if len(node) > _LONG_TEXT:
                depth = 0 if above is None else above.depth
                self._long.append((home, key, depth, path))
            else:
                node = self._shown(scrub(node), path)
        else:
            self._left -= 6
        home[key] = node

    def _asked(self, key: Any, value: Any, path: str) -> tuple[Any, str]:
        """A value as the user's function lets it through; what that returned is final."""
        asking: Any = self._asking
        is_flag = value is None or value is True or value is False
        if type(key) is str and not is_flag and asking.hides(key):
            return MARKER, ""
        if issubclass(type(value), str):
            return value, path  # asked when it is clear how much of it is kept
        shown = call_safely(asking.redactor, path, value)
        if isinstance(shown, Failure):
            return MARKER, ""
        return (value, path) if shown is value else (shown, "")

    def _shown(self, text: str, path: str) -> Any:
        """A text as the user's function lets it through, after the patterns."""
        return self._asking.asked(text, path) if path and self._asking is not None else text

    def _node(self, value: Any, above: _Container | None, path: str) -> Any:
        kind = type(value)
        if kind is str or value is None or kind is bool:
            return value
        if kind is int and -(1 << 63) <= value < 1 << 63:
            return value
        try:
            return self._read_one(value, kind, above, path)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # hostile values raise anything
            return f"<{type_name(value)}: unreadable, {type_name(error)}>"

    def _read_one(self, value: Any, kind: type, above: _Container | None, path: str) -> Any:
        if kind is float:
            return value if math.isfinite(value) else _NO_NUMBERS[str(value)]
        if kind is int:
            text = describe(value)
            return text if type(text) is str else orjson.Fragment(b"%d" % text)
        parts = _parts_of(value, kind)
        if parts is None:
            if self._clock() > self._until:
                self.cut = True
                return f"<{type_name(value)}>"
            made = describe(value)
            if not isinstance(made, Parts):
                parts = _parts_of(made, type(made))
            else:
                parts = made._replace(parts=self._in_time(made.parts))
            if parts is None:
                return self._node(made, above, path)
        return self._open(value, parts, above, path)

    def _in_time(self, parts: Iterable[Any]) -> Iterator[Any]:
        """Parts that code of the value may make, as long as there is time."""
        for part in parts:
            yield part
            if self._clock() > self._until:
                self.cut = True
                return

    def _open(self, owner: Any, parts: Parts, above: _Container | None, path: str) -> Any:
        if above is not None and above.is_inside_of(owner):
            return f"<cycle: {type_name(owner)}>"
        depth = 0 if above is None else above.depth + 1
        if depth >= MAX_DEPTH:
            self.cut |= parts.size != 0
            return too_deep(named=parts.named, size=parts.size)
        items: Iterator[Any] = iter(parts.parts)
        out: Any = {} if parts.named else []
        return _Container(owner, items, parts.size, parts.named, above, path, depth, out)

    def _name(self, key: Any) -> str:
        """A key as text: JSON for what is no string."""
        if type(key) is not str:
            if type(key) is int and key.bit_length() < 64:  # noqa: PLR2004
                return str(key)
            node = _Reader(_KEY_BYTES, None, self._clock).tree(key, "")
            key = node if isinstance(node, str) else dumps(node).decode()
        if len(key) > 2 * _LONGEST_KEY:
            key = f"{key[:_LONGEST_KEY]}...{key[-_LONGEST_KEY:]}"
        return scrub(key)

    def _place_long_texts(self) -> None:
        """Put long texts where they belong, cut when there is no room for all of them."""
        sizes = collections.defaultdict[int, list[int]](list)
        for home, key, depth, _ in self._long:
            sizes[depth].append(len(home[key]))
        fits = sum(map(sum, sizes.values())) <= self._left + len(self._long) * _LONG_TEXT
        most = self._limit_bytes
        for home, key, depth, path in self._long:
            text = home[key]
            if not fits:
                text = window(text, min(share(sizes[depth], _TEXT_BUDGET * most), most))
                self.cut |= isinstance(text, CutText)
            home[key] = self._shown(text if isinstance(text, CutText) else scrub(text), path)


def _below(container: _Container, step: str) -> str:
    return f"{container.path}{step}"[:_LONGEST_PATH] if container.path else ""


def _parts_of(value: Any, kind: type) -> Parts | None:
    """The items of a built-in container, read past overridden methods."""
    if issubclass(kind, dict):
        size = dict.__len__(value)
        pairs: Iterable[Any] = dict.items(value)
        if size <= _SNAPSHOT_ITEMS:
            with contextlib.suppress(RuntimeError):  # another thread changes it
                pairs = list(pairs)
        return Parts(pairs, size, named=True)
    if not issubclass(kind, list | tuple):
        return None
    base: Any = list if issubclass(kind, list) else tuple
    size, names = base.__len__(value), getattr(kind, "_fields", None)
    items: Iterable[Any] = base.__iter__(value)
    if kind is not base and type(names) is tuple and len(names) == size:
        return Parts(zip(names, items, strict=False), size, named=True)
    return Parts(items, size, named=False)
