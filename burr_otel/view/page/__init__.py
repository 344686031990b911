"""A run as one HTML page that needs nothing else: no network, no other file.

Names, messages and values are data. In the markup they are escaped; in the page's JSON ``<`` never
stands as itself, so no text can end the element that holds it; the script shows them as text
only; and the page's policy lets no script run but its own.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import json
import string
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from burr_otel import semconv
from burr_otel.history.tree import RunTree, SpanNode
from burr_otel.records import LinkIds
from burr_otel.view.as_json import MARKS, iso
from burr_otel.view.axis import Axis, Pause, session_axis
from burr_otel.view.diff import MISSING, Change, as_text, path_text
from burr_otel.view.text import clean, duration, local_time, one_line
from burr_otel.view.waterfall import (
    OUTCOME_WORDS,
    failure_text,
    header,
    left_out_text,
    reason,
    relatives,
    stream_text,
    tokens_text,
)

_LONGEST_PART: Final = 20_000  # characters of one input, result or state
_PAGE_BUDGET: Final = 24_000_000  # characters of all of them; beyond it each part is cut shorter
_SHORT_PART: Final = 300
_LONGEST_WHY: Final = 400  # characters of what stands below a name
_LONGEST_VALUE: Final = 4_000  # characters of a logged attribute or of one side of a change
_MOST_CHANGES: Final = 200  # of a step
_TICKS: Final = 5
_PARTS: Final = (
    ("initial", "Initial state"),
    ("inputs", "Inputs"),
    ("read", "State read"),
    ("result", "Result"),
)

TraceAddress = Callable[[str], str | None]
"""Gives the address of a trace in the backend, by its id."""


def html_page(
    view: RunTree,
    address: TraceAddress = lambda _: None,
    traces: Mapping[str, str] | None = None,
) -> str:
    """The page of a run that was read with its details; `traces` are those of its relatives."""
    by_text = {text: (traces or {}).get(app_id, "") for _, text, app_id in relatives(view)}
    files = importlib.resources.files(__name__)
    script = (files / "page.js").read_text(encoding="utf-8")
    lines = [text.plain for text in header(view)[1:]]
    rows = Rows(address)
    title = one_line(f"{view.project}/{view.app_id}")
    outcome = view.outcome
    return string.Template((files / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        outcome=html.escape(outcome, quote=True),
        word=html.escape(OUTCOME_WORDS.get(outcome, outcome)),
        facts="".join(_fact(line, address, by_text) for line in lines),
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_sha(script)}'",
        style=(files / "page.css").read_text(encoding="utf-8"),
        data=_embedded({"rows": rows.of(view), "axes": rows.axes}),
        script=script,
    )


def _sha(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _fact(line: str, address: TraceAddress, traces: Mapping[str, str]) -> str:
    label, value = line[:8].strip(), line[8:]
    trace_id = value if label == "trace" else traces.get(value)
    url = address(trace_id) if trace_id else None
    shown = html.escape(value)
    if url is not None and url.startswith(("http://", "https://")):
        target = html.escape(url, quote=True)
        shown = f'<a href="{target}" target="_blank" rel="noopener noreferrer">{shown}</a>'
    return f'<dt>{html.escape(label)}</dt><dd class="{html.escape(label)}">{shown}</dd>'


def _embedded(value: Any) -> str:
    """JSON that no text in it can break out of."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=repr)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class Rows:
    """Makes the page's rows and watches over their total size; `axes` has the sessions' ticks."""

    def __init__(self, address: TraceAddress = lambda _: None) -> None:
        self._left = _PAGE_BUDGET
        self._address = address
        self.axes: list[list[str]] = []

    def of(self, view: RunTree) -> list[dict[str, Any]]:
        """One row a span, and notes between them, in the order of drawing."""
        found: list[dict[str, Any]] = []
        for number, session in enumerate(view.sessions):
            if len(view.sessions) > 1:
                found.append(_note(f"session {number + 1}, {local_time(session.start_ns)}"))
            found.extend(self._session(session))
        return found

    def _session(self, session: SpanNode) -> Iterator[dict[str, Any]]:
        axis = session_axis(session)
        times = [axis.time_at(number / (_TICKS - 1)) for number in range(_TICKS)]
        self.axes.append(["0", *(duration(time_ns - times[0]) for time_ns in times[1:])])
        pauses: list[Pause] = list(axis.pauses)
        left_out, steps = session.left_out, 0
        for span, depth in session.walk():
            if left_out is not None and depth == 1 and steps == left_out.at:
                yield _note(left_out_text(left_out), depth=1)
            steps += depth == 1
            while depth == 1 and pauses and span.start_ns >= pauses[0].end_ns:
                yield _note(f"{duration(pauses.pop(0).length_ns)} pause", depth=1)
            yield self._row(span, depth, axis)

    def _row(self, span: SpanNode, depth: int, axis: Axis) -> dict[str, Any]:
        why, initial, usage = reason(span), span.details.get("initial"), span.usage
        lines = [(why[0] if why else "", True), (as_text(initial) if initial else "", False)]
        row: dict[str, Any] = {
            "kind": span.kind,
            "depth": depth,
            "axis": len(self.axes) - 1,
            "name": one_line(span.name),
            "number": span.sequence_id if span.kind == "step" else None,
            "outcome": span.outcome,
            "word": OUTCOME_WORDS.get(span.outcome, one_line(span.outcome)),
            "from": round(axis.at(span.start_ns, 1), 5),
            "to": round(axis.at(span.last_ns, 1), 5),
            "took": duration(span.last_ns - span.start_ns) if span.begun else "?",
            "began": iso(span.start_ns),
            "app": one_line(span.app_id),
            "session": span.session,
            "trace": span.trace_id,
            "span": span.span_id,
            "marks": [
                {"at": round(axis.at(mark.time_ns, 1), 5), "text": _mark_text(span, mark)}
                for mark in span.marks
            ],
            "parts": [
                self._part(title, span.details[key])
                for key, title in _PARTS
                if span.details.get(key)
            ],
            "logged": [
                [one_line(key), self._cut(_pretty(value), _LONGEST_VALUE)]
                for key, value in span.attributes.items()
            ],
            "tokens": tokens_text(usage),
            "inout": f"{usage.input_tokens:,} / {usage.output_tokens:,}" if usage else "",
            "beside": stream_text(span),
            "lines": [[one_line(text, _LONGEST_WHY), bad] for text, bad in lines if text],
            "url": self._address(span.trace_id) if span.trace_id else None,
            "links": [self._link(link) for link in span.links],
        }
        if "changes" in span.details:
            changed = span.details["changes"]
            row["changes"] = [self._change(change) for change in changed[:_MOST_CHANGES]]
            row["more"] = max(0, len(changed) - _MOST_CHANGES)
        elif span.details.get("state"):
            row["parts"].append(self._part("State written", span.details["state"]))
        if span.failure is not None:
            stack = clean(span.failure.traceback[-_LONGEST_PART:])
            row["failure"] = {
                "text": self._cut(clean(failure_text(span.failure)), _LONGEST_PART),
                "stack": self._cut(stack, _LONGEST_PART),
            }
        return row

    def _link(self, link: LinkIds) -> dict[str, Any]:
        trace_id, span_id = f"{link.target.trace_id:032x}", f"{link.target.span_id:016x}"
        kind = link.kind or (link.attributes or {}).get(semconv.LINK_TYPE, "link")
        url = self._address(trace_id)
        return {"kind": one_line(kind), "trace": trace_id, "span": span_id, "url": url}

    def _change(self, change: Change) -> list[str | None]:
        """Where a value changed, and its two sides."""
        sides = (
            None if side is MISSING else self._cut(_pretty(side), _LONGEST_VALUE)
            for side in (change.before, change.after)
        )
        return [one_line(path_text(change.path) or "(all)"), *sides]

    def _part(self, title: str, value: Any) -> dict[str, str]:
        text = _pretty(value)
        shown = self._cut(text, _LONGEST_PART)
        if len(shown) == len(text):
            return {"title": title, "text": shown}
        cut = f"{len(text):,} characters; burr-otel show --step shows more"
        return {"title": title, "text": shown, "cut": cut}

    def _cut(self, text: str, longest: int) -> str:
        shown = text[: longest if self._left > 0 else _SHORT_PART]
        self._left -= len(shown)
        return shown if len(shown) == len(text) else f"{shown}…"


def _pretty(value: Any) -> str:
    if isinstance(value, str):
        return clean(value)
    try:
        return clean(json.dumps(value, indent=2, ensure_ascii=False, default=repr))
    except (TypeError, ValueError, RecursionError):
        return clean(repr(type(value)))


def _mark_text(span: SpanNode, mark: Any) -> str:
    items = "" if mark.items is None else f", {mark.items:,} items"
    return f"{MARKS[mark.kind]} after {duration(mark.time_ns - span.start_ns)}{items}"


def _note(text: str, depth: int = 0) -> dict[str, Any]:
    return {"kind": "note", "depth": depth, "name": text}
