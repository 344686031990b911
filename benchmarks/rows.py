"""What is measured, of whom, and the goals."""

from __future__ import annotations

from typing import Any, NamedTuple


class Row(NamedTuple):
    """One kind of work, measured for several contenders in turn."""

    key: str  # name for --only, which takes the beginning of it
    work: str  # for the tables
    measurement: str  # function in work.py
    arguments: dict[str, Any]  # of the measurement; --quick takes a fifth of `steps` and `apps`
    contenders: tuple[str, ...] = ("none", "ltc", "ours")
    rounds: int = 5  # fresh processes of each contender


class Goal(NamedTuple):
    """The most that a contender may cost: ratios to a peer, or bytes."""

    row: str  # its key
    ours: str
    against: str
    own: float | None = None  # limit on the step's own thread
    whole: float | None = None  # limit of all CPU
    limit_bytes: int | None = None  # limit of the memory held, without a peer


_STEP = {"shape": "1kb", "steps": 1_500}
_LIST = {"shape": "100kb", "steps": 500}
_TEXT = {"shape": "text", "steps": 1_000}
_LOAD = {"shape": "50kb", "steps": 10_000}
_ALL = ("none", "ltc", "ltc+bridge", "ltc+langfuse", "ours", "off", "unsampled", "no-spans")
_CHAT = ("none", "ltc", "ours", "delta")

ROWS = (
    Row("1kb", "1 KB, all attributes, snapshot flushed", "steps", _STEP, _ALL, rounds=15),
    Row("100kb", "100 KB history of small dicts, all of it written", "steps", _LIST, rounds=9),
    Row("text", "100 KB, one string", "steps", _TEXT),
    Row("text-new", "100 KB, another string each step", "steps", {**_TEXT, "action": "rewrite"}),
    Row("chat", "chat, 1 KB more each of 1,000 turns", "chat", {"steps": 1_000}, _CHAT),
    Row("stall", "event loop stalled by a step with 5 MB", "stall", {"shape": "5mb", "steps": 15}),
    *(
        Row(
            f"memory-{when.replace(' ', '-')}",
            f"memory held per live application, {when}",
            "memory",
            {"apps": 1_000, "idle": when == "idle"},
            rounds=3,
        )
        for when in ("in use", "idle")
    ),
    Row("load", "load of the latest of 10,000 x 50 KB", "load", _LOAD, ("ltc", "ours")),
    Row("import", "import", "import", {}, ("burr.tracking", "burr_otel"), rounds=9),
    Row("parts", "a 1 KB step, part by part", "parts", _STEP, ("ours",), rounds=9),
)

GOALS = (
    Goal("1kb", "ours", "ltc+bridge", own=0.5, whole=1.1),
    Goal("1kb", "ours", "ltc", own=1.0),
    Goal("1kb", "ours", "ltc+langfuse", own=0.2, whole=0.5),
    Goal("100kb", "ours", "ltc", own=0.2, whole=0.35),
    Goal("text", "ours", "ltc", own=1.0, whole=2.0),
    Goal("chat", "ours", "ltc", own=0.25, whole=0.4),
    Goal("chat", "delta", "ltc", own=0.15, whole=0.3),
    Goal("stall", "ours", "ltc", own=0.1),
    Goal("memory-in-use", "ours", "ltc", limit_bytes=6 * 1024),
    Goal("memory-idle", "ours", "ltc", limit_bytes=4 * 1024),
)
