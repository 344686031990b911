"""A run as a notebook shows it: the waterfall as HTML without scripts, and as text elsewhere."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator
from typing import Any, Final

from rich.console import Console

from burr_otel.history.tree import RunTree
from burr_otel.view.page import Rows
from burr_otel.view.waterfall import OUTCOME_WORDS, Waterfall, began_text, header

_MOST_ROWS: Final = 400
_TEXT_WIDTH: Final = 100
# Legible on the light and on the dark ground of a notebook; its own styles are not known here.
_RED: Final = "#e5534b"
_COLOURS: Final = {"application": "#388bfd", "step": "#2da44e", "span": "#39a5b8"}
_OUTCOME_COLOURS: Final = {
    **dict.fromkeys(("error", "failed", "crashed"), _RED),
    **dict.fromkeys(("cancelled", "abandoned"), "#c69026"),
    "running": "#388bfd",
}
_CELL: Final = "border:0;background:none;text-align:left;padding:1px 8px 1px "


class RunView:
    """A run as it stood when it was asked for: its last expression in a cell draws it."""

    ENDS = (100, 100)  # steps that are read of a long log

    def __init__(self, tree: RunTree, url: str | None = None) -> None:
        self._tree, self._url = tree, url

    def __repr__(self) -> str:
        """What it is and how it went, on one line."""
        tree = self._tree
        word = OUTCOME_WORDS.get(tree.outcome, tree.outcome)
        return f"<run {tree.project}/{tree.app_id}: {word}, {began_text(tree)}>"

    def __str__(self) -> str:
        """The waterfall as text."""
        console = Console(
            file=io.StringIO(), width=_TEXT_WIDTH, color_system=None, force_jupyter=False
        )
        for line in header(self._tree):
            console.print(line, soft_wrap=True, highlight=False)
        console.print(Waterfall(self._tree))
        return str(console.file.getvalue())  # type: ignore[attr-defined]

    def _repr_html_(self) -> str:
        tree, colour = self._tree, _OUTCOME_COLOURS.get(self._tree.outcome, _COLOURS["step"])
        word = html.escape(OUTCOME_WORDS.get(tree.outcome, tree.outcome))
        title, began = header(tree)[0].plain.rpartition("  ")[0], began_text(tree)
        link = ""
        if self._url is not None:
            link = f' · <a href="{html.escape(self._url, quote=True)}">trace</a>'
        return (
            f'<div><b>{html.escape(title)}</b> <b style="color:{colour}">{word}</b><br>'
            f'{html.escape(began)}{link}<table style="width:100%;border-collapse:collapse">'
            f"{''.join(_html_rows(Rows().of(tree)))}</table></div>"
        )


def _html_rows(rows: list[dict[str, Any]]) -> Iterator[str]:
    left_out = len(rows) - _MOST_ROWS
    for number, row in enumerate(rows):
        if number == _MOST_ROWS // 2 and left_out > 0:
            yield _line(f"{left_out:,} spans left out; burr-otel show draws them", 0)
        if left_out > 0 and _MOST_ROWS // 2 <= number < _MOST_ROWS // 2 + left_out:
            continue
        if row["kind"] == "note":
            yield _line(row["name"], row["depth"])
            continue
        colour = _OUTCOME_COLOURS.get(row["outcome"])
        name = row["name"] if row["number"] is None else f"{row['number']} {row['name']}"
        left, width = row["from"] * 100, max(row["to"] - row["from"], 0.003) * 100
        yield (
            f'<tr style="background:none"><td style="{_CELL}{_indent(row["depth"])};'
            f'white-space:nowrap;color:{colour or "inherit"}">{html.escape(name)}</td>'
            f'<td style="{_CELL}0;width:60%"><div style="margin-left:{min(left, 99.7):.2f}%;'
            f'width:{width:.2f}%;height:9px;background:{colour or _COLOURS[row["kind"]]}"></div>'
            f'</td><td style="{_CELL}0;white-space:nowrap">{html.escape(row["took"])}</td></tr>'
        )
        said = [*row["lines"], [", ".join(filter(None, (row["beside"], row["tokens"]))), False]]
        yield from (_line(text, row["depth"] + 1, bad=bad) for text, bad in said if text)


def _line(text: str, depth: int, *, bad: bool = False) -> str:
    look = f"color:{_RED}" if bad else "opacity:0.7"
    return (
        f'<tr style="background:none"><td colspan="3" style="{_CELL}{_indent(depth)};'
        f'overflow-wrap:anywhere;{look}">{html.escape(text)}</td></tr>'
    )


def _indent(depth: int) -> str:
    return f"{4 + 14 * min(depth, 24)}px"
