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
from typing import TYPE_CHECKING, Any, Final

from burr_otel.view.as_json import MARKS, iso, link_as_json
from burr_otel.view.axis import session_axis
from burr_otel.view.text import clean, duration, local_time, one_line
from burr_otel.view.waterfall import OUTCOME_WORDS, failure_text, header, notes, tokens_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from burr_otel.history.tree import RunTree, SpanNode
    from burr_otel.view.axis import Axis, Pause

__all__ = ["html_page"]

_LONGEST_PART: Final = 20_000  # characters of one input, result or state
_PAGE_BUDGET: Final = 24_000_000  # characters of all of them; beyond it each part is cut shorter
_SHORT_PART: Final = 300
_LONGEST_WHY: Final = 200  # characters of what stands beside a name
_LONGEST_VALUE: Final = 4_000  # characters of a logged attribute
_PARTS: Final = (
    ("initial", "Initial state"),
    ("inputs", "Inputs"),
    ("read", "State read"),
    ("result", "Result"),
    ("state", "State written"),
)


def html_page(view: RunTree) -> str:
    """The page.

    Args:
        view: The run, read with its details.
    """
    files = importlib.resources.files(__name__)
    script = (files / "page.js").read_text(encoding="utf-8")
    lines = [text.plain for text in header(view)[1:]]
    title = one_line(f"{view.project}/{view.app_id}")
    outcome = view.outcome
    return string.Template((files / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        outcome=html.escape(outcome, quote=True),
        word=html.escape(OUTCOME_WORDS.get(outcome, outcome)),
        facts="".join(_fact(line) for line in lines),
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_sha(script)}'",
        style=(files / "page.css").read_text(encoding="utf-8"),
        data=_embedded({"rows": _Rows().of(view)}),
        script=script,
    )


def _sha(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _fact(line: str) -> str:
    label, value = line[:8].strip(), line[8:]
    return f"<dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd>"


def _embedded(value: Any) -> str:
    """JSON that no text in it can break out of."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=repr)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class _Rows:
    """Makes the page's rows and watches over their total size."""

    def __init__(self) -> None:
        self._left = _PAGE_BUDGET

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
        pauses: list[Pause] = list(axis.pauses)
        for span, depth in session.walk():
            while depth == 1 and pauses and span.start_ns >= pauses[0].end_ns:
                yield _note(f"{duration(pauses.pop(0).length_ns)} pause", depth=1)
            yield self._row(span, depth, axis)

    def _row(self, span: SpanNode, depth: int, axis: Axis) -> dict[str, Any]:
        row: dict[str, Any] = {
            "kind": span.kind,
            "depth": depth,
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
            "tokens": tokens_text(span.usage),
            "why": "; ".join(one_line(text, _LONGEST_WHY) for text, _ in notes(span)),
            "links": [
                one_line(json.dumps(link_as_json(link), default=repr)) for link in span.links
            ],
        }
        if span.failure is not None:
            stack = clean(span.failure.traceback[-_LONGEST_PART:])
            row["failure"] = {
                "text": self._cut(clean(failure_text(span.failure)), _LONGEST_PART),
                "stack": self._cut(stack, _LONGEST_PART),
            }
        return row

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
