"""A run as HTML: a page that needs no network and no other file, and the waterfall of a notebook.

Names, messages and values are data. In the markup they are escaped; in the page's JSON ``<`` never
stands as itself, so no text can end the element that holds it; the script shows them as text
only; and the page's policy lets no script run but its own. A notebook gets no script at all.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import io
import json
import string
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from rich.console import Console

from burr_otel import semconv
from burr_otel.history.read import RunTree
from burr_otel.history.tree import SpanNode
from burr_otel.records import LinkIds, StreamMark
from burr_otel.view.as_json import MARKS
from burr_otel.view.diff import MISSING, Change, as_text, path_text
from burr_otel.view.rows import (
    Axis,
    Row,
    began_text,
    failure_text,
    initial_text,
    look,
    notes,
    reason,
    relatives,
    rows,
    stream_text,
    tokens_text,
    took_text,
)
from burr_otel.view.text import clean, duration, iso, one_line
from burr_otel.view.waterfall import Waterfall, header

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
    by_text = {text: (traces or {}).get(app_id, "") for _, text, app_id in relatives(view)}
    files = importlib.resources.files(__name__)
    script = (files / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return string.Template((files / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(one_line(f"{view.project}/{view.app_id}")),
        outcome=html.escape(view.outcome, quote=True),
        word=html.escape(look(view.outcome).word),
        facts="".join(_fact(text.plain, address, by_text) for text in header(view)[1:]),
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        style=(files / "page.css").read_text(encoding="utf-8"),
        data=_embedded(_PageData(address).of(view)),
        script=script,
    )


def _fact(line: str, address: TraceAddress, traces: Mapping[str, str]) -> str:
    label, value = html.escape(line[:8].strip()), line[8:]
    trace_id = value if label == "trace" else traces.get(value)
    url = address(trace_id) if trace_id else None
    shown = html.escape(value)
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
        lines = [(reason(span), True), (initial_text(span), False)]
        usage, details, axis = span.usage, dict(span.details), row.axis
        changes: list[Change] | None = details.pop("changes", None)
        if changes is not None:
            details.pop("state", None)
        found: dict[str, Any] = {
            "kind": span.kind,
            "depth": row.depth,
            "name": one_line(span.name),
            "number": span.sequence_id if span.kind == "step" else None,
            "outcome": span.outcome,
            "word": look(span.outcome).word,
            "from": round(axis.at(span.start_ns, 1), 5),
            "to": round(axis.at(span.last_ns, 1), 5),
            "took": took_text(span),
            "began": iso(span.start_ns),
            "app": one_line(span.app_id),
            "session": span.session,
            "trace": span.trace_id,
            "span": span.span_id,
            "marks": [
                {"at": round(axis.at(mark.time_ns, 1), 5), "text": _mark_text(span, mark)}
                for mark in span.marks
            ],
            "parts": [self._part(_PARTS[key], details[key]) for key in _PARTS if details.get(key)],
            "logged": [
                [one_line(key), self._cut(_pretty(value), _LONGEST_VALUE)]
                for key, value in span.attributes.items()
            ],
            "tokens": tokens_text(usage),
            "inout": f"{usage.input_tokens:,} / {usage.output_tokens:,}" if usage else "",
            "beside": stream_text(span),
            "lines": [[one_line(text), bad] for text, bad in lines if text],
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
        return shown if len(shown) == len(text) else f"{shown}…"


def _pretty(value: Any) -> str:
    return clean(value if isinstance(value, str) else as_text(value, indent=2))


def _mark_text(span: SpanNode, mark: StreamMark) -> str:
    items = "" if mark.items is None else f", {mark.items:,} items"
    return f"{MARKS[mark.kind]} after {duration(mark.time_ns - span.start_ns)}{items}"


# --- notebooks ------------------------------------------------------------------------------------

_MOST_ROWS: Final = 400
_TEXT_WIDTH: Final = 100
# Legible on the light and on the dark ground of a notebook; its own styles are not known here.
_KIND_COLOURS: Final = {"application": "#388bfd", "step": "#2da44e", "span": "#39a5b8"}
_COLOURS: Final = {"red": "#e5534b", "bold red": "#e5534b", "yellow": "#c69026", "blue": "#388bfd"}
_CELL: Final = "border:0;background:none;text-align:left;padding:1px 8px 1px "


class RunView:
    """A run as it stood when it was asked for: its last expression in a cell draws it."""

    ENDS = (100, 100)  # steps that are read of a long log

    def __init__(self, tree: RunTree, url: str | None = None) -> None:
        self._tree, self._url = tree, url

    def __repr__(self) -> str:
        """What it is and how it went, on one line."""
        tree = self._tree
        return f"<run {tree.project}/{tree.app_id}: {look(tree.outcome).word}, {began_text(tree)}>"

    def __str__(self) -> str:
        """The waterfall as text."""
        file = io.StringIO()
        console = Console(file=file, width=_TEXT_WIDTH, color_system=None, force_jupyter=False)
        for line in header(self._tree):
            console.print(line, soft_wrap=True, highlight=False)
        console.print(Waterfall(self._tree.sessions))
        return file.getvalue()

    def _repr_html_(self) -> str:
        tree, shown = self._tree, look(self._tree.outcome)
        colour = _COLOURS.get(shown.style, _KIND_COLOURS["step"])
        title = html.escape(one_line(f"{tree.project}/{tree.app_id}"))
        link = ""
        if self._url is not None:
            link = f' · <a href="{html.escape(self._url, quote=True)}">trace</a>'
        return (
            f'<div><b>{title}</b> <b style="color:{colour}">{html.escape(shown.word)}</b><br>'
            f"{html.escape(began_text(tree))}{link}"
            f'<table style="width:100%;border-collapse:collapse">'
            f"{''.join(_html_rows([*rows(tree.sessions)]))}</table></div>"
        )


def _html_rows(found: list[Row]) -> Iterator[str]:
    left_out = len(found) - _MOST_ROWS
    if left_out > 0:
        half = _MOST_ROWS // 2
        yield from _html_rows(found[:half])
        yield _html_line(f"{left_out:,} spans left out; burr-otel show draws them", 0)
        yield from _html_rows(found[-half:])
        return
    for row in found:
        span = row.span
        if span is None:
            yield _html_line(row.note, row.depth)
            continue
        colour = _COLOURS.get(look(span.outcome).style)
        name = html.escape((f"{span.sequence_id} " * (span.kind == "step")) + one_line(span.name))
        left, right = row.axis.at(span.start_ns, 100), row.axis.at(span.last_ns, 100)
        yield (
            f'<tr style="background:none"><td style="{_CELL}{_indent(row.depth)};'
            f'white-space:nowrap;color:{colour or "inherit"}">{name}</td>'
            f'<td style="{_CELL}0;width:60%"><div style="margin-left:{min(left, 99.7):.2f}%;'
            f"width:{max(right - left, 0.3):.2f}%;height:9px;"
            f'background:{colour or _KIND_COLOURS[span.kind]}"></div></td>'
            f'<td style="{_CELL}0;white-space:nowrap">{html.escape(took_text(span))}</td></tr>'
        )
        for text, style in notes(span):
            yield _html_line(one_line(text), row.depth + 1, _COLOURS.get(style))


def _html_line(text: str, depth: int, colour: str | None = None) -> str:
    shown = f"color:{colour}" if colour else "opacity:0.7"
    return (
        f'<tr style="background:none"><td colspan="3" style="{_CELL}{_indent(depth)};'
        f'overflow-wrap:anywhere;{shown}">{html.escape(text)}</td></tr>'
    )


def _indent(depth: int) -> str:
    return f"{4 + 14 * min(depth, 24)}px"
