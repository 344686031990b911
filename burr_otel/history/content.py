"""What the spans of a stored run say: the same functions as live, over the recorded data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from burr_otel import semconv
from burr_otel.content import ContentPolicy, raised_of_text
from burr_otel.history.tree import RUNNING, SessionNode, SpanNode
from burr_otel.records import (
    NO_DOCUMENT,
    BeginInner,
    BeginRoot,
    BeginStep,
    EndInner,
    EndRoot,
    EndStep,
    Raised,
)
from burr_otel.spans import describe
from burr_otel.spans.describe import SpanContent
from burr_otel.spans.facts import RunFacts, SpanSettings, actions_of_graph
from burr_otel.store import StoredRun
from burr_otel.store import digest as digest_of


def session_of(span: SpanNode) -> SessionNode:
    """The session that a span belongs to."""
    node = span.step or span
    session = node if isinstance(node, SessionNode) else node.above
    if not isinstance(session, SessionNode):
        raise TypeError(f"span {span.name!r} is in no session")
    return session


class RunContent:
    """Describes the spans of one run under a policy, which a session's own may only make stricter.

    With `unredacted`, neither the session's policy counts nor what was stored as it was shown.
    """

    def __init__(self, run: StoredRun, policy: ContentPolicy, *, unredacted: bool = False) -> None:
        self.policy = policy
        self._run, self._unredacted = run, unredacted
        self._facts: dict[str | None, RunFacts] = {}
        self._graphs: dict[str, Mapping[str, Any] | None] = {}

    def facts(self, session: SessionNode) -> RunFacts:
        """What all spans of a session share."""
        found = self._facts.get(session.session)
        if found is None:
            begin, policy = session.begin, self.policy
            fields = begin.fields if isinstance(begin, BeginRoot) else {}
            about = begin.about if isinstance(begin, BeginRoot) else {}
            if "policy" in about and not self._unredacted:
                policy = policy.stricter(about["policy"])
            found = self._facts[session.session] = RunFacts(
                self._run.project,
                self._run.app_id,
                fields.get("partition_key", self._run.partition_key),
                policy,
                SpanSettings.of_record(about.get("settings")),
                actions_of_graph(self.graph(session), policy),
                conversation_id=_text(about.get("conversation")),
                user_id=_text(about.get("user_id")),
            )
        return found

    def is_hidden(self, session: SessionNode) -> bool:
        """Whether a function that no reader has decided what is shown of raw values."""
        about = session.begin.about if isinstance(session.begin, BeginRoot) else {}
        policy = about.get("policy")
        return not self._unredacted and isinstance(policy, dict) and policy.get("redactor") is True

    def graph(self, session: SessionNode) -> Mapping[str, Any] | None:
        """The graph that a session ran."""
        fields = session.begin.fields if isinstance(session.begin, BeginRoot) else {}
        digest = fields.get("graph")
        if not isinstance(digest, str):
            return self._run.graph
        if digest not in self._graphs:
            current = self._run.log.graph()
            is_current = current is not None and digest_of(current) == digest
            self._graphs[digest] = self._run.graph if is_current else self._run.graph_of(digest)
        return self._graphs[digest]

    def of(self, span: SpanNode) -> SpanContent:
        """What a span says; one that nothing ended says how a reader takes it to have ended."""
        if isinstance(span, SessionNode):
            begin = span.begin if isinstance(span.begin, BeginRoot) else _begin_root(span)
            end = span.end if isinstance(span.end, EndRoot) else _end_root(span)
            return describe.root(self.facts(span), self.graph(span), begin, end)
        facts = self.facts(session_of(span))
        logged = (
            [each._replace(shown=None) for each in span.logged] if self._unredacted else span.logged
        )
        if span.kind == "step":
            return describe.step(facts, self._begin_step(span), self._end_step(span), logged)
        inner = span.begin
        if not isinstance(inner, BeginInner):
            raise TypeError(f"span {span.name!r} has no begin")
        ended = span.end if isinstance(span.end, EndInner) else _end_inner(span)
        return describe.inner(facts, inner, ended, logged)

    def _begin_step(self, span: SpanNode) -> BeginStep:
        begin = span.begin
        if not isinstance(begin, BeginStep):
            return BeginStep(span.sequence_id or 0, span.name, NO_DOCUMENT, span.start_ns)
        return begin._replace(shown={}) if self._unredacted else begin

    def _end_step(self, span: SpanNode) -> EndStep | None:
        end = span.end
        if isinstance(end, EndStep):
            if end.raised is not None and not end.raised.type:
                end = end._replace(raised=_parsed(end.raised))
            return end._replace(shown={}) if self._unredacted else end
        if span.outcome == RUNNING:
            return None
        closed_ns = span.closed_ns or span.last_ns
        return EndStep(span.sequence_id or 0, span.name, None, None, None, closed_ns, span.outcome)


def _parsed(raised: Raised) -> Raised:
    """An exception with its class: logs of Burr's client hold nothing but a traceback."""
    return raised if raised.type else Raised(*raised_of_text(raised.traceback))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _begin_root(span: SessionNode) -> BeginRoot:
    return BeginRoot({}, span.start_ns)


def _end_root(span: SessionNode) -> EndRoot | None:
    if span.outcome == RUNNING:
        return None
    failed = None if span.last_failure is None else _parsed(span.last_failure)
    # Of a process that died nobody knows all steps; Burr's client never tells of an end.
    known = span.outcome != semconv.CRASHED or span.begin is None
    return EndRoot(
        span.closed_ns or span.last_ns,
        span.outcome,
        steps=span.steps_ended if known else 0,
        failed=span.steps_failed if known else 0,
        error=failed.message or failed.type if failed and span.outcome == semconv.ERROR else None,
        error_type=failed.type if failed and span.outcome == semconv.ERROR else None,
    )


def _end_inner(span: SpanNode) -> EndInner | None:
    if span.outcome == RUNNING:
        return None
    at_ns = span.closed_ns or span.last_ns
    return EndInner(span.sequence_id or 0, span.burr_id or "", at_ns, span.outcome)
