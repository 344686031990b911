"""A run as one HTML page that needs nothing else: no network, no other file.

Names, messages and values are data: escaped in the markup, text to the script, whose JSON cannot
end the element that holds it. The page's policy lets no script run but its own.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import json
import string
from collections.abc import Callable, Mapping
from typing import Any, Final

from burr_otel import semconv
from burr_otel.history.read import RunTree
from burr_otel.history.tree import SpanNode
from burr_otel.records import LinkIds, StreamMark
from burr_otel.view.as_json import MARKS
from burr_otel.view.diff import MISSING, Change, as_text, path_text
from burr_otel.view.rows import Axis, Row, failure_text, look, rows, run_facts, span_notes
from burr_otel.view.text import clean, duration, iso, one_line

_LONGEST_PART: Final = 20_000  # characters of one input, result or state
_PAGE_BUDGET: Final = 24_000_000  # characters of all of them; beyond it each part is cut shorter
_SHORT_PART: Final = 300
_LONGEST_VALUE: Final = 4_000  # characters of a logged attribute or of one side of a change
_MOST_CHANGES: Final = 200  # of a step
_TICKS: Final = 5
_PARTS: Final = {
    "initial": "Initial state",
    "inputs": "Inputs",
    "read": "State read",
    "result": "Result",
    "state": "State written",
}

TraceAddress = Callable[[str], str | None]
"""Gives the address of a trace in the backend, by its id."""


def html_page(
    view: RunTree,
    address: TraceAddress = lambda _: None,
    traces: Mapping[str, str] | None = None,
) -> str:
    """The page of a run that was read with its details; `traces` are those of its relatives."""
    facts = []
    for label, text, its_id in run_facts(view):
        trace_id = its_id if label == "trace" else (traces or {}).get(its_id)
        facts.append(_fact(label, text, address(trace_id) if trace_id else None))
    files = importlib.resources.files(__name__)
    script = (files / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return string.Template((files / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(one_line(f"{view.run.project}/{view.run.app_id}")),
        outcome=html.escape(view.outcome, quote=True),
        word=html.escape(look(view.outcome).word),
        facts="".join(facts),
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        style=(files / "page.css").read_text(encoding="utf-8"),
        data=_embedded(_PageData(address).of(view)),
        script=script,
    )


def _fact(label: str, text: str, url: str | None) -> str:
    shown = html.escape(text)
    if url is not None and url.startswith(("http://", "https://")):
        target = html.escape(url, quote=True)
        shown = f'<a href="{target}" target="_blank" rel="noopener noreferrer">{shown}</a>'
    return f'<dt>{label}</dt><dd class="{label}">{shown}</dd>'


def _embedded(value: Any) -> str:
    """JSON that no text in it can break out of."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=repr)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class _PageData:
    """Makes what the page's script draws, and watches over its total size."""

    def __init__(self, address: TraceAddress) -> None:
        self._left, self._address = _PAGE_BUDGET, address

    def of(self, view: RunTree) -> dict[str, Any]:
        """One row a span, and notes between them; the ticks of each axis."""
        found: list[dict[str, Any]] = []
        axes: dict[Axis, list[str]] = {}
        for row in rows(view.sessions):
            if row.span is None:
                found.append({"kind": "note", "depth": row.depth, "name": row.note})
                continue
            if row.axis not in axes:
                start_ns, *times = (row.axis.time_at(n / (_TICKS - 1)) for n in range(_TICKS))
                axes[row.axis] = ["0", *(duration(time_ns - start_ns) for time_ns in times)]
            found.append({"axis": len(axes) - 1, **self._row(row, row.span)})
        return {"rows": found, "axes": list(axes.values())}

    def _row(self, row: Row, span: SpanNode) -> dict[str, Any]:
        said, usage, axis, details = span_notes(span), span.usage, row.axis, span.details
        changes: list[Change] | None = details.get("changes")
        keys = [key for key in _PARTS if details.get(key) and (key != "state" or changes is None)]
        found: dict[str, Any] = {
            "kind": span.kind,
            "depth": row.depth,
            "name": one_line(span.name),
            "number": span.sequence_id if span.kind == "step" else None,
            "outcome": span.outcome,
            "word": look(span.outcome).word,
            "from": round(axis.at(span.start_ns, 1), 5),
            "to": round(axis.at(span.last_ns, 1), 5),
            "took": said.took,
            "began": iso(span.start_ns),
            "app": one_line(span.app_id),
            "session": span.session,
            "trace": span.trace_id,
            "span": span.span_id,
            "marks": [
                {"at": round(axis.at(mark.time_ns, 1), 5), "text": _mark_text(span, mark)}
                for mark in span.marks
            ],
            "parts": [self._part(_PARTS[key], details[key]) for key in keys],
            "logged": [
                [one_line(key), self._cut(_pretty(value), _LONGEST_VALUE)]
                for key, value in span.attributes.items()
            ],
            "tokens": said.tokens,
            "inout": f"{usage.input_tokens:,} / {usage.output_tokens:,}" if usage else "",
            "beside": said.stream,
            "lines": [
                [one_line(text), bad]
                for text, bad in ((said.why, True), (said.initial, False))
                if text
            ],
            "url": self._address(span.trace_id) if span.trace_id else None,
            "links": [self._link(link) for link in span.links],
        }
        if changes is not None:
            found["changes"] = [self._change(change) for change in changes[:_MOST_CHANGES]]
            found["more"] = max(0, len(changes) - _MOST_CHANGES)
        if span.failure is not None:
            found["failure"] = {
                "text": self._cut(clean(failure_text(span.failure)), _LONGEST_PART),
                "stack": self._cut(clean(span.failure.traceback[-_LONGEST_PART:]), _LONGEST_PART),
            }
        return found

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
        part = {"title": title, "text": self._cut(text, _LONGEST_PART)}
        if part["text"] != text:
            part["cut"] = f"{len(text):,} characters; burr-otel show --step shows more"
        return part

    def _cut(self, text: str, longest: int) -> str:
        shown = text[: longest if self._left > 0 else _SHORT_PART]
        self._left -= len(shown)
        return shown if shown == text else f"{shown}…"


def _pretty(value: Any) -> str:
    return clean(value if isinstance(value, str) else as_text(value, indent=2))


def _mark_text(span: SpanNode, mark: StreamMark) -> str:
    items = "" if mark.items is None else f", {mark.items:,} items"
    return f"{MARKS[mark.kind]} after {duration(mark.time_ns - span.start_ns)}{items}"
