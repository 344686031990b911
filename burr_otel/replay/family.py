"""Steps of other runs that spans without recorded parents and links belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from burr_otel.errors import BurrOtelError
from burr_otel.replay.ids import Ids
from burr_otel.replay.parts import otel_of
from burr_otel.spans import parents

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import SpanContext

    from burr_otel.store import Store

__all__ = ["Family"]

_MOST_REMEMBERED: Final = 64  # runs
_DEEPEST: Final = 200  # runs that spawn runs


class _Begun(NamedTuple):
    """A step that began.

    Attributes:
        time: Of its record, local, as text.
        session: Of its record.
        occurrence: How many steps of its number the session began before.
        otel: Of its record.
    """

    time: str
    session: str | None
    occurrence: int
    otel: Mapping[str, Any]


class _Relative(NamedTuple):
    """What is remembered of a run.

    Attributes:
        steps: By Burr's number.
        roots: The first record of each session.
    """

    steps: dict[int, list[_Begun]]
    roots: dict[str | None, Mapping[str, Any]]


class Family:
    """Finds steps by Burr's pointers.

    Args:
        store: Of the runs.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, _Relative | None] = {}
        self._depth = 0

    def find_step(
        self, pointer: Mapping[str, Any], record: Mapping[str, Any]
    ) -> SpanContext | None:
        """The span of the step that a pointer names.

        Args:
            pointer: Burr's.
            record: Of the run that has the pointer; of several steps of one number, the last one
                that began before it is meant.
        """
        app_id, sequence_id = pointer.get("app_id"), pointer.get("sequence_id")
        if not isinstance(app_id, str) or self._depth >= _DEEPEST:
            return None
        relative = self._relative(app_id)
        begun = [] if relative is None else relative.steps.get(_number(sequence_id), [])
        if relative is None or not begun:
            return None
        before = str(record.get("start_time") or record.get("end_time") or "")
        earlier = [each for each in begun if not before or each.time <= before]
        step = (earlier or begun[:1])[-1]
        context = parents.context_of(step.otel, is_remote=False)
        if context is not None and context.trace_flags.sampled:
            return context
        ids = Ids(self._store.project, app_id, step.session)
        trace_id = self._trace_id(app_id, relative, step.session, ids)
        return ids.step(trace_id, _number(sequence_id), step.occurrence)

    def _trace_id(self, app_id: str, relative: _Relative, session: str | None, ids: Ids) -> int:
        """Of a session whose spans have no ids; see `sessions`, which decides the same."""
        first = relative.roots[session]
        context = parents.context_of(otel_of(first))
        if context is not None:
            return context.trace_id
        spawner = first.get("spawning_parent_pointer")
        if first["type"] != "otel_root":
            spawner = self._store.read(app_id).spawning_parent_pointer
        self._depth += 1
        try:
            parent = self.find_step(spawner, first) if spawner else None
        finally:
            self._depth -= 1
        return ids.trace_id() if parent is None else parent.trace_id

    def _relative(self, app_id: str) -> _Relative | None:
        if app_id not in self._known:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.pop(next(iter(self._known)))
            self._known[app_id] = self._read(app_id)
        return self._known[app_id]

    def _read(self, app_id: str) -> _Relative | None:
        found = _Relative({}, {})
        counts: dict[tuple[str | None, int], int] = {}
        try:
            for record in self._store.read(app_id).records():
                otel = otel_of(record)
                session = otel.get("session")
                if session not in found.roots:
                    found.roots[session] = {k: v for k, v in record.items() if k != "state"}
                if record["type"] != "begin_entry":
                    continue
                number = record["sequence_id"]
                occurrence = counts.get((session, number), 0)
                counts[session, number] = occurrence + 1
                ids = parents.ids_of(otel)
                begun = _Begun(record["start_time"], session, occurrence, ids)
                found.steps.setdefault(number, []).append(begun)
        except (BurrOtelError, OSError):
            return None  # another store has it, or none
        return found


def _number(value: Any) -> int:
    return value if isinstance(value, int) else -1
