"""A run of the store -> a `RunView`, with the runs that it spawned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from burr_otel.view.build import Alive, SessionBuilder
from burr_otel.view.model import Child, Pointer, RunView, ViewSpan

if TYPE_CHECKING:
    from burr_otel.store import StoredRun

__all__ = ["nest_spawned", "view_run"]

_MOST_NESTED_RUNS: Final = 200


def view_run(run: StoredRun, alive: Alive, *, details: bool = False) -> RunView:
    """Read a run's log once and make its view.

    Args:
        run: The stored run.
        alive: Whether the writer of a session that has no end still lives.
        details: Whether steps keep inputs, result and written state.

    Returns:
        The view, without the runs that this one spawned (see `nest_spawned`).
    """
    builder = SessionBuilder(run.project, run.app_id, writes=_writes(run.graph), details=details)
    for record in run.records():
        builder.add(record)
    view = RunView(
        project=run.project,
        app_id=run.app_id,
        path=str(run.path),
        partition_key=run.partition_key,
        sessions=builder.finish(alive),
        forked_from=_pointer(run.parent_pointer),
        spawned_by=_pointer(run.spawning_parent_pointer),
        children=_children(run.children),
    )
    view.skipped = [
        f"{length:,} bytes at offset {offset:,}: {reason}" for offset, length, reason in run.skipped
    ]
    view.stray_ends = builder.stray_ends
    return view


def nest_spawned(view: RunView, load: Callable[[str], RunView | None]) -> None:
    """Put the sessions of spawned runs below the steps that spawned them, at any depth.

    Args:
        view: The run; changed in place.
        load: Gives the view of another run of the project, or ``None`` when it is gone.
    """
    seen = {view.app_id}
    queue = [view]
    while queue:
        parent = queue.pop(0)
        for child in parent.children:
            if child.kind != "spawn" or child.app_id in seen or len(seen) > _MOST_NESTED_RUNS:
                continue
            seen.add(child.app_id)
            found = load(child.app_id)
            if found is None:
                continue
            for session in found.sessions:
                step = _spawning_step(parent, child, session)
                if step is not None:
                    step.children.append(session)
                    step.children.sort(key=lambda span: span.start_ns)
            queue.append(found)


def _spawning_step(parent: RunView, child: Child, session: ViewSpan) -> ViewSpan | None:
    """The step that a child's session ran in: one id may have been spawned again and again."""
    steps = [step for step in parent.steps if step.sequence_id == child.sequence_id]
    for step in steps:
        if step.start_ns <= session.start_ns and (
            step.end_ns is None or session.start_ns <= step.end_ns
        ):
            return step
    return steps[0] if steps else None


def _writes(graph: Mapping[str, Any] | None) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    actions = graph.get("actions") if isinstance(graph, Mapping) else None
    for action in actions if isinstance(actions, list) else []:
        if isinstance(action, Mapping) and isinstance(action.get("writes"), list):
            found[str(action.get("name"))] = [
                key for key in action["writes"] if isinstance(key, str)
            ]
    return found


def _pointer(found: Any) -> Pointer | None:
    if not isinstance(found, Mapping) or not isinstance(found.get("app_id"), str):
        return None
    sequence_id, partition_key = found.get("sequence_id"), found.get("partition_key")
    return Pointer(
        found["app_id"],
        sequence_id if isinstance(sequence_id, int) else None,
        partition_key if isinstance(partition_key, str) else None,
    )


def _children(records: list[dict[str, Any]]) -> list[Child]:
    found: dict[Child, None] = {}
    for record in records:
        pointer = _pointer(record.get("child"))
        if pointer is not None:
            sequence_id = record.get("sequence_id")
            child = Child(
                pointer.app_id,
                "fork" if record.get("event_type") == "fork" else "spawn",
                sequence_id if isinstance(sequence_id, int) else None,
            )
            found[child] = None
    return list(found)
