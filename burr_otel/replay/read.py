"""A stored run as spans, read record by record in little memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.resources import Resource

from burr_otel.replay.build import Alive, SpanBuilder
from burr_otel.replay.graphs import Graphs
from burr_otel.replay.parts import Origin
from burr_otel.replay.times import RecordTimes
from burr_otel.spans import provider

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.sdk.trace import ReadableSpan

    from burr_otel.content import ContentPolicy
    from burr_otel.replay.family import Family
    from burr_otel.store import StoredRun

__all__ = ["RunSpans", "default_resource"]

_OF_THIS_PROCESS: Final = ("telemetry.sdk.", "service.instance.id", "process.")


class RunSpans:
    """The spans of a stored run.

    Args:
        run: The run.
        policy: For what no record keeps.
        openinference: Whether such spans also carry ``input.value`` and ``output.value``.
        family: Of the run's project.
        alive: Whether the writer of a session lives.
        resource: For sessions whose log does not tell one.

    Attributes:
        run: The run.
        builder: What counts besides the spans.
    """

    def __init__(
        self,
        run: StoredRun,
        *,
        policy: ContentPolicy,
        openinference: bool,
        family: Family,
        alive: Alive,
        resource: Resource,
    ) -> None:
        self.run = run
        self._alive = alive
        self.builder = SpanBuilder(
            Origin(
                project=run.project,
                app_id=run.app_id,
                partition_key=run.partition_key,
                fork=_named(run.parent_pointer),
                spawner=_named(run.spawning_parent_pointer),
                graph=Graphs(run.path, run.graph),
                resource=resource,
            ),
            policy,
            openinference=openinference,
            find_step=family.find_step,
            time_of=RecordTimes(run.records),
        )

    def __iter__(self) -> Iterator[ReadableSpan]:
        """The spans, once: those inside others first.

        Raises:
            OSError: The log cannot be read.
        """
        for record in self.run.records():
            yield from self.builder.add(record)
        yield from self.builder.finish(self._alive)


def default_resource(project: str) -> Resource:
    """What a run says of its service when its log does not: as a tracker of that project would.

    Without what tells of this process, so that a second replay says the same.
    """
    made = provider.service_resource(project)
    kept = {
        key: value for key, value in made.attributes.items() if not key.startswith(_OF_THIS_PROCESS)
    }
    return Resource(kept, made.schema_url)


def _named(pointer: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """A pointer that names a run: a merely resumed application has one that does not."""
    return pointer if pointer and pointer.get("app_id") is not None else None
