"""Settings: one frozen class, and the only reader of ``BURR_OTEL_*`` variables.

A setting comes from an argument, else from its variable (``BURR_OTEL_`` and the field's name in
capitals), else from the default below. A bad argument raises `ConfigError`; a bad variable is
reported once in a warning that says what is used instead, because a typing error in a deployment
must not stop the service that it configures. Where it should have hidden something, nothing is
captured, because it must not show that either. An empty variable counts as none.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Any, Literal, TypedDict, Union, get_args, get_origin, get_type_hints

from burr_otel.errors import ConfigError
from burr_otel.printable import logger
from burr_otel.trace_url import read_template

DEFAULT_STORAGE_DIR = "~/.burr"
ENV_PREFIX = "BURR_OTEL_"

Capture = Literal["full", "types", "off"]
Redactor = Callable[[str, Any], Any]
Failed = Callable[[str, Any, Any], "str | None"]
_LONGEST_BYTES = 16 * 1024
_SHORTEST_BYTES = 64
_TRUTHS = dict.fromkeys(("1", "true", "yes", "on"), True)
_TRUTHS |= dict.fromkeys(("0", "false", "no", "off"), False)


class OtelSettings(TypedDict, total=False):
    """The settings as keyword arguments of `OtelTracker`; `OtelConfig` describes each."""

    capture: Capture
    capture_inputs: Capture | None
    capture_results: Capture | None
    capture_state: Capture | None
    capture_attributes: Capture | None
    capture_exceptions: Capture | None
    redact: bool
    redact_keys: tuple[str, ...]
    redact_values: tuple[str, ...]
    redactor: Redactor | None
    max_attribute_bytes: int
    openinference_content: bool
    capture_state_read: Literal["failed", "all", "never"]
    expected_exceptions: tuple[type[BaseException] | str, ...]
    failed: Failed | None
    log_events: str | None
    user_id_from_partition_key: bool
    baggage_keys: tuple[str, ...]
    send_baggage: bool
    step_parent: Literal["application", "ambient"]
    on_resume: Literal["link", "continue"]
    root_linger: float | None
    root_max_open: float | None
    recover_after: float
    durability: Literal["none", "flush", "fsync"]
    exclusive: bool
    on_snapshot_error: Literal["raise", "warn"]
    snapshots: Literal["full", "delta", "off"]
    empty_runs: Literal["keep", "drop"]
    child_spans: Literal["stamp", "record", "off"]
    record_child_spans: bool
    trace_url: str


def _is_pattern(item: object) -> bool:
    try:
        return isinstance(item, str) and bool(re.compile(item))
    except re.error:
        return False


def _is_exception(item: object) -> bool:
    return _is_text(item) or (isinstance(item, type) and issubclass(item, BaseException))


def _is_text(item: object) -> bool:
    return isinstance(item, str) and bool(item.strip())


def log_level(name: str) -> int:
    """The level of log lines that a name stands for; raises `ConfigError` when it has none."""
    level = logging.getLevelName(name.upper())
    if not isinstance(level, int):
        raise ConfigError("use the name of a level: DEBUG, INFO, WARNING, ERROR or CRITICAL.")
    return level


def _setting(default: Any, doc: str, **metadata: Any) -> Any:
    return dataclasses.field(default=default, metadata={"doc": doc, **metadata})


@dataclasses.dataclass(frozen=True)
class OtelConfig:
    """Every setting of an `OtelTracker`.

    Raises:
        ConfigError: A value is not one of those allowed.
    """

    capture: Capture = _setting(
        "full", "What spans carry of values: `full`, `types` (names and sizes only) or `off`."
    )
    capture_inputs: Capture | None = _setting(None, "The same for step inputs alone.")
    capture_results: Capture | None = _setting(None, "The same for step results alone.")
    capture_state: Capture | None = _setting(None, "The same for written state alone.")
    capture_attributes: Capture | None = _setting(None, "The same for logged attributes alone.")
    capture_exceptions: Capture | None = _setting(
        None,
        "The same for messages and tracebacks of exceptions, and for the reasons of `mark_failed`.",
    )
    redact: bool = _setting(True, "Whether the built-in redaction patterns apply.")
    redact_keys: tuple[str, ...] = _setting(
        (), "More key patterns (regular expressions) whose values are hidden.", items=_is_pattern
    )
    redact_values: tuple[str, ...] = _setting(
        (), "More value patterns (regular expressions) whose matches are hidden.", items=_is_pattern
    )
    redactor: Redactor | None = _setting(
        None, "A function `(path, value) -> value` applied after the patterns.", env=False
    )
    max_attribute_bytes: int = _setting(
        _LONGEST_BYTES,
        "Longest attribute value, in bytes of UTF-8; longer ones are cut.",
        minimum=_SHORTEST_BYTES,
    )
    openinference_content: bool = _setting(
        False, "Whether steps also carry `input.value` and `output.value` (Phoenix, Langfuse)."
    )
    capture_state_read: Literal["failed", "all", "never"] = _setting(
        "failed", "Which steps carry the values of the state keys that their action reads."
    )
    expected_exceptions: tuple[type[BaseException] | str, ...] = _setting(
        (),
        "Exception classes, or their names, with which a step does not fail: they steer the run.",
        items=_is_exception,
        of="exception classes or their names",
    )
    failed: Failed | None = _setting(
        None,
        "A function `(action, result, state)` that says why a step that raised nothing failed, "
        "or gives None.",
        env=False,
    )
    log_events: str | None = _setting(
        None,
        "From which level on log lines inside a step become events of its span: `ERROR`, say.",
        text=log_level,
    )
    user_id_from_partition_key: bool = _setting(
        False, "Whether spans carry the partition key as `user.id` too."
    )
    baggage_keys: tuple[str, ...] = _setting(
        (),
        "W3C baggage that becomes attributes of the spans begun under it.",
        items=_is_text,
        of="names of baggage entries",
    )
    send_baggage: bool = _setting(
        False,
        "Whether calls to other services inside a step carry its conversation and agent as W3C "
        "baggage.",
    )
    step_parent: Literal["application", "ambient"] = _setting(
        "application",
        "Parent of a step: the application span, or the span current when the step runs.",
    )
    on_resume: Literal["link", "continue"] = _setting(
        "link",
        "A resumed run starts a new trace linked to the earlier one, or continues that trace.",
    )
    root_linger: float | None = _setting(
        2.0,
        "Seconds without activity after which the application span ends; `none`: never.",
    )
    root_max_open: float | None = _setting(
        300.0,
        "Seconds after which the application span ends in any case; `none`: never.",
    )
    recover_after: float = _setting(
        3600.0,
        "Seconds without a record until a session of another host or of Burr's own client is over.",
    )
    durability: Literal["none", "flush", "fsync"] = _setting(
        "flush", "A record survives: nothing, the death of the process, or power loss."
    )
    exclusive: bool = _setting(False, "Whether a second session of the same run is refused.")
    on_snapshot_error: Literal["raise", "warn"] = _setting(
        "raise", "What happens when a state cannot be kept: `SnapshotError`, or a warning."
    )
    snapshots: Literal["full", "delta", "off"] = _setting(
        "full",
        "Each record carries the whole state (`full`) or what changed since the one before "
        "(`delta`), or nothing is stored (`off`: spans only, no resume).",
    )
    empty_runs: Literal["keep", "drop"] = _setting(
        "keep",
        "An application that is built and never run has a span and a folder (`keep`), or both come "
        "only when it is run (`drop`).",
    )
    child_spans: Literal["stamp", "record", "off"] = _setting(
        "stamp",
        "Spans that others make inside a step get its conversation and agent, and their token "
        "usage is added up (`stamp`); they are also written into the run's log, for the Burr UI "
        "and `burr-otel show` (`record`); or they are left alone (`off`).",
    )
    record_child_spans: bool = _setting(False, "An earlier name for `child_spans=record`.")
    trace_url: str = _setting(
        "jaeger",
        "Where traces are looked at: `jaeger`, `phoenix`, `tempo` (in Grafana), `honeycomb=…`, or "
        "a URL with `{trace_id}`; see `burr-otel open`.",
        text=read_template,
    )

    def __post_init__(self) -> None:
        """Check every value."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            object.__setattr__(self, field.name, _checked(field, value, field.name))
        if self.record_child_spans:
            object.__setattr__(self, "child_spans", "record")

    def dead_before_ns(self, now_ns: int) -> int:
        """Who may be dead, and has written nothing since then, is taken for dead."""
        return now_ns - int(self.recover_after * 1e9)

    @classmethod
    def resolve(
        cls,
        base: OtelConfig | None = None,
        settings: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
        *,
        strict: bool = False,
    ) -> OtelConfig:
        """The settings in force: `settings` by name, else `base`, or else variables and defaults.

        A bad setting raises `ConfigError`, and with `strict` a bad variable, too.
        """
        settings = dict(settings or {})
        known = list(cls.__dataclass_fields__)
        for name in sorted(settings.keys() - known):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"OtelTracker has no setting {name!r}.{hint} Settings: {', '.join(known)}."
            )
        if base is not None:
            return dataclasses.replace(base, **settings)
        found = cls.said_by_environ(strict=strict)
        return cls(**{**(defaults or {}), **found, **settings})

    @classmethod
    def said_by_environ(cls, *, strict: bool = False) -> dict[str, Any]:
        """What the variables say, by field; a bad one is left out with a warning, or an error."""
        found = _said_by_others()
        for field in dataclasses.fields(cls):
            variable = ENV_PREFIX + field.name.upper()
            text = os.environ.get(variable, "")
            if not text.strip() or not field.metadata.get("env", True):
                continue
            try:
                found[field.name] = _checked(field, _parsed(field, text), variable)
            except ConfigError as error:
                if strict:
                    raise
                hidden = _hidden_instead(field.name)
                found.update(dict.fromkeys(hidden, "off"))
                instead = f"The default, {field.default!r}, is used instead."
                if hidden:  # who meant to hide something would not want the default
                    instead = f"Nothing is captured instead ({', '.join(hidden)}: 'off')."
                _warn_once("%s", f"{error} {instead}")
        return found


def default_storage_dir() -> str:
    """Where runs are kept when nobody says so: ``BURR_OTEL_STORAGE_DIR``, else ``~/.burr``."""
    return os.environ.get(f"{ENV_PREFIX}STORAGE_DIR", "").strip() or DEFAULT_STORAGE_DIR


def _hidden_instead(name: str) -> list[str]:
    """The kinds of content that are kept back when the variable of a setting cannot be used."""
    captures = [each for each, kinds in _types().items() if kinds[0] == Capture]
    if name in ("redact_keys", "redact_values"):
        return captures
    return [name] if name in captures else []


def _said_by_others() -> dict[str, Any]:
    """What variables of other conventions say of content; our own variables win over them."""
    found: dict[str, Any] = {}
    said = {name: text.strip().lower() for name, text in os.environ.items()}.get
    # The SDK cuts longer values itself, in the middle of JSON and with a log line each.
    limit = said("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT")
    limit = limit or said("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT") or ""
    if limit.isdecimal() and int(limit) < _LONGEST_BYTES:
        found["max_attribute_bytes"] = max(int(limit), _SHORTEST_BYTES)
    # https://github.com/open-telemetry/opentelemetry-python-contrib, util/opentelemetry-util-genai
    if said("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT") in ("no_content", "false"):
        found["capture"] = "off"
    # https://github.com/Arize-ai/openinference, spec/configuration.md
    if said("OPENINFERENCE_HIDE_INPUTS") == "true":
        found["capture_inputs"] = "off"
    if said("OPENINFERENCE_HIDE_OUTPUTS") == "true":
        found["capture_results"] = found["capture_state"] = "off"
    return found


_warn_once = functools.cache(logger.warning)


@functools.cache
def _types() -> dict[str, tuple[Any, ...]]:
    """Of each setting the types that it may have: more than one for ``... | None``."""
    unions, hints = (Union, UnionType), get_type_hints(OtelConfig).items()
    return {k: get_args(hint) if get_origin(hint) in unions else (hint,) for k, hint in hints}


def _parsed(field: dataclasses.Field[Any], text: str) -> Any:
    """The value that a variable's text stands for, or the text when it stands for none."""
    (kind, *or_none), word = _types()[field.name], text.strip().lower()
    if "items" in field.metadata:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind is bool:
        return _TRUTHS.get(word, text)
    if kind in (int, float):
        if or_none and word in ("none", "off"):
            return None
        try:
            return kind(word)
        except ValueError:
            return text
    return text.strip() if "text" in field.metadata else word


def _checked(field: dataclasses.Field[Any], value: Any, name: str) -> Any:
    """`value` when it is allowed for the field; raises `ConfigError` when it is not."""
    kind, *or_none = _types()[field.name]
    meta = field.metadata
    if value is None and or_none:
        return value
    if "text" in meta and isinstance(value, str):
        try:
            meta["text"](value)
        except ConfigError as error:
            raise ConfigError(f"{name}={value!r} is not allowed: {error}") from None
        return value
    if get_origin(kind) is Literal:
        words = get_args(kind)
        good, expected = value in words, f"one of {', '.join(map(repr, words))}"
    elif kind is bool:
        good, expected = isinstance(value, bool), "true or false"
    elif kind in (int, float):
        number = "a whole number" if kind is int else "a number"
        minimum = meta.get("minimum", kind(0))
        good = isinstance(value, int | kind) and not isinstance(value, bool)
        good = good and minimum <= value < math.inf
        expected = f"{number} of at least {minimum}" + (' or "none"' if or_none else "")
    elif kind is str:
        good, expected = False, "a string"
    elif "items" in meta:
        good = isinstance(value, Iterable) and not isinstance(value, str)
        good = good and all(map(meta["items"], value))
        value = tuple(value) if good else value
        expected = f"a sequence of {meta.get('of', 'regular expressions')}"
    else:
        good, expected = callable(value), "a function or None"
    if good:
        return value
    raise ConfigError(f"{name}={value!r} is not allowed; use {expected}.")
