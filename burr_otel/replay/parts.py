"""What a reader of a log holds of a session, a step and a span while their records come in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from burr_otel import semconv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link, SpanContext
    from opentelemetry.util.types import AttributeValue

    from burr_otel.replay.ids import Ids

__all__ = ["Counts", "OpenStep", "Opened", "Origin", "Session", "otel_of", "texts"]


@dataclasses.dataclass
class Counts:
    """What there is to tell of a run besides its spans.

    Attributes:
        running: Names of spans that are still open in processes that live.
        others: How many spans of others, which are not ours to send, its log tells of.
        stray: How many records speak of spans that never began.
        damaged: How many records could not be understood.
        rebuilt: How many spans were made without a record of what they said.
    """

    running: list[str] = dataclasses.field(default_factory=list)
    others: int = 0
    stray: int = 0
    damaged: int = 0
    rebuilt: int = 0


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where records come from.

    Attributes:
        project: Of the run.
        app_id: Of the run.
        partition_key: Of the run, from its metadata.
        fork: Burr's pointer to the step that it was forked from, from its metadata.
        spawner: Burr's pointer to the step that spawned it, from its metadata.
        graph: Gives the stored graph of a digest, the current one for `None`.
        resource: For sessions whose log does not tell one.
    """

    project: str
    app_id: str
    partition_key: str | None
    fork: Mapping[str, Any] | None
    spawner: Mapping[str, Any] | None
    graph: Callable[[str | None], Mapping[str, Any] | None]
    resource: Resource


@dataclasses.dataclass
class Opened:
    """A span whose begin has been read.

    Attributes:
        name: As the span has it.
        attributes: What is known of it so far; without what was logged on it.
        exact: Whether the begin record keeps what the span said.
        logged: Attributes that were logged on it, in order.
        last_ns: Unix time of the last record about it.
        end_ns: Unix time of its end, once that has been read.
    """

    name: str
    context: SpanContext
    parent: SpanContext | None
    links: Sequence[Link]
    start_ns: int
    attributes: dict[str, AttributeValue]
    exact: bool
    last_ns: int = 0
    end_ns: int | None = None
    logged: list[tuple[str, Any]] = dataclasses.field(default_factory=list)
    events: list[Event] = dataclasses.field(default_factory=list)

    def touch(self, time_ns: int) -> None:
        """Note a record about it."""
        self.last_ns = max(self.last_ns, self.start_ns, time_ns)


@dataclasses.dataclass
class OpenStep(Opened):
    """A step whose begin has been read.

    Attributes:
        action: Name of its action, as recorded.
        identity: Attributes of every span in it.
        writes: State keys that its action writes.
        occurrence: How many steps of its number the session began before.
        begun: Whether its begin was really there.
        late: Whether it began after the application span had ended, which idling ends.
        end: Its end record and its outcome, while more may be said of it.
        inner: Spans in it by Burr's id.
        siblings: Contexts of the spans in it by name, also of ended ones.
        uses: How often each of Burr's ids was used in it.
        others: Burr's ids of spans that others made, which are not ours to send.
    """

    action: str = ""
    sequence_id: int = -1
    identity: dict[str, AttributeValue] = dataclasses.field(default_factory=dict)
    writes: tuple[str, ...] = ()
    occurrence: int = 0
    begun: bool = True
    late: bool = False
    end: tuple[Mapping[str, Any], str] | None = None
    inner: dict[str, Opened] = dataclasses.field(default_factory=dict)
    siblings: dict[str, SpanContext] = dataclasses.field(default_factory=dict)
    uses: dict[str, int] = dataclasses.field(default_factory=dict)
    others: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass
class Session:
    """One session of a run.

    Attributes:
        key: Its id; `None` for the records of Burr's own client, which has no sessions.
        record: Its first record, `None` when that is lost.
        root: The application span; its `context` also when it is another session's (`borrowed`).
        borrowed: Whether the application span is that of the process it was forked from.
        ids: For spans that have none.
        identity: Attributes of every span in it.
        resource: Of its spans.
        scope: Of its spans.
        reads_writes: State keys that each action reads and writes, from the stored graph.
        facts: What steps of each action say, as recorded.
        steps: Open steps by Burr's number.
        older: Open steps whose number was begun again.
        without_begin: Ids of steps of which only the end was there.
        occurrences: How many steps of each number have begun.
        last_step: The span of the step that ended last.
        prior: Name of the action that completed last.
        ended: Whether its end has been read.
        last_ns: Unix time of its last record.
        outcome: Of the step that ended last.
        error: Text of that step's failure.
        done: How many steps have ended.
        failed: How many of them with an error.
    """

    key: str | None
    record: Mapping[str, Any] | None
    root: Opened
    borrowed: bool
    ids: Ids
    identity: dict[str, AttributeValue]
    resource: Resource
    scope: InstrumentationScope
    reads_writes: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
    facts: dict[str, dict[str, AttributeValue]] = dataclasses.field(default_factory=dict)
    steps: dict[int, OpenStep] = dataclasses.field(default_factory=dict)
    older: list[OpenStep] = dataclasses.field(default_factory=list)
    without_begin: set[int] = dataclasses.field(default_factory=set)
    occurrences: dict[int, int] = dataclasses.field(default_factory=dict)
    last_step: SpanContext | None = None
    prior: str | None = None
    ended: bool = False
    last_ns: int = 0
    outcome: str = semconv.OK
    error: str | None = None
    done: int = 0
    failed: int = 0

    def open_steps(self) -> Iterator[OpenStep]:
        """Steps without an end, in the order in which they began."""
        for step in (*self.older, *self.steps.values()):
            if step.end is None:
                yield step


def otel_of(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The `otel` object of a record; empty when it has none."""
    otel = record.get("otel")
    return otel if isinstance(otel, Mapping) else {}


def texts(value: Any) -> tuple[str, ...]:
    """A list of a record as texts."""
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()
