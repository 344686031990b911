"""The one place that decides what of a value reaches a span."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple

from burr_otel.cached import CachedProperty
from burr_otel.content.capture import NewPart, capture, needed, tree_of, whole
from burr_otel.content.exceptions import captured_text, shown_trace
from burr_otel.content.objects import Failure, call_safely, text_safely, type_text
from burr_otel.content.patterns import MARKER
from burr_otel.content.prune import CutText, clip, fit, scrub
from burr_otel.content.redact import Redaction, hide
from burr_otel.records import Raised

Capture = Literal["full", "types", "off"]
Kind = Literal["inputs", "results", "state", "attributes"]
Native = str | bool | int | float | list[str] | list[bool] | list[int] | list[float]

_LEVELS: Final = ("full", "types", "off")  # from the most to the least that is shown
_KINDS: Final = ("inputs", "results", "state", "attributes", "exceptions")
_LEAST_BYTES: Final = 64
_LONGEST_NAME: Final = 256  # bytes
_LONGEST_NATIVE_LIST: Final = 128  # items
_MOST_NAMES: Final = 512  # that are remembered as they are shown
_MOST_TYPES: Final = 1024  # keys whose types are told
_NUMBERS: Final = frozenset((bool, int, float))


class Attribute(NamedTuple):
    """A value that every exporter and backend takes, and whether anything is missing from it."""

    value: Native
    truncated: bool


_EMPTY = Attribute("{}", truncated=False)
_UNREADABLE = Attribute('"<unreadable>"', truncated=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContentPolicy:
    """What spans carry of values, and how much of it.

    No method raises (but for `KeyboardInterrupt`), whatever it is given; each takes a bounded time
    for the part that it keeps, and gives the same for the same value. To build a policy raises
    ValueError for a pattern that is no regular expression.

    Inputs, results, state, logged attributes and exceptions are shown in ``full``, by names and
    sizes only (``types``), or not at all (``off``). `redact` turns on the built-in patterns;
    `redact_keys` and `redact_values` add regular expressions for keys and texts (group 1, if any).
    `redactor` is a function ``(path, value) -> value``, asked after the patterns; the path reads
    ``state.user.emails[0]``, and when the function raises, the value is hidden. Where it is not at
    hand, in a reader of a log, `shown_only` is set: nothing is shown of recorded values but what
    was shown in the hook.
    """

    inputs: Capture = "full"
    results: Capture = "full"
    state: Capture = "full"
    attributes: Capture = "full"
    exceptions: Capture = "full"
    redact: bool = True
    redact_keys: tuple[str, ...] = ()
    redact_values: tuple[str, ...] = ()
    redactor: Callable[[str, Any], Any] | None = None
    max_attribute_bytes: int = 16 * 1024
    shown_only: bool = False

    def __post_init__(self) -> None:
        """Compile the patterns, so that a bad one is found at once."""
        _ = self._redaction

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the settings; the patterns are compiled again."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @CachedProperty
    def asks_user(self) -> bool:
        """Whether a function of the user's is asked, so that all must be described in the hook."""
        return self.redactor is not None

    @CachedProperty
    def of_records(self) -> ContentPolicy:
        """The policy for what is described from records: the user's function was asked before."""
        if not self.asks_user:
            return self
        return dataclasses.replace(self, redactor=None, shown_only=True)

    @CachedProperty
    def _redaction(self) -> Redaction:
        return Redaction(self.redact, self.redact_keys, self.redact_values, self.redactor)

    @CachedProperty
    def _name(self) -> Callable[[str], str]:
        return functools.lru_cache(_MOST_NAMES)(self._told_name)

    # --- as data --------------------------------------------------------------------------------

    def to_data(self) -> dict[str, Any]:
        """The settings as plain JSON; of a `redactor`, that there was one."""
        data = {**self.__getstate__(), "redactor": self.asks_user or self.shown_only}
        del data["shown_only"]
        return data

    def stricter(self, data: Mapping[str, Any]) -> ContentPolicy:
        """This policy and another one, given as data, whichever shows less; bad data: nothing."""
        made = call_safely(self._stricter, data)
        if isinstance(made, ContentPolicy):
            return made
        nothing: dict[str, Any] = dict.fromkeys(_KINDS, "off")
        return dataclasses.replace(self, redact=True, **nothing)

    def _stricter(self, data: Mapping[str, Any]) -> ContentPolicy:
        changes: dict[str, Any] = {
            kind: max(getattr(self, kind), data[kind], key=_LEVELS.index) for kind in _KINDS
        }
        for name in ("redact_keys", "redact_values"):
            own, theirs = getattr(self, name), tuple(data[name])
            changes[name] = own + tuple(pattern for pattern in theirs if pattern not in own)
        limit = data["max_attribute_bytes"]
        if type(limit) is not int or limit < _LEAST_BYTES or type(data["redact"]) is not bool:
            raise ValueError(data)
        changes["max_attribute_bytes"] = min(self.max_attribute_bytes, limit)
        if data.get("redactor"):
            changes |= {"redactor": None, "shown_only": True}
        return dataclasses.replace(self, redact=self.redact or data["redact"], **changes)

    # --- values -----------------------------------------------------------------------------------

    def needed(
        self, content: Mapping[str, bytes], grown: Mapping[str, tuple[int, int]]
    ) -> Mapping[str, bytes | NewPart]:
        """The part of a state's JSON that `shown` needs for it."""
        if self.state != "full" or self.asks_user:
            return content
        return needed(content, self.max_attribute_bytes, grown)

    def shown(
        self,
        kind: Kind,
        content: bytes | Mapping[str, bytes | NewPart],
        grown: Mapping[str, tuple[int, int]] | None = None,
    ) -> Attribute | None:
        """What a span shows of JSON, see `tree_of`, or ``None`` when this kind is not captured."""
        if content == b"{}" and getattr(self, kind) != "off":
            return _EMPTY  # of nearly all inputs and results; there is nothing to hide in it
        return self._unless_off(kind, self._describe_json, kind, content, grown)

    def document(self, kind: Kind, value: Any) -> Attribute | None:
        """The same of values of any kind by their names."""
        return self._unless_off(kind, self._describe, kind, value)

    def attribute(self, key: str, value: Any, kind: Kind = "attributes") -> Attribute | None:
        """A logged attribute, or a part of another kind of content; text unless a plain value."""
        return self._unless_off(kind, self._logged, kind, key, value)

    def _unless_off(
        self, kind: str, make: Callable[..., Attribute], *arguments: Any
    ) -> Attribute | None:
        if self.shown_only or getattr(self, kind) == "off":
            return None
        made = call_safely(make, *arguments)
        return _UNREADABLE if isinstance(made, Failure) else made

    def _describe_json(self, kind: Kind, content: Any, grown: Any) -> Attribute:
        if getattr(self, kind) != "full" or self.asks_user:
            return self._describe(kind, whole(content))
        return self._written(*tree_of(content, self.max_attribute_bytes, grown))

    def _describe(self, kind: Kind, value: Any) -> Attribute:
        if getattr(self, kind) == "full":
            return self._written(*self._captured(value, kind))
        return self._written(_types(value), False)

    def _captured(self, value: Any, path: str) -> tuple[Any, bool]:
        path = path if self.asks_user else ""
        return capture(value, self.max_attribute_bytes, path=path, asking=self._redaction)

    def _written(self, tree: Any, cut: bool) -> Attribute:
        tree, too_deep = hide(tree, self._redaction)
        return self._fitted(tree, cut or too_deep)

    def _fitted(self, tree: Any, cut: bool) -> Attribute:
        data, too_long = fit(tree, self.max_attribute_bytes)
        return Attribute(data.decode(), cut or too_long)

    def _logged(self, kind: Kind, key: Any, value: Any) -> Attribute:
        name = key if type(key) is str else self.name(key)
        if type(value) is not bool and value is not None and self._redaction.hides(name):
            return Attribute(MARKER, truncated=False)
        if getattr(self, kind) == "types":
            return Attribute(scrub(type_text(value)), truncated=False)
        tree, cut = self._captured(value, f"attributes.{name[:_LONGEST_NAME]}")
        if isinstance(tree, str | CutText):
            return Attribute(*self._clean(self._redaction.text(tree)))
        tree, too_deep = hide(tree, self._redaction)
        cut |= too_deep
        is_list = type(value) in (list, tuple) and not (cut or self.asks_user)
        if type(tree) in _NUMBERS:
            return Attribute(tree, truncated=False)
        if is_list and self._is_native_list(tree):
            return Attribute([_without_nul(item) for item in tree], truncated=False)
        return self._fitted(tree, cut)

    def _is_native_list(self, tree: Any) -> bool:
        """Whether it is a short list of one type, which attributes can hold."""
        if not isinstance(tree, list) or len(tree) > _LONGEST_NATIVE_LIST:
            return False
        kinds = set(map(type, tree))
        if kinds != {str}:
            return len(kinds) < 2 and kinds <= _NUMBERS  # noqa: PLR2004
        if len(tree) == 2 and self._redaction.is_secret_name(tree[0]):  # noqa: PLR2004  a pair
            return False
        return sum(len(text.encode()) for text in tree) <= self.max_attribute_bytes

    # --- texts ------------------------------------------------------------------------------------

    def name(self, text: Any) -> str:
        """A span's or event's name, or an attribute's key, that user code chose."""
        if type(text) is str and not self.asks_user and len(text) <= _LONGEST_NAME:
            return self._name(text)
        return self._told_name(text)

    def name_kept(self, text: Any) -> str:
        """A name as a record keeps it: whole, unless the user's function has a say in it."""
        return self.name(text) if self.asks_user else text_safely(str, text)

    def _told_name(self, text: Any) -> str:
        limit_bytes = min(_LONGEST_NAME, self.max_attribute_bytes)
        return text_safely(self._text_of, text, limit_bytes, "name")

    def text(self, text: Any) -> str:
        """A text of user code's making, such as a status description."""
        return text_safely(self._text_of, text, self.max_attribute_bytes, "text")

    def _text_of(self, text: Any, limit_bytes: int, path: str) -> str:
        tree, _ = capture(text, limit_bytes)
        if isinstance(tree, str | CutText):
            return self._clean(self._redaction.asked(tree, path), limit_bytes)[0]
        return fit(hide(tree, self._redaction)[0], limit_bytes)[0].decode()

    def _clean(self, text: str | CutText, limit_bytes: int = 0) -> tuple[str, bool]:
        """A text without NULs that fits; also tells whether it was cut."""
        return clip(_without_nul(text), limit_bytes or self.max_attribute_bytes)

    # --- exceptions -------------------------------------------------------------------------------

    def exception(self, raised: Raised) -> Raised:
        """An exception as a span shows it; a text that is not shown at all is empty."""
        kind = self.name(raised.type)
        if self.shown_only or self.exceptions == "off":
            return Raised(kind, "", "")
        full = self.exceptions == "full"
        message = text_safely(self._message, raised.message) if full else ""
        trace = text_safely(self._trace, raised.traceback, content=full)
        return Raised(kind, message, trace)

    def _message(self, message: str) -> str:
        text = captured_text(scrub(message))
        return self._clean(self._redaction.asked(text, "exception.message"))[0]

    def _trace(self, trace: str, *, content: bool) -> str:
        shown = shown_trace(scrub(trace), self._redaction, content=content)
        if content:
            shown = self._redaction.answer(shown, "exception.stacktrace")
        return self._clean(shown)[0]


def _types(content: Any) -> Any:
    """The types of values by their keys, or of a value that is none of several."""
    if not isinstance(content, Mapping):
        return type_text(content)
    return {key: type_text(item) for key, item in itertools.islice(content.items(), _MOST_TYPES)}


def _without_nul(value: Any) -> Any:
    """A text that a database behind a collector takes; other values as they are."""
    if isinstance(value, CutText):
        return value._replace(head=_without_nul(value.head), tail=_without_nul(value.tail))
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
