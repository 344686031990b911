"""An encoded state, and the pieces of strict JSON that it is made of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson

from burr_otel.store.piece import Piece

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["LONG_BYTES", "EncodedState", "encode_text", "encode_tree", "join"]

LONG_BYTES = 8 * 1024  # of JSON; less is written again sooner than cut or searched
_CONTAINERS = (list, dict)


class EncodedState:
    """A state as it stands in a record.

    Attributes:
        json: One strict JSON object.
        exact: Patches for what JSON cannot carry; see `burr_otel.store.exact`.
        int64: Whether every integer fits in 64 bits, so that fast parsers read it right.
    """

    __slots__ = ("_fragments", "_items", "exact", "int64", "json")

    def __init__(
        self,
        text: bytes,
        items: Mapping[Any, Any],
        fragments: Mapping[str, bytes] | None = None,
        exact: Sequence[Any] = (),
        *,
        int64: bool = True,
    ) -> None:
        self.json, self.exact, self.int64 = text, exact, int64
        self._items, self._fragments = items, fragments

    @property
    def plain(self) -> bool:
        """Whether all values are of exact JSON types, without tuples."""
        return self._fragments is None

    def pieces(self) -> dict[str, Piece]:
        """The JSON of every top-level key, in order.

        To be asked before user code runs again, which may change the values in place.
        """
        if self._fragments is not None:
            return {key: Piece(text) for key, text in self._fragments.items()}
        if not self._items:
            return {}
        # The largest one is not encoded again or copied, but looked at between the others.
        largest, start, end = self._largest()
        return {
            key: Piece(self.json, start, end) if key is largest else Piece(orjson.dumps(value))
            for key, value in self._items.items()
        }

    def _largest(self) -> tuple[str, int, int]:
        """The key with the largest value, and where that value lies in the JSON."""
        largest = max(self._items, key=self._extent)
        names = list(self._items)
        at = names.index(largest)
        before, after = self._encoded(names[:at]), self._encoded(names[at + 1 :])
        start = len(before) + len(orjson.dumps(largest)) + (1 if at else 0)
        end = len(self.json) - (len(after) if len(after) > len(b"{}") else 1)
        return largest, start, end

    def _encoded(self, keys: Iterable[str]) -> bytes:
        return orjson.dumps({key: self._items[key] for key in keys})

    def _extent(self, key: str) -> int:
        """About how long the JSON of a value is, as its first item tells."""
        value = self._items[key]
        if isinstance(value, list | dict) and value:
            first = value[0] if isinstance(value, list) else next(iter(value.values()))
            return len(value) * (len(first) if isinstance(first, str) else len(orjson.dumps(first)))
        return len(value) if isinstance(value, str) else 0

    def part(self, keys: Iterable[str]) -> bytes | None:
        """The JSON of these top-level keys, as who reads the record can make it again.

        To be asked before user code runs again, which may change the values in place.

        Returns:
            None when reading the record and writing it need not give the same bytes.
        """
        if not self.int64:
            return None
        wanted = dict.fromkeys(keys)
        if self._fragments is not None:
            found = self._fragments
            return join({key: found[key] for key in wanted if key in found})
        present = [key for key in wanted if key in self._items]
        if present == list(self._items):
            return self.json
        if len(self.json) < LONG_BYTES:
            return self._encoded(present)
        return self._cut(present) or self._encoded(present)

    def _cut(self, keys: list[str]) -> bytes | None:
        """The part of a large state, with its largest value cut out of the whole."""
        largest, start, end = self._largest()
        # What another thread may change meanwhile has another length now.
        if largest not in keys or any(
            type(value) in _CONTAINERS for key, value in self._items.items() if key is not largest
        ):
            return None
        at = keys.index(largest)
        before, after = self._encoded(keys[:at]), self._encoded(keys[at + 1 :])
        return b"".join(
            (
                before[:-1],
                b"," if at else b"",
                orjson.dumps(largest),
                b":",
                memoryview(self.json)[start:end],
                b"," if len(after) > len(b"{}") else b"",
                after[1:],
            )
        )


def encode_text(text: str) -> bytes:
    """One JSON string; lone surrogates become U+FFFD."""
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError:
        return orjson.dumps(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def encode_tree(tree: Any) -> tuple[bytes, bool]:
    """Strict JSON of what consists of exact JSON types, and whether its integers fit in 64 bits.

    Reading it and writing it again gives the same bytes.
    """
    try:
        return orjson.dumps(tree), True
    except orjson.JSONEncodeError:  # an integer beyond 64 bits
        text = json.dumps(tree, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode(), False


def join(fragments: Mapping[str, bytes]) -> bytes:
    """One JSON object of the JSON of its values."""
    return b"{%b}" % b",".join([b"%b:%b" % (encode_text(k), v) for k, v in fragments.items()])
