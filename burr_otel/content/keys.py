"""The keys of one JSON object: any Python key as a text that no other key of the object has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson

from burr_otel.content.truncate import SMALLEST_ROOM, json_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from burr_otel.content.redact import Redaction

__all__ = ["LONGEST_KEY_BYTES", "Keys"]

LONGEST_KEY_BYTES: Final = 256


class Keys:
    """Writes keys and remembers them, so that ``1`` and ``"1"`` of one dict stay apart.

    Args:
        redaction: What is hidden in a key.
    """

    __slots__ = ("_redaction", "_taken", "cut")

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction
        self._taken: dict[str, int] = {}
        self.cut = False

    def take(self, names: Iterable[str]) -> None:
        """Remember keys that were written elsewhere."""
        self._taken.update(dict.fromkeys(names, 0))

    def write(self, name: str, room: int) -> bytes:
        """A key as JSON of at most `room` bytes, numbered when another one reads the same."""
        text, unseen = self._redaction.visible(name, min(room, LONGEST_KEY_BYTES), ask=False)
        piece, cut = json_text(text, min(room, LONGEST_KEY_BYTES), unseen=unseen)
        self.cut |= cut
        shown = base = orjson.loads(piece) if cut else text
        number = self._taken.get(base, 0)
        while shown in self._taken:
            number += 1
            suffix = f" ({number + 1})"
            head, _ = json_text(base, max(room - len(suffix), SMALLEST_ROOM))
            piece = head[:-1] + suffix.encode() + b'"'
            shown = orjson.loads(piece)
        self._taken[base] = number
        self._taken.setdefault(shown, 0)
        return piece
