"""Records of one run -> spans. Pure: no files, no clock, nothing is sent.

Most records keep what their span said (see `spans.recorded`); then the span comes back as it was.
Where they do not (logs of Burr's own client, runs that were not sampled, processes that died),
it is made as a live one would be, through the content policy, under ids of its own (see `ids`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from burr_otel import semconv
from burr_otel.replay.finished import DIED, made_root
from burr_otel.replay.parts import Counts, Origin, Session, otel_of
from burr_otel.replay.sessions import FindStep, new_session
from burr_otel.replay.steps import StepReader, exactly
from burr_otel.spans import recorded

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from burr_otel.content import ContentPolicy

__all__ = ["Alive", "SpanBuilder", "exact_time"]

Alive = Callable[[Mapping[str, Any] | None, int], bool]
"""Whether the writer of a session lives: its `otel_root` record (`None` in a log of Burr's own
client) and the time of its last record."""


def exact_time(record: Mapping[str, Any]) -> int | None:
    """Unix time of a record that our tracker wrote, in nanoseconds."""
    found = otel_of(record).get("time_unix_nano")
    return found if isinstance(found, int) and found > 0 else None


class SpanBuilder:
    """Takes the records of one run in file order and gives the spans that they complete.

    Args:
        origin: The run.
        policy: For what no record keeps.
        openinference: Whether such spans also carry ``input.value`` and ``output.value``.
        find_step: For parents and links of spans without recorded ones.
        time_of: Gives the Unix time of a record in nanoseconds.

    Attributes:
        counts: What else there is to tell of the run.
    """

    def __init__(
        self,
        origin: Origin,
        policy: ContentPolicy,
        *,
        openinference: bool = False,
        find_step: FindStep = lambda _pointer, _record: None,
        time_of: Callable[[Mapping[str, Any]], int | None] = exact_time,
    ) -> None:
        self.counts = Counts()
        self._origin, self._policy = origin, policy
        self._find_step, self._time_of = find_step, time_of
        self._steps = StepReader(policy, self.counts, openinference=openinference, time_of=time_of)
        self._sessions: dict[str | None, Session] = {}
        self._handlers: dict[str, Callable[[Session, Mapping[str, Any]], list[ReadableSpan]]] = {
            "otel_root": lambda session, record: [],  # noqa: ARG005 - its session is enough
            "otel_root_end": self._root_end,
            "begin_entry": self._steps.begin_step,
            "end_entry": self._steps.end_step,
            "otel_step_end": self._steps.end_step,
            "begin_span": self._steps.begin_span,
            "end_span": self._steps.end_span,
            "attribute": self._steps.attribute,
            "begin_stream": self._steps.stream_mark,
            "first_item_stream": self._steps.stream_mark,
            "end_stream": self._steps.stream_mark,
        }

    def add(self, record: Mapping[str, Any]) -> list[ReadableSpan]:
        """Take the next record.

        Returns:
            The spans that it completes; records of other versions complete none.
        """
        handler = self._handlers.get(str(record.get("type")))
        if handler is None:
            return []
        try:
            session = self._session_of(record)
            session.last_ns = max(session.last_ns, self._time_of(record) or 0)
            return handler(session, record)
        except (KeyError, TypeError, ValueError, AttributeError):
            self.counts.damaged += 1
            return []

    def learn(self, session: str, action: str, facts: Any) -> None:
        """Take what an earlier record of a session says of an action."""
        self._sessions[session].facts[action] = recorded.read_facts(action, facts)

    def finish(self, alive: Alive) -> list[ReadableSpan]:
        """The spans that no record completed, unless their process lives."""
        found: list[ReadableSpan] = []
        for session in self._sessions.values():
            found += self._steps.close_ended(session)
            live = alive(session.record, session.last_ns)
            if session.ended:
                if live:
                    self.counts.running += [step.name for step in session.open_steps()]
                else:
                    found += self._steps.leave(session, semconv.ABANDONED)
            elif live:
                self.counts.running += [step.name for step in session.open_steps()]
                self.counts.running += [] if session.borrowed else [session.root.name]
            elif session.record is None:
                found += self._end_burrs_client(session)
            else:
                found += self._crash(session, session.last_ns)
        return found

    # --- sessions -------------------------------------------------------------------------------

    def _session_of(self, record: Mapping[str, Any]) -> Session:
        key = otel_of(record).get("session")
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = new_session(
                self._origin,
                record,
                self._time_of(record) or 0,
                self._sessions,
                self._policy,
                self._find_step,
            )
        return session

    def _root_end(self, session: Session, record: Mapping[str, Any]) -> list[ReadableSpan]:
        otel, end_ns = otel_of(record), self._time_of(record) or session.last_ns
        if otel.get("outcome") == semconv.CRASHED:
            return self._crash(session, end_ns)
        if session.ended:
            return []
        session.ended = True
        if session.borrowed:
            return []
        if session.root.exact and recorded.is_exact(otel):
            said = {semconv.OUTCOME: otel["outcome"]}
            span = exactly(self.counts, session, session.root, otel, end_ns, said)
            if span is not None:
                return [span]
        self.counts.rebuilt += 1
        return [made_root(session, otel.get("outcome", session.outcome), end_ns, session.error)]

    def _end_burrs_client(self, session: Session) -> list[ReadableSpan]:
        """Burr's own client does not record when an application ends, nor that it goes on."""
        if session.steps:  # a step that was begun again is no reason
            session.outcome, session.error = semconv.CRASHED, DIED
        found = self._steps.leave(session, semconv.CRASHED)
        self.counts.rebuilt += 1
        return [*found, made_root(session, session.outcome, session.last_ns, session.error)]

    def _crash(self, session: Session, end_ns: int) -> list[ReadableSpan]:
        """All that a session's process left open when it died."""
        found = self._steps.leave(session, semconv.CRASHED, end_ns)
        if session.borrowed or session.ended:
            return found
        session.ended = True
        self.counts.rebuilt += 1
        return [*found, made_root(session, semconv.CRASHED, end_ns, DIED)]
