"""Views as JSON values, for programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from burr_otel.history.read import RunTree
from burr_otel.history.tree import SpanNode
from burr_otel.records import LinkIds
from burr_otel.view.diff import MISSING, Change
from burr_otel.view.find import RunSummary
from burr_otel.view.text import iso

if TYPE_CHECKING:
    from burr_otel.view.steps import Comparison, StepDetails

MARKS: Final = {
    "begin_stream": "stream begins",
    "first_item_stream": "first item",
    "end_stream": "stream ends",
}


def summary_as_json(summary: RunSummary) -> dict[str, Any]:
    """What `burr-otel list --json` prints of one run."""
    seconds = None
    if summary.started_ns is not None and summary.last_ns is not None:
        seconds = max(0, summary.last_ns - summary.started_ns) / 1e9
    return {
        **_fields(summary, "project", "app_id", "partition_key"),
        "started": iso(summary.started_ns),
        "last_record": iso(summary.last_ns),
        "seconds": seconds,
        **_fields(summary, "steps", "last_action", "status", "trace_id"),
        "usage": None if summary.usage is None else summary.usage._asdict(),
        **_fields(summary, "initial", "place"),
    }


def run_as_json(view: RunTree) -> dict[str, Any]:
    """What `burr-otel show --json` prints; a span's parent is a position in the list of spans."""
    spans: list[dict[str, Any]] = []
    parents: list[int] = []  # position of the span last seen at each depth
    for span, depth in view.walk():
        del parents[depth:]
        spans.append({"parent": parents[-1] if parents else None, **span_as_json(span)})
        parents.append(len(spans) - 1)
    run = view.run
    pointers = {"forked_from": run.parent_pointer, "spawned_by": run.spawning_parent_pointer}
    return {
        **_fields(run, "project", "app_id", "partition_key", "place"),
        "outcome": view.outcome,
        "active_seconds": view.active_ns / 1e9,
        **{
            name: None if pointer is None else _fields(pointer, "app_id", "sequence_id")
            for name, pointer in pointers.items()
        },
        "children": [child._asdict() for child in view.children],
        "skipped": view.skipped,
        "ends_without_begin": view.stray_ends,
        "spans": spans,
    }


def step_as_json(step: StepDetails) -> dict[str, Any]:
    """What `burr-otel show --step --json` prints."""
    details = step.span.details
    return {
        **_fields(step.run, "project", "app_id"),
        "step": span_as_json(step.span),
        "times": step.times,
        **{part: details.get(part) for part in ("inputs", "read", "result")},
        "state_before": step.before,
        "state_after": step.after,
        "changes": _changes(step.changes),
        "spans": [span_as_json(inner) for inner, depth in step.span.walk() if depth],
    }


def comparison_as_json(found: Comparison) -> dict[str, Any]:
    """What `burr-otel diff --json` prints."""
    names = ("sequence_id", "action", "outcome")
    return {
        "same": found.parts_at is None,
        "shared_steps": found.shared,
        "parts_at": found.parts_at,
        "differs": list(found.differs),
        "changes": {part: _changes(changed) for part, changed in found.changes.items()},
        "runs": [
            {
                **_fields(side, "project", "app_id"),
                "steps": [dict(zip(names, step, strict=True)) for step in side.rest],
            }
            for side in found.sides
        ],
    }


def span_as_json(span: SpanNode) -> dict[str, Any]:
    """One span, without those below it."""
    found: dict[str, Any] = {
        **_fields(span, "kind", "name", "app_id", "session", "sequence_id", "trace_id", "span_id"),
        "start": iso(span.start_ns),
        "end": iso(span.end_ns),
        "start_unix_nano": span.start_ns,
        "seconds": max(0, span.last_ns - span.start_ns) / 1e9,
        "outcome": span.outcome,
        "links": [_link(link) for link in span.links],
    }
    if span.failure is not None:
        kind, message, traceback = span.failure
        kind = kind.rpartition(".")[2]
        found["error"] = {"type": kind, "message": message, "stacktrace": traceback}
    if span.usage is not None:
        found["usage"] = span.usage._asdict()
    if span.marks:
        found["marks"] = [
            {"name": MARKS[mark.kind], "time": iso(mark.time_ns), "items": mark.items}
            for mark in span.marks
        ]
    if span.attributes:
        found["attributes"] = span.attributes
    found.update(span.details)
    if "changes" in found:
        found["changes"] = _changes(found["changes"])
    return found


def _changes(changed: Iterable[Change]) -> list[dict[str, Any]]:
    """Differences, each with the sides that it has."""
    found = []
    for change in changed:
        sides = {"before": change.before, "after": change.after}
        has = {name: side for name, side in sides.items() if side is not MISSING}
        found.append({"path": list(change.path), "kind": change.kind, **has})
    return found


def _link(link: LinkIds) -> dict[str, Any]:
    """A link: where it leads, and what it is."""
    ids = {"trace_id": f"{link.target.trace_id:032x}", "span_id": f"{link.target.span_id:016x}"}
    if link.attributes is None:
        return {**ids, "type": link.kind}
    return {**ids, "attributes": dict(link.attributes)}


def _fields(value: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}
