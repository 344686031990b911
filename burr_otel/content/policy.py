"""The one place that decides what of a value reaches a span."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import orjson

from burr_otel.content import exceptions
from burr_otel.content.encode import Encoder
from burr_otel.content.guard import Failure, call_safely
from burr_otel.content.kinds import type_text
from burr_otel.content.redact import MARKER, Redaction
from burr_otel.content.truncate import clip, scrub

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Attribute", "Capture", "ContentPolicy", "ExceptionContent", "Native"]

Capture = Literal["full", "types", "off"]
Native = str | bool | int | float | list[str] | list[bool] | list[int] | list[float]

_LONGEST_NAME: int = 256  # bytes
_LONGEST_NATIVE_LIST: int = 128  # items
_MOST_NAMES: int = 512  # that are remembered as they are shown
_MOST_TYPES: int = 1024  # keys whose types are told
_INT64: int = 1 << 63


class Attribute(NamedTuple):
    """A value that every exporter and backend takes.

    Attributes:
        value: A string (JSON for anything structured), bool, 64-bit int, finite float, or a list
            of one of these.
        truncated: Whether anything is missing for want of room or depth.
    """

    value: Native
    truncated: bool


class ExceptionContent(NamedTuple):
    """An exception as a span shows it.

    Attributes:
        type: The class with its module.
        message: Its text; empty unless exceptions are captured in full.
        stacktrace: The chained traceback; without messages and source lines for ``types``, empty
            for ``off``.
        truncated: Whether message or traceback were cut.
    """

    type: str
    message: str
    stacktrace: str
    truncated: bool


_EMPTY = Attribute("{}", truncated=False)
_UNREADABLE = Attribute('"<unreadable>"', truncated=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContentPolicy:
    """What spans carry of values, and how much of it.

    No method raises (but for `KeyboardInterrupt`), whatever it is given; each takes a bounded time
    for the part that it keeps, and gives the same for the same value.

    Attributes:
        inputs: ``full``, ``types`` (names and sizes only) or ``off``, for step inputs.
        results: The same for step results.
        state: The same for written state.
        attributes: The same for logged attributes.
        exceptions: The same for exception messages and tracebacks.
        redact: Whether the built-in patterns hide secrets.
        redact_keys: More regular expressions for keys whose values are hidden.
        redact_values: More regular expressions for texts that are hidden (group 1, if any).
        redactor: A function ``(path, value) -> value``, asked after the patterns about every value
            and text; the path reads ``state.user.emails[0]``. When it raises, the value is hidden.
        max_attribute_bytes: Most bytes of UTF-8 of one attribute.

    Raises:
        ConfigError: A pattern is not a regular expression.
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
    _redaction: Redaction = dataclasses.field(init=False, repr=False, compare=False)
    _encoder: Encoder = dataclasses.field(init=False, repr=False, compare=False)
    _names: dict[str, str] = dataclasses.field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        """Compile the patterns."""
        redaction = Redaction(
            builtin=self.redact,
            keys=self.redact_keys,
            values=self.redact_values,
            redactor=self.redactor,
        )
        object.__setattr__(self, "_redaction", redaction)
        object.__setattr__(self, "_encoder", Encoder(redaction))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings; the patterns are compiled again."""
        settings = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.init
        }
        return _rebuilt, (settings,)

    # --- values -----------------------------------------------------------------------------------

    def document(
        self,
        kind: Literal["inputs", "results", "state"],
        value: Mapping[str, Any],
        written: bytes | None = None,
    ) -> Attribute | None:
        """Inputs, a result or state as one JSON string.

        Args:
            kind: Whose capture setting counts.
            value: The values by name.
            written: The JSON of `value`, see `PlainWriter.write`.

        Returns:
            The attribute, or ``None`` when this kind is not captured.
        """
        capture: Capture = getattr(self, kind)
        if type(value) is dict and not value and capture != "off":
            return _EMPTY
        if capture == "off":
            return None
        if capture == "full":
            made = call_safely(self._json, value, kind, written)
        else:
            made = call_safely(self._types, value, kind)
        return made if isinstance(made, Attribute) else _UNREADABLE

    def attribute(self, key: str, value: Any) -> Attribute | None:
        """A logged attribute.

        Args:
            key: Its name, which may be that of a secret.
            value: Anything. Strings, bools, 64-bit ints, finite floats and short lists of one of
                these stay what they are; everything else becomes a string.

        Returns:
            The attribute, or ``None`` when attributes are not captured.
        """
        if self.attributes == "off":
            return None
        made = call_safely(self._logged, key, value)
        return made if isinstance(made, Attribute) else _UNREADABLE

    def _json(self, value: Any, path: str, written: bytes | None) -> Attribute:
        data, cut = self._encoder.json(value, self.max_attribute_bytes, path, written=written)
        return Attribute(data.decode(), cut)

    def _logged(self, key: str, value: Any) -> Attribute:
        name = key if type(key) is str else self.name(key)
        if type(value) is not bool and value is not None and self._redaction.hides(name):
            return Attribute(MARKER, truncated=False)
        if self.attributes == "types":
            return Attribute(scrub(type_text(value)), truncated=False)
        path = f"attributes.{name[:_LONGEST_NAME]}"
        if type(value) is str:
            return Attribute(*self._redaction.shown(value, self.max_attribute_bytes, path))
        shown = value
        if self.redactor is not None and not issubclass(type(value), str):
            shown = call_safely(self.redactor, path, value)
            if isinstance(shown, Failure):
                return Attribute(MARKER, truncated=False)
        if _is_native_number(shown):
            return Attribute(shown, truncated=False)
        native = self._native_list(shown, path) if type(shown) in (list, tuple) else None
        return native or self._written(shown, path, ask=shown is value)

    def _written(self, value: Any, path: str, *, ask: bool) -> Attribute:
        """A value as JSON, or as text when that says the same: a scalar reads better unquoted."""
        data, cut = self._encoder.json(value, self.max_attribute_bytes, path, ask=ask)
        if data[:1] != b'"':
            return Attribute(data.decode(), cut)
        text = orjson.loads(data).replace("\0", "\ufffd")
        return Attribute(clip(text, self.max_attribute_bytes)[0], cut)

    def _native_list(self, value: list[Any] | tuple[Any, ...], path: str) -> Attribute | None:
        """A short list of one type as it is, or ``None``."""
        kinds = set(map(type, value[: _LONGEST_NATIVE_LIST + 1]))
        if len(kinds) > 1 or len(value) > _LONGEST_NATIVE_LIST or self.redactor is not None:
            return None
        if kinds == {str}:
            return self._native_texts(value, path)
        return (
            Attribute(list(value), truncated=False) if all(map(_is_native_number, value)) else None
        )

    def _native_texts(self, texts: Sequence[str], path: str) -> Attribute | None:
        limit = self.max_attribute_bytes
        pair = len(texts) == 2 and self._redaction.is_secret_name(texts[0])  # noqa: PLR2004  a name and its value
        if pair or sum(map(len, texts)) > limit:
            return None
        texts = self._redaction.without_option_values(texts)
        shown = [self._redaction.shown(text, limit, path)[0] for text in texts]
        if sum(len(text.encode()) for text in shown) > limit:
            return None
        return Attribute(shown, truncated=False)

    def _types(self, value: Any, _kind: str) -> Attribute:
        """Names and types; the encoder hides the type and size of what a secret's key names."""

        def told() -> dict[str, str]:
            pairs = itertools.islice(value.items(), _MOST_TYPES)
            return {key: type_text(item) for key, item in pairs}

        types = call_safely(told)
        shown = type_text(value) if isinstance(types, Failure) else types
        data, cut = self._encoder.json(shown, self.max_attribute_bytes, ask=False)
        return Attribute(data.decode(), cut)

    # --- texts ------------------------------------------------------------------------------------

    def name(self, text: Any) -> str:
        """A span's or event's name, or an attribute's key, that user code chose."""
        known = self._names.get(text) if type(text) is str else None
        if known is not None:
            return known
        shown = self._text(text, min(_LONGEST_NAME, self.max_attribute_bytes), "name")
        if type(text) is str and self.redactor is None and len(text) <= _LONGEST_NAME:
            if len(self._names) >= _MOST_NAMES:
                self._names.clear()
            self._names[text] = shown
        return shown

    def text(self, text: Any) -> str:
        """A text of user code's making, such as a status description."""
        return self._text(text, self.max_attribute_bytes, "text")

    def _text(self, text: Any, limit_bytes: int, path: str) -> str:
        if not issubclass(type(text), str):  # isinstance() would ask the object
            made = call_safely(self._written, text, path, ask=False)
            text = made.value if isinstance(made, Attribute) else "<unreadable>"
        shown = call_safely(self._redaction.shown, str.__str__(text), limit_bytes, path)
        return "<unreadable>" if isinstance(shown, Failure) else shown[0]

    # --- exceptions -------------------------------------------------------------------------------

    def exception(self, exc: BaseException) -> ExceptionContent:
        """An exception with its message and the traceback of its whole chain."""
        name = exceptions.qualified_type(exc)
        if self.exceptions == "off":
            return ExceptionContent(name, "", "", truncated=False)
        writer = exceptions.ExceptionWriter(
            self._redaction, self._encoder, self.max_attribute_bytes
        )
        full = self.exceptions == "full"
        message = call_safely(writer.message, exc) if full else ("", False)
        trace = call_safely(writer.stacktrace, exc, content=full)
        if isinstance(message, Failure):
            message = ("<unreadable>", True)
        if isinstance(trace, Failure):
            trace = ("<unreadable>", True)
        return ExceptionContent(name, message[0], trace[0], message[1] or trace[1])


def _is_native_number(value: Any) -> bool:
    kind = type(value)
    return (
        kind is bool
        or (kind is int and -_INT64 <= value < _INT64)
        or (kind is float and math.isfinite(value))
    )


def _rebuilt(settings: dict[str, Any]) -> ContentPolicy:
    return ContentPolicy(**settings)
