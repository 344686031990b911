"""For tests of Burr applications that are traced: capture spans and read them as text.

with capture_spans() as spans:
    tracker = OtelTracker("chat", tmp_path, tracer_provider=spans.provider)
    build(tracker).run(halt_after=["answer"])
    tracker.close()
assert spans.tree() == '''
invoke_workflow chat
  prompt
  answer
'''
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from burr.core import ApplicationBuilder, State
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Sampler
from typing_extensions import Self

from burr_otel import semconv
from burr_otel.spans import keeper, shield
from burr_otel.spans.keeper import Keeper
from burr_otel.store.snapshot import values_of

__all__ = [
    "FakeClock",
    "FixedIds",
    "RecordedStep",
    "SpanCapture",
    "capture_spans",
    "manual_roots",
    "span_tree",
]


class FakeClock:
    """A clock that moves only when told to, or by a fixed step at each reading.

    Args:
        start_ns: First reading, Unix time in nanoseconds.
        step_ns: How far each reading moves it.
    """

    def __init__(self, start_ns: int = 1_700_000_000_000_000_000, step_ns: int = 1_000) -> None:
        self.now_ns = start_ns
        self.step_ns = step_ns

    def __call__(self) -> int:
        """The time now, after moving by the fixed step."""
        self.now_ns += self.step_ns
        return self.now_ns

    def advance(self, seconds: float) -> None:
        """Move the clock."""
        self.now_ns += int(seconds * 1_000_000_000)


class FixedIds(IdGenerator):
    """Ids that count up: trace ids from 1, span ids from 1."""

    def __init__(self) -> None:
        self._traces, self._spans = itertools.count(1), itertools.count(1)

    def generate_trace_id(self) -> int:
        """The next trace id."""
        return next(self._traces)

    def generate_span_id(self) -> int:
        """The next span id."""
        return next(self._spans)


class SpanCapture:
    """Spans kept in memory.

    Attributes:
        provider: Pass it as ``tracer_provider``.
    """

    def __init__(self, *, ids: IdGenerator | None = None, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(
            resource=Resource.get_empty(),
            id_generator=ids,
            sampler=sampler,
            shutdown_on_exit=False,
        )
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """All ended spans, by start time."""
        found = self._exporter.get_finished_spans()
        return sorted(found, key=lambda span: (span.start_time or 0, span.context.span_id))

    def named(self, name: str) -> ReadableSpan:
        """The one span of that name.

        Raises:
            LookupError: None or several.
        """
        found = [span for span in self.spans if span.name == name]
        if len(found) != 1:
            names = [span.name for span in self.spans]
            raise LookupError(f"{len(found)} spans are named {name!r}; there are {names}")
        return found[0]

    def tree(self) -> str:
        """See `span_tree`, between newlines so that it compares with a block of text."""
        return f"\n{span_tree(self.spans)}\n"

    def clear(self) -> None:
        """Forget the spans so far."""
        self._exporter.clear()


@contextlib.contextmanager
def capture_spans(
    *, ids: IdGenerator | None = None, sampler: Sampler | None = None
) -> Iterator[SpanCapture]:
    """Capture spans in memory, with errors of burr-otel's own raised instead of logged.

    Args:
        ids: Makes the ids. Default: random.
        sampler: Default: the environment's.
    """
    capture = SpanCapture(ids=ids, sampler=sampler)
    with shield.loud():
        try:
            yield capture
        finally:
            capture.provider.shutdown()


@contextlib.contextmanager
def manual_roots() -> Iterator[Keeper]:
    """Have application spans ended only by the keeper's `sweep`, with no thread."""
    before, keeper.keeper = keeper.keeper, Keeper(threaded=False)
    try:
        yield keeper.keeper
    finally:
        keeper.keeper.finish_all()
        keeper.keeper = before


def span_tree(spans: Sequence[ReadableSpan]) -> str:
    """Spans as indented text: children under parents, in order of their start.

    A line is the span's name, then what is not usual: its outcome when it is not ``ok``, its
    events but for exceptions, its links as ``type→target``; a span whose parent is not among
    `spans` says so.
    """
    by_id = {span.context.span_id: span for span in spans}
    children: dict[int | None, list[ReadableSpan]] = {}
    for span in sorted(spans, key=lambda each: (each.start_time or 0, each.context.span_id)):
        parent = span.parent.span_id if span.parent else None
        children.setdefault(parent if parent in by_id else None, []).append(span)

    def lines(span: ReadableSpan) -> Iterator[str]:
        yield " ".join([span.name, *_remarks(span, by_id)])
        for child in children.get(span.context.span_id, ()):
            yield textwrap.indent("\n".join(lines(child)), "  ")

    return "\n".join(line for top in children.get(None, ()) for line in lines(top))


def _remarks(span: ReadableSpan, by_id: dict[int, ReadableSpan]) -> Iterator[str]:
    attributes = span.attributes or {}
    outcome = attributes.get(semconv.OUTCOME)
    if outcome not in (semconv.OK, None):
        yield f"[{outcome}]"
    if span.status.description:
        yield f"({span.status.description})"
    if span.parent is not None and span.parent.span_id not in by_id:
        yield "<parent elsewhere>"
    for event in span.events:
        if event.name != semconv.EVENT_EXCEPTION:
            yield f"*{event.name.rpartition('.')[2]}"
    for link in span.links:
        kind = (link.attributes or {}).get(semconv.LINK_TYPE, "link")
        target = by_id.get(link.context.span_id)
        yield f"{kind}→{target.name if target else 'elsewhere'}"


class RecordedStep:
    """A step of a recorded run, as ``burr-otel test-case`` writes it beside a test.

    Args:
        data: What is in the file.
        serde_kwargs: Passed to Burr's deserializers, as those of the tracker were.

    Attributes:
        raised: Type, message and traceback of what the step raised, if it did.
        expected: What it gave, to be compared with what `run` gives.
    """

    def __init__(
        self, data: Mapping[str, Any], serde_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        self._data, self._serde_kwargs = data, dict(serde_kwargs or {})
        self.raised: Mapping[str, str] | None = data["raised"]

    @classmethod
    def beside(cls, file: str, serde_kwargs: Mapping[str, Any] | None = None) -> Self:
        """The step whose data is beside a test file, under the same name."""
        data = json.loads(Path(file).with_suffix(".json").read_text("utf-8"))
        return cls(data, serde_kwargs)

    @property
    def expected(self) -> dict[str, Any]:
        """The values that the step wrote, and its result where that is plain data."""
        return {part: self._values(part) for part in ("written", "result") if self._data[part]}

    def run(self, action: Any, **inputs: Any) -> dict[str, Any]:
        """Run an action once on what the step found, in an application of its own.

        Args:
            action: A function with Burr's decorator, an action, or the class of one.
            **inputs: Inputs in place of recorded ones, or that were no data.

        Returns:
            What `expected` has of the step.

        Raises:
            Exception: Whatever the action raises.
        """
        name = self._data["action"]
        app: Any = (
            ApplicationBuilder()  # type: ignore[no-untyped-call]
            .with_actions(**{name: action() if isinstance(action, type) else action})
            .with_entrypoint(name)
            .with_state(State(self._values("state")))
            .build()
        )
        result, state = _run_once(app, name, {**self._values("inputs"), **inputs})
        given = {"result": result}
        if self._data["written"]:
            given["written"] = {key: state[key] for key in self._data["written"]["values"]}
        return {part: given[part] for part in self.expected}

    def _values(self, part: str) -> dict[str, Any]:
        found = copy.deepcopy(self._data[part])  # deserializers take their marks out of it
        return values_of(found["values"], found["exact"], self._serde_kwargs)


def _run_once(app: Any, name: str, inputs: dict[str, Any]) -> tuple[Any, Any]:
    """Result and state of one step, whatever kind of action it is."""
    action = app.graph.get_action(name)

    async def whole_stream() -> Any:
        _, container = await app.astream_result(halt_after=[name], inputs=inputs)
        return await container.get()

    if action.streaming:
        if action.is_async():
            return asyncio.run(whole_stream())  # type: ignore[no-any-return]
        _, container = app.stream_result(halt_after=[name], inputs=inputs)
        return container.get()  # type: ignore[no-any-return]
    step = asyncio.run(app.astep(inputs)) if action.is_async() else app.step(inputs)
    return step[1:]  # type: ignore[no-any-return]
