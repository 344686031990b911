"""The end of a step: its record, how that is written, and the end of its span."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from burr_otel import semconv
from burr_otel.content import Failure, call_safely, capture_exception, text_safely
from burr_otel.errors import SnapshotError
from burr_otel.live.capture import captured, held_bytes, raised_of, show_answer, show_state
from burr_otel.printable import logger
from burr_otel.records import NO_DOCUMENT, EndStep, Raised, StreamMark
from burr_otel.spans import describe, shield
from burr_otel.spans.describe import exception_attributes
from burr_otel.spans.signals import emit_log
from burr_otel.store.encoded import GROWING_BYTES
from burr_otel.store.values import encode_state

if TYPE_CHECKING:
    from burr_otel.content import ContentPolicy
    from burr_otel.live.root import Root
    from burr_otel.live.step import LiveStep
    from burr_otel.store import EncodedState, Session

_MOST_PROBLEM_BYTES: Final = 4096
_NOTHING: Mapping[str, tuple[int, int]] = {}
_LOST = (semconv.RESULT, semconv.STATE_WRITTEN, semconv.STATE_READ, semconv.TRUNCATED)


def finish(
    step: LiveStep,
    state: Any,
    result: Any,
    error: BaseException | None,
    end_ns: int,
    session: Session | None,
) -> SnapshotError | None:
    """Write the record of a step's end, and end its span; why its state is not kept, if it is not.

    The span ends whatever comes of the record.
    """
    encoded = failure = None
    if state is not None and session is not None:
        kwargs, number = step.shared.serde_kwargs, step.sequence_id
        try:
            encoded = encode_state(state, serde_kwargs=kwargs, run=session.run, sequence_id=number)
        except SnapshotError as problem:
            failure = problem
    grown = _NOTHING
    if session is not None and encoded is not None and encoded.longest_bytes >= GROWING_BYTES:
        grown = session.grown(encoded)
    record, exact = _record(step, state, encoded, grown, result, error, end_ns)
    try:
        if session is not None:
            failure = _write(step, record, encoded, failure, session, exact=exact)
    finally:
        _end_span(step, record, failure)
    return failure


def _record(
    step: LiveStep,
    state: Any,
    encoded: EncodedState | None,
    grown: Mapping[str, tuple[int, int]],
    result: Any,
    error: BaseException | None,
    end_ns: int,
) -> tuple[EndStep, bool]:
    """The record of a step's end, and whether its JSON says all of the result."""
    shared, action, policy = step.shared, step.action, step.shared.policy
    shown: dict[str, Any] = {}
    told = action.writes if error is None else action.reads
    document, exact = None, True
    if result is not None:
        named = result if type(result) is dict else _named(result)
        document, exact = captured(step, "results", named, shown) if named else (NO_DOCUMENT, True)
    raised = None if error is None else raised_of(error)
    outcome, failed = semconv.OK, None
    if error is not None or step.tag.failed is not None or shared.config.failed is not None:
        outcome, failed = _outcome(step, error, result, state)
    swallowed = step.swallowed_unless(error) if step.swallowed is not None else None
    if step.traced or policy.asks_user:
        when = shared.settings.capture_state_read
        wanted = error is None or (outcome == semconv.ERROR and when == "failed")
        inexact = encoded is None or encoded.inexact or policy.redactor is not None
        if state is not None and told and wanted and inexact:
            show_state(step, state, encoded, shown, failed=error is not None)
        if raised is not None and policy.asks_user:
            shown |= exception_attributes(policy, raised)
        elif raised is None and action.kind == "llm" and state is not None:
            show_answer(step, state, result, shown)
        if swallowed is not None and policy.asks_user:
            swallowed = policy.exception(swallowed[0]), swallowed[1]
    fragments: Mapping[str, Any] | None = None
    if encoded is not None:
        texts = encoded.fragments
        fragments = {key: texts[key] for key in told if key in texts}
        if grown:
            fragments = policy.needed(fragments, grown)
    origin = step.begin.origin
    record = EndStep(
        step.sequence_id,
        action.name,
        document,
        raised,
        fragments,
        end_ns,
        outcome,
        None if origin is None else origin.ids,
        failed,
        step.stream_times() if step.streaming else None,
        swallowed,
        grown,
        step.tag.usage,
        None,
        shown,
        step.span.user_data(),
    )
    return record, exact


def _named(result: Any) -> Mapping[str, Any]:
    """A result as a plain dict, which runs no code of its class."""
    named = call_safely(dict, result)
    return {"result": result} if isinstance(named, Failure) else named


def _outcome(
    step: LiveStep, error: BaseException | None, result: Any, state: Any
) -> tuple[str, str | None]:
    """The outcome of a step, and why it failed if it raised nothing."""
    why, asked, policy = step.tag.failed, step.shared.config.failed, step.shared.policy
    if error is None and why is None and asked is not None and state is not None:
        why = call_safely(asked, step.action.name, result, state)
        if isinstance(why, Failure):
            problem = policy.exception(capture_exception(why.error, _MOST_PROBLEM_BYTES))
            logger.warning("%s: the setting `failed` raised %s", step.run, ": ".join(problem[:2]))
            why = None
    outcome = step.shared.outcome_of(error)
    if outcome != semconv.OK or why is None:
        return outcome, None
    why = text_safely(str, why)
    return semconv.FAILED, policy.text(why) if policy.asks_user else why


def _write(
    step: LiveStep,
    record: EndStep,
    encoded: EncodedState | None,
    failure: SnapshotError | None,
    session: Session,
    *,
    exact: bool,
) -> SnapshotError | None:
    """Write the records of a step's end; why the state is not in the log, if it is not."""
    if step.streaming:
        mark = StreamMark("end_stream", step.sequence_id, record.time_ns, step.items)
        session.append(mark)
    if encoded is not None:
        try:
            size_bytes = session.end_step(record, encoded, exact=exact)
        except SnapshotError as problem:
            failure = problem
        else:
            metrics = step.shared.metrics
            metrics.snapshot.record(size_bytes, metrics.project_labels)
            return None
    if failure is not None:
        record = _unkept(step, record, failure)
    session.append(record._replace(state=None))
    return failure


def _unkept(step: LiveStep, record: EndStep, failure: SnapshotError) -> EndStep:
    """A record that says why it has no state, and what the span shows of what it does not have."""
    shown = dict(record.shown)
    if step.traced:
        told = describe.step(step.root.facts, step.begin, record).attributes
        shown |= {name: told[name] for name in _LOST if name in told}
    text = describe.snapshot_text(step.shared.policy, failure)
    return record._replace(snapshot_error=text, shown=shown)


def _end_span(step: LiveStep, record: EndStep, failure: SnapshotError | None) -> None:
    """End the span of a step; never raises."""
    shared, root, begin = step.shared, step.root, step.begin
    if failure is not None:
        text = describe.snapshot_text(shared.policy, failure)
        record = record._replace(snapshot_error=text)
    try:
        logged = step.logged.values()
        told = functools.partial(describe.step, root.facts, begin, record, logged)
        size_bytes = len(begin.inputs.text)
        if logged or record.raised is not None:
            size_bytes += held_bytes(logged, record.raised)
        if record.result is not None:
            size_bytes += len(record.result.text)
        if record.state is not None:
            size_bytes += sum(len(getattr(each, "text", each)) for each in record.state.values())
        spent_ns = max(0, record.time_ns - begin.time_ns)
        try:
            step.span.finish(told, begin.time_ns + max(1, spent_ns), size_bytes)
        finally:  # one of them may fail for reasons of its own
            shared.metrics.step_ended(step.labels, record.outcome, spent_ns / 1e9)
            if shared.config.openinference_content and step.traced:
                _say_in_root(root, told().attributes)
            if record.raised is not None and record.outcome == semconv.ERROR and step.traced:
                emit_log(step.current, shared.policy, record.raised, record.time_ns)
    except Exception as error:
        shield.report("ending a step span", error)
    if record.usage is not None:
        root.add_usage(record.usage)
        shared.metrics.usage(step.labels, record.usage.input_tokens, record.usage.output_tokens)
    reason: tuple[str | None, str | None] = None, record.failed
    if record.failed is None and record.raised is not None and record.outcome == semconv.ERROR:
        reason = failure_of(shared.policy, record.raised)
    root.leave(record.time_ns, record.outcome, reason)


def _say_in_root(root: Root, attributes: Mapping[str, Any]) -> None:
    """The first step's input and the last step's output are those of the application."""
    names = [semconv.OUTPUT_VALUE, semconv.OUTPUT_MIME_TYPE]
    if not root.said(semconv.INPUT_VALUE):
        names += [semconv.INPUT_VALUE, semconv.INPUT_MIME_TYPE]
    root.say({name: attributes[name] for name in names if name in attributes})


def failure_of(policy: ContentPolicy, raised: Raised) -> tuple[str, str]:
    """Type and text of a failure; the text is shown here if the user has a say in that."""
    kind = policy.name(raised.type)
    text = raised.message if policy.exceptions == "full" else ""
    return kind, policy.text(text or kind) if policy.asks_user else text or kind
