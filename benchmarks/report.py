"""Results as Markdown: measured ratios beside the goals, and what grows with what."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contenders import NAMES
from rows import GROWTH, LIVE, LOADS, MEMORY, MEMORY_GOAL_BYTES, ROWS, Goal, Row

if TYPE_CHECKING:
    from collections.abc import Iterable

Rounds = dict[str, list[dict[str, Any]]]

HERE = Path(__file__).parent


def figure(rounds: Rounds, contender: str, of: str, *, plain: bool) -> float | None:
    """The median of a contender, less that of a run without a tracker unless `plain`.

    Pairs of the same round are subtracted, so that a slow moment of the machine hits both.
    """
    own = [each[of] for each in rounds.get(contender, ())]
    if not own:
        return None
    base = [0.0] * len(own) if plain else [each[of] for each in rounds["none"]]
    return statistics.median(mine - bare for mine, bare in zip(own, base, strict=False))


def ratio(rounds: Rounds, goal: Goal, of: str) -> float | None:
    """What a goal is about."""
    ours = figure(rounds, goal.ours, of, plain=goal.plain)
    theirs = figure(rounds, goal.against, of, plain=goal.plain)
    return None if ours is None or not theirs else ours / theirs


def _name(contender: str) -> str:
    return NAMES.get(contender, f"`{contender}`")


def _number(value: float | None, of: str) -> str:
    if value is None:
        return "-"
    if of == "bytes":
        return f"{value / 1e6:,.1f} MB"
    return f"{value:,.0f} µs" if value < 10_000 else f"{value / 1000:,.0f} ms"


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if value >= 0.05 else f"{value:.4f}".rstrip("0")


def _goal_lines(row: Row, rounds: Rounds) -> Iterable[str]:
    for goal in row.goals:
        measured = ratio(rounds, goal, goal.of)
        ours = figure(rounds, goal.ours, goal.of, plain=goal.plain)
        theirs = figure(rounds, goal.against, goal.of, plain=goal.plain)
        verdict = "-" if measured is None else ("met" if measured <= goal.limit else "**missed**")
        kind = {"cpu_us": "CPU", "wall_us": "wall", "bytes": "disk"}[goal.of]
        wall = ratio(rounds, goal, "wall_us") if goal.of == "cpu_us" else None
        yield (
            f"| {row.work} | {_name(goal.ours)}: {_number(ours, goal.of)} | "
            f"{_name(goal.against)}: {_number(theirs, goal.of)} | {kind} | "
            f"{_short(measured)} | {_short(wall)} | ≤ {goal.limit:g} | {verdict} |"
        )


def goals_table(results: dict[str, Any]) -> str:
    """The table of goals."""
    lines = [
        "| work | ours | against | what | ratio | by wall clock | goal | |",
        "|---|---|---|---|---:|---:|---:|---|",
    ]
    for row in ROWS:
        if row.key in results:
            lines += _goal_lines(row, results[row.key]["rounds"])
    if MEMORY.key in results:
        rounds = results[MEMORY.key]["rounds"]
        for of, when in (("open_bytes", "in use"), ("idle_bytes", "idle")):
            own = figure(rounds, "ours", of, plain=False)
            theirs = figure(rounds, "ltc", of, plain=False)
            if own is None or theirs is None:
                continue
            verdict = "met" if own <= MEMORY_GOAL_BYTES else "**missed**"
            lines.append(
                f"| memory held per live application, {when} | {NAMES['ours']}: {own:,.0f} B | "
                f"{NAMES['ltc']}: {theirs:,.0f} B | memory | | | "
                f"≤ {MEMORY_GOAL_BYTES:,} B | {verdict} |"
            )
    return "\n".join(lines)


def growth_table(results: dict[str, Any]) -> str:
    """What a step costs early and late in a run, and among few and many applications."""
    lines = [
        "| | CPU a step | wall a step | disk a step | resident memory |",
        "|---|---:|---:|---:|---:|",
    ]
    for rounds in _rounds(results, GROWTH.key):
        for length, found in rounds[0].items():
            lines.append(
                f"| up to step {int(length):,} of one run | {found['cpu_us']:,.0f} µs | "
                f"{found['wall_us']:,.0f} µs | {found['bytes_per_step']:,.0f} B | "
                f"{found['resident_bytes'] / 1e6:,.1f} MB |"
            )
    for row in LIVE:
        for rounds in _rounds(results, row.key):
            found = rounds[0]
            lines.append(
                f"| {row.work} taking turns | {found['cpu_us']:,.0f} µs | "
                f"{found['wall_us']:,.0f} µs | {found['bytes_per_step']:,.0f} B | |"
            )
    return "\n".join(lines)


def loads_table(results: dict[str, Any]) -> str:
    """Loading from short and long runs."""
    lines = ["| load | wall | memory at its peak |", "|---|---:|---:|"]
    for row in LOADS:
        for rounds in _rounds(results, row.key):
            found = rounds[0]
            lines.append(
                f"| {row.work} | {found['wall_us'] / 1000:.2f} ms | "
                f"{found['peak_bytes'] / 1e6:.2f} MB |"
            )
    return "\n".join(lines)


def _rounds(results: dict[str, Any], key: str) -> Iterable[list[dict[str, Any]]]:
    rounds = results.get(key, {}).get("rounds", {}).get("ours")
    return [rounds] if rounds else []


def where(results: dict[str, Any]) -> str:
    """Machine and versions; rows measured at other commits are named."""
    machines = [result["machine"] for result in results.values()]
    if not machines:
        return "Nothing is measured yet."
    newest = max(machines, key=lambda machine: machine["at"])
    packages = ", ".join(f"{name} {number}" for name, number in newest["packages"].items())
    commits = sorted({machine["commit"] for machine in machines})
    loads = [machine["load_average"] for machine in machines]
    return (
        f"Measured {newest['at'][:10]} at {', '.join(commits)} with Python {newest['python']}, "
        f"{packages}, on {newest['system']}, {newest['processor']}, {newest['cores']} cores, "
        f"shared with other work (load average {min(loads)} to {max(loads)})."
    )


def page(results: dict[str, Any]) -> str:
    """The whole page: the text around the tables stands in ``page.md``."""
    text = (HERE / "page.md").read_text()
    for name, part in (
        ("where", where(results)),
        ("goals", goals_table(results)),
        ("growth", growth_table(results)),
        ("loads", loads_table(results)),
    ):
        text = text.replace(f"<!-- {name} -->", part)
    return text
