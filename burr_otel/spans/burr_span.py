"""The span of an application, a step, or something inside one, described when somebody looks.

`BurrSpan` goes through the SDK's span processors and exporters like the SDK's own spans. It holds
the records that it is about, and derives its attributes, events and status when they are first
read: normally by the exporter, on its own thread.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, SpanProcessor
from opentelemetry.sdk.trace import Span as SpanOfSdk
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from burr_otel import semconv
from burr_otel.content import ContentPolicy, capture_exception, text_safely
from burr_otel.records import LinkIds, sound_text
from burr_otel.records.write import link_data
from burr_otel.spans import shield
from burr_otel.spans.describe import SpanContent, SpanStatus, exception_attributes
from burr_otel.spans.facts import portable
from burr_otel.spans.scope import BurrStep, context_under, link_ids, link_of

_MOST_HELD_BYTES: Final = 32 * 1024 * 1024
_SMALL_BYTES: Final = 1024  # less is not worth being counted
_MESSAGE_BYTES: Final = 64 * 1024

LIMITS: Final = tuple(inspect.signature(SpanLimits).parameters)
"""The limits of a provider that spans are held to; a session's record keeps those that are set."""

_UNSET: Final = Status(StatusCode.UNSET)

Describe = Callable[[], SpanContent]


class SpanSource(NamedTuple):
    """What spans of one tracer share; those that were made by others need no processor."""

    resource: Resource
    scope: InstrumentationScope | None
    limits: SpanLimits
    policy: ContentPolicy
    processor: Any = SpanProcessor()


_held_bytes = 0  # by ended spans, until they are described


def _hold(size_bytes: int) -> bool:
    """Count bytes if there is room for them; a negative number lets some go."""
    # Without a lock: finalisers come here inside any other, and a fork that had ours would wait for
    # that one for ever. CPython switches threads at calls and loops, of which there are none here.
    global _held_bytes
    if _held_bytes + size_bytes > _MOST_HELD_BYTES:
        return False
    _held_bytes += size_bytes
    return True


def describe_nothing() -> SpanContent:
    """The content of a span of which nothing could be described."""
    return SpanContent("", {}, [], SpanStatus(), ())


def sdk_status(status: SpanStatus) -> Status:
    """The status as the SDK has it."""
    if status.code == "UNSET":
        return _UNSET
    code = StatusCode.__members__.get(status.code, StatusCode.UNSET)  # a log may say anything
    return Status(code, status.description)


class _Readable(NamedTuple):
    """What the SDK's readers look at."""

    attributes: Any
    events: Any
    links: Any
    status: Status


class _SdkSpan(SpanOfSdk):
    """A span of the SDK's, for its rules and limits: keeps what other code sets on an open one."""

    def taken(self) -> dict[str, Any]:
        """Its attributes so far, whatever other threads do."""
        attributes: Any = self._attributes
        return attributes.copy()  # type: ignore[no-any-return]

    def data(self) -> dict[str, Any]:
        """The same as plain JSON, for a record; see `spans.describe`."""
        status = self.status
        told = {
            "name": self.name,
            "attributes": list(self.taken().items()),
            "events": [(each.name, each.timestamp, each.attributes or {}) for each in self.events],
            "status": None if status.is_unset else (status.status_code.name, status.description),
        }
        data = {key: portable(value) for key, value in told.items() if value}
        if self.links:
            data["links"] = [link_data(each) for each in link_ids(self.links)]
        return data


def _set_by_others(method: str) -> Any:
    """A method of the API, done by the SDK's span; the end's record keeps what it sets."""

    def set_by_others(self: BurrSpan, *args: Any, **kwargs: Any) -> None:
        getattr(self._writable(), method)(*args, **kwargs)

    return set_by_others


def _part(name: str) -> Any:
    """A part of the content, in place of an attribute that the base class sets."""

    def read(self: BurrSpan) -> Any:
        return getattr(self._content or self._derived(), name)

    def assign(self: BurrSpan, value: Any) -> None:
        # Processors that redact or rename do so in `on_end`; before, it is what others have set.
        if self._end_time is None:
            setattr(self._writable(), f"_{name}", value)
        else:
            self._content = self._derived()._replace(**{name: value})

    return property(read, assign)


class BurrSpan(ReadableSpan, trace.Span):
    """A span of burr-otel."""

    __slots__ = (
        "_content",
        "_context",
        "_describe",
        "_end_time",
        "_first_links",
        "_held_bytes",
        "_name",
        "_parent",
        "_source",
        "_start_time",
        "_user",
        "burr_step",
        "burr_uid",
    )

    def __init__(  # the base class would set what is derived here
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        links: Sequence[LinkIds],
        start_ns: int,
        source: SpanSource,
        burr_step: BurrStep | None = None,
    ) -> None:
        self._name, self._context, self._parent = name, context, parent
        self._first_links = links
        self._start_time, self._end_time = start_ns, None
        self._source, self._describe = source, describe_nothing
        self._content: _Readable | None = None
        self._user: _SdkSpan | None = None
        self._held_bytes = 0
        self.burr_step = burr_step
        self.burr_uid: str | None = None  # Burr's id of an inner span

    # --- its begin and end --------------------------------------------------------------------

    def begin(self, describe: Describe, parent: trace.Span | None, outer: Context) -> None:
        """Tell the processors of the span, which `describe` describes until its end."""
        self._describe = describe
        try:
            self._source.processor.on_start(self, parent_context=context_under(parent, outer))
        except Exception as error:
            shield.report("telling a span processor of a span", error)

    def finish(self, describe: Describe, end_ns: int, size_bytes: int = 0) -> None:
        """End the span; `describe` holds so many bytes until it is called."""
        if self._end_time is not None:
            return
        self._describe = describe
        self._end_time = end_ns
        if size_bytes >= _SMALL_BYTES:
            if _hold(size_bytes):
                self._held_bytes = size_bytes
            else:
                self._derived()
        self._source.processor.on_end(self)

    def end(self, end_time: int | None = None) -> None:
        """End it: only for other code, since the tracker ends its spans itself."""
        if self._end_time is None:
            self._content = self._derived()
            self.finish(describe_nothing, time.time_ns() if end_time is None else end_time)

    def send(self, source: SpanSource) -> None:
        """Give a span that ended earlier to the processors of a source, from its begin on."""
        end_ns, self._end_time = self._end_time or 0, None
        self._source = source._replace(resource=self.resource, scope=self.instrumentation_scope)
        self.begin(self._describe, None, Context())
        self.finish(self._describe, end_ns)

    def _derived(self) -> _Readable:
        describe, readable = self._describe, self._content  # in this order: another thread may
        if readable is not None:  # describe it, too, and then lets go of the records
            return readable
        try:
            content = describe()
        except Exception as error:
            shield.report("describing a span", error)
            content = describe_nothing()
        readable = self._within_limits(content)
        if self._end_time is not None:
            self._content, self._describe = readable, describe_nothing  # lets go of the records
            self._name = content.name or self._name
            self._let_go()
        return readable

    def _within_limits(self, content: SpanContent) -> _Readable:
        """The content within the limits of the provider, as the SDK's own spans apply them."""
        attributes: Any = content.attributes
        events: Any = [Event(*each) for each in content.events]
        links: Any = [link_of(each) for each in (*self._first_links, *content.links)]
        if events or links:
            made = self._sdk_span(events=events, links=links)
            events, links = made._events, made._links  # noqa: SLF001 - they know what they dropped
        status = sdk_status(content.status)
        user = self._user
        if user is not None and self._end_time is None:  # no record tells of this yet
            attributes = {**attributes, **user.taken()}
            events, links = [*events, *user.events], [*links, *user.links]
            status = status if user.status.is_unset else user.status
        limits = self._source.limits
        most, longest = limits.max_span_attributes, limits.max_span_attribute_length
        if longest is not None or (most is not None and len(attributes) > most):
            attributes = BoundedAttributes(most, attributes, False, longest)
        return _Readable(attributes, events, links, status)

    def _sdk_span(self, **content: Any) -> _SdkSpan:
        context, source = self.get_span_context(), self._source
        return _SdkSpan("", context, resource=source.resource, limits=source.limits, **content)

    def _let_go(self) -> None:
        size_bytes, self._held_bytes = self._held_bytes, 0
        if size_bytes:
            _hold(-size_bytes)

    __del__ = _let_go  # it may be dropped by a full queue before anybody has looked

    # --- reading ------------------------------------------------------------------------------

    _attributes: Any = _part("attributes")
    _events: Any = _part("events")
    _links: Any = _part("links")
    _status: Any = _part("status")
    _resource: Any = property(lambda self: self._source.resource)
    _instrumentation_scope: Any = property(lambda self: self._source.scope)
    _kind: Any = SpanKind.INTERNAL
    current: Any = property(lambda self: self)  # as an `ApiSpan` has one
    _instrumentation_info: Any = None

    def _readable_span(self) -> ReadableSpan:
        return self

    def get_span_context(self) -> SpanContext:
        """Its context."""
        context: Any = self._context
        return context  # type: ignore[no-any-return]

    def is_recording(self) -> bool:
        """Whether what is set on it is kept."""
        return self._end_time is None

    # --- writing, by other code ---------------------------------------------------------------

    def _writable(self) -> _SdkSpan:
        if self._user is None:
            self._user = self._sdk_span()
        self._user._end_time = self._end_time  # noqa: SLF001 - once it is set, nothing else is
        return self._user

    set_attributes = _set_by_others("set_attributes")
    set_attribute = _set_by_others("set_attribute")
    add_event = _set_by_others("add_event")
    add_link = _set_by_others("add_link")
    set_status = _set_by_others("set_status")

    def update_name(self, name: str) -> None:
        """Give it another name."""
        name = sound_text(text_safely(str, name))
        self._writable().update_name(name)
        if self._end_time is None:
            self._name = name

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, AttributeValue] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Add an exception as an event, redacted as all exceptions are."""
        raised = capture_exception(exception, _MESSAGE_BYTES)
        told = exception_attributes(self._source.policy, raised)
        told |= {"exception.escaped": str(escaped), **(attributes or {})}
        self.add_event(semconv.EVENT_EXCEPTION, told, timestamp)

    def user_data(self) -> dict[str, Any]:
        """What other code has set on the span, for the record of its end."""
        return {} if self._user is None else self._user.data()
