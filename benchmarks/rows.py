"""The rows of the tables: what is measured, of whom, and the goals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Goal:
    """A ratio that we want to stay below.

    Attributes:
        ours: Contender.
        against: Contender that it is compared with.
        limit: The most that the ratio may be.
        of: Which number of a measurement; see `report.figure`.
        plain: Whether the numbers are compared as they are, and not what is added to a run
            without a tracker.
    """

    ours: str
    against: str
    limit: float
    of: str = "cpu_us"
    plain: bool = False


@dataclass(frozen=True)
class Row:
    """One line of work, measured for several contenders in turn.

    Attributes:
        key: Name for ``--only``.
        work: What is done, for the table.
        measurement: Function in `measure`.
        contenders: In the order in which they take turns.
        arguments: Of the measurement.
        quick: Arguments that differ under ``--quick``.
        goals: What is judged.
        rounds: Fresh processes for each contender.
        note: Said below the table.
    """

    key: str
    work: str
    measurement: str
    contenders: tuple[str, ...]
    arguments: dict[str, Any]
    quick: dict[str, Any] = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()
    rounds: int = 3
    note: str = ""


_PEERS = ("none", "ltc", "ours")
_SILENT = ("none", "store", "spanless", "unsampled", "off")

ROWS = (
    Row(
        "step_1kb",
        "1 KB state, all attributes, steps of one `run`",
        "steps",
        ("none", "ltc", "ltc+bridge", "floor", "ours"),
        {"shape": "list", "size_bytes": 1_000, "steps": 2_000},
        quick={"steps": 500},
        goals=(
            Goal("ours", "ltc+bridge", 0.6),
            Goal("ours", "ltc", 1.0),
            Goal("floor", "ltc+bridge", 0.6),
        ),
    ),
    Row(
        "call_1kb",
        "1 KB state, all attributes, a call a step",
        "calls",
        ("none", "ltc", "ltc+bridge", "floor", "ours"),
        {"shape": "list", "size_bytes": 1_000, "steps": 2_000},
        quick={"steps": 500},
        goals=(Goal("ours", "ltc+bridge", 0.6), Goal("ours", "ltc", 1.0)),
    ),
    Row(
        "list_100kb",
        "100 KB state, a list of small dicts",
        "steps",
        _PEERS,
        {"shape": "list", "size_bytes": 100_000, "steps": 400},
        quick={"steps": 200},
        goals=(Goal("ours", "ltc", 0.08),),
    ),
    Row(
        "text_100kb",
        "100 KB state, one string",
        "steps",
        _PEERS,
        {"shape": "text", "size_bytes": 100_000, "steps": 1_000},
        quick={"steps": 300},
        goals=(Goal("ours", "ltc", 0.7),),
    ),
    Row(
        "chat",
        "chat, 1 KB more each turn, 1,000 turns",
        "chat",
        ("none", "ltc", "ours", "delta"),
        {"turns": 1_000},
        quick={"turns": 300},
        goals=(
            Goal("ours", "ltc", 0.1),
            Goal("delta", "ours", 1.0),
            Goal("delta", "ltc", 0.03, of="bytes", plain=True),
        ),
        rounds=3,
    ),
    Row(
        "stall_5mb",
        "event loop stalled by a step with 5 MB of state",
        "stall",
        _PEERS,
        {"shape": "list", "size_bytes": 5_000_000, "steps": 15},
        quick={"steps": 3},
        goals=(Goal("ours", "ltc", 0.1), Goal("ours", "ltc", 0.1, of="wall_us")),
    ),
    Row(
        "silent",
        "nobody looks at the spans, 1 KB state",
        "steps",
        _SILENT,
        {"shape": "list", "size_bytes": 1_000, "steps": 2_000},
        quick={"steps": 500},
        goals=(
            Goal("unsampled", "spanless", 1.15),
            Goal("off", "spanless", 1.05),
            Goal("unsampled", "store", 1.15),
            Goal("off", "store", 1.05),
        ),
    ),
    Row(
        "load",
        "load of the latest of 10,000 x 50 KB",
        "load",
        ("ltc", "ours"),
        {"size_bytes": 50_000, "steps": 10_000, "which": "latest"},
        quick={"steps": 1_000},
        goals=(Goal("ours", "ltc", 0.001, plain=True),),
        rounds=3,
    ),
    Row(
        "import",
        "import of `burr_otel`, against `burr.tracking`",
        "import",
        ("burr.tracking", "burr_otel"),
        {},
        goals=(Goal("burr_otel", "burr.tracking", 1.3, plain=True),),
        rounds=5,
    ),
)

MEMORY = Row(
    "memory",
    "memory of a live application",
    "memory",
    _PEERS,
    {"apps": 1_000},
    quick={"apps": 200},
    rounds=1,
)
MEMORY_GOAL_BYTES = 4096

GROWTH = Row(
    "growth",
    "steps of one run",
    "growth",
    ("ours",),
    {"lengths": [10, 100, 1_000, 10_000, 100_000]},
    quick={"lengths": [10, 100, 1_000]},
    rounds=1,
)
LIVE = tuple(
    Row(
        f"live_{apps}",
        f"{apps:,} live applications",
        "live",
        ("ours",),
        {"apps": apps, "steps": 3_000},
        quick={"apps": min(apps, 1_000), "steps": 500},
        rounds=1,
    )
    for apps in (1, 100, 10_000)
)
LOADS = tuple(
    Row(
        f"load_{which}_{size // 1000}kb_{steps}",
        f"{which} of {steps:,} x {size // 1000} KB",
        "load",
        ("ours",),
        {"size_bytes": size, "steps": steps, "which": which},
        rounds=1,
    )
    for which in ("latest", "middle")
    for size in (1_000, 50_000)
    for steps in (100, 10_000)
)
ALL = (*ROWS, MEMORY, GROWTH, *LIVE, *LOADS)
