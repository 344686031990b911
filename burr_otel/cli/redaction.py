"""Stored content as spans show it. The store keeps it whole, because a state must load again."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import orjson

from burr_otel.config import OtelConfig
from burr_otel.content import ContentPolicy
from burr_otel.view.diff import MISSING, Change
from burr_otel.view.model import Failure
from burr_otel.view.steps import StepDetails

if TYPE_CHECKING:
    from burr_otel.view.compare import Comparison
    from burr_otel.view.model import RunView

__all__ = ["redact_comparison", "redact_run", "redact_step", "redacted"]

Kind = Literal["inputs", "results", "state"]

_UNCUT_BYTES: Final = 1 << 40  # a terminal and a page have room that a span has not
_NOT_CAPTURED: Final = "[not captured]"
_KINDS: Final[dict[str, Kind]] = {"inputs": "inputs", "result": "results", "state": "state"}


@functools.cache
def _policy() -> ContentPolicy:
    config = OtelConfig.resolve()
    return ContentPolicy(
        inputs=config.capture_inputs or config.capture,
        results=config.capture_results or config.capture,
        state=config.capture_state or config.capture,
        attributes=config.capture_attributes or config.capture,
        exceptions=config.capture_exceptions or config.capture,
        redact=config.redact,
        redact_keys=config.redact_keys,
        redact_values=config.redact_values,
        max_attribute_bytes=_UNCUT_BYTES,
    )


def redacted(value: Any, kind: Kind) -> Any:
    """A JSON value as the content policy of the settings in force lets it through."""
    if not isinstance(value, Mapping):
        return value if value is None else redacted({"": value}, kind)[""]
    made = _policy().document(kind, value)
    return dict.fromkeys(value, _NOT_CAPTURED) if made is None else orjson.loads(str(made.value))


def redact_run(view: RunView) -> None:
    """Redact what user code put into the spans of a run."""
    policy = _policy()
    view.skipped = [policy.text(reason) for reason in view.skipped]
    for span, _ in view.walk():
        if span.kind == "span":
            span.name = policy.name(span.name)
        span.details = {key: redacted(value, _KINDS[key]) for key, value in span.details.items()}
        span.attributes = {
            policy.name(key): _attribute(key, value) for key, value in span.attributes.items()
        }
        if span.failure is not None:
            full = policy.exceptions == "full"
            texts = (span.failure.message, span.failure.stacktrace)
            span.failure = Failure(
                span.failure.type, *(policy.text(text) if full else "" for text in texts)
            )


def _attribute(key: str, value: Any) -> Any:
    made = _policy().attribute(key, value)
    if made is None:
        return _NOT_CAPTURED
    if isinstance(value, dict | list) and isinstance(made.value, str):
        with contextlib.suppress(ValueError):  # it may be a marker in place of JSON
            return orjson.loads(made.value)
    return made.value


@dataclasses.dataclass(slots=True)
class _RedactedStep(StepDetails):
    """A step whose changes were found before its values were redacted."""

    found: list[Change] = dataclasses.field(default_factory=list)

    @property
    def changes(self) -> list[Change]:
        return self.found


def redact_step(step: StepDetails) -> StepDetails:
    """The step with its inputs, result and state redacted."""
    return _RedactedStep(
        step.sequence_id,
        step.action,
        step.session,
        step.times,
        redacted(step.inputs, "inputs"),
        redacted(step.result, "results"),
        redacted(step.before, "state"),
        redacted(step.after, "state"),
        [_change(change, "state") for change in step.changes],
    )


def redact_comparison(found: Comparison) -> Comparison:
    """The comparison with the values that differ redacted: that they differ is told."""
    changed = {
        part: [_change(change, _KINDS[part]) for change in changes]
        for part, changes in found.changes.items()
    }
    return dataclasses.replace(found, changes=changed)


def _change(change: Change, kind: Kind) -> Change:
    before, after = (_below(change.path, value, kind) for value in (change.before, change.after))
    return Change(change.path, before, after)


def _below(path: tuple[Any, ...], value: Any, kind: Kind) -> Any:
    """A value that lies deeper: the names of the keys above it may say that it is a secret."""
    if value is MISSING:
        return value
    keys = [str(key) for key in path]
    for key in reversed(keys):
        value = {key: value}
    value = redacted(value, kind)
    for key in keys:
        if not isinstance(value, dict):
            break  # what is above it is hidden already
        value = value.get(key, _NOT_CAPTURED)
    return value
