"""What the spans of a stored run say: the same functions as live, over the recorded data."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import marshal
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

import orjson

from burr_otel import semconv
from burr_otel.content import Attribute, ContentPolicy, raised_of_text
from burr_otel.history.tree import RUNNING, SessionNode, SpanNode, session_of
from burr_otel.records import (
    NO_DOCUMENT,
    BeginInner,
    BeginRoot,
    BeginStep,
    EndInner,
    EndRoot,
    EndStep,
    Logged,
    Raised,
)
from burr_otel.spans import describe
from burr_otel.spans.describe import SpanContent
from burr_otel.spans.facts import RunFacts, SpanSettings, actions_of_graph, mapping
from burr_otel.store import StoredRun

_OF_KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    semconv.INPUTS: ("inputs",),
    semconv.RESULT: ("results",),
    semconv.STATE_WRITTEN: ("state",),
    semconv.STATE_READ: ("state",),
    semconv.STATE_INITIAL: ("state",),
    semconv.GRAPH: ("attributes",),
    semconv.GEN_AI_INPUT_MESSAGES: ("inputs", "state"),
    semconv.GEN_AI_OUTPUT_MESSAGES: ("results", "state"),
    semconv.INPUT_VALUE: ("inputs", "state"),
    semconv.OUTPUT_VALUE: ("results", "state"),
    **dict.fromkeys((semconv.EXCEPTION_MESSAGE, semconv.EXCEPTION_STACKTRACE), ("exceptions",)),
}
"""Attributes that records may hold as they were shown, and the kinds of content in them."""


class _SessionFacts(NamedTuple):
    """What all spans of a session share, and the settings that hide more than they did live."""

    shared: RunFacts
    hidden: set[str]


class RunContent:
    """Describes the spans of one run under a policy, which a session's own may only make stricter.

    With `unredacted`, neither the session's policy counts nor what was stored as it was shown.
    """

    def __init__(self, run: StoredRun, policy: ContentPolicy, *, unredacted: bool = False) -> None:
        self.policy = policy
        self._run, self._unredacted = run, unredacted
        self._graph_of = functools.cache(run.graph_of)
        # By session, and by what they are made of: a run may have thousands of sessions alike.
        self._known: dict[str | None, _SessionFacts] = {}
        self._alike: dict[bytes, _SessionFacts] = {}

    def facts(self, session: SessionNode) -> RunFacts:
        """What all spans of a session share."""
        return self._session_facts(session).shared

    def _session_facts(self, session: SessionNode) -> _SessionFacts:
        found = self._known.get(session.session)
        if found is None:
            fields, about = session.root.fields, session.top.root.about
            # Of a session of ours that has lost its first record nobody knows what it showed.
            is_lost = session.session is not None and session.top.begin is None
            has_policy = (is_lost or "policy" in about) and not self._unredacted
            key = fields.get("partition_key", self._run.partition_key)
            told = map(about.get, ("policy", "settings", "conversation", "user_id"))
            # Unlike JSON's, this encoder takes values that are nested as deeply as a log's may be.
            alike = marshal.dumps([has_policy, key, fields.get("graph"), *told], 2)
            if alike not in self._alike:
                self._alike[alike] = self._made(session, key, has_policy=has_policy)
            found = self._known[session.session] = self._alike[alike]
        return found

    def _made(self, session: SessionNode, key: str | None, *, has_policy: bool) -> _SessionFacts:
        about, policy, hidden = session.top.root.about, self.policy, set[str]()
        if has_policy:
            recorded = mapping(about.get("policy"))
            policy = policy.stricter(recorded)
            own = {name: _as_json(value) for name, value in policy.to_data().items()}
            hidden = {name for name in own if own[name] != recorded.get(name)}
        shared = RunFacts(
            self._run.project,
            self._run.app_id,
            key,
            policy,
            SpanSettings.of_record(about.get("settings")),
            actions_of_graph(self.graph(session), policy),
            conversation_id=_text(about.get("conversation")),
            user_id=_text(about.get("user_id")),
        )
        return _SessionFacts(shared, hidden)

    def graph(self, session: SessionNode) -> Mapping[str, Any] | None:
        """The graph that a session ran."""
        digest = session.root.fields.get("graph")
        return self._graph_of(digest) if isinstance(digest, str) else self._run.graph

    def of(self, span: SpanNode) -> SpanContent:
        """What a span says; one that nothing ended says how a reader takes it to have ended."""
        session = session_of(span)
        facts = self.facts(session)
        begin, end, logged = span.begin, span.end, span.logged
        if self._unredacted or self._session_facts(session).hidden:
            begin, end = self._limited(session, begin), self._limited(session, end)
            logged = [self._limited_log(session, each) for each in logged]
        if isinstance(span, SessionNode):
            root = begin if isinstance(begin, BeginRoot) else span.root
            told = end if isinstance(end, EndRoot) else _end_root(span, facts.policy)
            return describe.root(facts, self.graph(span), root, told)
        number, at_ns = span.sequence_id or 0, span.closed_ns or span.last_ns
        if span.kind == "step":
            if not isinstance(begin, BeginStep):
                begin = BeginStep(number, span.name, NO_DOCUMENT, span.start_ns)
            if not isinstance(end, EndStep):
                end = EndStep(number, span.name, time_ns=at_ns, outcome=span.outcome)
            elif end.raised is not None:
                end = end._replace(raised=_parsed(end.raised))
            is_over = span.outcome != RUNNING or span.end is not None
            return describe.step(facts, begin, end if is_over else None, logged)
        if not isinstance(begin, BeginInner):
            raise TypeError(f"span {span.name!r} has no begin")
        if not isinstance(end, EndInner) and span.outcome != RUNNING:
            end = EndInner(number, span.burr_id or "", at_ns, span.outcome)
        return describe.inner(facts, begin, end if isinstance(end, EndInner) else None, logged)

    # --- what was stored as it was shown, for a reader who hides more ---------------------------

    def _limited(self, session: SessionNode, record: Any) -> Any:
        """A record that holds nothing as it was shown which is not to be shown now."""
        if isinstance(record, BeginRoot):
            shown = self._limited_shown(session, mapping(record.about.get("shown")))
            return record._replace(about={**record.about, "shown": shown})
        if getattr(record, "shown", None):
            record = record._replace(shown=self._limited_shown(session, record.shown))
        if isinstance(record, EndStep) and "exceptions" in self._session_facts(session).hidden:
            return record._replace(snapshot_error=None, swallowed=None)
        return record

    def _limited_shown(self, session: SessionNode, shown: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in () if self._unredacted else shown.items():
            kinds = _OF_KINDS.get(name)
            if kinds is None:
                found[name] = value
            elif self._session_facts(session).hidden.isdisjoint(kinds):
                content = self._again(session, name, value)
                found[name] = content.value
                if content.truncated:
                    cut = found.get(semconv.TRUNCATED, shown.get(semconv.TRUNCATED, ()))
                    found[semconv.TRUNCATED] = [*cut, name]
        return found

    def _limited_log(self, session: SessionNode, logged: Logged) -> Logged:
        if logged.shown is None:
            return logged
        if self._unredacted or "attributes" in self._session_facts(session).hidden:
            return logged._replace(shown=None)
        value, was_cut = logged.shown
        content = self._again(session, logged.key, value)
        return logged._replace(shown=[content.value, was_cut or content.truncated])

    def _again(self, session: SessionNode, name: str, value: Any) -> Attribute:
        """What was shown under one policy, under this stricter one."""
        policy = self.facts(session).policy
        policy = dataclasses.replace(policy, shown_only=False, attributes="full")
        if type(value) is str and value[:1] in ("{", "["):
            with contextlib.suppress(ValueError):  # it is no JSON
                value = orjson.loads(value)
        return cast("Attribute", policy.attribute(name, value))


def _parsed(raised: Raised) -> Raised:
    """An exception with its class: logs of Burr's client hold nothing but a traceback."""
    return raised if raised.type else raised_of_text(raised.traceback)


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _end_root(span: SessionNode, policy: ContentPolicy) -> EndRoot | None:
    if span.outcome == RUNNING:
        return None
    failed = None
    if span.last_failure is not None and span.outcome == semconv.ERROR:
        failed = policy.exception(_parsed(span.last_failure))
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
