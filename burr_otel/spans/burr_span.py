"""The span of an application, a step, or something inside one, described when somebody looks.

`BurrSpan` goes through the SDK's span processors and exporters like the SDK's own spans. It holds
the records that it is about, and derives its attributes, events and status when they are first
read: normally by the exporter, on its own thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from burr_otel import semconv
from burr_otel.content import ContentPolicy, capture_exception
from burr_otel.printable import logger_of_lines
from burr_otel.records import link_data
from burr_otel.spans import shield
from burr_otel.spans.contexts import link_ids, link_of
from burr_otel.spans.describe import SpanContent, SpanEvent, SpanStatus, exception_attributes
from burr_otel.spans.portable import portable
from burr_otel.spans.scope import BurrStep, context_under

logger = logger_of_lines("burr_otel")

_MOST_HELD_BYTES: Final = 32 * 1024 * 1024
_SMALL_BYTES: Final = 1024  # less is not worth being counted
_MESSAGE_BYTES: Final = 64 * 1024


class SpanSource(NamedTuple):
    """What spans of one tracer share; those that were made by others need no processor."""

    resource: Resource
    scope: InstrumentationScope | None
    limits: SpanLimits | None
    policy: ContentPolicy
    processor: Any = None
    on_ending: Callable[[BurrSpan], None] | None = None


class Held:
    """Counts the bytes that ended spans hold until they are described."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: a span may be collected inside
        self.size_bytes = 0

    def add(self, size_bytes: int) -> bool:
        """Count bytes if there is room for them."""
        with self._lock:
            if self.size_bytes + size_bytes > _MOST_HELD_BYTES:
                return False
            self.size_bytes += size_bytes
            return True

    def remove(self, size_bytes: int) -> None:
        """Bytes are held no more."""
        with self._lock:
            self.size_bytes -= size_bytes


held = Held()

LIMITS: Final = (
    "max_span_attributes",
    "max_span_attribute_length",
    "max_events",
    "max_event_attributes",
    "max_attribute_length",
    "max_links",
)
"""The limits of a provider that spans are held to; a session's record keeps those that are set."""

Describe = Callable[[], SpanContent]
_UNSET: Final = Status(StatusCode.UNSET)


def describe_nothing() -> SpanContent:
    """The content of a span of which nothing could be described."""
    return SpanContent("", {}, [], SpanStatus(), ())


def content_of(span: ReadableSpan, links: Sequence[Link]) -> SpanContent:
    """The content of a span that was described already, with these links."""
    return SpanContent(
        span.name,
        dict(span.attributes or {}),
        [SpanEvent(each.name, each.attributes or {}, each.timestamp) for each in span.events],
        SpanStatus(span.status.status_code.name, span.status.description),
        link_ids(links),
    )


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


class _UserData:
    """What code other than ours sets on an open span."""

    __slots__ = ("attributes", "events", "links", "name", "status")

    def __init__(self, limits: SpanLimits | None) -> None:
        most = None if limits is None else limits.max_span_attributes
        longest = None if limits is None else limits.max_span_attribute_length
        self.attributes = _bounded(most, None, longest, immutable=False)
        self.events: list[Event] = []
        self.links: list[Link] = []
        self.status: Status | None = None
        self.name: str | None = None

    def data(self) -> dict[str, Any]:
        """The same as plain JSON, for a record; see `spans.describe`."""
        found: dict[str, Any] = {}
        if self.name is not None:
            found["name"] = portable(self.name)
        if self.attributes:
            found["attributes"] = [
                [portable(key), portable(value)] for key, value in self.attributes.copy().items()
            ]
        if self.events:
            found["events"] = [
                [portable(each.name), each.timestamp, portable(dict(each.attributes or {}))]
                for each in self.events
            ]
        if self.links:
            found["links"] = [link_data(each) for each in link_ids(self.links)]
        if self.status is not None:
            found["status"] = [self.status.status_code.name, portable(self.status.description)]
        return found


def _bounded(
    most: int | None, attributes: Any, longest: int | None, *, immutable: bool = True
) -> Any:
    return BoundedAttributes(most, attributes, immutable=immutable, max_value_len=longest)


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
        links: Sequence[Link],
        start_ns: int,
        source: SpanSource,
        burr_step: BurrStep | None = None,
    ) -> None:
        self._name, self._context, self._parent = name, context, parent
        self._first_links = links
        self._start_time, self._end_time = start_ns, None
        self._source, self._describe = source, describe_nothing
        self._content: _Readable | None = None
        self._user: _UserData | None = None
        self._held_bytes = 0
        self.burr_step = burr_step
        self.burr_uid: str | None = None  # Burr's id of an inner span

    @classmethod
    def finished(
        cls,
        content: SpanContent,
        context: SpanContext,
        parent: SpanContext | None,
        links: Sequence[Link],
        times_ns: tuple[int, int],
        source: SpanSource,
    ) -> BurrSpan:
        """A span that ended earlier, as `replay` and `recover` send it."""
        span = cls(content.name, context, parent, links, times_ns[0], source)
        span._describe, span._end_time = lambda: content, times_ns[1]
        return span

    # --- its begin and end --------------------------------------------------------------------

    def begin(self, describe: Describe, parent: trace.Span | None, outer: Context) -> None:
        """Tell the processors of the span, which `describe` describes until its end."""
        self._describe = describe
        try:
            under = context_under(parent or trace.INVALID_SPAN, outer)
            self._source.processor.on_start(self, parent_context=under)
        except Exception as error:
            shield.report("telling a span processor of a span", error)

    def finish(self, describe: Describe, end_ns: int, size_bytes: int = 0) -> None:
        """End the span; `describe` holds so many bytes until it is called."""
        if self._end_time is not None:
            return
        self._describe = describe
        self._end_time = end_ns
        if size_bytes >= _SMALL_BYTES:
            if held.add(size_bytes):
                self._held_bytes = size_bytes
            else:
                self._derived()
        source = self._source
        if source.on_ending is not None:
            source.on_ending(self)
        source.processor.on_end(self)

    def user_data(self) -> dict[str, Any]:
        """What other code has set on the span, for the record of its end."""
        return {} if self._user is None else self._user.data()

    def _derived(self) -> _Readable:
        describe, readable = self._describe, self._content  # in this order: another thread may
        if readable is not None:  # describe it, too, and then lets go of the records
            return readable
        try:
            content = describe()
        except Exception as error:
            shield.report("describing a span", error)
            content = describe_nothing()
        if self._end_time is None:
            return self._with_user_data(content)
        readable = self._limited(content)
        self._content, self._describe = readable, describe_nothing  # lets go of the records
        self._name = content.name or self._name
        self._let_go()
        return readable

    def _readable(self, content: SpanContent) -> _Readable:
        return _Readable(
            content.attributes,
            [Event(*each) for each in content.events],
            [*self._first_links, *map(link_of, content.links)],
            sdk_status(content.status),
        )

    def _with_user_data(self, content: SpanContent) -> _Readable:
        """The content of an open span, of whose end no record tells yet."""
        user, readable = self._user, self._readable(content)
        if user is None:
            return readable
        return _Readable(
            {**readable.attributes, **user.attributes.copy()},
            [*readable.events, *user.events],
            [*readable.links, *user.links],
            user.status or readable.status,
        )

    def _limited(self, content: SpanContent) -> _Readable:
        """The content within the limits of the provider, as the SDK's own spans apply them."""
        limits = self._source.limits
        readable = self._readable(content)
        if limits is None:
            return readable
        attributes, events, links, status = readable
        most, longest = limits.max_span_attributes, limits.max_span_attribute_length
        if longest is not None or (most is not None and len(attributes) > most):
            attributes = _bounded(most, attributes, longest, immutable=False)
        longest = limits.max_attribute_length
        if events:
            events = [
                Event(
                    each.name,
                    _bounded(limits.max_event_attributes, each.attributes, longest),
                    each.timestamp,
                )
                for each in events
            ]
            if limits.max_events is not None:
                events = BoundedList.from_seq(limits.max_events, events)
        links = [
            Link(each.context, _bounded(limits.max_link_attributes, each.attributes, longest))
            for each in links
        ]
        if limits.max_links is not None and len(links) > limits.max_links:
            links = BoundedList.from_seq(limits.max_links, links)
        return _Readable(attributes, events, links, status)

    def _let_go(self) -> None:
        size_bytes, self._held_bytes = self._held_bytes, 0
        if size_bytes:
            held.remove(size_bytes)

    def __del__(self) -> None:
        if self._held_bytes:  # dropped by a full queue before anybody looked
            self._let_go()

    # --- reading ------------------------------------------------------------------------------

    # What the SDK's readers look at, in place of the attributes that the base class sets.
    _attributes: Any = property(lambda self: (self._content or self._derived()).attributes)
    _events: Any = property(lambda self: (self._content or self._derived()).events)
    _links: Any = property(lambda self: (self._content or self._derived()).links)
    _status: Any = property(lambda self: (self._content or self._derived()).status)
    _resource: Any = property(lambda self: self._source.resource)
    _instrumentation_scope: Any = property(lambda self: self._source.scope)
    _kind: Any = SpanKind.INTERNAL
    _instrumentation_info: Any = None

    def _readable_span(self) -> ReadableSpan:
        return self

    # --- writing, by other code ---------------------------------------------------------------

    def get_span_context(self) -> SpanContext:
        """Its context."""
        context: Any = self._context
        return context  # type: ignore[no-any-return]

    def is_recording(self) -> bool:
        """Whether what is set on it is kept."""
        return self._end_time is None

    def _writable(self, what: str) -> _UserData | None:
        if self._end_time is not None:
            logger.warning("%s on a span that has ended is ignored.", what)
            return None
        if self._user is None:
            self._user = _UserData(self._source.limits)
        return self._user

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Set several attributes."""
        user = self._writable("Setting an attribute")
        if user is not None:
            for key, value in attributes.items():
                user.attributes[key] = value

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Set one attribute."""
        self.set_attributes({key: value})

    def add_event(
        self,
        name: str,
        attributes: Mapping[str, AttributeValue] | None = None,
        timestamp: int | None = None,
    ) -> None:
        """Add an event."""
        user = self._writable("Adding an event")
        if user is not None:
            limits = self._source.limits
            most = None if limits is None else limits.max_event_attributes
            longest = None if limits is None else limits.max_attribute_length
            kept = _bounded(most, attributes, longest)
            user.events.append(Event(name, kept, timestamp or time.time_ns()))

    def add_link(
        self, context: SpanContext, attributes: Mapping[str, AttributeValue] | None = None
    ) -> None:
        """Add a link."""
        user = self._writable("Adding a link")
        if user is not None and context is not None and (context.is_valid or attributes):
            user.links.append(Link(context, BoundedAttributes(attributes=attributes)))

    def update_name(self, name: str) -> None:
        """Give it another name."""
        user = self._writable("Giving a name")
        if user is not None:
            user.name = self._name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status; OK is final, and UNSET changes nothing."""
        user = self._writable("Setting the status")
        made = status if isinstance(status, Status) else Status(status, description)
        if user is None or made.status_code is StatusCode.UNSET:
            return
        if user.status is None or user.status.status_code is not StatusCode.OK:
            user.status = made

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

    def end(self, end_time: int | None = None) -> None:
        """End it: only for other code, since the tracker ends its spans itself."""
        if self._end_time is not None:
            logger.warning("Ending a span that has ended is ignored.")
            return
        content = content_of(self, self.links[len(self._first_links) :])
        self.finish(lambda: content, time.time_ns() if end_time is None else end_time)
