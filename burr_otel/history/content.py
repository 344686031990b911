"""What the spans of a stored run say: the same functions as live, over the recorded data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from burr_otel import semconv
from burr_otel.content import ContentPolicy, raised_of_text
from burr_otel.history.tree import RUNNING, SessionNode, SpanNode, session_of
from burr_otel.records import (
    NO_DOCUMENT,
    BeginInner,
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
        if session.session not in self._facts:
            fields, about, policy = session.root.fields, session.root.about, self.policy
            if "policy" in about and not self._unredacted:
                policy = policy.stricter(about["policy"])
            self._facts[session.session] = RunFacts(
                self._run.project,
                self._run.app_id,
                fields.get("partition_key", self._run.partition_key),
                policy,
                SpanSettings.of_record(about.get("settings")),
                actions_of_graph(self.graph(session), policy),
                conversation_id=_text(about.get("conversation")),
                user_id=_text(about.get("user_id")),
            )
        return self._facts[session.session]

    def is_hidden(self, session: SessionNode) -> bool:
        """Whether a function that no reader has decided what is shown of raw values."""
        policy = session.root.about.get("policy")
        return not self._unredacted and isinstance(policy, dict) and policy.get("redactor") is True

    def graph(self, session: SessionNode) -> Mapping[str, Any] | None:
        """The graph that a session ran."""
        digest = session.root.fields.get("graph")
        if not isinstance(digest, str):
            return self._run.graph
        if digest not in self._graphs:
            current = self._run.log.graph()
            is_current = current is not None and digest_of(current) == digest
            self._graphs[digest] = self._run.graph if is_current else self._run.graph_of(digest)
        return self._graphs[digest]

    def of(self, span: SpanNode) -> SpanContent:
        """What a span says; one that nothing ended says how a reader takes it to have ended."""
        facts = self.facts(session_of(span))
        if isinstance(span, SessionNode):
            return describe.root(facts, self.graph(span), span.root, _end_root(span))
        begin, end, logged = span.begin, span.end, span.logged
        number, at_ns = span.sequence_id or 0, span.closed_ns or span.last_ns
        if self._unredacted:
            logged = [each._replace(shown=None) for each in logged]
        if span.kind == "step":
            if not isinstance(begin, BeginStep):
                begin = BeginStep(number, span.name, NO_DOCUMENT, span.start_ns)
            if not isinstance(end, EndStep):
                end = EndStep(number, span.name, time_ns=at_ns, outcome=span.outcome)
            elif end.raised is not None:
                end = end._replace(raised=_parsed(end.raised))
            if self._unredacted:
                begin, end = begin._replace(shown={}), end._replace(shown={})
            is_over = span.outcome != RUNNING or span.end is not None
            return describe.step(facts, begin, end if is_over else None, logged)
        if not isinstance(begin, BeginInner):
            raise TypeError(f"span {span.name!r} has no begin")
        if not isinstance(end, EndInner) and span.outcome != RUNNING:
            end = EndInner(number, span.burr_id or "", at_ns, span.outcome)
        return describe.inner(facts, begin, end if isinstance(end, EndInner) else None, logged)


def _parsed(raised: Raised) -> Raised:
    """An exception with its class: logs of Burr's client hold nothing but a traceback."""
    return raised if raised.type else Raised(*raised_of_text(raised.traceback))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _end_root(span: SessionNode) -> EndRoot | None:
    if isinstance(span.end, EndRoot) or span.outcome == RUNNING:
        return span.end if isinstance(span.end, EndRoot) else None
    failed = None
    if span.last_failure is not None and span.outcome == semconv.ERROR:
        failed = _parsed(span.last_failure)
    # Of a process that died nobody knows all steps; Burr's client never tells of an end.
    known = span.outcome != semconv.CRASHED or span.begin is None
    return EndRoot(
        span.closed_ns or span.last_ns,
        span.outcome,
        steps=span.steps_ended if known else 0,
        failed=span.steps_failed if known else 0,
        error=None if failed is None else failed.message or failed.type,
        error_type=None if failed is None else failed.type,
    )
