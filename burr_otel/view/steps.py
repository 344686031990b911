"""One step of a run in full: what went in, what came out, what it did to the state."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from burr_otel.errors import StoreError
from burr_otel.store import exact
from burr_otel.view.diff import Change, changes

if TYPE_CHECKING:
    from burr_otel.store import StoredRun

__all__ = ["StepDetails", "UnknownStepError", "read_step"]

_INTERNAL_KEYS: Final = ("__SEQUENCE_ID", "__PRIOR_STEP")  # Burr's own, of no meaning to a user


class UnknownStepError(StoreError):
    """The run has no such step; the message says which it has."""

    def __init__(self, run: str, sequence_id: int, known: list[int]) -> None:
        steps = f"steps {known[0]} to {known[-1]}" if known else "no steps yet"
        super().__init__(f"{run} has no step {sequence_id}; it has {steps}.")


@dataclasses.dataclass(slots=True)
class StepDetails:
    """A step in full.

    Attributes:
        sequence_id: Its number.
        action: Its action.
        session: The session that ran it.
        times: How often the log has it; this is the last time.
        inputs: What it was given.
        result: What it returned; ``None`` too when it failed or never ended.
        before: The state before it.
        after: The state after it, or ``None`` when it never ended.
    """

    sequence_id: int
    action: str
    session: str | None = None
    times: int = 1
    inputs: Any = None
    result: Any = None
    before: dict[str, Any] = dataclasses.field(default_factory=dict)
    after: dict[str, Any] | None = None

    @property
    def changes(self) -> list[Change]:
        """What it did to the state."""
        return [] if self.after is None else list(changes(self.before, self.after))


def read_step(run: StoredRun, sequence_id: int) -> StepDetails:
    """Find the newest run of a step.

    Raises:
        UnknownStepError: It was never begun.
        OSError: The log cannot be read.
    """
    found: StepDetails | None = None
    open_: dict[str | None, StepDetails] = {}
    states: dict[str | None, Mapping[str, Any]] = {}
    newest: Mapping[str, Any] = {}
    known: list[int] = []
    for record in run.records():
        kind, number = record["type"], record.get("sequence_id")
        session = _session(record)
        if kind == "begin_entry" and isinstance(number, int):
            known.append(number)
            if number == sequence_id:
                times = found.times + 1 if found else 1
                # Another session's steps may stand between; its own last state is the one it saw.
                before = _state(states.get(session, newest))
                found = StepDetails(number, record["action"], session, times, before=before)
                found.inputs = record.get("inputs")
                open_[session] = found
        elif kind in ("end_entry", "otel_root") and isinstance(record.get("state"), Mapping):
            step = open_.pop(session, None) if number == sequence_id else None
            if step is not None:
                step.result, step.after = record.get("result"), _state(record)
            newest = states[session] = record
    if found is None:
        raise UnknownStepError(f"{run.project}/{run.app_id}", sequence_id, sorted(set(known)))
    return found


def _session(record: Mapping[str, Any]) -> str | None:
    otel = record.get("otel")
    session = otel.get("session") if isinstance(otel, Mapping) else None
    return session if isinstance(session, str) else None


def _state(record: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded state with its exact values, without Burr's own keys."""
    state: dict[str, Any] = record.get("state") or {}
    otel = record.get("otel")
    patches = otel.get("exact") if isinstance(otel, Mapping) else None
    if patches:
        state = copy.deepcopy(state)  # the record may be read again
        exact.restore(state, patches)
    return {key: value for key, value in state.items() if key not in _INTERNAL_KEYS}
