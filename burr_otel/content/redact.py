"""Finding secrets by key and by form, and hiding them behind a marker that says nothing of them.

A key hides its whole value (`Redaction.hides`). A text is searched for secrets that are known by
their form (`patterns.known_forms`) and for a secret's name with its value, as programs and people
write them (`pairs.values`). Of a long text only the parts that may be shown are searched, and a
little beyond.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from burr_otel.content import pairs, patterns, prune
from burr_otel.content.objects import call_safely
from burr_otel.content.patterns import MARKER, NAME_KEYS, VALUE_KEYS, Hidden, snake

_LONGEST_KEY: Final = 128  # characters that are judged
_LONGEST_KEY_BYTES: Final = 256  # that are shown
_CACHED: Final = 4096
_CLOSED: Final = "</"  # an element that begins before a cut may have its end behind it
_CLOSING_TAG = re.compile(r"</([\w.:\-]{1,64})\s{0,8}>")
_NAME = re.compile(r"[\w.\-]{1,64}")
_ASSIGNED = re.compile(r"=\s{0,64}([rRbBuUfF]{0,2}(?:\"{1,3}|'{1,3})?)\Z")


class Redaction:
    """The rules for what is hidden, those of the user with them, and the keys judged so far."""

    def __init__(
        self,
        builtin: bool = True,
        keys: Iterable[str] = (),
        values: Iterable[str] = (),
        redactor: Callable[[str, Any], Any] | None = None,
    ) -> None:
        self.redactor = redactor
        self._builtin = builtin
        self._user_keys = [_compiled("redact_keys", key, re.IGNORECASE) for key in keys]
        self._user_values = [_compiled("redact_values", value, 0) for value in values]
        self._judge = functools.lru_cache(_CACHED)(self._is_secret)
        self._says_nothing = functools.lru_cache(_CACHED)(self._is_harmless)

    # --- keys -----------------------------------------------------------------------------------

    def hides(self, key: str) -> bool:
        """Whether a key is the name of a secret."""
        if len(key) > _LONGEST_KEY:  # the end of a path tells most
            key = key[: _LONGEST_KEY // 2] + "_" + key[-_LONGEST_KEY // 2 :]
        return self._judge(key)

    def is_secret_name(self, value: Any) -> bool:
        """Whether a value, not a key, is the name of a secret, as in ``["token", "x"]``."""
        return type(value) is str and _NAME.fullmatch(value) is not None and self.hides(value)

    def is_harmless(self, key: str) -> bool:
        """Whether a key does not hide its value, nor has to be changed itself."""
        return len(key) <= _LONGEST_KEY_BYTES // 4 and self._says_nothing(key)

    def _is_harmless(self, key: str) -> bool:
        return not self.hides(key) and self.are_clean([key])

    def _is_secret(self, key: str) -> bool:
        if any(pattern.search(key) for pattern in self._user_keys):
            return True
        if not self._builtin or patterns.SECRET_STEM.search(key.lower()) is None:
            return False
        return bool(patterns.SECRET_KEY.search(patterns.HARMLESS_KEY.sub("_", snake(key))))

    def _hides_phrase(self, words: str) -> bool:
        """Whether one to three words before a separator in a text are the name of a secret."""
        last = words.rpartition(" ")[2]
        if self.hides(last):
            return True
        return last != words and self._builtin and bool(patterns.PHRASE_KEY.search(snake(words)))

    def _may_hide(self, names: str) -> bool:
        return bool(self._user_keys) or patterns.SECRET_STEM.search(names.lower()) is not None

    # --- texts ----------------------------------------------------------------------------------

    def text(self, text: str | prune.CutText) -> Any:
        """A text without secrets, or what of a cut one may be shown."""
        if not isinstance(text, prune.CutText):
            return _covered(text, self.spans(text))
        # What stands at the cut may be the rest of a secret that began in the part between.
        head, tail = text.head, text.tail
        spans = self.spans(head + _CLOSED)
        shown_head = _covered(head, spans, end=len(head) - text.context)
        open_end = text.context > 0 and any(span.end >= len(head) for span in spans)
        start = len(tail) if open_end else self.safe_start(text)
        missing = text.missing + start - text.context
        shown_tail = _covered(tail, self.spans(tail), start)
        return prune.CutText(shown_head, shown_tail, missing, text.unchanged)

    def safe_start(self, text: prune.CutText) -> int:
        """Where in its tail a secret has ended that may have begun in the part between."""
        start, tail = text.safe_start(), text.tail
        for closing in _CLOSING_TAG.finditer(tail) if _CLOSED in tail else ():
            if self.hides(closing[1]) and f"<{closing[1]}" not in tail[: closing.start()]:
                start = max(start, closing.start())
        return start

    def asked(self, text: str | prune.CutText, path: str) -> Any:
        """A text as the user's redactor lets it through, after the patterns."""
        shown = self.text(text)
        if self.redactor is None or not isinstance(text, prune.CutText):
            return self.answer(shown, path)
        # The function sees the parts beyond the cut too, so that it knows what stands across it.
        head, tail = (self.answer(self.text(part), path) for part in (text.head, text.tail))
        head = head[: max(len(head) - text.context, 0)]
        return shown._replace(head=head, tail=tail[text.context :] if shown.tail else "")

    def answer(self, text: str, path: str) -> str:
        """What the user's redactor makes of a text; its failure hides the text."""
        if self.redactor is None:
            return text
        shown = call_safely(self.redactor, path, text)
        if issubclass(type(shown), str):
            return prune.scrub(str.__str__(shown))
        return str(shown) if shown is None or type(shown) in (bool, int, float) else MARKER

    def source_line(self, before: str, line: str) -> str:
        """Hide the secrets of a source line, also of one whose name stands on a line before it."""
        text, start = before + line, len(before)
        spans = self.spans(text)
        shown_to = start
        for number, span in enumerate(spans):
            if span.end > start:
                assigned = _ASSIGNED.search(text, shown_to, max(span.start, shown_to))
                if assigned is not None:  # all of "a" + f("b") belongs to the secret
                    spans[number:] = [Hidden(assigned.start(1), len(text))]
                    break
                shown_to = span.end
        return _covered(text, spans, start)

    def are_clean(self, texts: list[str]) -> bool:
        """Whether no text holds anything to hide; never wrongly yes."""
        if any(pattern.search(text) for pattern in self._user_values for text in texts):
            return False
        # No pattern matches less because of what follows a NUL.
        return next(self._built_in("\0".join([*texts, ""])), None) is None

    def spans(self, text: str) -> list[Hidden]:
        """The parts of a text to hide, in order and apart from each other."""
        found = list(self._built_in(text))
        for pattern in self._user_values:
            found += patterns.matches(pattern, text)
        found.sort(key=lambda span: (span.start, -span.end))
        merged: list[Hidden] = []
        for span in found:
            if merged and span.start < merged[-1].end:
                last = merged[-1]
                merged[-1] = last._replace(end=max(last.end, span.end))
            else:
                merged.append(span)
        return merged

    def _built_in(self, text: str) -> Iterator[Hidden]:
        if self._builtin:
            yield from patterns.known_forms(text)
        if self._builtin or self._user_keys:
            yield from pairs.values(text, self._hides_phrase, self._may_hide)


def _covered(text: str, spans: list[Hidden], start: int = 0, end: int | None = None) -> str:
    """The text from `start` to `end` with `MARKER` in place of what is hidden."""
    shown: list[str] = []
    end = len(text) if end is None else end
    for span in spans:
        if span.start < end and span.end > start:
            shown += (text[start : max(span.start, start)], span.shown)
            start = span.end
    return "".join((*shown, text[start:end]))


def _compiled(setting: str, pattern: str, flags: int) -> re.Pattern[str]:
    try:
        return re.compile(pattern, flags)
    except (re.error, TypeError, ValueError, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{setting}: {pattern!r} is not a regular expression ({error}). Mend it, or escape "
            "its special characters with a backslash to search for it as it stands."
        ) from error


# --- trees ----------------------------------------------------------------------------------------


def with_name(container: Any, place: Any, value: Any) -> Any:
    """A value last in a container like its own, behind what may tell there that it is a secret."""
    if isinstance(container, dict):
        names = [name for name in NAME_KEYS & container.keys() if name != place]
        return {**{name: _short(container[name]) for name in names}, place: value}
    named = [_short(each) for each in container[max(place - 1, 0) : place]]
    return [*([] if len(container) == 2 else [None, None]), *named, value]  # noqa: PLR2004  a pair


def _short(value: Any) -> Any:
    return value if type(value) is str and _NAME.fullmatch(value) else None


def hide(tree: Any, redaction: Redaction) -> tuple[Any, bool]:
    """A tree without its secrets; also tells whether it was cut, being deep or of long keys."""
    texts_clean, all_clean = _look(tree, redaction)
    if all_clean:
        return tree, False
    walk = _Hiding(redaction, texts_clean=texts_clean)
    return walk.node(tree, 0), walk.cut


def _look(tree: Any, redaction: Redaction) -> tuple[bool, bool]:
    """Whether the texts of a tree, and all of it, hold nothing to hide; never wrongly yes."""
    texts: list[str] = []
    keys: set[str] = set()
    level: list[Any] = [tree]
    named = False
    for _ in range(prune.MAX_DEPTH + 1):
        below: list[Any] = []
        for node in level:
            if type(node) is str:
                texts.append(node)
            elif isinstance(node, dict):
                keys.update(node)
                below += node.values()
            elif isinstance(node, list):
                below += node
                named = named or (len(node) == 2 and redaction.is_secret_name(node[0]))  # noqa: PLR2004  a pair
            elif isinstance(node, prune.CutText):
                texts += (node.head + _CLOSED, node.tail)
                if redaction.safe_start(node) != node.context:
                    return False, False
        level = below
        if not level:
            break
    if level or not redaction.are_clean(texts):  # it is too deep, or a text holds a secret
        return False, False
    spelled = keys & VALUE_KEYS and keys & NAME_KEYS  # {"name": "password", "value": "..."}
    return True, not named and not spelled and all(map(redaction.is_harmless, keys))


class _Hiding:
    """The walk through one tree that holds something to hide, or is too deep."""

    def __init__(self, redaction: Redaction, *, texts_clean: bool) -> None:
        self._redaction = redaction
        self._texts_clean = texts_clean
        self.cut = False

    def node(self, node: Any, depth: int) -> Any:
        """The node without secrets."""
        if isinstance(node, str | prune.CutText):
            return node if self._texts_clean else self._redaction.text(node)
        if not isinstance(node, dict | list):
            return node
        if depth >= prune.MAX_DEPTH:
            self.cut |= bool(node)
            size = len(node) + getattr(node, "missing", 0)
            return prune.too_deep(named=isinstance(node, dict), size=size)
        if isinstance(node, dict):
            return self._members(node, depth + 1)
        items = self._items(node, depth + 1)
        if not isinstance(node, prune.CutList):
            return items
        return prune.CutList(items, node.missing, unit=node.unit, unchanged=node.unchanged)

    def _members(self, members: dict[str, Any], depth: int) -> dict[str, Any]:
        redaction = self._redaction
        spelled = any(
            key in NAME_KEYS and redaction.is_secret_name(item) for key, item in members.items()
        )
        shown: dict[str, Any] = {}
        numbers: dict[str, int] = {}
        for key, item in members.items():
            name, secret = key, spelled and key in VALUE_KEYS
            if not redaction.is_harmless(key):
                name, cut = prune.clip(redaction.text(key), _LONGEST_KEY_BYTES)
                self.cut |= cut
                secret = secret or redaction.hides(key)
            is_flag = item is None or item is True or item is False
            hidden = MARKER if secret and not is_flag else self.node(item, depth)
            shown[prune.unique(name, shown, numbers)] = hidden
        return (
            prune.CutDict(shown, members.missing) if isinstance(members, prune.CutDict) else shown
        )

    def _items(self, items: Sequence[Any], depth: int) -> list[Any]:
        """The items without what follows a secret's name: of a pair, or of a program's option."""
        is_secret_name = self._redaction.is_secret_name
        if len(items) == 2 and is_secret_name(items[0]):  # noqa: PLR2004
            return [self.node(items[0], depth), MARKER]
        shown: list[Any] = []
        is_value = False
        for item in items:
            is_text = type(item) is str
            hidden = is_value and not (is_text and item[:1] == "-")
            shown.append(MARKER if hidden else self.node(item, depth))
            is_value = is_text and item[:2] == "--" and is_secret_name(item[2:])
        return shown
