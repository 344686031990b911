"""What a span says that is made from its record alone: through the content policy, as live ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.sdk.trace import Event
from opentelemetry.trace import Status, StatusCode

from burr_otel import semconv

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.util.types import AttributeValue

    from burr_otel.content import Attribute, ContentPolicy

__all__ = ["Failure", "Sayings", "failure_of"]

_HIDDEN_INPUTS: Final = ("__tracer", "__context")
_TRACEBACK: Final = "Traceback (most recent call last):"
_LAST_LINE: Final = re.compile(r"([A-Za-z_][\w.<>]*)(?:: ?(.*))?\Z", re.DOTALL)
_UNKNOWN_TYPE: Final = "Exception"


class Failure(NamedTuple):
    """How a recorded exception is told.

    Attributes:
        attributes: Of the span.
        event: The ``exception`` event.
        status: ERROR with the message.
    """

    attributes: dict[str, AttributeValue]
    event: Event
    status: Status


class Sayings:
    """Collects a span's attributes, and the names of those that were cut.

    Args:
        policy: Decides what is told.
        attributes: To begin with.
    """

    def __init__(
        self, policy: ContentPolicy, attributes: Mapping[str, AttributeValue] | None = None
    ) -> None:
        self.attributes: dict[str, AttributeValue] = dict(attributes or {})
        self._policy = policy
        self._cut: list[str] = []

    def put(self, name: str, content: Attribute | None) -> None:
        """Add an attribute from encoded content."""
        if content is None:
            return
        value = content.value
        self.attributes[name] = tuple(value) if isinstance(value, list) else value
        if content.truncated and name not in self._cut:
            self._cut.append(name)

    def inputs(self, inputs: Any, *, openinference: bool) -> None:
        """Add a step's inputs."""
        seen = inputs if isinstance(inputs, dict) else {}
        seen = {key: value for key, value in seen.items() if key not in _HIDDEN_INPUTS}
        content = self._policy.document("inputs", seen)
        self.put(semconv.INPUTS, content)
        if openinference and content is not None:
            self.put(semconv.INPUT_VALUE, content)
            self.attributes[semconv.INPUT_MIME_TYPE] = semconv.MIME_JSON

    def output(
        self, result: Any, state: Any, writes: Iterable[str], *, openinference: bool
    ) -> None:
        """Add a step's result and the state that it wrote.

        Args:
            result: Of the record.
            state: Of the record; `None` when the step failed.
            writes: The state keys that the action writes.
            openinference: Whether ``output.value`` is wanted too.
        """
        returned = written = None
        if isinstance(result, dict):
            returned = self._policy.document("results", result)
            self.put(semconv.RESULT, returned)
        keys = list(writes)
        if isinstance(state, dict) and keys:
            values = {key: state[key] for key in keys if key in state}
            written = self._policy.document("state", values)
            self.put(semconv.STATE_WRITTEN, written)
        output = returned if result else written
        if openinference and output is not None:
            self.put(semconv.OUTPUT_VALUE, output)
            self.attributes[semconv.OUTPUT_MIME_TYPE] = semconv.MIME_JSON

    def logged(self, logged: Iterable[tuple[str, Any]]) -> None:
        """Add logged attributes."""
        for key, value in logged:
            self.put(self._policy.name(key), self._policy.attribute(key, value))

    def done(self, identity: Mapping[str, AttributeValue]) -> dict[str, AttributeValue]:
        """All attributes, identity last."""
        cut: dict[str, AttributeValue] = {semconv.TRUNCATED: tuple(self._cut)} if self._cut else {}
        return {**self.attributes, **cut, **identity}


def failure_of(text: Any, time_ns: int, policy: ContentPolicy) -> Failure | None:
    """What a span says of the traceback in a record.

    Args:
        text: The record's ``exception``.
        time_ns: Unix time of the event.
        policy: Decides what is told; of ``types`` and ``off`` only the type is left here, because
            messages cannot be told from the rest of a recorded traceback.
    """
    if not text:
        return None
    trace = str(text)
    kind, message = _last_line(trace)
    kind = policy.name(kind)
    said: dict[str, AttributeValue] = {semconv.EXCEPTION_TYPE: kind}
    shown = ""
    if policy.exceptions == "full":
        shown = policy.text(message)
        if shown:
            said[semconv.EXCEPTION_MESSAGE] = shown
        said[semconv.EXCEPTION_STACKTRACE] = policy.text(trace)
    event = Event(semconv.EVENT_EXCEPTION, said, time_ns)
    return Failure({semconv.ERROR_TYPE: kind}, event, Status(StatusCode.ERROR, shown or kind))


def _last_line(trace: str) -> tuple[str, str]:
    """Qualified type and message of the exception that a traceback ends with."""
    block = trace[trace.rfind(_TRACEBACK) :] if _TRACEBACK in trace else trace
    lines = block.splitlines()
    if lines and lines[0].endswith(_TRACEBACK):
        # Frames are indented. The message may go on over the lines after the type.
        first = next((i for i, line in enumerate(lines[1:], 1) if line[:1].strip()), len(lines))
        lines = lines[first:]
    last = "\n".join(lines).strip()
    found = _LAST_LINE.match(last)
    return (found[1], (found[2] or "").strip()) if found else (_UNKNOWN_TYPE, last)
