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
import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict

from burr_otel.errors import ConfigError
from burr_otel.printable import logger_of_lines
from burr_otel.trace_url import read_template

logger = logger_of_lines(__name__)

ENV_PREFIX = "BURR_OTEL_"

Capture = Literal["full", "types", "off"]
Redactor = Callable[[str, Any], Any]
Failed = Callable[[str, Any, Any], "str | None"]
_LONGEST_BYTES = 16 * 1024
_SHORTEST_BYTES = 64
_OFF_WORDS = ("none", "off")
_TRUE_WORDS = ("1", "true", "yes", "on")
_FALSE_WORDS = ("0", "false", "no", "off")


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
    is_class = isinstance(item, type) and issubclass(item, BaseException)
    return is_class or _is_text(item)


def _is_text(item: object) -> bool:
    return isinstance(item, str) and bool(item.strip())


def log_level(name: str) -> int:
    """The level of log lines that a name stands for.

    Raises:
        ConfigError: It stands for none.
    """
    level = logging.getLevelName(name.upper())
    if not isinstance(level, int):
        raise ConfigError("use the name of a level: DEBUG, INFO, WARNING, ERROR or CRITICAL.")
    return level


def _setting(default: Any, doc: str, **metadata: Any) -> Any:
    return dataclasses.field(default=default, metadata={"doc": doc, **metadata})


_CAPTURES = ("full", "types", "off")


@dataclasses.dataclass(frozen=True)
class OtelConfig:
    """Every setting of an `OtelTracker`.

    Raises:
        ConfigError: A value is not one of those allowed.
    """

    capture: Capture = _setting(
        "full",
        "What spans carry of values: `full`, `types` (names and sizes only) or `off`.",
        choices=_CAPTURES,
    )
    capture_inputs: Capture | None = _setting(
        None, "The same for step inputs alone.", choices=_CAPTURES, optional=True
    )
    capture_results: Capture | None = _setting(
        None, "The same for step results alone.", choices=_CAPTURES, optional=True
    )
    capture_state: Capture | None = _setting(
        None, "The same for written state alone.", choices=_CAPTURES, optional=True
    )
    capture_attributes: Capture | None = _setting(
        None, "The same for logged attributes alone.", choices=_CAPTURES, optional=True
    )
    capture_exceptions: Capture | None = _setting(
        None, "The same for exception messages and tracebacks.", choices=_CAPTURES, optional=True
    )
    redact: bool = _setting(True, "Whether the built-in redaction patterns apply.")
    redact_keys: tuple[str, ...] = _setting(
        (), "More key patterns (regular expressions) whose values are hidden.", items=_is_pattern
    )
    redact_values: tuple[str, ...] = _setting(
        (), "More value patterns (regular expressions) whose matches are hidden.", items=_is_pattern
    )
    redactor: Redactor | None = _setting(
        None,
        "A function `(path, value) -> value` applied after the patterns.",
        env=False,
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
        "failed",
        "Which steps carry the values of the state keys that their action reads.",
        choices=("failed", "all", "never"),
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
        choices=("application", "ambient"),
    )
    on_resume: Literal["link", "continue"] = _setting(
        "link",
        "A resumed run starts a new trace linked to the earlier one, or continues that trace.",
        choices=("link", "continue"),
    )
    root_linger: float | None = _setting(
        2.0,
        "Seconds without activity after which the application span ends; `none`: never.",
        minimum=0.0,
        optional=True,
    )
    root_max_open: float | None = _setting(
        300.0,
        "Seconds after which the application span ends in any case; `none`: never.",
        minimum=0.0,
        optional=True,
    )
    recover_after: float = _setting(
        3600.0,
        "Seconds without a record after which a session of another host is taken for dead.",
        minimum=0.0,
    )
    durability: Literal["none", "flush", "fsync"] = _setting(
        "flush",
        "A record survives: nothing, the death of the process, or power loss.",
        choices=("none", "flush", "fsync"),
    )
    exclusive: bool = _setting(False, "Whether a second session of the same run is refused.")
    on_snapshot_error: Literal["raise", "warn"] = _setting(
        "raise",
        "What happens when a state cannot be kept: `SnapshotError`, or a warning.",
        choices=("raise", "warn"),
    )
    snapshots: Literal["full", "delta", "off"] = _setting(
        "full",
        "Each record carries the whole state (`full`) or what changed since the one before "
        "(`delta`), or nothing is stored (`off`: spans only, no resume).",
        choices=("full", "delta", "off"),
    )
    empty_runs: Literal["keep", "drop"] = _setting(
        "keep",
        "An application that is built and never run has a span and a folder (`keep`), or both come "
        "only when it is run (`drop`).",
        choices=("keep", "drop"),
    )
    child_spans: Literal["stamp", "record", "off"] = _setting(
        "stamp",
        "Spans that others make inside a step get its conversation and agent, and their token "
        "usage is added up (`stamp`); they are also written into the run's log, for the Burr UI "
        "and `burr-otel show` (`record`); or they are left alone (`off`).",
        choices=("stamp", "record", "off"),
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

    @classmethod
    def resolve(
        cls,
        base: OtelConfig | None = None,
        settings: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        defaults: Mapping[str, Any] | None = None,
        *,
        strict: bool = False,
    ) -> OtelConfig:
        """Combine arguments, environment and defaults.

        Args:
            base: Settings to start from; when given, the environment is not read.
            settings: Single settings by name; they win.
            environ: Variables to read in place of `os.environ`.
            defaults: What holds where neither `settings` nor a variable says anything, if not
                the defaults of the fields.
            strict: Whether a bad variable is an error too, and not only a warning.

        Returns:
            The settings in force.

        Raises:
            ConfigError: An unknown name or a value that is not allowed.
        """
        settings = dict(settings or {})
        known = [field.name for field in dataclasses.fields(cls)]
        for name in settings:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ConfigError(
                    f"OtelTracker has no setting {name!r}.{hint} Settings: {', '.join(known)}."
                )
        if base is not None:
            return dataclasses.replace(base, **settings)
        found = cls._from_environ(os.environ if environ is None else environ, strict=strict)
        return cls(**{**(defaults or {}), **found, **settings})

    @classmethod
    def said_by_environ(cls, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What the variables say, by field; a bad one is reported in a warning and left out."""
        return cls._from_environ(os.environ if environ is None else environ, strict=False)

    @classmethod
    def _from_environ(cls, environ: Mapping[str, str], *, strict: bool) -> dict[str, Any]:
        found = _said_by_others(environ)
        for field in dataclasses.fields(cls):
            variable = ENV_PREFIX + field.name.upper()
            text = environ.get(variable, "")
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
                _warn_once(f"{error} {instead}")
        return found


def default_storage_dir() -> str:
    """Where runs are kept when nobody says so: ``BURR_OTEL_STORAGE_DIR``, else ``~/.burr``."""
    return os.environ.get(f"{ENV_PREFIX}STORAGE_DIR", "").strip() or "~/.burr"


def _hidden_instead(name: str) -> list[str]:
    """The kinds of content that are kept back when the variable of a setting cannot be used."""
    fields = dataclasses.fields(OtelConfig)
    captures = [each.name for each in fields if each.metadata.get("choices") == _CAPTURES]
    wanted = captures if name in ("redact_keys", "redact_values") else [name]
    return [each for each in captures if each in wanted]


def _said_by_others(environ: Mapping[str, str]) -> dict[str, Any]:
    """What variables of other conventions say of content; our own variables win over them."""
    found: dict[str, Any] = {}
    # The SDK cuts longer values itself, in the middle of JSON and with a log line each.
    limit = environ.get("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT") or environ.get(
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", ""
    )
    if limit.strip().isdecimal() and int(limit) < _LONGEST_BYTES:
        found["max_attribute_bytes"] = max(int(limit), _SHORTEST_BYTES)
    # https://github.com/open-telemetry/opentelemetry-python-contrib, util/opentelemetry-util-genai
    genai = environ.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "")
    if genai.strip().upper() in ("NO_CONTENT", "FALSE"):
        found["capture"] = "off"
    # https://github.com/Arize-ai/openinference, spec/configuration.md
    if environ.get("OPENINFERENCE_HIDE_INPUTS", "").strip().lower() == "true":
        found["capture_inputs"] = "off"
    if environ.get("OPENINFERENCE_HIDE_OUTPUTS", "").strip().lower() == "true":
        found["capture_results"] = found["capture_state"] = "off"
    return found


_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        logger.warning("%s", message)


def _parsed(field: dataclasses.Field[Any], text: str) -> Any:
    """The value that a variable's text stands for, or the text when it stands for none."""
    meta, word = field.metadata, text.strip().lower()
    if meta.get("items"):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if isinstance(field.default, bool):
        return True if word in _TRUE_WORDS else False if word in _FALSE_WORDS else text
    if "minimum" in meta:
        if meta.get("optional") and word in _OFF_WORDS:
            return None
        try:
            return int(word) if isinstance(field.default, int) else float(word)
        except ValueError:
            return text
    return text.strip() if "text" in meta else word


def _checked(field: dataclasses.Field[Any], value: Any, name: str) -> Any:
    """`value` when it is allowed for the field.

    Raises:
        ConfigError: It is not.
    """
    meta = field.metadata
    if value is None and meta.get("optional", field.default is None):
        return value
    if "text" in meta:
        return _checked_text(meta["text"], value, name)
    if "choices" in meta:
        good, expected = value in meta["choices"], f"one of {', '.join(map(repr, meta['choices']))}"
    elif isinstance(field.default, bool):
        good, expected = isinstance(value, bool), "true or false"
    elif "minimum" in meta:
        good, expected = _is_number(field, value), _number_text(field)
    elif meta.get("items"):
        good = not isinstance(value, str) and all(map(meta["items"], value))
        value = tuple(value) if good else value
        expected = f"a sequence of {meta.get('of', 'regular expressions')}"
    else:
        good, expected = callable(value), "a function or None"
    if good:
        return value
    raise ConfigError(f"{name}={value!r} is not allowed; use {expected}.")


def _checked_text(read: Callable[[str], object], value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{name}={value!r} is not allowed; use a string.")
    try:
        read(value)
    except ConfigError as error:
        raise ConfigError(f"{name}={value!r} is not allowed: {error}") from None
    return value


def _is_number(field: dataclasses.Field[Any], value: Any) -> bool:
    kinds = int if isinstance(field.default, int) else int | float
    if isinstance(value, bool) or not isinstance(value, kinds):
        return False
    return math.isfinite(value) and bool(value >= field.metadata["minimum"])


def _number_text(field: dataclasses.Field[Any]) -> str:
    kind = "a whole number" if isinstance(field.default, int) else "a number"
    off = ' or "none"' if field.metadata.get("optional") else ""
    return f"{kind} of at least {field.metadata['minimum']}{off}"
