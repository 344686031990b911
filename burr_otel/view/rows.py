"""What each drawing of a run has: its rows in order, a time axis, and what is said of a span."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Final, NamedTuple

from burr_otel import semconv
from burr_otel.history.read import RunTree
from burr_otel.history.tree import RUNNING, LeftOut, SpanNode
from burr_otel.records import Raised, Usage
from burr_otel.view.diff import as_text
from burr_otel.view.text import duration, local_time, one_line, plural

_SHORTEST_PAUSE_NS: Final = 1_000_000_000
_PAUSE_SHARE: Final = 0.4  # a pause is cut when it is longer than this share of the busy time
_DRAWN_SHARE: Final = 0.03  # and is then drawn as long as this share of the busy time
_MOST_DRAWN_SHARE: Final = 0.3  # all cut pauses together
_MOST_FORKS: Final = 5  # that are named
_MOST_TRACES: Final = 5  # likewise, the newest ones


class Look(NamedTuple):
    """How an outcome is shown; `why` is said where no exception tells more."""

    word: str
    style: str
    sign: str = " "
    why: str = ""


_LOOKS: Final = {
    semconv.ERROR: Look("failed", "red", "✗"),
    semconv.FAILED: Look("failed", "red", "✗"),
    semconv.CRASHED: Look(
        "crashed", "bold red", "✗", "crashed: it never ended, and its process is gone"
    ),
    semconv.CANCELLED: Look("cancelled", "yellow", "⊘", "cancelled"),
    semconv.ABANDONED: Look(
        "abandoned", "yellow", "⊘", "abandoned: nobody read its stream to the end"
    ),
    RUNNING: Look("running", "blue", "…"),
}


def look(outcome: str) -> Look:
    """How an outcome is shown."""
    return _LOOKS.get(outcome) or Look(one_line(outcome), "green")


# --- where things stand ---------------------------------------------------------------------------


class Axis:
    """Maps time onto a width without long idle pauses: a chat over a day stays readable."""

    def __init__(self, busy: Iterable[tuple[int, int]], whole: tuple[int, int]) -> None:
        ran = sorted((start, max(start, end)) for start, end in busy)
        start_ns = min([whole[0], *(start for start, _ in ran)])
        end_ns = max([whole[1], *(end for _, end in ran)])
        gaps, busy_ns, reached_ns = [], 0, start_ns
        # A session may outlast its last step by a linger; that tail is a pause too.
        for begun_ns, ended_ns in [*ran, (end_ns, end_ns)]:
            if begun_ns > reached_ns:
                gaps.append((reached_ns, begun_ns))
            busy_ns += max(0, ended_ns - max(begun_ns, reached_ns))
            reached_ns = max(reached_ns, ended_ns)
        longest_ns = max(_SHORTEST_PAUSE_NS, int(busy_ns * _PAUSE_SHARE))
        self.pauses = [gap for gap in gaps if ran and gap[1] - gap[0] > longest_ns]
        kept_ns = max(1, end_ns - start_ns - sum(end - start for start, end in self.pauses))
        share = min(_DRAWN_SHARE, _MOST_DRAWN_SHARE / max(1, len(self.pauses)))
        # Knots of a piecewise linear function: recorded time -> drawn time.
        self._times, self._drawn = [start_ns], [0.0]
        for pause_ns, resumed_ns in self.pauses:
            self._knot(pause_ns, pause_ns - self._times[-1])
            self._knot(resumed_ns, kept_ns * share)
        self._knot(end_ns, end_ns - self._times[-1])

    def at(self, time_ns: int, width: int) -> float:
        """The position of a moment on a line `width` long, between 0 and `width`."""
        total = self._drawn[-1]
        return _interpolated(time_ns, self._times, self._drawn) / total * width if total else 0.0

    def time_at(self, share: float) -> int:
        """The moment that stands at this share of the line."""
        return round(_interpolated(share * self._drawn[-1], self._drawn, self._times))

    def _knot(self, time_ns: int, drawn: float) -> None:
        self._times.append(time_ns)
        self._drawn.append(self._drawn[-1] + drawn)


def _interpolated(value: float, known: Sequence[float], wanted: Sequence[float]) -> float:
    """The value of a piecewise linear function, which goes through all pairs of the two lists."""
    right = min(max(bisect.bisect_right(known, value), 1), len(known) - 1)
    length = known[right] - known[right - 1]
    inside = (value - known[right - 1]) / length if length > 0 else 0.0
    return wanted[right - 1] + (wanted[right] - wanted[right - 1]) * min(max(inside, 0.0), 1.0)


def session_axis(session: SpanNode) -> Axis:
    """The axis of a session and all steps in it."""
    steps, left_out = session.children, session.left_out
    busy = [(step.start_ns, step.last_ns) for step in steps]
    if left_out is not None and left_out.at < len(steps):  # nobody knows of pauses there
        busy.append((steps[left_out.at - 1].last_ns, steps[left_out.at].start_ns))
    return Axis(busy, (session.start_ns, session.last_ns))


class Row(NamedTuple):
    """A span, or a note between spans."""

    depth: int
    axis: Axis
    span: SpanNode | None = None
    note: str = ""


def rows(sessions: Sequence[SpanNode]) -> Iterator[Row]:
    """The rows of a drawing, from top to bottom; each session has an axis of its own."""
    hidden = 0  # sessions that have no step but those left out
    for number, session in enumerate(sessions, 1):
        if hidden:
            hidden -= 1
            continue
        axis, left_out, steps = session_axis(session), session.left_out, 0
        pauses, at = list(axis.pauses), None if left_out is None else left_out.at
        if at == len(session.children):
            hidden = sum(1 for _ in takewhile(lambda each: not each.children, sessions[number:]))
        note = "" if left_out is None else _left_out_text(left_out, hidden)
        if len(sessions) > 1:
            yield Row(0, axis, note=f"session {number}, {local_time(session.start_ns)}")
        for span, depth in session.walk():
            if depth == 1:
                if steps == at:
                    yield Row(1, axis, note=note)
                while pauses and span.start_ns >= pauses[0][1]:
                    start_ns, end_ns = pauses.pop(0)
                    yield Row(1, axis, note=f"{duration(end_ns - start_ns)} pause")
                steps += 1
            yield Row(depth, axis, span)
        if steps == at:
            yield Row(1, axis, note=note)


def _left_out_text(left_out: LeftOut, sessions: int) -> str:
    failed = f", {left_out.failed:,} of them failed" if left_out.failed else ""
    more = f" and {plural(sessions, 'session')}" if sessions else ""
    text = f"{plural(left_out.steps, 'step')}{more} left out{failed}"
    return f"{text}; show --json has all, --step N one"


# --- what is said ---------------------------------------------------------------------------------


def began_text(view: RunTree) -> str:
    """When a run began, how long it took, and how many steps it has."""
    if not view.sessions:
        return "never: its log is empty"
    steps, left_out = view.steps, [each.left_out for each in view.sessions if each.left_out]
    start_ns = min(session.start_ns for session in view.sessions)
    count = len(steps) + sum(each.steps for each in left_out)
    facts = [local_time(start_ns), duration(view.active_ns), plural(count, "step")]
    failed = sum(step.is_bad for step in steps) + sum(each.failed or 0 for each in left_out)
    if failed:
        facts.append(f"{failed:,} failed")
    if len(view.sessions) > 1:
        facts.append(plural(len(view.sessions), "session"))
    return ", ".join(facts)


def run_facts(view: RunTree) -> list[tuple[str, str, str]]:
    """Where a run is, what it comes from, how it went: label, text, id of a trace or other run."""
    traces = [*dict.fromkeys(session.trace_id for session in view.sessions if session.trace_id)]
    found = [("trace", one_line(trace_id), trace_id) for trace_id in traces[-_MOST_TRACES:]]
    if len(traces) > _MOST_TRACES:
        found.insert(0, ("trace", f"{len(traces) - _MOST_TRACES:,} earlier ones", ""))
    found = found or [("trace", "none (written without OpenTelemetry)", "")]
    found.append(("place", one_line(view.run.place, limit=4096), ""))
    if view.run.partition_key:
        found.append(("key", one_line(view.run.partition_key), ""))
    related = relatives(view)
    most = _MOST_FORKS + sum(label == "parent" for label, *_ in related)
    found += related[:most]
    if len(related) > most:
        found.append(("fork", f"and {len(related) - most:,} more", ""))
    found.append(("began", began_text(view), ""))
    return found + [("skipped", one_line(why), "") for why in view.skipped]


def relatives(view: RunTree) -> list[tuple[str, str, str]]:
    """The runs that a run comes from and those that were forked from it: label, text, app id."""
    forked_from, spawned_by = view.run.parent_pointer, view.run.spawning_parent_pointer
    pointers = (("forked from ", forked_from), ("spawned by ", spawned_by))
    found = [("parent", verb, each.app_id, each.sequence_id) for verb, each in pointers if each]
    forks = [each for each in view.children if each.kind == "fork"]
    found += [("fork", "", each.app_id, each.sequence_id) for each in forks]
    return [
        (label, verb + one_line(app_id) + ("" if step is None else f" at step {step}"), app_id)
        for label, verb, app_id, step in found
    ]


def failure_text(failure: Raised) -> str:
    """Class and message of an exception, as a person reads them."""
    kind = failure.type.rpartition(".")[2]
    return f"{kind}: {failure.message}" if kind and failure.message else kind or failure.message


def tokens_text(usage: Usage | None) -> str:
    """What models took and gave; empty when none was asked."""
    return f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out" if usage else ""


class SpanNotes(NamedTuple):
    """What is said of a span beside its name and bar; `why` it did not end well, for one."""

    took: str
    why: str
    initial: str
    stream: str
    tokens: str
    first_item_ns: int | None


def span_notes(span: SpanNode) -> SpanNotes:
    """What is said of a span."""
    why = look(span.outcome).why if span.kind == "step" else ""
    if span.failure is not None:
        why = failure_text(span.failure) or "failed"
    firsts = (mark.time_ns for mark in span.marks if mark.kind == "first_item_stream")
    initial, first_ns, stream = span.details.get("initial"), next(firsts, None), []
    if first_ns is not None:
        stream.append(f"first item after {duration(first_ns - span.start_ns)}")
    items = next((mark.items for mark in span.marks if mark.items is not None), None)
    if items is not None:
        stream.append(plural(items, "item"))
    return SpanNotes(
        duration(span.last_ns - span.start_ns) if span.begun else "?",
        why,
        as_text(initial) if initial else "",
        ", ".join(stream),
        tokens_text(span.usage),
        first_ns,
    )
