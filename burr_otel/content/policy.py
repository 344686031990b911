"""The one place that decides what of a value reaches a span."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import orjson

from burr_otel.content import exceptions, objects
from burr_otel.content.encode import Encoder
from burr_otel.content.redact import MARKER, Redaction
from burr_otel.content.kinds import type_text

__all__ = ["Attribute", "Capture", "ContentPolicy", "ExceptionContent", "Native"]

Capture = Literal["full", "types", "off"]
Native = str | bool | int | float | list[str] | list[bool] | list[int] | list[float]

_LONGEST_NAME_BYTES = 256
_LONGEST_NATIVE_LIST = 128
_INT64 = 1 << 63


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContentPolicy:
    """What spans carry of values, and how much of it.

    No method raises (but for `KeyboardInterrupt`), whatever value it is given, and each takes a
    bounded time. The same value gives the same result.

    Attributes:
        inputs: ``full``, ``types`` (names and sizes only) or ``off``, for step inputs.
        results: The same for step results.
        state: The same for written state.
        attributes: The same for logged attributes.
        exceptions: The same for exception messages and tracebacks.
        redact: Whether the built-in patterns hide secrets.
        redact_keys: More regular expressions for keys whose values are hidden.
        redact_values: More regular expressions for texts that are hidden.
        redactor: A function ``(path, value) -> value``, asked after the patterns; a failure of it
            hides the value.
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

    def __post_init__(self) -> None:
        """Compile the patterns."""
        redaction = Redaction(builtin=self.redact, keys=self.redact_keys, values=self.redact_values)
        object.__setattr__(self, "_redaction", redaction)
        object.__setattr__(self, "_encoder", Encoder(redaction, self.redactor))

    _redaction: Redaction = dataclasses.field(init=False, repr=False, compare=False)
    _encoder: Encoder = dataclasses.field(init=False, repr=False, compare=False)

    def document(
        self, kind: Literal["inputs", "results", "state"], value: Mapping[str, Any]
    ) -> Attribute | None:
        """Inputs, a result or state as one JSON string.

        Args:
            kind: Whose capture setting counts.
            value: The values by name.

        Returns:
            The attribute, or ``None`` when this kind is not captured.
        """
        capture: Capture = getattr(self, kind)
        if capture == "off":
            return None
        if capture == "types":
            return self._types(value)
        data, cut = self._encoder.document(value, self.max_attribute_bytes, kind)
        return Attribute(data.decode(), cut)

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
        name = key if type(key) is str else self.name(key)
        if self._redaction.hides(name):
            return Attribute(MARKER, truncated=False)
        if self.attributes == "types":
            return Attribute(orjson.dumps(type_text(value)).decode(), truncated=False)
        native = None if self.redactor is not None else self._native(value)
        if native is not None:
            return native
        data, cut = self._encoder.document(
            value, self.max_attribute_bytes, f"attributes.{self.name(name)}"
        )
        if data[:1] == b'"':
            text, more = exceptions.clip(
                orjson.loads(data).replace("\0", "\ufffd"), self.max_attribute_bytes
            )
            return Attribute(text, cut or more)
        return Attribute(data.decode(), cut)

    def name(self, text: Any) -> str:
        """A span's or event's name, or an attribute's key, that user code chose."""
        return self._text(text, "name", min(_LONGEST_NAME_BYTES, self.max_attribute_bytes))[0]

    def text(self, text: Any) -> str:
        """A text of user code's making, such as a status description."""
        return self._text(text, "text", self.max_attribute_bytes)[0]

    def exception(self, exc: BaseException) -> ExceptionContent:
        """An exception with its message and the traceback of its whole chain."""
        name = exceptions.qualified_type(exc)
        if self.exceptions == "off":
            return ExceptionContent(name, "", "", truncated=False)
        full = self.exceptions == "full"
        limit = self.max_attribute_bytes
        message, cut = "", False
        if full:
            message, cut = exceptions.message_of(exc, self._redaction, limit)
        found = objects.call_safely(self._stacktrace, exc, full)
        trace, more = found if isinstance(found, tuple) else ("", True)
        if self.redactor is not None and full:
            message, trace = (
                self._asked("exception.message", message),
                self._asked("exception.stacktrace", trace),
            )
        return ExceptionContent(name, message, trace, cut or more)

    def _stacktrace(self, exc: BaseException, full: bool) -> tuple[str, bool]:
        return exceptions.stacktrace(exc, self._redaction, self.max_attribute_bytes, content=full)

    def _asked(self, path: str, text: str) -> str:
        """A text as the user's redactor lets it through."""
        if self.redactor is None or not text:
            return text
        shown = objects.call_safely(self.redactor, path, text)
        if not isinstance(shown, str):
            return MARKER
        return exceptions.clean(str.__str__(shown), self._redaction, self.max_attribute_bytes)[0]

    def _text(self, text: Any, path: str, limit_bytes: int) -> tuple[str, bool]:
        if not isinstance(text, str):
            made = objects.call_safely(str, text)
            text = made if isinstance(made, str) else f"<{objects.type_name(text)}>"
        clean, cut = exceptions.clean(str.__str__(text), self._redaction, limit_bytes)
        return self._asked(path, clean), cut

    def _types(self, value: Mapping[str, Any]) -> Attribute:
        shown = objects.call_safely(self._type_map, value)
        if not isinstance(shown, dict):
            shown = type_text(value)
        data, cut = self._encoder.document(shown, self.max_attribute_bytes)
        return Attribute(data.decode(), cut)

    def _type_map(self, value: Mapping[str, Any]) -> dict[str, str]:
        shown = {}
        for key, item in value.items():
            name = self.name(key)
            shown[name] = MARKER if self._redaction.hides(name) else type_text(item)
            if len(shown) * SMALLEST_PAIR > self.max_attribute_bytes:
                break
        return shown

    def _native(self, value: Any) -> Attribute | None:
        """A value that may stay as it is, or ``None``."""
        kind = type(value)
        if kind is bool:
            return Attribute(value, truncated=False)
        if kind is int and -_INT64 <= value < _INT64:
            return Attribute(value, truncated=False)
        if kind is float and math.isfinite(value):
            return Attribute(value, truncated=False)
        if kind is str:
            return Attribute(*exceptions.clean(value, self._redaction, self.max_attribute_bytes))
        if kind not in (list, tuple) or len(value) > _LONGEST_NATIVE_LIST:
            return None
        return self._native_list(value)

    def _native_list(self, value: list[Any] | tuple[Any, ...]) -> Attribute | None:
        kinds = set(map(type, value))
        if len(kinds) > 1 or not kinds <= {str, bool, int, float}:
            return None
        if kinds == {str}:
            if sum(map(len, value)) > self.max_attribute_bytes:
                return None
            if len(value) == 2 and self._redaction.hides(value[0]):  # noqa: PLR2004
                return None
            made = [self._text(item, "", self.max_attribute_bytes)[0] for item in value]
            if sum(len(item.encode()) for item in made) > self.max_attribute_bytes:
                return None
            return Attribute(made, truncated=False)
        if any(self._native(item) is None for item in value):
            return None
        return Attribute(list(value), truncated=False)


SMALLEST_PAIR = 8  # bytes of a name and a type in JSON
