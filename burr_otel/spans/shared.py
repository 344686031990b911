"""What all runs of a tracker share, and what all spans of a run say."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from burr_otel import semconv
from burr_otel.content import ContentPolicy
from burr_otel.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.trace import Tracer
    from opentelemetry.util.types import AttributeValue

    from burr_otel.config import OtelConfig
    from burr_otel.spans.children import ChildRecorder
    from burr_otel.spans.metrics import StepMetrics
    from burr_otel.spans.registry import Owner

__all__ = ["Shared", "content_policy", "graph_document", "identity", "root_attributes", "root_name"]


@dataclasses.dataclass(frozen=True)
class Shared:
    """Settings and tools of one tracker.

    Attributes:
        owner: Stands for the tracker: its hooks speak of runs of this owner.
        at_home: Whether the tracker was made in this process, and not pickled or forked into it.
        clock: Gives Unix time in nanoseconds.
        recorder: Records spans of others inside steps, when that is wanted.
    """

    owner: Owner
    at_home: bool
    project: str
    serde_kwargs: dict[str, Any]
    config: OtelConfig
    policy: ContentPolicy
    tracer: Tracer
    metrics: StepMetrics
    clock: Callable[[], int]
    recorder: ChildRecorder | None = None


def content_policy(config: OtelConfig) -> ContentPolicy:
    """The content policy of settings.

    Raises:
        ConfigError: A pattern is not a regular expression.
    """
    try:
        return ContentPolicy(
            inputs=config.capture_inputs or config.capture,
            results=config.capture_results or config.capture,
            state=config.capture_state or config.capture,
            attributes=config.capture_attributes or config.capture,
            exceptions=config.capture_exceptions or config.capture,
            redact=config.redact,
            redact_keys=config.redact_keys,
            redact_values=config.redact_values,
            redactor=config.redactor,
            max_attribute_bytes=config.max_attribute_bytes,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def identity(project: str, app_id: str, partition_key: str | None) -> dict[str, AttributeValue]:
    """The attributes that every span of a run carries."""
    found: dict[str, AttributeValue] = {
        semconv.SESSION_ID: app_id,
        semconv.PROJECT: project,
        semconv.APP_ID: app_id,
    }
    if partition_key is not None:
        found[semconv.PARTITION_KEY] = partition_key
    return found


@functools.lru_cache(maxsize=64)
def root_name(project: str) -> str:
    """Name of the application span; the same object for all of a project."""
    return f"{semconv.ROOT_NAME_PREFIX} {project}"


def root_attributes(
    project: str, app_id: str, partition_key: str | None
) -> dict[str, AttributeValue]:
    """What the application span says from its start."""
    return {
        semconv.GEN_AI_OPERATION_NAME: semconv.INVOKE_WORKFLOW,
        semconv.GEN_AI_WORKFLOW_NAME: project,
        semconv.GEN_AI_AGENT_NAME: project,
        semconv.GEN_AI_CONVERSATION_ID: app_id,
        semconv.OPENINFERENCE_SPAN_KIND: "CHAIN",
        semconv.GRAPH_NODE_ID: project,
        **identity(project, app_id, partition_key),
    }


def graph_document(
    entrypoint: str, actions: Iterable[str], transitions: Iterable[tuple[str, str, str]]
) -> dict[str, Any]:
    """What the application span says of its graph.

    Args:
        entrypoint: Name of the first action.
        actions: Names of all.
        transitions: From, to and condition of each.
    """
    return {
        "entrypoint": entrypoint,
        "actions": list(actions),
        "transitions": [
            {"from": from_, "to": to, "condition": condition}
            for from_, to, condition in transitions
        ],
    }
