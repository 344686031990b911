"""Results as Markdown: ratios beside the goals, what each contender costs, and a step's parts."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any, NamedTuple

from contenders import NAMES
from rows import GOALS, ROWS, Goal

Results = dict[str, Any]
Rounds = dict[str, list[dict[str, Any]]]

HERE = Path(__file__).parent
WORK = {row.key: row.work for row in ROWS}
UNMEASURED = "not measured"


class Figure(NamedTuple):
    """What a contender adds to a run without a tracker: median, least and most of all rounds."""

    median: float
    least: float
    most: float

    def shown(self, show: Any) -> str:
        """The median, and the range where there is one."""
        if self.least == self.most:
            return f"{show(self.median)}"
        return f"{show(self.median)} ({show(self.least)} to {show(self.most)})"


def figure(rounds: Rounds, contender: str, of: str) -> Figure | None:
    """A number of a contender, less that of the same round without a tracker where there is one."""
    own = [found[of] for found in rounds.get(contender, ()) if of in found]
    if not own:
        return None
    bare = [found.get(of, 0) for found in rounds.get("none", ())] or [0] * len(own)
    added = [mine - base for mine, base in zip(own, bare, strict=False)]
    return Figure(statistics.median(added), min(added), max(added))


def _name(contender: str) -> str:
    return NAMES.get(contender, f"`{contender}`")


def _time(us: float) -> str:
    return f"{us:,.0f} µs" if abs(us) < 10_000 else f"{us / 1000:,.0f} ms"


def _size(size_bytes: float) -> str:
    for unit, factor in (("MB", 1e6), ("KB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:,.1f} {unit}"
    return f"{size_bytes:,.0f} B"


def _compared(rounds: Rounds, goal: Goal, of: str, limit: float | None) -> tuple[str, bool]:
    """Cells of a ratio and its goal, and whether the goal is met or there is none."""
    ours, theirs = (figure(rounds, name, of) for name in (goal.ours, goal.against))
    limited = "" if limit is None else f"≤ {limit:g}"
    if ours is None or theirs is None or theirs.median <= 0:  # less than nothing: noise
        return f"{UNMEASURED} | {limited}", False
    ratio = ours.median / theirs.median
    text = f"{_time(ours.median)} / {_time(theirs.median)} = **{ratio:.2f}**"
    return f"{text} | {limited}", limit is None or ratio <= limit


def _held(rounds: Rounds, goal: Goal, limit_bytes: int) -> tuple[str, bool]:
    """Cells of memory and its goal, and whether the goal is met."""
    ours = figure(rounds, goal.ours, "bytes")
    text = f"**{ours.median:,.0f} B**" if ours else UNMEASURED
    return f"{text} | ≤ {limit_bytes:,} B", bool(ours and ours.median <= limit_bytes)


def goals_table(results: Results) -> str:
    """The goals; where something is measured, only those of what is measured."""
    lines = [
        "| work | | against | step's own thread | goal | all CPU | goal | |",
        "|---|---|---|---|---:|---|---:|---|",
    ]
    for goal in GOALS:
        if results and goal.row not in results:
            continue
        rounds = results[goal.row]["rounds"] if results else {}
        if goal.limit_bytes is None:
            own, own_met = _compared(rounds, goal, "own_us", goal.own)
            whole, whole_met = _compared(rounds, goal, "all_us", goal.whole)
            cells, met = f"{_name(goal.against)} | {own} | {whole}", own_met and whole_met
        else:
            held, met = _held(rounds, goal, goal.limit_bytes)
            cells = f" | {held} | | "
        verdict = "" if UNMEASURED in cells else "met" if met else "**missed**"
        lines.append(f"| {WORK[goal.row]} | {_name(goal.ours)} | {cells} | {verdict} |")
    return "\n".join(lines)


def costs_table(results: Results) -> str:
    """Every contender of every row."""
    lines = [
        "| | step's own thread | all CPU | spans a step | OTLP a span | disk a step | memory |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    columns = {
        "own_us": _time,
        "all_us": _time,
        "spans": "{:.1f}".format,
        "span_bytes": _size,
        "disk_bytes": _size,
        "bytes": _size,
    }
    for row in ROWS:
        if row.measurement == "parts" or row.key not in results:
            continue
        lines.append(f"| **{row.work}** | | | | | | |")
        for contender in row.contenders:
            if contender == "none":
                continue
            found = [figure(results[row.key]["rounds"], contender, of) for of in columns]
            cells = [
                each.shown(show) if each and each.median else ""
                for each, show in zip(found, columns.values(), strict=True)
            ]
            lines.append(f"| {_name(contender)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def parts_table(results: Results) -> str:
    """Where the time of a 1 KB step goes."""
    rounds = results["parts"]["rounds"]["ours"] if "parts" in results else []
    lines = ["| part | calls a step | µs a step |", "|---|---:|---:|"]
    for key, where in (("own", "step's own thread"), ("export", "exporter's thread")):
        us = {
            title: statistics.median(found[key][title][1] for found in rounds)
            for title in (rounds[0][key] if rounds else ())
        }
        lines.append(f"| **{where}** | | **{sum(us.values()):,.0f}** |")
        for title, taken in us.items():
            calls = rounds[0][key][title][0]
            shown = f"{calls:.1f}" if calls >= 0.05 else ""
            lines.append(f"| {title} | {shown} | {f'{taken:,.0f}' if taken >= 1 else '< 1'} |")
    missing = {name for found in rounds for name in found["missing"]}
    if missing:
        lines += ["", f"Not found, and counted with their callers: {', '.join(sorted(missing))}."]
    return "\n".join(lines) if rounds else ""


def where(results: Results) -> str:
    """Machine and versions."""
    machines = [result["machine"] for result in results.values()]
    if not machines:
        return "**Nothing is measured yet at this version.**"
    newest = max(machines, key=lambda machine: machine["at"])
    packages = ", ".join(f"{name} {number}" for name, number in newest["packages"].items())
    commits = sorted({machine["commit"] for machine in machines})
    loads = [machine["load_average"] for machine in machines]
    return (
        f"Measured {newest['at'][:10]} at {', '.join(commits)} with Python {newest['python']}, "
        f"{packages}, on {newest['system']} "
        f"(load average {min(loads)} to {max(loads)})."
    )


TABLES = {"where": where, "goals": goals_table, "costs": costs_table, "parts": parts_table}


def tables(results: Results) -> str:
    """Only the tables."""
    return "\n\n".join(table(results) for table in TABLES.values())


def page(results: Results) -> str:
    """The whole page: the text around the tables stands in ``page.md``."""
    text = (HERE / "page.md").read_text()
    for name, table in TABLES.items():
        text = text.replace(f"<!-- {name} -->", table(results))
    return text
